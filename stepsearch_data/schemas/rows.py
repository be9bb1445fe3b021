"""The rows of a store's tables: one frozen model per row, one described field per column.

The Arrow schema of every table is derived from these models (see `tables.py`), so a column's
name, type and meaning are written down once.
"""

from typing import NewType

from pydantic import BaseModel, ConfigDict, Field

Json = NewType("Json", str)
"""A value as JSON text, in a column that Arrow and `datasets` know as JSON."""


class Row(BaseModel):
    """Base of all rows: immutable, and strict about what it holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # most commands validate no row


class SupportingParagraph(Row):
    """A gold paragraph of a question, with what the official file says about it."""

    passage_id: str = Field(description="passage of the corpus with this very title and text")
    title: str = Field(description="title of the paragraph")
    text: str = Field(description="text of the paragraph")
    sentence_ends: list[int] = Field(
        description="end offset of each sentence in `text`, in characters; empty where the source has no sentences"
    )
    supporting_sentences: list[int] = Field(
        description="positions (from 0) of the sentences marked as supporting facts"
    )
    queries: list[str] = Field(
        default_factory=list, description="search queries that the source itself gives for the paragraph (stepsearch)"
    )


class DecompositionStep(Row):
    """One step of an official decomposition, its `#k` placeholders untouched."""

    text: str = Field(description="sub-question as in the file: natural language or `subject >> relation`")
    answer: str = Field(description="answer of the step")
    passage_id: str = Field(description="gold passage of the step")


class Evidence(Row):
    """A 2WikiMultihopQA evidence triple."""

    subject: str = Field(description="entity that the triple is about")
    relation: str = Field(description="Wikidata-like relation name")
    object: str = Field(description="value of the relation")
    subject_id: str = Field(default="", description="Wikidata id of the subject; empty where the file has none")
    object_id: str = Field(default="", description="Wikidata id of the object; empty where the file has none")


class Question(Row):
    """A question as loaded: everything its source says, the paragraphs' texts by reference."""

    question_id: str = Field(
        description="id in its file; an unanswerable MuSiQue twin gets the suffix `__unanswerable`"
    )
    source: str = Field(description="format it came from: musique, hotpotqa, 2wiki, stepsearch or jsonl")
    position: int = Field(description="position in its source: line number, or array element, from 1")
    question: str = Field(description="question text")
    answer: str = Field(description="gold answer")
    answer_aliases: list[str] = Field(default_factory=list, description="other accepted answers")
    answerable: bool = Field(default=True, description="false for the unanswerable twins of MuSiQue-Full")
    question_type: str = Field(
        default="",
        description="graph shape (MuSiQue: 2hop … 4hop3) or reasoning type (bridge, comparison, compositional, …)",
    )
    level: str = Field(default="", description="difficulty level in the source; empty where it has none")
    hops: int = Field(description="gold hops: steps of the decomposition, or supporting titles")
    paragraph_ids: list[str] = Field(
        description="all paragraphs given with the question, distractors too, in file order"
    )
    supporting: list[SupportingParagraph] = Field(description="gold paragraphs, in order of first use")
    decomposition: list[DecompositionStep] = Field(
        default_factory=list, description="official decomposition; empty where the source has none"
    )
    evidences: list[Evidence] = Field(default_factory=list, description="evidence triples (2Wiki); empty elsewhere")
    answer_id: str = Field(default="", description="Wikidata id of the answer (2Wiki); empty where the file has none")
    notes: list[str] = Field(
        default_factory=list, description="what `load` left out of the row, or doubts about it, in words"
    )


class Paragraph(Row):
    """A distinct paragraph of the sources, in order of first appearance."""

    passage_id: str = Field(description="digest of title and text, 16 hexadecimal digits")
    title: str = Field(description="title of the paragraph")
    text: str = Field(description="text of the paragraph")


