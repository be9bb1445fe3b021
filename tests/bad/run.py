"""Tries bad inputs and prints a JSON line about each that was taken badly, and one at the end.

python -W error -m tests.bad.run --seed 7 --count 2000 --part 0/2 --keep /tmp/bad
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bad.base import make_base
from tests.bad.case import Case
from tests.bad.families import family_of, make_case
from tests.bad.judge import judge
from tests.bad.process import Done, attempt, be_nobody, forked, import_all, wait
from tests.tree import tree

ALONE = 40  # one in so many is a fresh process


class Trial:
    """Tries cases of a seed in a folder, each in a folder of its own that is gone afterwards."""

    def __init__(self, seed: int, top: Path) -> None:
        self._seed, self._top = seed, top
        self._base = top / "base"
        self._make_base()
        self._before = tree(self._base)

    def case(self, number: int) -> Case:
        """The case of that number, made by a process of its own: threads that it starts must not be forked."""
        folder, kept = self._top / str(number), self._top / f"{number}.case"

        def work() -> int:
            folder.mkdir()
            kept.write_bytes(pickle.dumps(make_case(self._seed, number, self._base, folder)))
            return 0

        if wait(forked(work)):
            raise SystemExit(f"case {number} of seed {self._seed} cannot be made")
        made: Case = pickle.loads(kept.read_bytes())
        return made

    def judged(self, number: int, case: Case) -> tuple[Done, list[str]]:
        """How the case's command ended, and what is wrong with that."""
        folder = self._top / str(number)
        done = attempt(case, folder, alone=number % ALONE == 0)
        faults = judge(case, done)
        after = tree(self._base)
        if after != self._before:
            faults.append("a file of somebody else's was changed")
            self._before = after
        return done, faults

    def clear(self, number: int) -> None:
        """Remove what a case left."""
        for path in self._top.glob(f"{number}*"):
            if path.name.partition(".")[0] == str(number):
                _remove(path)

    def _make_base(self) -> None:
        def cli(argv: list[str]) -> None:
            done = attempt(Case(argv), self._top / "making")
            if done.code not in {0, 3} or "Traceback" in done.err:
                print(f"a good command fails: {argv}: {done.code}: {done.err}", file=sys.stderr)

        def work() -> int:
            (self._top / "making").mkdir()
            self._base.mkdir()
            make_base(self._base, cli)
            return 0

        if wait(forked(work)):
            raise SystemExit("there is nothing to begin with")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner, _, _ in os.walk(path):
            Path(inner).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def told(number: str, family: str, case: Case, done: Done, faults: list[str]) -> dict[str, Any]:
    """What a reader needs to do it again."""
    given = {name: value for name, value in {"env": case.env, "stdout": case.stdout}.items() if value}
    ended = {
        "code": done.code,
        "seconds": round(done.seconds, 2),
        "MiB": done.memory >> 20,
        "stderr": done.err[-3_000:],
    }
    return {"case": number, "family": family, "faults": faults, "argv": case.argv, **given, **ended}


def try_all(asked: argparse.Namespace, numbers: Iterable[int], top: Path) -> tuple[int, int]:
    """Try these cases; how many there were, and how many of them failed."""
    trial = Trial(asked.seed, top)
    tried = failed = 0
    for number in numbers:
        family = family_of(asked.seed, number).__name__
        if asked.family and family not in asked.family:
            continue
        case = trial.case(number)
        done, faults = trial.judged(number, case)
        tried += 1
        failed += bool(faults)
        if faults or asked.verbose:
            print(json.dumps(told(f"{asked.seed}/{number}", family, case, done, faults)), flush=True)
        if faults and asked.keep:
            shutil.move(top / str(number), asked.keep / f"{asked.seed}-{number}")
        trial.clear(number)
    return tried, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--part", default="0/1", help="0/2 are the even numbers, 1/2 the odd ones")
    parser.add_argument("--only", type=int, action="append", help="this number, repeatable")
    parser.add_argument("--family", action="append", help="only this kind of bad input, repeatable")
    parser.add_argument("--keep", type=Path, help="folder for what was taken badly")
    parser.add_argument("--verbose", "-v", action="store_true")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    os.umask(0o077)
    top = Path(tempfile.mkdtemp(prefix="bad-"))
    be_nobody(top)
    import_all()
    try:
        tried, failed = try_all(asked, asked.only or range(part, asked.count, parts), top)
    finally:
        _remove(top)
    print(json.dumps({"tried": tried, "failed": failed}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
