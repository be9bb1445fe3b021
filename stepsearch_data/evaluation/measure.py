"""What an evaluation measures of each rollout, and means over them with intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepsearch_data.evaluation.policy import Played
from stepsearch_data.rewards import found_by, read
from stepsearch_data.sources.dataset import dataset_of
from stepsearch_data.templates.examples import Paragraph
from stepsearch_data.trainer.search_env import Search, Task

Row = dict[str, Any]
Group = tuple[str, ...]
Asked = tuple[str, str, int]  # source and id of a question, and which of those with this id
READS = ("opens", "finds")
"""Calls of a rollout that are no search, measured where a policy may make them."""
_ENDS = ("answer", "no answer", "end of text", "length", "refused")


def row_of(played: Played) -> Row:
    """Return the row of a rollout in `rollouts.jsonl`: what `score` reads, and what is measured.

    Exact match and F1 are by the official script of the source, zeros where nothing was answered.
    """
    episode, own_tokens, refused, messages, counts = played
    task, asked = episode.task, described(episode.task)
    # A policy that calls tools writes all text but their results: a result that it makes up in tags is none.
    observations = episode.observations if messages is None else []
    rollout = read(episode.text if messages is None else messages, observations=observations)
    prediction = rollout.answer.text if rollout.answer else None
    em, f1 = (0, 0.0) if prediction is None else dataset_of(task.source).score(prediction, task.answers)
    return {
        "id": task.id,
        "sample": task.sample,
        "data_source": task.source,
        "hops": task.hops,
        "question": task.question,
        "prompt": task.prompt,
        "response": episode.text if messages is None else messages,
        "observations": observations,
        "target": asked["target"],
        "search_keys": task.search_keys,
        "support_docs": asked["support_docs"],
        "searches": _searches(episode.searches, task.support_docs),
        "prediction": prediction,
        "em": float(em),
        "f1": f1,
        "format_ok": rollout.format.ok,
        "ended": "refused" if refused else episode.ended,
        "invalid": episode.invalid,
        "own_tokens": own_tokens,
        **counts,
        **({"error": refused} if refused else {}),
    }


def described(task: Task) -> Row:
    """Return the part of a row that its measures are by: the right answers and the gold paragraphs."""
    return {"target": list(task.answers), "support_docs": [gold.row() for gold in task.support_docs]}


def _searches(searches: Sequence[Search], golds: Sequence[Paragraph]) -> list[Row]:
    """Describe the searches of an episode: how many documents were seen before, which golds were found, from 0."""
    asked = ((search.query, [document.text for document in search.documents]) for search in searches)
    return [
        {
            "query": search.query,
            "titles": [document.title for document in search.documents],
            "seen": found.seen,
            "repeated": found.repeated,
            "gold": found.gold,
        }
        for search, found in zip(searches, found_by(asked, [gold.text for gold in golds]), strict=True)
    ]


class Tally:
    """Counts rows of rollouts: in all, by source, and by source and hops."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str, int]] = Counter()  # samples by source, id and number
        self._answers: defaultdict[Group, dict[Asked, list[tuple[float, float]]]] = defaultdict(dict)
        self._sums: defaultdict[Group, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))

    def add(self, row: Row) -> None:
        """Count a row."""
        hops = f"{row['hops']} hops" if row["hops"] else "hops unknown"
        source, name, sample = row["data_source"], row["id"], row.get("sample", 1)
        self._seen[source, name, sample] += 1
        asked = source, name, self._seen[source, name, sample]
        for group in ((), (source,), (source, hops)):
            self._answers[group].setdefault(asked, []).append((row["em"], row["f1"]))
            for name, number in _counted(row).items():
                self._sums[group][name] += number

    def measures(self) -> dict[str, dict[str, Row]]:
        """Return the measures of `all`, `by_source` and `by_source_and_hops`, by the name of the part."""
        found: dict[str, dict[str, Row]] = {"all": {}, "by_source": {}, "by_source_and_hops": {}}
        levels = list(found.values())
        for group in sorted(self._sums):
            levels[len(group)][", ".join(group) or "all"] = _measures(
                self._sums[group], list(self._answers[group].values())
            )
        return found


def _counted(row: Row) -> dict[str, float]:
    searches, golds = row["searches"], len(row["support_docs"])
    found = {at for search in searches for at in search["gold"]}
    return {
        "with_golds": golds > 0,
        "recall": len(found) / golds if golds else 0,
        "searches": len(searches),
        "empty": sum(not search["titles"] for search in searches),
        "redundant": sum(0 < search["seen"] == len(search["titles"]) for search in searches),
        "partly_redundant": sum(0 < search["seen"] < len(search["titles"]) for search in searches),
        "repeated": sum(search["repeated"] for search in searches),
        "format_errors": not row["format_ok"],
        "invalid": row["invalid"],
        "own_tokens": row["own_tokens"],
        **{name: row[name] for name in READS if name in row},
        row["ended"]: 1,
    }


def _measures(sums: Mapping[str, float], answers: Sequence[Sequence[tuple[float, float]]]) -> Row:
    """Average over questions, each with the mean of its rollouts; all but `questions`, EM and F1 is of rollouts.

    Shares of searches are None where there was none, recall where no gold is known.
    """
    scores = np.array([np.mean(samples, axis=0) for samples in answers])
    rollouts = sum(map(len, answers))
    (em, f1), (low, high) = scores.mean(axis=0).tolist(), interval(scores)

    def share(name: str, of: str) -> float | None:
        return sums[name] / sums[of] if sums[of] else None

    return {
        "questions": len(answers),
        "rollouts": rollouts,
        "solved": sum(any(em for em, _ in samples) for samples in answers) / len(answers),
        "em": em,
        "em_interval": [low[0], high[0]],
        "f1": f1,
        "f1_interval": [low[1], high[1]],
        "support_recall": share("recall", "with_golds"),
        "searches": sums["searches"] / rollouts,
        "redundant_searches": share("redundant", "searches"),
        "partly_redundant_searches": share("partly_redundant", "searches"),
        "repeated_queries": share("repeated", "searches"),
        "empty_searches": share("empty", "searches"),
        "format_errors": sums["format_errors"] / rollouts,
        "invalid_turns": sums["invalid"] / rollouts,
        "own_tokens": sums["own_tokens"] / rollouts,
        **{name: sums[name] / rollouts for name in READS if name in sums},
        "ended": {end: sums[end] / rollouts for end in _ENDS},
    }


def interval(scores: NDArray[np.float64], resamples: int = 2_000) -> list[list[float]]:
    """Compute the bootstrap's 95 % intervals of the columns' means.

    `scores` is (questions, columns), the ends of the intervals are (2, columns). Questions are drawn with replacement,
    always by the same draws.
    """
    random = np.random.default_rng(0)
    means = [scores[random.integers(len(scores), size=len(scores))].mean(axis=0) for _ in range(resamples)]
    return np.percentile(means, (2.5, 97.5), axis=0).tolist()  # type: ignore[no-any-return]  # a nested list