class Origin(Row):
    """Where a passage of a `corpus` source comes from. Only these passages are mined."""

    passage_id: str = Field(description="passage that was read, or cut, from the document")
    source: str = Field(description="source of the document: its kind, and `#n` where a run has several of it")
    position: int = Field(description="position of the document in its source: line number, or file, from 1")
    document: str = Field(description="id of the row, or path of the file in its folder; empty where it has neither")
    part: int = Field(description="position of the passage in its document, from 1")


class Link(Row):
    """A passage that names the title of another one: from the one, a search for the other goes on."""

    passage_id: str = Field(description="passage that names the title")
    mention: str = Field(description="name in the text of the passage: the title without what stands in parentheses")
    start: int = Field(description="where the name stands in the text, in characters from 0")
    title: str = Field(description="title that is meant")
    target_id: str = Field(description="passage of that title which names it soonest")
    named_by: int = Field(description="passages that name it: a title that many name is no good bridge")
    rank: float = Field(description="1 for a link without a doubt, halved for each one (docs/mine.md)")


class Chain(Row):
    """Passages that a question can be made of, as `mine` drew them, in the order of their ids' hashes."""

    chain_id: str = Field(description="digest of the kind, the passages and what joins them, 16 hexadecimal digits")
    kind: str = Field(description="bridge: each passage names the title of the next; comparison: two of one kind")
    hops: int = Field(description="number of passages")
    passage_ids: list[str] = Field(description="the passages, in the order of searching")
    mentions: list[str] = Field(
        description="bridge: the titles that lead from each passage to the next; comparison: what the two share"
    )
    score: float = Field(description="the lowest rank of its links; 1 for a comparison")


class MiningCount(Row):
    """A count of what `mine` found and left out, step by step."""

    step: str = Field(description="what is counted: passages, titles, mentions, links, chains, drawn")
    part: str = Field(description="the filter, or the kind and the hops of the chains; empty for all")
    count: int = Field(description="how many")


KEPT, SKIPPED, FAULTY = "kept", "skipped", "faulty"
"""What may become of a chain."""


class Composed(Question):
    """A question composed from a chain, before it is verified, or the reason why there is none."""

    chain_id: str = Field(description="chain that it was composed from")
    relations: list[str] = Field(description="relation that each hop asks for, in the writer's words")
    answer_type: str = Field(description="person, place, date, number, work or other; empty where there is no question")
    one_valued: bool = Field(description="whether the writer says that each relation has one value only")
    attempts: int = Field(description="replies that were asked for; 0 where a template wrote it")
    status: str = Field(description="kept; skipped: the writer found no good question; faulty: it failed a check")
    reason: str = Field(description="why it was not kept, in words; empty where it was")

    @property
    def kept(self) -> bool:
        """Tell whether it is a question that can be verified."""
        return self.status == KEPT


class Check(Row):
    """What one check found out about a question: one row a check, or a sample of it where a model is asked."""

    question_id: str = Field(description="question that was checked")
    source: str = Field(description="format that the question came from")
    check: str = Field(description="name of the check (docs/verify.md)")
    part: str = Field(description="gold passage that was left out, in left_one_out; empty elsewhere")
    sample: int = Field(description="position of the sample, from 0; 0 where no model is asked")
    judge: str = Field(description="who judged: rules, the search engine, or the model; empty where nobody did")
    answer: str = Field(description="what the model answered; empty where none was asked")
    right: bool | None = Field(description="whether that is the question's answer; null where no model was asked")
    quotes: list[str] = Field(description="what the model quoted")
    quotes_valid: bool | None = Field(
        description="whether all quotes stand in their passages and say the answer; null where none are wanted"
    )
    outcome: str = Field(
        description="passed; failed: speaks against the question, or, of a hint, applies to it; void: the check does "
        "not apply; unasked: an earlier check had failed"
    )
    reason: str = Field(description="why, in words; empty where it passed")


