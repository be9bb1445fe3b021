from __future__ import annotations

import re
import sys
from itertools import pairwise, product
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.evaluation.plot.chart import Spec, apart, check_name, draw, write
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


def drawn(runs: Path, *metrics: str, smooth: int = 1, against: str | None = None) -> Spec:
    curves = Curves(load_runs([runs])[0], metrics or ["eval_em"])
    return draw([*curves.bands(smooth)], curves.axis, smooth, against)


def panels(spec: Spec) -> list[list[Spec]]:
    return [row["hconcat"] for row in spec["vconcat"]]


def names(panel: Spec) -> list[Spec]:
    """The names beside the curves of a panel, and where they stand."""
    (layer,) = [layer for layer in panel["layer"] if layer["mark"]["type"] == "text"]
    rows: list[Spec] = layer["data"]["values"]
    return rows


def texts(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_a_drawing_names_axes_variants_and_starts(runs: Path, tmp_path: Path) -> None:
    write(drawn(runs), tmp_path / "new" / "a.svg")
    svg = (tmp_path / "new" / "a.svg").read_text()
    starts, axes = {"Cold start: weak", "Cold start: strong"}, {"updates", "exact match, held out"}
    caption = "Mean of 3 runs per curve; shaded: its 95 % t-interval"
    assert texts(svg) >= {"outcome", "steppo", caption} | starts | axes
    assert "#0072B2" in svg


def test_a_panel_has_at_most_four_curves_the_baseline_among_them(tmp_path: Path) -> None:
    for number, start in product(range(9), ("weak", "strong")):
        about = {"variant": f"v{number}", "start": start}
        write_run(tmp_path / start / f"v{number}", evaluated(u0=0.1, u20=0.1 * number), about)
    rows = panels(drawn(tmp_path, against="v4"))
    shown = [[[row["variant"] for row in names(panel)] for panel in row] for row in rows]
    assert shown == [[["v4", "v0", "v1", "v2"], ["v4", "v3", "v5", "v6"], ["v4", "v7", "v8"]]] * 2
    assert [row[0]["title"] for row in rows] == ["Cold start: strong", "Cold start: weak"]
    write(drawn(tmp_path), tmp_path / "a.svg")
    assert "One run per curve" in texts((tmp_path / "a.svg").read_text())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_names_are_apart_in_the_order_of_their_curves(ends: list[float]) -> None:
    gap = 0.07
    places = apart(ends, gap)
    order = sorted(range(len(ends)), key=ends.__getitem__)
    moved = [places[at] for at in order]
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(moved))
    assert sum(places) == pytest.approx(sum(ends))
    if all(ends[after] - ends[before] >= gap for before, after in pairwise(order)):
        assert places == pytest.approx(ends)


def test_axes_begin_at_zero_and_shares_end_at_one(tmp_path: Path) -> None:
    lines = [{"update": update, "eval_em": 0.1, "searches": 3.2, "kl": 0.013, "reward": -0.3} for update in range(3)]
    write_run(tmp_path / "one", lines)
    rows = panels(drawn(tmp_path, "eval_em", "searches", "kl", "reward"))
    ends = [row[0]["layer"][1]["encoding"]["y"]["scale"]["domain"] for row in rows]
    assert ends == [(0, 1), (0, 4), (0, pytest.approx(0.015)), (pytest.approx(-0.3), 0)]


def test_how_many_measurements_there_are_decides_how_they_are_smoothed(tmp_path: Path) -> None:
    for name, updates in (("short", 19), ("long", 200)):
        write_run(tmp_path / name, [{"update": update, "reward": 0.5} for update in range(updates)])
    found = {name: Curves(load_runs([tmp_path / name])[0], ["reward"]).smoothing() for name in ("short", "long")}
    assert found == {"short": 1, "long": 10}
    told = drawn(tmp_path / "long", "reward", smooth=10)["title"]["text"]
    assert told == "One run per curve; training metrics: moving means of 10 updates"


def test_runs_that_have_just_begun_or_never_overlap_can_be_drawn(tmp_path: Path) -> None:
    write_run(tmp_path / "begun", evaluated(u0=0.1))
    write_run(tmp_path / "apart-1", evaluated(u0=0.1, u20=0.2))
    write_run(tmp_path / "apart-2", evaluated(u30=0.1, u40=0.2))
    write(drawn(tmp_path), tmp_path / "a.svg")
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


def test_the_extra_that_draws_is_asked_for_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_name(Path("curves.png"))
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(ConfigError) as error:
        check_name(Path("curves.png"))
    assert error.value.hint == "pip install 'stepsearch-data[charts]'"
