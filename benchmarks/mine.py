"""How fast `mine` is, and what its filters keep.

Makes a corpus of made-up passages, a title for nearly each, whose texts name other titles between common words, and
prints what the stage takes for it: seconds, and MiB of a process of its own. With `--data FOLDER`, that of the real
rows, it mines their paragraphs under several settings instead, and prints for each the links, the chains, and how many
pairs of gold paragraphs are linked where one hop needs the answer of another:

    python benchmarks/mine.py [--passages 200000] [--runs 3]
    python benchmarks/mine.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import polars as pl

CLI = (sys.executable, "-m", "stepsearch_data", "build", "--quiet")
MIB = 1 << 20
TITLED_TWICE = 0.05  # of the passages, as where long documents are cut
WITH_SENSE = 0.1  # of the titles have a sense in parentheses
FAMOUS = 0.2  # of the names are those of a thousandth of the titles
NAMED = 3  # titles that a text names, on average
LETTERS = ("b c d f g h k l m n p r s t v w z br ch dr gr kl pr st tr", "a e i o u ai ea ou")
COMMON = (
    "the of and in to was is for on by with as at from his her its that an are which be this has were had also not "
    "first one two new after during where who born known city town river county state university school film album "
    "band song novel played member between later years when became most many other such national American English"
)
SENSES = ("film", "band", "album", "novel", "river", "1984 film", "politician", "song")
FILES = {
    "musique": "musique_ans_dev.sample.jsonl",
    "2wiki": "2wikimultihopqa_dev.sample.json",
    "hotpotqa": "hotpot_dev_distractor.sample.json",
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.data:
            curve(asked.data, Path(folder))
        else:
            scale(asked.passages, asked.runs, Path(folder))


def scale(passages: int, runs: int, folder: Path) -> None:
    """Print what mining so many passages takes."""
    source, store = folder / "corpus.jsonl", folder / "store"
    with open(source, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"title": title, "text": text}) + "\n" for title, text in made_up(passages))
    build(store, "--to", "load", f"--source=corpus={source}")
    processor = [build(store, "--stage", "mine", "--force") for _ in range(runs)]
    builds = [json.loads(line) for line in (store / "log" / "builds.jsonl").read_text().splitlines()]
    seconds = [each["seconds"] for each in builds if each["stage"] == "mine"]
    peak = max(each["peak_rss_bytes"] for each in builds if each["stage"] == "mine")
    print(f"{passages:,} passages, {source.stat().st_size / 1e6:.0f} MB; seconds of {runs} runs and their median:")
    print(f"  mine {', '.join(f'{each:.1f}' for each in seconds)}: {statistics.median(seconds):.1f}")
    print(f"  of the processor, with the start of the command: {statistics.median(processor):.1f}")
    print(f"  peak {peak / MIB:,.0f} MiB")
    for step, part, count in table(store, "mining").iter_rows():
        print(f"  {f'{step} {part}':<28}{count:>12,}")


def made_up(passages: int) -> Iterator[tuple[str, str]]:
    """Yield titles and texts, the same ones every time."""
    chance = random.Random(0)
    words = [word(chance) for _ in range(max(2_000, passages // 4))]
    titles: list[str] = []
    for _ in range(passages):
        if titles and chance.random() < TITLED_TWICE:
            titles.append(chance.choice(titles))
        else:
            name = " ".join(chance.choices(words, k=chance.choice((1, 2, 2, 2, 3))))
            titles.append(f"{name} ({chance.choice(SENSES)})" if chance.random() < WITH_SENSE else name)
    famous = titles[: max(10, passages // 1_000)]
    for title in titles:
        text = chance.choices(COMMON.split(), k=chance.randrange(50, 110))
        for _ in range(chance.randrange(2 * NAMED + 1)):
            named = chance.choice(famous if chance.random() < FAMOUS else titles).partition(" (")[0]
            text[chance.randrange(len(text))] = named
        yield title, f"{title.partition(' (')[0]} is a {' '.join(text)}."


def word(chance: random.Random) -> str:
    """Make up a capitalised word."""
    return "".join(chance.choice(LETTERS[n % 2].split()) for n in range(chance.randrange(4, 8))).capitalize()


def curve(data: Path, folder: Path) -> None:
    """Print what is found in the paragraphs of real rows under several settings."""
    store, source = folder / "asked", folder / "corpus.jsonl"
    build(store, "--to", "decompose", *(f"--source={kind}={data / name}" for kind, name in FILES.items()))
    paragraphs = table(store, "paragraphs")
    rows = paragraphs.select("title", "text").iter_rows(named=True)
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    gold = gold_pairs(table(store, "sub_questions"), dict(paragraphs.select("passage_id", "title").iter_rows()))
    print("gold pairs:", ", ".join(f"{kind} {len(pairs)}" for kind, pairs in gold.items()))
    print(f"{'most_named':>10}{'many_named':>11}{'min_rank':>9}{'links':>8}" + "".join(f"{kind:>10}" for kind in FILES))
    everyone = paragraphs.height
    for most, many, rank in product((5, 10, 20, 40, everyone), (5, everyone), (1.0, 0.5, 0.25)):
        sets = {"mine.most_named": most, "mine.many_named": many, "mine.min_rank": rank, "load.passage_chars": 100_000}
        given = [f"--set={key}={value}" for key, value in sets.items()]
        build(folder / "mined", "--to", "mine", f"--source=corpus={source}", *given)
        links = table(folder / "mined", "links")
        linked = set(links.select("passage_id", "title").iter_rows())
        found = [sum(pair[0] in linked or pair[1] in linked for pair in gold[kind]) for kind in FILES]
        print(f"{most:>10}{many:>11}{rank:>9}{links.height:>8,}" + "".join(f"{count:>10}" for count in found))


Way = tuple[str, str]
"""A passage, and the title of another one."""


def gold_pairs(hops: pl.DataFrame, title: dict[str, str]) -> dict[str, list[tuple[Way, Way]]]:
    """Return both ways between the gold passages of each hop and of each hop that it depends on, by source."""
    rows = hops.rows_by_key(["question_id", "hop"], named=True, unique=True)
    pairs: dict[str, list[tuple[Way, Way]]] = {kind: [] for kind in FILES}
    for (question_id, _), hop in rows.items():
        for earlier in hop["depends_on"]:
            one, other = rows[question_id, earlier]["gold_passage_ids"][0], hop["gold_passage_ids"][0]
            if one != other:
                pairs[hop["source"]].append(((one, title[other]), (other, title[one])))
    return pairs


def build(store: Path, *options: str) -> float:
    """Build into a store, in a process of its own; return the seconds that the processor worked."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*CLI, "--store", store, *options], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def table(store: Path, name: str) -> pl.DataFrame:
    """Return a table of a store."""
    outputs = [stage["outputs"] for stage in json.loads((store / "manifest.json").read_bytes())["stages"].values()]
    return pl.read_parquet(store / next(of[name]["path"] for of in outputs if name in of))


if __name__ == "__main__":
    main()