class Verdict(Row):
    """What the checks of a question come to."""

    question_id: str = Field(description="question that was judged")
    source: str = Field(description="format that the question came from")
    passed: bool = Field(description="whether it is complete and no check of decide.gates failed")
    failed: list[str] = Field(description="checks that failed, hints too, in the order of the checks")
    first_failed: str | None = Field(description="first check of decide.gates that failed; null where none did")
    complete: bool = Field(description="whether a gate failed, or no check was left unasked")
    judged_by: list[str] = Field(description="who judged: rules, a search engine, a model")
    corpus_passages: int = Field(description="passages of the corpus that was searched")


class Passage(Paragraph):
    """A passage of the run's corpus: what the search engines index."""

    questions: int = Field(description="number of questions that come with this paragraph")
    gold_questions: int = Field(description="number of questions that it is a gold paragraph of")


class SubQuestion(Row):
    """One hop of a question."""

    question_id: str = Field(description="question that the hop belongs to")
    source: str = Field(description="format that the question came from")
    hop: int = Field(description="position of the hop, from 1")
    hops: int = Field(description="number of hops of the question")
    sub_question: str = Field(description="sub-question with the answers of earlier hops filled in")
    template: str = Field(description="sub-question with `#k` in place of the answer of hop k")
    relation_form: str = Field(
        description="the official `subject >> relation` form, unresolved; empty where there is none"
    )
    sub_answer: str = Field(description="gold answer of the hop")
    depends_on: list[int] = Field(description="earlier hops whose answers the sub-question uses")
    gold_passage_ids: list[str] = Field(
        description="passages that answer the sub-question; empty where an unanswerable twin lacks them"
    )
    method: str = Field(description="how the hop was made: official, evidences, queries (the source's own), or rules")


class Query(Row):
    """A search query written for a sub-question."""

    query_id: str = Field(description="`question_id/hop/n`")
    question_id: str = Field(description="question that the query serves")
    hop: int = Field(description="hop that the query serves, from 1")
    n: int = Field(description="position among the queries of its sub-question, from 1")
    query: str = Field(description="query text as sent to the search engines")
    method: str = Field(description="how it was written: the rule, the model, or given by the source")


class Hit(Row):
    """A document that an engine returned for a query; one row without document where it found none, or failed."""

    query_id: str = Field(description="query that was sent")
    question_id: str = Field(description="question that the query serves")
    hop: int = Field(description="hop that the query serves, from 1")
    engine: str = Field(description="engine that was asked")
    rank: int | None = Field(description="rank of the document, from 1; null when there is none")
    score: float | None = Field(
        description="the engine's own score, higher is better; above 0 for engines of this process"
    )
    passage_id: str | None = Field(description="passage of the corpus; null for a document from elsewhere")
    title: str | None = Field(description="title of a document from elsewhere")
    text: str | None = Field(description="text, or snippet, of a document from elsewhere")
    url: str | None = Field(description="address of a document from elsewhere, where it has one")
    is_gold: bool = Field(
        description="whether it is a gold passage of the query's hop, or holds so much of one (retrieve.containment)"
    )
    latency: float | None = Field(
        description="seconds of the request; null for engines of this process, which answer in batches (search_calls)"
    )
    error: str | None = Field(description="why the engine did not answer; null when it did")


class EngineVote(Row):
    """What one engine says about a query."""

    query_id: str = Field(description="query that was sent")
    question_id: str = Field(description="question that the query serves")
    hop: int = Field(description="hop that the query serves, from 1")
    engine: str = Field(description="engine that was asked")
    answered: bool = Field(description="whether it answered; an engine that failed has no vote")
    documents: int = Field(description="documents that it returned")
    valid: bool = Field(description="whether one of its first k documents makes the query valid")
    gold_rank: int | None = Field(description="best rank of a gold passage; null when none was returned")


