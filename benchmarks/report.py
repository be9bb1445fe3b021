"""How a report of many trajectories is written, opened and searched.

Builds a synthetic world (or takes the store of --store), writes its report, and prints wall time, peak memory and size.
Then opens it in Chromium from its file: seconds until the overview and the list can be read, and milliseconds from
a keystroke in the search box, or a choice in a filter, until the results stand there: at once after opening, and a
second later, when the page has fetched the texts that it searches.

    python benchmarks/report.py [--questions 25000] [--store STORE] [--compare STORE] [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser import Browser, chromium

CLI = (sys.executable, "-m", "stepsearch_data")
PARAGRAPHS_A_QUESTION = 5.6
MIB = 1 << 20
SETTLED = 1.0  # seconds
ASKED = [
    ("text", "a"),
    ("text", "who the"),
    ("text", "no such words"),
    ("hops", "4"),
    ("sort", "-reward"),
    ("sort", "question"),
]
_FILTER = """
const [name, value, done] = arguments;
const field = document.forms[0].elements[name];
const results = document.getElementById("results");
const start = performance.now();
new MutationObserver((_, observer) => {
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
}).observe(results, {childList: true});
field.value = value;
field.dispatchEvent(new Event("input", {bubbles: true}));
"""


def build(folder: Path, questions: int) -> Path:
    """Build a store of this many questions."""
    world, store = folder / "world.jsonl.gz", folder / "store"
    paragraphs = str(round(questions * PARAGRAPHS_A_QUESTION))
    subprocess.run(
        [*CLI, "synth", "--quiet", "--questions", str(questions), "--paragraphs", paragraphs, "--output", world],
        check=True,
    )
    subprocess.run([*CLI, "build", "--quiet", "--store", store, "--source", f"musique={world}"], check=True)
    return store


def write(store: Path, output: Path, *flags: str | Path) -> Path:
    """Write the report, print its time, memory and size, and return its page."""
    start = time.perf_counter()
    process = subprocess.Popen([*CLI, "report", "--quiet", "--store", store, "--output", output, *flags])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the report failed with status {status}")
    unit = 1 if sys.platform == "darwin" else 1024
    files = [path for path in output.parent.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(
        f"written in {time.perf_counter() - start:.1f} s, peak {usage.ru_maxrss * unit / MIB:,.0f} MiB: "
        f"{size / 1e6:,.1f} MB in {len(files):,} files"
    )
    return next(page for page in (output / "index.html", output.with_suffix(".html")) if page.is_file())


def opened(browser: Browser, url: str, ready: str) -> float:
    """Return the seconds until the page shows the element `ready`."""
    start = time.perf_counter()
    browser.open(url, ready)
    return time.perf_counter() - start


def measure(browser: Browser, url: str, runs: int, *, compared: bool) -> None:
    """Print how fast the page is."""
    browser.look()
    changes = [("comparison", "#/c", ".tiles"), ("list of changes", "#/d", ".row")]
    for name, place, ready in (
        ("overview", "#/", ".tiles"),
        ("overview with its charts", "#/", "figure:last-child svg"),
        ("list", "#/t", ".row"),
        ("list of a count of queries", "#/t?queries.verdict=rejected", ".row"),
        *(changes if compared else []),
    ):
        print(f"open the {name}: {spread([opened(browser, url + place, ready) for _ in range(runs)], 's', 2)}")
    for seconds, when, asked in ((0, "at once", ASKED[:1]), (SETTLED, "later", ASKED)):
        for name, value in asked:
            times = []
            for _ in range(runs):
                browser.open(f"{url}#/t", ".row")
                time.sleep(seconds)
                times.append(float(browser.driver.execute_async_script(_FILTER, name, value)))
            print(f"{name} = {value!r}, {when}: {spread(times, 'ms', 0)}")


def spread(values: list[float], unit: str, decimals: int) -> str:
    """Write the median, the minimum and the maximum."""
    middle, least, most = (f"{value:.{decimals}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"median {middle} {unit} (min {least}, max {most})"


def main() -> None:
    """Run the benchmark and print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=25_000, help="of the synthetic world")
    parser.add_argument("--store", type=Path, help="a store that is there already, instead of a synthetic world's")
    parser.add_argument("--compare", type=Path, help="another store, whose changes the report then shows too")
    parser.add_argument("--runs", type=int, default=5, help="of each figure; the median is printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ("--compare", options.compare) if options.compare else ()
        page = write(options.store or build(folder, options.questions), folder / "report" / "made", *flags)
        for browser in chromium():
            measure(browser, page.as_uri(), options.runs, compared=bool(options.compare))


if __name__ == "__main__":
    main()
