"""Remakes the pictures of the documentation, docs/images/*.png.

    python benchmarks/pictures.py              # all
    python benchmarks/pictures.py variants     # docs/experiment.md's second edition, from benchmarks/experiment.csv
    python benchmarks/pictures.py experiment   # its first edition, from the numbers of its tables

The screens are those of the report of the embedded sample; they need Chromium (`make test-long` installs it).
"""

from __future__ import annotations

import base64
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

import stepsearch_data as ssd
from stepsearch_data.core.intervals import Interval
from stepsearch_data.evaluation.plot.chart import draw, write
from stepsearch_data.evaluation.plot.curves import Band
from stepsearch_data.evaluation.plot.statistics import t_interval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import experiment as second_edition  # noqa: E402 - it lies beside this folder
from tests.browser import Browser, chromium  # noqa: E402 - see above

DOCS = ROOT / "docs"
WORLDS = ("first world", "second world")
SHARP = 2  # pixels of the picture per pixel of the page
SCREENS = {
    "report": ("#/", ".tiles", 860),
    "trajectory": ("#/t/2hop__811040_270741?at=0", ".line", 960),
}
"""Of a picture: address, what must be there, and pixels of height."""


def variants() -> None:
    """Draw the means of all variants in the two worlds of the second edition, a picture for each machine."""
    rows = second_edition.read()
    for machine in sorted({row.folder for row in rows}):
        here = [*means([row for row in rows if row.folder == machine])]
        write(draw(here, "updates", against=second_edition.BASELINE), picture(f"variants-{machine}"))


def means(rows: Sequence[second_edition.Row]) -> Iterator[Band]:
    """Make a curve of each variant in each world: the mean of its pairs, with Student's interval."""
    for world, variant in product(second_edition.WORLDS, second_edition.VARIANTS):
        values: dict[int, list[float]] = {}
        for row in rows:
            if (row.world, row.variant) == (world, variant):
                values.setdefault(row.update, []).append(row.em)
        x = np.array(sorted(values), dtype=np.float64)
        if len(x):
            yield Band("eval_em", f"weak, facts as {world}", variant, x, [t_interval(values[at]) for at in x], [])


def experiment() -> None:
    """Draw held-out exact match along training, from means and intervals: the runs themselves are not kept."""
    write(draw([*curves((DOCS / "experiment.md").read_text(encoding="utf-8"))], "updates"), picture("experiment"))


def curves(text: str) -> Iterator[Band]:
    """Read the curves of the tables that begin with a start and end with solved runs."""
    rows = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|"))
    worlds = iter(WORLDS)
    updates: list[int] = []
    for row in rows:
        if row[:1] == ["start"] and row[-1] == "solved":
            world, updates = next(worlds), [0, *(int(cell.split()[0]) for cell in row[1:-1])]
        elif solved := re.fullmatch(r"\d+ of (\d+)", row[-1]):
            intervals = [interval(int(solved[1]), cell) for cell in row[1:-1]]
            x = np.array(updates, dtype=np.float64)
            yield Band("eval_em", f"weak, {world}", row[0], x, intervals, [])


def interval(runs: int, cell: str) -> Interval:
    """Read `.24 (.18 to .30)`; a start has no interval."""
    mean, *ends = (float(number) for number in re.findall(r"\.\d+", cell))
    low, high = ends or (None, None)
    return Interval(runs, mean, low, high)


def screens() -> None:
    """Show the report of the sample, with two engines, as a browser draws it in light colours."""
    with tempfile.TemporaryDirectory() as folder:
        store = ssd.build(Path(folder, "store"), engines=["bm25", "chargram"])
        url = store.report(Path(folder, "report")).page.as_uri()
        for browser in chromium():
            for name, (address, ready, height) in SCREENS.items():
                picture(name).write_bytes(screen(browser, url + address, ready, height))


def screen(browser: Browser, url: str, ready: str, height: int) -> bytes:
    """Return a picture of the top of a page, once its charts are drawn."""
    browser.look(width=1200)
    browser.open(url, ready)
    charts = "return document.querySelectorAll('.chart').length === document.querySelectorAll('.chart svg').length"
    browser.wait(lambda: browser.run(charts))
    browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    clip = {"x": 0, "y": 0, "width": 1200, "height": height, "scale": SHARP}
    what = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    taken = browser.driver.execute_cdp_cmd("Page.captureScreenshot", what)
    return base64.b64decode(taken["data"])


def picture(name: str) -> Path:
    """Return the file of a picture."""
    return DOCS / "images" / f"{name}.png"


if __name__ == "__main__":
    for make in (variants, experiment, screens):
        if make.__name__ in sys.argv[1:] or not sys.argv[1:]:
            make()