class Vote(Row):
    """The verdict on a query: kept when valid on at least ⌈M/2⌉ of the M engines that answered (paper §2.1)."""

    query_id: str = Field(description="query that was judged")
    question_id: str = Field(description="question that the query serves")
    hop: int = Field(description="hop that the query serves, from 1")
    asked: int = Field(description="engines that were asked")
    engines: int = Field(description="M: engines that answered")
    valid_engines: int = Field(description="engines on which the query is valid")
    needed: int = Field(description="valid engines needed to be kept")
    kept: bool = Field(description="whether the query passes the vote")
    waiting: bool = Field(
        description="whether too few engines answered: neither kept nor dropped until `retry-failed` asks again"
    )
    gold_rank: int | None = Field(description="best rank of a gold passage on any engine; null when none was returned")

    @property
    def dropped(self) -> bool:
        """Tell whether enough engines answered, and too few of them found it valid."""
        return not self.kept and not self.waiting


class RetrievedDocument(Row):
    """A retrieved document of a round."""

    rank: int = Field(description="rank in the engine's answer, from 1")
    passage_id: str | None = Field(description="passage of the corpus; null for a document from elsewhere")
    title: str = Field(description="title of the document")
    text: str | None = Field(description="text of a document from elsewhere; null for a passage of the corpus")
    score: float = Field(description="the engine's score")
    engine: str = Field(description="engine that returned it")
    is_gold: bool = Field(description="whether it is a gold passage of the round's hop")


class Round(Row):
    """One search round of a gold trajectory."""

    question_id: str = Field(description="question that is being answered")
    round: int = Field(description="position of the round, from 1")
    hop: int = Field(description="hop that the round works on, from 1; a hop with a distractor has two rounds")
    role: str = Field(
        description="gold; distractor: a search that found nothing, before the gold round of its hop; "
        "or abstain: the last search of an unanswerable twin"
    )
    sub_question: str = Field(description="sub-question of the round, earlier answers filled in")
    sub_answer: str = Field(description="what the round finds out; empty where its role is not gold")
    query: str = Field(
        description="query that was chosen: the best ranked of the kept ones; a distractor's was dropped"
    )
    query_id: str = Field(description="id of the chosen query")
    kept: bool = Field(description="whether the chosen query passed the vote; false when none of the hop's did")
    gold_rank: int | None = Field(
        description="rank of the first gold passage among `documents`; null when none is there"
    )
    alternatives: list[str] = Field(description="the hop's other kept queries: with `query`, its reference search keys")
    documents: list[RetrievedDocument] = Field(description="documents shown in this round, best first")
    information_gain: float = Field(
        default=0.0,
        description="G^t of the paper: what its documents add to what is known of the gold paragraphs, 0 to 1",
    )
    redundancy_penalty: float = Field(
        default=0.0, description="P^t of the paper: share of its documents that an earlier round has shown"
    )
    step_reward: float = Field(default=0.0, description="G^t - P^t, the paper's reward of the round")


class Trajectory(Row):
    """A gold search trajectory: the whole rollout of one question."""

    question_id: str = Field(description="question that is answered")
    source: str = Field(description="format that the question came from")
    question_type: str = Field(description="graph shape or reasoning type of the question")
    question: str = Field(description="question text")
    answer: str = Field(description="gold answer; a sentence that abstains where the question is not answerable")
    answer_aliases: list[str] = Field(description="other accepted answers")
    hops: int = Field(description="hops of the question; an abstention counts those that were searched")
    complete: bool = Field(description="whether every gold round has a kept query and shows a gold passage")
    answerable: bool = Field(description="false for an abstention: the twin of a question, without its paragraphs")
    rollout: str = Field(
        description="the whole response in the released tags: think, search, information, observation, answer"
    )
    key_reward: float = Field(description="r_key of the paper: how well its queries match the reference search keys")
    answer_reward: float = Field(description="r_answer of the paper: word F1 of the answer, 0 in a wrong format")


