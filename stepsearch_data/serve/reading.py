r"""`/open` and `/find`: a document of the index, by the id that `/retrieve` gives it, in pages; and words in it.

    {"id": "7", "page": 2}
    {"result": [{"id": "7", "title": "Title", "page": 2, "pages": 3, "text": "…"}]}
    {"id": "7", "words": "born Pesaro"}
    {"result": [{"id": "7", "title": "Title", "pages": 3, "count": 12, "places": [{"page": 1, "text": "…"}]}]}

Several at once are `{"documents": [{"id": "7", "page": 2}, …]}`. A page has at most `page_length` characters, 4,000 by
default. Where there is no such document or page, the result is `{"id": "9", "error": "…"}`.
"""

from __future__ import annotations

from functools import cached_property
from threading import Lock
from typing import Annotated, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from stepsearch_data.search.documents import Document, Documents
from stepsearch_data.search.reading import PAGE_LENGTH, PageLength, find_words, pages

_MOST = 1_000  # documents of a request
Text = Annotated[str, Field(max_length=10_000)]
Row = dict[str, Any]


class Opened(BaseModel, strict=True):
    """A page of a document."""

    id: Text
    page: Annotated[int, Field(ge=1)] = 1

    def of(self, document: Document, length: int) -> Row:
        """Return what is shown."""
        cut = pages(document.text, length)
        if self.page > len(cut):
            return {"error": f"document {self.id} has no page {self.page}, but {len(cut)}"}
        return {"title": document.title, "page": self.page, "pages": len(cut), "text": cut[self.page - 1]}


class Looked(BaseModel, strict=True):
    """Words that are looked for in a document."""

    id: Text
    words: Annotated[Text, Field(pattern=r"\w")]

    def of(self, document: Document, length: int) -> Row:
        """Return what is shown."""
        places, count = find_words(document.text, self.words, length)
        shown = [place._asdict() for place in places]
        return {"title": document.title, "pages": len(pages(document.text, length)), "count": count, "places": shown}


class _Request(BaseModel, strict=True):
    page_length: PageLength = PAGE_LENGTH

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, body: Any) -> Any:
        """Make a list of a request for one document."""
        if not isinstance(body, dict):
            return body
        if ("documents" in body) == ("id" in body):
            raise ValueError('either "documents" (a list) or "id" (of one document) is needed')
        return body if "documents" in body else {**body, "documents": [body]}


class OpenRequest(_Request):
    """The body of `/open`."""

    documents: Annotated[list[Opened], Field(max_length=_MOST)]


class FindRequest(_Request):
    """The body of `/find`."""

    documents: Annotated[list[Looked], Field(max_length=_MOST)]


class Library:
    """The documents of an index by their ids, which are sorted when the first one is asked for."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._sorting = Lock()

    @cached_property
    def _order(self) -> NDArray[np.uint64]:
        """Numbers of all documents, by their ids; 8 bytes each."""
        return pc.sort_indices(self._documents.ids()).to_numpy()  # type: ignore[no-any-return]  # pyarrow ships no types

    def read(self, request: OpenRequest | FindRequest) -> list[Row]:
        """Return what is shown of each document, from any thread. Raises SearchError where the index is damaged."""
        with self._sorting:  # once, also for many first requests
            _ = self._order
        return [{"id": asked.id, **self._shown(asked, request.page_length)} for asked in request.documents]

    def _shown(self, asked: Opened | Looked, length: int) -> Row:
        document = self._find(asked.id)
        return {"error": f"there is no document {asked.id}"} if document is None else asked.of(document, length)

    def _find(self, identity: str) -> Document | None:
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            document: Document = self._documents[int(self._order[middle])]
            if document.id == identity:
                return document
            low, high = (middle + 1, high) if document.id < identity else (low, middle)
        return None
