"""What policies did with the store's questions, shown beside its own trajectories."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.core.files import open_regular
from stepsearch_data.report import shapes
from stepsearch_data.report.segments import segments, segments_of_calls
from stepsearch_data.rewards import Scores, read, score_rollout
from stepsearch_data.rewards.rollout import Rollout
from stepsearch_data.schemas.rollouts import RolloutRow
from stepsearch_data.sources.files import LONGEST_ROW

_FILE = "rollouts.jsonl"  # of the folder that `eval` writes


class Tally(NamedTuple):
    """What a policy did with a question, over its rollouts."""

    rollouts: int
    right: int  # of them
    f1: float  # this and what follows are sums
    keys: float
    steps: float  # Σ (G - P)
    searches: int
    formatted: int

    @property
    def is_right(self) -> bool:
        """Whether most of its rollouts are right."""
        return 2 * self.right > self.rollouts


class Rollouts:
    """Rollouts by question, from JSON Lines as `eval` writes them; only their places are kept in memory.

    A file is given as `POLICY=FILE`, or as a file or a folder of `eval`, whose name is then the policy's. They are
    scored against what their rows hold, as `score` does with the paper's rewards. Raises ConfigError, SourceError.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self._files = dict(_named(each) for each in given)
        self._tallies: dict[str, Mapping[str, Tally]] = {}
        if len(self._files) < len(given):
            raise ConfigError("two files of rollouts have one name", "name them: --rollouts NAME=FILE")
        self._places: defaultdict[str, list[tuple[str, int, int]]] = defaultdict(list)
        self._unread: Counter[str] = Counter()
        for policy, path in self._files.items():
            self._scan(policy, path)

    def _scan(self, policy: str, path: Path) -> None:
        at = 0
        try:
            with open_regular(path) as file:
                while line := file.readline(LONGEST_ROW):
                    row = _row(line)
                    if row and row.id:
                        self._places[row.id].append((policy, at, len(line)))
                    elif line.strip():
                        self._unread[policy] += 1
                    at += len(line)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error

    def of(self, question_id: str) -> list[shapes.Rollout]:
        """Return what each policy did with a question, in the order of the files."""
        return [_shown(*judged) for judged in self._judge(question_id)]

    def _judge(self, question_id: str) -> list[tuple[str, RolloutRow, Rollout, Scores]]:
        """Score the rollouts of a question, and keep their tallies."""
        found = [(policy, row, *scored) for policy, row in self._rows(question_id) for scored in _scored(row)]
        tallies: defaultdict[str, list[Tally]] = defaultdict(list)
        for policy, _, rollout, scores in found:
            tallies[policy].append(_tally(rollout, scores))
        self._tallies[question_id] = {
            policy: Tally(*(sum(values) for values in zip(*each, strict=True))) for policy, each in tallies.items()
        }
        return found

    def _rows(self, question_id: str) -> Iterator[tuple[str, RolloutRow]]:
        for policy, at, length in self._places.get(question_id, ()):
            with open(self._files[policy], "rb") as file:
                file.seek(at)
                row = _row(file.read(length))
            if row:
                yield policy, row

    @property
    def policies(self) -> list[str]:
        """Their names, in the order of the files."""
        return list(self._files)

    def tally(self, question_id: str) -> Mapping[str, Tally]:
        """Return what each policy that has rollouts of a question did with it; `of` has perhaps scored them already."""
        if question_id not in self._tallies:
            self._judge(question_id)
        return self._tallies[question_id]

    def right(self, known: Collection[str]) -> dict[str, list[bool | None]]:
        """Say of the known questions whether each policy is right; None where it has no rollout."""
        found = {}
        for question_id in (each for each in self._places if each in known):  # in the order of the files
            tallies = self.tally(question_id)
            found[question_id] = [tallies[policy].is_right if policy in tallies else None for policy in self.policies]
        return found

    def notes(self, known: Collection[str]) -> list[str]:
        """Say what of the files is not shown."""
        foreign = Counter(
            policy for question, places in self._places.items() if question not in known for policy, *_ in places
        )
        return [
            *(f"{policy}: rollouts of questions that have no trajectory here: {n:,}." for policy, n in foreign.items()),
            *(f"{policy}: lines that are not rollouts with an id: {n:,}." for policy, n in self._unread.items()),
        ]


NONE = Rollouts()


def _named(given: str) -> tuple[str, Path]:
    name, _, place = ("", "", given) if Path(given).exists() else given.rpartition("=")
    path = Path(place)
    path = path / _FILE if path.is_dir() else path
    return name or (path.parent.resolve().name if path.name == _FILE else path.stem), path


def _row(line: bytes) -> RolloutRow | None:
    """Read the line as a rollout, if it is one."""
    try:
        return RolloutRow.model_validate(orjson.loads(line))
    except (orjson.JSONDecodeError, ValidationError):
        return None


def _scored(row: RolloutRow) -> Iterator[tuple[Rollout, Scores]]:
    golds = [paragraph.paragraph_text for paragraph in row.support_docs]
    for response in row.responses:
        rollout = read(response, observations=row.observations)
        yield rollout, score_rollout(rollout, row.target, row.search_keys, golds)


def _tally(rollout: Rollout, scores: Scores) -> Tally:
    return Tally(
        1,
        int(scores.answer_em),
        scores.answer_correct,
        scores.search_key_score,
        sum(scores.step_scores),
        len(rollout.answered),
        int(scores.format_ok),
    )


def _shown(policy: str, row: RolloutRow, rollout: Rollout, scores: Scores) -> shapes.Rollout:
    golds = {" ".join(paragraph.paragraph_text.split()) for paragraph in row.support_docs}
    rounds = [_round(rollout, at, scores, golds) for at in range(len(rollout.rounds))]
    return {
        "policy": policy,
        "answer": rollout.answer.text if rollout.answer else None,
        "right": bool(scores.answer_em),
        "f1": scores.answer_correct,
        "format_ok": scores.format_ok,
        "answer_reward": scores.score,
        "key_reward": scores.search_key_score,
        "segments": segments(rollout.text, len(rounds), row.observations) or segments_of_calls(rollout),
        "rounds": rounds,
        "golds": len(row.support_docs),
    }


def _round(rollout: Rollout, at: int, scores: Scores, golds: Collection[str]) -> shapes.RecordRound:
    found = rollout.rounds[at]
    gain = scores.information_gain[at] if at < len(scores.information_gain) else 0.0
    penalty = scores.redundancy_penalty[at] if at < len(scores.redundancy_penalty) else 0.0
    return {
        "round": at + 1,
        "hop": 0,
        "role": "gold",
        "sub_question": "",
        "sub_answer": "",
        "query": found.query.text,
        "kept": True,
        "gold_rank": None,
        "gain": gain,
        "redundancy": penalty,
        "reward": gain - penalty,
        "documents": [
            {
                "rank": rank,
                "title": document.title,
                "text": document.span.text,
                "url": None,
                "engine": "",
                "score": None,
                "gold": " ".join(document.span.text.split()) in golds,
            }
            for rank, document in enumerate(found.documents, start=1)
        ],
        "queries": [],
    }