class Quality(Row):
    """What the gates say about a trajectory, and the split that it belongs to."""

    question_id: str = Field(description="question of the trajectory")
    source: str = Field(description="format that the question came from")
    passed: bool = Field(description="whether no gate that rejects has flagged it")
    flags: list[str] = Field(description="gates that it fails, those that only flag too")
    reasons: list[str] = Field(description="why, in words: one for each of `flags`")
    split: str = Field(description="train or validation; empty where it has not passed")
    split_group: str = Field(
        description="smallest gold passage id of all questions that share gold paragraphs: a group is never split"
    )
    duplicate_of: str | None = Field(description="earlier question that it repeats; null where it repeats none")
    difficulty: str = Field(description="easy, medium or hard: bands of `difficulty_score`, at 0.25 and 0.5")
    difficulty_score: float = Field(description="0 (easy) to 1, from hops, ranks, dropped queries and pass rate")
    pass_rate: float | None = Field(description="mean score in quality.rollouts; null where it has none")


class Pair(Row):
    """A round that is better than another after the same rounds: what preference learning compares."""

    question_id: str = Field(description="question that is being answered")
    round: int = Field(description="round of the trajectory that the pair is about, from 1")
    kind: str = Field(
        description="what is wrong with `rejected`. redundant: the query of the round before, again; missed: it finds "
        "no gold passage; rejected-query: it shows one, but the vote dropped its query"
    )
    context: str = Field(description="the rollout before the round; empty for the first")
    chosen: str = Field(description="think, search and information of the trajectory's round")
    rejected: str = Field(description="the same thought, another query, and what that one returned")
    chosen_query: str = Field(description="query of `chosen`")
    rejected_query: str = Field(description="query of `rejected`")


class Rollout(Row):
    """What a policy did with a question: one row a sample."""

    question_id: str = Field(description="question that was asked")
    source: str = Field(description="format that the question came from")
    policy: str = Field(description="name of the policy, as rollouts.policies has it")
    sample: int = Field(description="position among the policy's rollouts of the question, from 1")
    answer: str | None = Field(description="its last closed answer; null where there is none")
    right: bool = Field(description="whether that is an exact match by the official script of the source")
    f1: float = Field(description="word F1 of the answer, by the same script")
    format_ok: bool = Field(description="whether it is in the paper's format")
    ended: str = Field(
        description="why it ended: answer, no answer, end of text or length; empty where its file does not say"
    )
    searches: int = Field(description="searches that the engine answered")
    gold: int = Field(description="gold passages of the question")
    gold_found: int = Field(description="gold passages that a search has shown")
    information_gain: float = Field(description="sum of G^t over its turns, 1 at most")
    redundancy_penalty: float = Field(description="sum of P^t over its turns")
    own_tokens: int | None = Field(description="tokens that the policy wrote; null where its file does not say")
    response: str = Field(description="the whole text, of policy and environment")
    observations: list[list[int]] | None = Field(
        description="parts of the text that the environment wrote, [start, end) in characters; null where its file "
        "does not say, and tags decide"
    )

    @property
    def places(self) -> list[tuple[int, int]] | None:
        """Return `observations` as `read` takes them."""
        return None if self.observations is None else [(start, end) for start, end in self.observations]


class RolloutTurn(Row):
    """A turn of a rollout that searches, and what it is worth."""

    question_id: str = Field(description="question that was asked")
    policy: str = Field(description="name of the policy")
    sample: int = Field(description="position of the rollout among the policy's of the question, from 1")
    turn: int = Field(description="position of the search in the rollout, from 1")
    query: str = Field(description="query of the search")
    titles: list[str] = Field(description="titles of the documents that it showed, best first")
    gold_passage_ids: list[str] = Field(description="gold passages among these documents, by their texts")
    new_gold: int = Field(description="how many of them no earlier turn has shown")
    repeated: bool = Field(description="whether an earlier turn asked the same query, after official normalisation")
    information_gain: float = Field(
        description="G^t of the paper: what its documents add to what is known of the gold paragraphs, 0 to 1"
    )
    redundancy_penalty: float = Field(
        description="P^t of the paper: share of its documents that an earlier turn has shown"
    )
    step_reward: float = Field(description="G^t - P^t, the paper's reward of the turn")


