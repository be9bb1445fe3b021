"""What policies did with the store's questions, shown beside its own trajectories."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import orjson
from pydantic import ValidationError

from stepsearch_data.core.errors import ConfigError, SourceError
from stepsearch_data.core.files import open_regular
from stepsearch_data.report import shapes
from stepsearch_data.report.segments import segments
from stepsearch_data.rewards import Scores, read, score_rollout
from stepsearch_data.rewards.rollout import Rollout
from stepsearch_data.schemas.rollouts import RolloutRow
from stepsearch_data.sources.files import LONGEST_ROW

_FILE = "rollouts.jsonl"  # of the folder that `eval` writes


class Rollouts:
    """Rollouts by question, from JSON Lines as `eval` writes them; only their places are kept in memory.

    A file is given as `POLICY=FILE`, or as a file or a folder of `eval`, whose name is then the policy's. They are
    scored against what their rows hold, as `score` does with the paper's rewards. Raises ConfigError, SourceError.
    """

    def __init__(self, given: Sequence[str] = ()) -> None:
        self._files = dict(_named(each) for each in given)
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
        return [made for policy, row in self._rows(question_id) for made in _shown(policy, row)]

    def _rows(self, question_id: str) -> Iterator[tuple[str, RolloutRow]]:
        for policy, at, length in self._places.get(question_id, ()):
            with open(self._files[policy], "rb") as file:
                file.seek(at)
                row = _row(file.read(length))
            if row:
                yield policy, row

    def facts(self, known: Collection[str]) -> list[shapes.Facts]:
        """Tabulate means of each policy over the questions that the store shows; no table where there are no files."""
        counted: dict[str, list[tuple[Scores, int]]] = {policy: [] for policy in self._files}
        shown = (question_id for question_id in self._places if question_id in known)  # in the order of the files
        for policy, row in (found for question_id in shown for found in self._rows(question_id)):
            for rollout, scores in _scored(row):
                counted[policy].append((scores, len(rollout.answered)))
        columns = ["Policy", "Rollouts", "Exact match", "F1", "Search keys", "Σ (G − P)", "Searches", "Right format"]
        rows: list[list[str | float | None]] = [
            [policy, len(found), *_means(found)] for policy, found in counted.items() if found
        ]
        return (
            [{"title": "Policies beside the gold trajectories", "columns": columns, "rows": rows, "filters": {}}]
            if rows
            else []
        )

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


def _means(found: Sequence[tuple[Scores, int]]) -> list[float]:
    """Compute means, in the order of the columns of `Rollouts.facts`."""
    rows = [
        (
            scores.answer_em,
            scores.answer_correct,
            scores.search_key_score,
            sum(scores.step_scores),
            searches,
            scores.format_ok,
        )
        for scores, searches in found
    ]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def _shown(policy: str, row: RolloutRow) -> Iterator[shapes.Rollout]:
    golds = {" ".join(paragraph.paragraph_text.split()) for paragraph in row.support_docs}
    for rollout, scores in _scored(row):
        rounds = [_round(rollout, at, scores, golds) for at in range(len(rollout.rounds))]
        yield {
            "policy": policy,
            "answer": rollout.answer.text if rollout.answer else None,
            "right": bool(scores.answer_em),
            "f1": scores.answer_correct,
            "format_ok": scores.format_ok,
            "answer_reward": scores.score,
            "key_reward": scores.search_key_score,
            "segments": segments(rollout.text, len(rounds), row.observations),
            "rounds": rounds,
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
