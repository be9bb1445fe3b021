"""Answer, support and evidence metrics, with exactly the numbers of the official scripts.

MuSiQue v1.0 (`metrics/answer.py`, `metrics/support.py`), HotpotQA v1 (`hotpot_evaluate_v1.py`) and
2WikiMultihopQA v1.1 (`2wikimultihop_evaluate_v1.1.py`). All scores are shares in [0, 1], for one
question; the scripts print means × 100. `golds` holds the main answer first, then its aliases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

from stepsearch_data.core.text import normalise, without_punctuation

_CLOSED = ("yes", "no", "noanswer")  # answers that only match an equal answer
Triple = tuple[str, str, str]
Fact = tuple[str, int]


class Metric(NamedTuple):
    """Exact match, F1, precision and recall of one question, each in [0, 1]."""

    em: float
    f1: float
    precision: float
    recall: float


_ZERO = Metric(0.0, 0.0, 0.0, 0.0)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def overlap(prediction: Sequence[str], gold: Sequence[str]) -> tuple[float, float, float]:
    """Return F1, precision and recall of two lists of words as multisets; zeros where no word is shared."""
    same = sum((Counter(prediction) & Counter(gold)).values())
    if not same:
        return 0.0, 0.0, 0.0
    precision, recall = same / len(prediction), same / len(gold)
    return _f1(precision, recall), precision, recall


def token_f1(prediction: str, golds: Iterable[str], decimals: int | None = None) -> float:
    """Return the highest word F1 of a text with any gold, 0 without golds (arXiv 2505.15107, r_answer).

    The reference code (`verl/utils/reward_score/qa_step.py`) rounds it to 4 `decimals`.
    """
    words = normalise(prediction).split()
    best = max((overlap(words, normalise(gold).split())[0] for gold in golds), default=0.0)
    return best if decimals is None else round(best, decimals)


def exact_match(prediction: str, golds: Iterable[str]) -> int:
    """Return 1 where the normalised prediction equals a normalised gold, else 0 (all three scripts' rule)."""
    normalised = normalise(prediction)
    return int(any(normalised == normalise(gold) for gold in golds))


def musique_answer(prediction: str, golds: Sequence[str]) -> tuple[int, float]:
    """Return MuSiQue v1.0's exact match and F1, each the highest over answer and aliases.

    A text that is empty after normalisation only matches an empty text. Yes and no are ordinary words.
    """
    words = normalise(prediction).split()
    scores = []
    for gold in golds:
        answer = normalise(gold).split()
        scores.append(overlap(words, answer)[0] if words and answer else float(words == answer))
    return exact_match(prediction, golds), max(scores, default=0.0)


def hotpotqa_answer(prediction: str, gold: str) -> Metric:
    """Score an answer as HotpotQA v1, with one gold. Yes, no and noanswer only match themselves."""
    predicted, answer = normalise(prediction), normalise(gold)
    em = float(predicted == answer)
    if predicted != answer and (predicted in _CLOSED or answer in _CLOSED):
        return _ZERO
    return Metric(em, *overlap(predicted.split(), answer.split()))


def wiki2_answer(
    prediction: str, gold: str, answer_id: str | None = None, aliases: Mapping[str, Collection[str]] | None = None
) -> Metric:
    """Score an answer as 2Wiki v1.1: HotpotQA's rules, each number the highest over gold and its id's aliases.

    `aliases` is the official table (`id_aliases.json`): aliases and demonyms by id.
    """
    golds = {gold, *(aliases or {}).get(answer_id or "", ())}
    metrics = [hotpotqa_answer(prediction, answer) for answer in golds]
    return Metric(*(max(column) for column in zip(*metrics, strict=True)))


def _counted(correct: int, predicted: int, gold: int, *, em: bool) -> Metric:
    precision = correct / predicted if predicted else 0.0
    recall = correct / gold if gold else 0.0
    return Metric(float(em), _f1(precision, recall), precision, recall)


def musique_support(predicted: Iterable[int], gold: Iterable[int]) -> Metric:
    """Score sets of paragraph positions as MuSiQue v1.0. EM and F1 are 1 where both are empty."""
    found, wanted = set(predicted), set(gold)
    metric = _counted(len(found & wanted), len(found), len(wanted), em=found == wanted)
    return metric if found or wanted else metric._replace(f1=1.0)


def hotpotqa_support(predicted: Iterable[Fact], gold: Iterable[Fact]) -> Metric:
    """Score sets of (title, sentence) pairs as HotpotQA v1. F1 is 0 where both are empty."""
    found, wanted = set(predicted), set(gold)
    return _counted(len(found & wanted), len(found), len(wanted), em=found == wanted)


def wiki2_support(predicted: Iterable[Fact], gold: Iterable[Fact]) -> Metric:
    """Score (title, sentence) pairs as 2Wiki v1.1: as HotpotQA, with titles in lower case.

    As in the script, facts that become equal in lower case are still counted separately.
    """
    found, wanted = ([(title.lower(), at) for title, at in set(facts)] for facts in (predicted, gold))
    correct = sum(fact in wanted for fact in found)
    missing = sum(fact not in found for fact in wanted)
    recall = correct / (correct + missing) if correct + missing else 0.0
    precision = correct / len(found) if found else 0.0
    return Metric(float(correct == len(found) and not missing), _f1(precision, recall), precision, recall)


def wiki2_evidence(
    predicted: Iterable[Triple],
    gold: Sequence[Triple],
    gold_ids: Sequence[Triple] = (),
    aliases: Mapping[str, Collection[str]] | None = None,
) -> Metric:
    """Score evidence triples as 2Wiki v1.1: any alias of a gold subject or object is right.

    `gold_ids` are the triples' Wikidata ids (`evidences_id`), empty where the file has none. Case,
    punctuation and white space do not count; articles do, unlike in answers. As in the script,
    recall counts predictions, so it may exceed 1 with two aliases of one triple.
    """
    table = aliases or {}
    accepted: list[set[Triple]] = []
    for at, (subject, relation, thing) in enumerate(gold):
        subject_id, _, thing_id = gold_ids[at] if gold_ids else ("", "", "")
        names = product({subject, *table.get(subject_id, ())}, {thing, *table.get(thing_id, ())})
        accepted.append({_plain((one, relation, other)) for one, other in names})
    found = {_plain(triple) for triple in predicted}
    correct = sum(any(triple in triples for triples in accepted) for triple in found)
    return _counted(correct, len(found), len(accepted), em=correct == len(found) == len(accepted))


def _plain(triple: Triple) -> Triple:
    subject, relation, thing = (" ".join(without_punctuation(part.lower()).split()) for part in triple)
    return subject, relation, thing


def joint(*metrics: Metric) -> Metric:
    """Multiply EM, precision and recall, and compute the F1 of the latter two.

    HotpotQA joins answer and support; 2Wiki answer, support and evidence.
    """
    em = precision = recall = 1.0
    for metric in metrics:
        em, precision, recall = em * metric.em, precision * metric.precision, recall * metric.recall
    return Metric(em, _f1(precision, recall), precision, recall)