class Pick(Row):
    """Whether a rollout is taken as a trajectory of a teacher, and why not."""

    question_id: str = Field(description="question that was asked")
    source: str = Field(description="format that the question came from")
    policy: str = Field(description="policy that played it")
    sample: int = Field(description="position among the policy's rollouts of the question, from 1")
    taken: bool = Field(description="whether it is taken")
    failed: str = Field(
        description="first test that it fails: gates, teacher, answer, format, searched, leak or best; empty if taken"
    )
    reason: str = Field(description="why it is not taken, in words; empty where it is")


class Preference(Row):
    """A right rollout of a teacher against a wrong one of the same question, where the two part."""

    question_id: str = Field(description="question that was asked")
    source: str = Field(description="format that the question came from")
    policy: str = Field(description="policy that played both")
    chosen_sample: int = Field(description="position of the right rollout among the policy's of the question, from 1")
    rejected_sample: int = Field(description="position of the wrong one")
    turn: int = Field(description="turn from which on they differ, from 1")
    context: str = Field(description="the text that both begin with; empty where they part in the first turn")
    chosen: str = Field(description="what the policy wrote next in the right one: thought and search, or answer")
    rejected: str = Field(description="what it wrote next in the wrong one")


class LlmCall(Row):
    """A reply of a language model: what it took and what it cost."""

    stage: str = Field(description="stage that asked")
    model: str = Field(description="model that answered")
    prompt_tokens: int = Field(description="tokens of the request, as the server counted them")
    completion_tokens: int = Field(description="tokens of the reply, as the server counted them")
    latency: float = Field(description="seconds of the call that was answered; 0 for a replayed one")
    cost: float = Field(description="US dollars; 0 for a replayed reply and for a model without a price")
    attempts: int = Field(description="how often the request was sent; 0 for a replayed reply")
    cached: bool = Field(description="whether the reply was replayed instead of paid for")
    batch: bool = Field(description="whether it came with a batch, at half the price")
    finish_reason: str = Field(description="why the model stopped: stop, length, content_filter, refusal")
    answered_at: str = Field(description="time of the reply, UTC, ISO 8601")


class SearchCall(Row):
    """A request to a search engine; one of this process answers a batch of queries at a time."""

    engine: str = Field(description="engine that was asked")
    queries: int = Field(description="queries of the request")
    failed: int = Field(description="queries that it left unanswered")
    cached: bool = Field(description="whether the answers were replayed instead of asked for")
    attempts: int = Field(
        description="1 for a request that was sent, 0 for a replayed one; every repetition has a row of its own"
    )
    latency: float = Field(description="seconds of the request that was answered")
    error: str = Field(description="why it failed; empty when it did not")
    answered_at: str = Field(description="time of the answer, UTC, ISO 8601")


class Mark(Row):
    """What a reader says of a trajectory: the last word on each question, also on one that the store no longer has."""

    question_id: str = Field(description="question of the trajectory")
    mark: str = Field(pattern="^(good|bad|)$", description="good or bad; empty where there is only a note")
    note: str = Field(max_length=10_000, description="the reader's own words; empty where there are none")
    marked_at: str = Field(description="time of the last change, UTC, ISO 8601")


class Reject(Row):
    """A row that could not be used, and why. Nothing is dropped without one."""

    stage: str = Field(description="stage that rejected the row")
    source: str = Field(description="source that the row came from: its kind, and `#n` where a run has several of it")
    position: int | None = Field(description="position in the source, from 1; null where it has none")
    question_id: str | None = Field(description="question id, where it could be read")
    reason: str = Field(description="what is wrong, in words")
    raw: str = Field(description="the start of the row as it was read")
