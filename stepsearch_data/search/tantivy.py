"""BM25 by `tantivy`: an index on disk, for about a million passages and more, built and searched in little memory.

k1 is 1.2 and b 0.75, which tantivy does not let one change. A passage's length is kept in one byte, so scores are near
those of `bm25` times 2.2 (tantivy's formula keeps the factor k1 + 1) and not equal to them.

A build commits every 100,000 passages; an interrupted one continues from the last commit. How an index is cut into
segments is not deterministic: two builds give the same answers, but not the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from stepsearch_data.core.errors import SearchError
from stepsearch_data.core.progress import Meter
from stepsearch_data.core.text import tokens
from stepsearch_data.search.arrays import REBUILD, check_numbers, reading
from stepsearch_data.search.documents import Documents
from stepsearch_data.search.kinds import Engine, Kind, TextConfig, local_opener, need, no_words

_TEXT, _NUMBER = "text", "number"
_ANALYSER = "words"
_HEAP = 128_000_000  # bytes that postings may take before they go to disk
_COMMIT = 100_000  # passages; a killed build loses at most these
_SPARE = 16  # documents requested beyond k, to see whether more of them have the k-th score
_WIDER = 8  # times as many, when they do
_MOST = 20_000  # documents with the same score, among which the first of the corpus are found


class TantivyConfig(TextConfig):
    """BM25 with k1 = 1.2 and b = 0.75, which are tantivy's own."""


def build(engine: Engine, documents: Documents, folder: Path, meter: Meter) -> None:
    """Write an index, or what is missing of one, to a folder. Raises SearchError for a corpus without a single word."""
    tantivy = need("tantivy", "tantivy")
    index = _index(tantivy, folder, f"remove {folder}, then run the same command again")
    done: int = index.searcher().num_docs
    meter.advance(done)
    texts = documents.texts(engine.config.title_weight)
    deque(islice(texts, done), maxlen=0)  # what is committed
    if done < len(documents):
        _add(tantivy, index, enumerate(texts, done), meter)
    index.reload()
    if not index.searcher().terms_with_prefix(_TEXT, "", limit=1):
        raise no_words()


def _add(tantivy: Any, index: Any, texts: Any, meter: Meter) -> None:
    """Index numbered texts. One thread writes, so that what is committed is always the beginning of the corpus."""
    writer = index.writer(_HEAP, num_threads=1)
    try:
        for number, text in texts:
            document = tantivy.Document()
            document.add_text(_TEXT, " ".join(tokens(text)))
            document.add_unsigned(_NUMBER, number)
            writer.add_document(document)
            if (number + 1) % _COMMIT == 0:
                writer.commit()
            meter.advance()
        writer.commit()
    except ValueError as error:
        raise SearchError(
            f"cannot write the tantivy index: {error}", "correct this, then run the same command: it continues"
        ) from error
    finally:
        writer.wait_merging_threads()


def _schema(tantivy: Any) -> Any:
    """Return the fields: words without their places, and the document's number; nothing else is stored."""
    words = tantivy.SchemaBuilder().add_text_field(_TEXT, tokenizer_name=_ANALYSER, index_option="freq")
    return words.add_unsigned_field(_NUMBER, fast=True).build()


def _index(tantivy: Any, folder: Path, hint: str) -> Any:
    """Open the index in a folder, or a new one; `hint` says what to do with a broken one.

    Segments keep the order of the corpus when they are merged.
    """
    try:
        index = tantivy.Index(_schema(tantivy), path=str(folder), sort_by_field=_NUMBER)
    except (OSError, ValueError) as error:
        raise SearchError(f"{folder} holds no tantivy index: {error}", hint) from error
    words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()  # `tokens` has done the rest
    index.register_tokenizer(_ANALYSER, words)
    return index


class Tantivy:
    """A built index, searched by `workers` threads: tantivy releases Python's lock while it searches."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self._tantivy = need("tantivy", "tantivy")
        if not self._tantivy.Index.exists(str(folder)):  # else an empty one would be made
            raise SearchError(f"{folder} holds no tantivy index", REBUILD)
        self._folder = folder
        self._schema = _schema(self._tantivy)
        with reading(folder, "tantivy"):
            self._searcher = _index(self._tantivy, folder, REBUILD).searcher()
            self.size: int = self._searcher.num_docs
        self._threads = ThreadPoolExecutor(workers)

    def find(self, queries: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """See `Index.find`.

        Where more than 20,000 documents share the k-th score, which of them are returned is left to the index.
        """
        with reading(self._folder, "tantivy"):
            return list(self._threads.map(lambda query: self._best(tokens(query), k), queries))

    def _best(self, words: Sequence[str], k: int) -> list[tuple[int, float]]:
        if not words:
            return []
        query = self._query(words)
        asked = min(k + _SPARE, self.size)
        while True:
            hits = self._searcher.search(query, asked, count=False).hits
            scores = [_rounded(score) for score, _ in hits]
            if len(hits) < asked or asked == self.size or asked > _MOST or scores[-1] < scores[k - 1]:
                break
            asked = min(asked * _WIDER, self.size)
        numbers = self._searcher.fast_field_values(_NUMBER, [address for _, address in hits])
        check_numbers(numbers, self.size)
        return sorted(zip(numbers, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))[:k]

    def _query(self, words: Sequence[str]) -> Any:
        """Make a query for any of the words, as often as each occurs; tantivy's query language fails on `(` or `X:`."""
        should = self._tantivy.Occur.Should
        term = self._tantivy.Query.term_query
        return self._tantivy.Query.boolean_query(
            [(should, term(self._schema, _TEXT, word, index_option="freq")) for word in words]
        )


def _rounded(score: float) -> float:
    """Round to six digits: the order in which tantivy adds up the words decides the seventh."""
    return float(f"{score:.6g}")


TANTIVY = Kind(
    name="tantivy",
    doc="words, by tantivy: on disk, for a million passages and more",
    config=TantivyConfig,
    build=build,
    open=local_opener(lambda _engine, folder, _documents, service: Tantivy(folder, service.workers)),
    resumes=True,
)
