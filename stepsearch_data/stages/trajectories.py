"""trajectories: everything so far → `trajectories` and their `rounds`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

from pydantic import Field

from stepsearch_data.core.errors import RowRejected
from stepsearch_data.pipeline.context import StageContext
from stepsearch_data.pipeline.questions import QuestionRows, for_each_question
from stepsearch_data.pipeline.stage import Stage, StageConfig
from stepsearch_data.rewards import score_rollout
from stepsearch_data.schemas.rows import Query, RetrievedDocument, Round, Row, SubQuestion, Trajectory
from stepsearch_data.schemas.tables import (
    HITS,
    PASSAGES,
    QUERIES,
    QUESTIONS,
    ROUNDS,
    SUB_QUESTIONS,
    TRAJECTORIES,
    VOTES,
)
from stepsearch_data.templates import shown
from stepsearch_data.templates.files import load_template
from stepsearch_data.templates.passages import Passages
from stepsearch_data.templates.template import Template

_ABSTENTION = "The question cannot be answered with the documents that were found."
"""The answer to a question whose paragraphs are missing."""


class TrajectoriesConfig(StageConfig):
    """What a round shows, and which rounds there are beside the gold ones."""

    documents: int = Field(default=3, ge=1, le=100, description="documents shown in a round; the paper shows 3")
    distractors: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the trajectories with a search that finds nothing, and a better one after it",
    )


def trajectories(context: StageContext) -> None:
    """Write the trajectory of every question that has hops."""
    passages, template = Passages(context.inputs[PASSAGES], context.scratch), load_template(shown.TEMPLATE)
    build = partial(_build, passages, template, context.config(TrajectoriesConfig))
    for_each_question(context, build, SUB_QUESTIONS, QUERIES, VOTES, HITS)


def _build(passages: Passages, template: Template, config: TrajectoriesConfig, rows: QuestionRows) -> list[Row]:
    hops = rows[SUB_QUESTIONS]
    if not hops or not rows[QUERIES]:  # no gold hops, or rejected when its queries were written
        return []
    searches = _Searches(passages, config.documents, rows)
    question = rows.question
    rounds = searches.gold(hops) if question.answerable else searches.abstaining(hops)
    if question.answerable and _draw(question.question_id) < config.distractors:
        rounds = searches.distracted(hops, rounds)
    gold = [step for step in rounds if step.role == "gold"]
    answers = [question.answer, *question.answer_aliases] if question.answerable else [_ABSTENTION]
    text = template.response(shown.example(question, len(hops), rounds, passages, answers))
    keys = [[step.query, *step.alternatives] for step in gold]
    scores = score_rollout(text, answers, keys, [paragraph.text for paragraph in question.supporting])
    trajectory = Trajectory(
        question_id=question.question_id,
        source=question.source,
        question_type=question.question_type,
        question=question.question,
        answer=answers[0],
        answer_aliases=answers[1:],
        hops=rounds[-1].hop,
        complete=all(step.kept and step.gold_rank is not None for step in gold),
        answerable=question.answerable,
        rollout=text,
        key_reward=scores.search_key_score,
        answer_reward=scores.answer_correct if scores.format_ok else 0.0,
    )
    steps = zip(rounds, scores.information_gain, scores.redundancy_penalty, scores.step_scores, strict=True)
    scored = [
        step.model_copy(update={"information_gain": gain, "redundancy_penalty": penalty, "step_reward": reward})
        for step, gain, penalty, reward in steps
    ]
    return [trajectory, *scored]


def _draw(question_id: str) -> float:
    """Return a number in [0, 1) that depends only on the question."""
    drawn = hashlib.blake2b(f"distractor {question_id}".encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") / 2**64


class _Searches:
    """The searches of one question, made into rounds."""

    def __init__(self, passages: Passages, shown: int, rows: QuestionRows) -> None:
        self._passages = passages
        self._shown = shown
        self._rows = rows
        self._votes = {vote.query_id: vote for vote in rows[VOTES]}

    def gold(self, hops: list[SubQuestion]) -> list[Round]:
        """Make one round per hop, with its best query."""
        rounds = []
        for hop in hops:
            chosen, *others = self._ranked(hop)
            step = self._round(hop, "gold", chosen, self._documents(chosen))
            kept = [query.query for query in others if self._votes[query.query_id].kept]
            rounds.append(step.model_copy(update={"sub_answer": hop.sub_answer, "alternatives": kept}))
        return rounds

    def abstaining(self, hops: list[SubQuestion]) -> list[Round]:
        """Make gold rounds up to the first hop whose paragraph is missing, then a search that does not find it.

        The twin's answerable original may be in the same corpus. So documents that say the answer are left out.
        """
        at = next((at for at, hop in enumerate(hops) if not hop.gold_passage_ids), None)
        if at is None:
            raise RowRejected("unanswerable, but every hop has its paragraph")
        hop = hops[at]
        chosen, *_ = self._ranked(hop)
        answers = [hop.sub_answer, self._rows.question.answer, *self._rows.question.answer_aliases]
        documents = self._documents(chosen, lambda found: not shown.says(self._passages, [found], answers))
        if not documents:
            raise RowRejected(f"hop {hop.hop}: search returns nothing but what says the answer")
        return [*self.gold(hops[:at]), self._round(hop, "abstain", chosen, documents)]

    def distracted(self, hops: list[SubQuestion], rounds: list[Round]) -> list[Round]:
        """Insert a distractor round before the first hop that has a dropped query without a useful document."""
        for at, hop in enumerate(hops):
            for query in self._queries(hop.hop):
                documents = self._documents(query)
                dropped = self._votes[query.query_id].dropped and query.query_id != rounds[at].query_id
                if dropped and documents and not self._helps(documents, hop):
                    extra = self._round(hop, "distractor", query, documents)
                    both = [*rounds[:at], extra, *rounds[at:]]
                    return [step.model_copy(update={"round": number}) for number, step in enumerate(both, start=1)]
        return rounds

    def _helps(self, documents: list[RetrievedDocument], hop: SubQuestion) -> bool:
        """Tell whether the documents answer the hop: one is gold, or says its answer."""
        return shown.shows_gold(documents) or shown.says(self._passages, documents, [hop.sub_answer])

    def _round(self, hop: SubQuestion, role: str, query: Query, documents: list[RetrievedDocument]) -> Round:
        return Round(
            question_id=hop.question_id,
            round=hop.hop,
            hop=hop.hop,
            role=role,
            sub_question=hop.sub_question,
            sub_answer="",
            query=query.query,
            query_id=query.query_id,
            kept=self._votes[query.query_id].kept,
            gold_rank=next((document.rank for document in documents if document.is_gold), None),
            alternatives=[],
            documents=documents,
        )

    def _queries(self, hop: int) -> list[Query]:
        return [query for query in self._rows[QUERIES] if query.hop == hop]

    def _ranked(self, hop: SubQuestion) -> list[Query]:
        ranked = sorted(self._queries(hop.hop), key=lambda query: shown.merit(self._votes[query.query_id]))
        if not ranked:
            raise RowRejected(f"hop {hop.hop} has no query")
        return ranked

    def _documents(
        self, query: Query, fits: Callable[[RetrievedDocument], bool] = lambda _: True
    ) -> list[RetrievedDocument]:
        hits = self._rows.where(HITS, "query_id", query.query_id)
        return shown.documents(self._passages, self._shown, hits, fits)


STAGE = Stage(
    name="trajectories",
    doc="gather the gold search trajectories, round by round",
    reads=(QUESTIONS, SUB_QUESTIONS, PASSAGES, QUERIES, VOTES, HITS),
    writes=(TRAJECTORIES, ROUNDS),
    config=TrajectoriesConfig,
    run=trajectories,
    version=3,
)
