from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import orjson
import pytest

from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import Curves
from stepsearch_data.evaluation.plot.runs import load_runs
from tests.conftest import Run
from tests.evaluation.plot.runs import evaluated, write_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two variants with three seeds each, from two cold starts."""
    for start, variant, seed in product(("weak", "strong"), ("outcome", "steppo"), range(3)):
        em = 0.5 + 0.1 * seed if variant == "steppo" else 0.1
        about = {"variant": variant, "start": start, "seed": seed}
        lines = evaluated(u0=0.05, u20=em, u40=0.95 - 0.1 * seed)
        write_run(tmp_path / "runs" / start / f"{variant}-{seed}", lines, about)
    return tmp_path / "runs"


def texts(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_a_drawing_names_axes_variants_and_starts(runs: Path, tmp_path: Path) -> None:
    write(draw(Curves(load_runs([runs])[0], ["eval_em"])), tmp_path / "new" / "a.svg")
    svg = (tmp_path / "new" / "a.svg").read_text()
    starts, axes = {"Cold start: weak", "Cold start: strong"}, {"updates", "exact match, held out"}
    caption = "Mean of 3 runs per curve; shaded: its 95 % t-interval"
    assert texts(svg) >= {"outcome", "steppo", caption} | starts | axes
    assert "#0072B2" in svg
    assert "stroke-dasharray" not in svg


def test_from_the_ninth_variant_on_lines_are_dashed(tmp_path: Path) -> None:
    for number in range(9):
        write_run(tmp_path / f"v{number}", evaluated(u0=0.1, u20=0.1 * number))
    write(draw(Curves(load_runs([tmp_path])[0], ["eval_em"])), tmp_path / "a.svg")
    svg = (tmp_path / "a.svg").read_text()
    assert "stroke-dasharray" in svg
    assert "One run per curve" in texts(svg)


def test_runs_that_have_just_begun_or_never_overlap_can_be_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "begun", evaluated(u0=0.1))
    write_run(tmp_path / "apart-1", evaluated(u0=0.1, u20=0.2))
    write_run(tmp_path / "apart-2", evaluated(u30=0.1, u40=0.2))
    write(draw(Curves(load_runs([tmp_path])[0], ["eval_em"])), tmp_path / "a.svg")
    shown = texts((tmp_path / "a.svg").read_text())
    assert {"begun", "apart", "Mean of 1 to 2 runs per curve; shaded: its 95 % t-interval"} <= shown


def test_plot_prints_what_it_draws(runs: Path, tmp_path: Path, cli: Run) -> None:
    png = tmp_path / "curves.png"
    done = cli("plot", runs / "weak", runs / "strong", "-o", png, "--at", "20", "--against", "outcome")
    assert done.returncode == 0, done.stderr
    assert png.read_bytes().startswith(b"\x89PNG")
    table = [" ".join(line.split()) for line in done.stdout.splitlines() if line]
    assert table[2] == "eval_em weak 20 steppo 3 0.600 0.352 0.848 0 of 3 (0.00 to 0.56)"
    assert "eval_em strong 20 steppo − outcome 3 0.500 0.252 0.748" in table
    assert done.stderr == f"wrote {png}\n"


def test_its_json_has_the_same_numbers(runs: Path, tmp_path: Path, cli: Run) -> None:
    done = cli("plot", runs, "-o", tmp_path / "a.html", "--at", "40", "--solved", ".85", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found = orjson.loads(done.stdout)
    steppo = next(each for each in found["values"] if each["variant"] == "steppo" and each["start"] == "weak")
    assert steppo["value"] == {
        "n": 3,
        "mean": pytest.approx(0.85),
        "low": pytest.approx(0.85 - 0.248414, abs=1e-5),  # t · .1 / √3
        "high": pytest.approx(0.85 + 0.248414, abs=1e-5),
    }
    assert steppo["solved"]["mean"] == pytest.approx(2 / 3)
    assert found["differences"][0]["value"]["mean"] == pytest.approx(0)
    page = (tmp_path / "a.html").read_text()
    assert "vega-lite" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["--output", "curves.pdf"], 2, "cannot draw curves.pdf"),
        (["--metric", "nothing"], 1, "no run has the metric nothing"),
        (["--against", "nobody"], 2, "no run is of the variant nobody"),
        (["--x", "tokens"], 1, "has no 'rollouts'"),
        (["--output", "/dev/null/a.png"], 1, "cannot write /dev/null/a.png"),
    ],
)
def test_what_plot_cannot_do_is_said_in_a_line(
    runs: Path, cli: Run, arguments: list[str], code: int, complaint: str
) -> None:
    done = cli("plot", runs, *arguments)
    assert done.returncode == code
    assert complaint in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
