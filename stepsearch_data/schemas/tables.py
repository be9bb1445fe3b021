"""The tables of a store: name, row model, Arrow schema and size of a Parquet row group."""

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, overload

import pyarrow as pa
from pydantic import TypeAdapter

from stepsearch_data.schemas import rows

R = TypeVar("R", bound=rows.Row)

_SCALARS: dict[Any, pa.DataType] = {
    rows.Json: pa.json_(),
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}


@dataclass(frozen=True)
class Table(Generic[R]):
    """A table of the store: its rows are `row` models, written in the order of their questions.

    `rows_per_group` keeps row groups small enough for the Hub's viewer to show the first rows.
    """

    name: str
    row: type[R]
    rows_per_group: int

    @cached_property
    def schema(self) -> pa.Schema:
        """Return the Arrow schema, with each column's meaning as field metadata."""
        return pa.schema(_fields(self.row))

    @cached_property
    def adapter(self) -> TypeAdapter[list[R]]:
        """Return the adapter that validates many rows in one call."""
        return TypeAdapter(list[self.row])  # type: ignore[name-defined]  # a type made at run time

    @property
    def doc(self) -> str:
        """Return the first line of the row model's docstring."""
        return (self.row.__doc__ or "").strip().splitlines()[0]

    def fits(self, schema: pa.Schema) -> bool:
        """Tell whether a file of this schema holds the table: an earlier version's may lack what has a default."""
        return _fit(self.row, schema)

    def from_arrow(self, rows: pa.Table | pa.RecordBatch) -> list[R]:
        """Return rows as their models. Raises ArrowInvalid for other rows."""
        return list(self.rows(rows))

    def rows(self, rows: pa.Table | pa.RecordBatch) -> "Rows[R]":
        """Return rows that become their models when they are asked for. Raises ArrowInvalid for other rows."""
        if not self.fits(rows.schema) or any(map(_lacks_values, rows.schema, rows.columns)):
            raise pa.ArrowInvalid(f"{self.name} holds rows of another form")
        columns = {name: rows.column(name).to_pylist() for name in rows.schema.names}
        return Rows(self.row, columns, range(rows.num_rows))

    def to_arrow(self, items: Iterable[R]) -> pa.Table:
        """Return rows as an Arrow table of exactly this schema."""
        values = [_values(row) for row in items]
        columns = [_array([row[field.name] for row in values], field.type) for field in self.schema]
        return pa.Table.from_arrays(columns, schema=self.schema)


class Rows(Sequence[R]):
    """Rows that become models when they are asked for: some places of columns, whose types were checked before."""

    def __init__(self, row: type[R], columns: Mapping[str, list[Any]], places: range) -> None:
        self._row, self._columns, self._places = row, columns, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> R: ...
    @overload
    def __getitem__(self, at: slice) -> "Rows[R]": ...
    def __getitem__(self, at: int | slice) -> "R | Rows[R]":
        if isinstance(at, slice):
            return Rows(self._row, self._columns, self._places[at])
        return self._at(self._places[at])

    def __iter__(self) -> Iterator[R]:
        return map(self._at, self._places)

    def _at(self, place: int) -> R:
        return _model(self._row, {name: values[place] for name, values in self._columns.items()})

    def column(self, name: str) -> list[Any]:
        """Return the values of a column."""
        return self._columns[name][self._places.start : self._places.stop]

    def where(self, name: str, value: object) -> list[R]:
        """Return the rows with this value in a column; no others become models."""
        values = self._columns[name]
        return [self._at(place) for place in self._places if values[place] == value]


@dataclass(frozen=True)
class Folder:
    """An output of a stage that is not a table, such as a search index."""

    name: str
    doc: str


Inputs = Mapping[Any, Path]
"""The files of tables, each by its `Table`, and folders, each by its `Folder`."""


@cache
def _nested(row: type[rows.Row]) -> dict[str, type[rows.Row]]:
    """Return the fields that are lists of other rows."""
    inner = {name: (*get_args(info.annotation), None)[0] for name, info in row.model_fields.items()}
    return {name: kind for name, kind in inner.items() if isinstance(kind, type) and issubclass(kind, rows.Row)}


def _model(row: type[R], values: dict[str, Any]) -> R:
    """Return a row of values of the right types, which are not checked again."""
    for name, inner in _nested(row).items():
        values[name] = [_model(inner, dict(each)) for each in values.get(name, ())]
    names = _names(row)
    if len(values) < len(names):  # of an earlier version
        return row(**values)
    made = row.__new__(row)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", names)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


_set = object.__setattr__  # a row's own refuses


@cache
def _names(row: type[rows.Row]) -> set[str]:
    return set(row.model_fields)


def _values(row: rows.Row) -> dict[str, Any]:
    """Return a row's values by name, nested rows too."""
    nested = _nested(type(row))
    return (
        {**row.__dict__, **{name: list(map(_values, row.__dict__[name])) for name in nested}}
        if nested
        else row.__dict__
    )


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    stored = _stored(kind)
    array = pa.array(values, stored)
    return array if stored is kind else array.cast(kind)


def _stored(kind: pa.DataType) -> pa.DataType:
    """Return the type that Arrow makes of Python's values, which is no type of JSON."""
    if pa.types.is_list(kind) and (inner := _stored(kind.value_type)) is not kind.value_type:
        return pa.list_(kind.value_field.with_type(inner))
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _lacks_values(field: pa.Field, column: pa.Array | pa.ChunkedArray) -> bool:
    """Tell whether there are nulls where there may be none."""
    if isinstance(column, pa.ChunkedArray):
        return any(_lacks_values(field, chunk) for chunk in column.chunks)
    if not field.nullable and column.null_count:
        return True
    if pa.types.is_list(field.type):
        return _lacks_values(field.type.value_field, column.flatten())
    return pa.types.is_struct(field.type) and any(map(_lacks_values, field.type, column.flatten()))


@cache
def _fields(row: type[rows.Row]) -> list[pa.Field]:
    fields = []
    for name, info in row.model_fields.items():
        data_type, nullable = _arrow_type(info.annotation)
        meaning = {"description": info.description or ""}
        fields.append(pa.field(name, data_type, nullable=nullable, metadata=meaning))
    return fields


def _fit(row: type[rows.Row], found: Iterable[pa.Field]) -> bool:
    """Tell whether rows of these fields are rows of the model."""
    wanted, given = {field.name: field for field in _fields(row)}, {field.name: field for field in found}
    return [name for name in wanted if name in given] == [*given] and all(
        _alike(row.model_fields[name].annotation, given[name], field)
        if name in given
        else not row.model_fields[name].is_required()
        for name, field in wanted.items()
    )


def _alike(annotation: Any, found: pa.Field, wanted: pa.Field) -> bool:
    """Tell whether a field is as wanted, except for what rows in it may lack."""
    inner = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    if not (isinstance(inner, type) and issubclass(inner, rows.Row)):
        return bool(found.type == wanted.type and found.nullable == wanted.nullable)
    of_list = pa.types.is_list(wanted.type) and pa.types.is_list(found.type)
    struct = found.type.value_type if of_list else found.type
    return pa.types.is_struct(struct) and found.nullable == wanted.nullable and _fit(inner, struct)


def _arrow_type(annotation: Any) -> tuple[pa.DataType, bool]:
    """Return the Arrow type of a Python annotation, and whether it admits null."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))
        return _arrow_type(inner)[0], True
    if origin is list:
        inner_type, nullable = _arrow_type(args[0])
        return pa.list_(pa.field("element", inner_type, nullable=nullable)), False
    if annotation in _SCALARS:
        return _SCALARS[annotation], False
    return pa.struct(_fields(annotation)), False


LOADED = Table("loaded", rows.Question, rows_per_group=2_000)
PARAGRAPHS = Table("paragraphs", rows.Paragraph, rows_per_group=20_000)
ORIGINS = Table("origins", rows.Origin, rows_per_group=50_000)
LINKS = Table("links", rows.Link, rows_per_group=50_000)
CHAINS = Table("chains", rows.Chain, rows_per_group=20_000)
MINING = Table("mining", rows.MiningCount, rows_per_group=20_000)
COMPOSED = Table("composed", rows.Composed, rows_per_group=2_000)
CHECKS = Table("checks", rows.Check, rows_per_group=50_000)
VERDICTS = Table("verdicts", rows.Verdict, rows_per_group=20_000)
QUESTIONS = Table("questions", rows.Question, rows_per_group=2_000)
PASSAGES = Table("passages", rows.Passage, rows_per_group=20_000)
SUB_QUESTIONS = Table("sub_questions", rows.SubQuestion, rows_per_group=20_000)
QUERIES = Table("queries", rows.Query, rows_per_group=50_000)
HITS = Table("hits", rows.Hit, rows_per_group=200_000)
ENGINE_VOTES = Table("engine_votes", rows.EngineVote, rows_per_group=200_000)
VOTES = Table("votes", rows.Vote, rows_per_group=200_000)
TRAJECTORIES = Table("trajectories", rows.Trajectory, rows_per_group=2_000)
ROUNDS = Table("rounds", rows.Round, rows_per_group=10_000)
QUALITY = Table("quality", rows.Quality, rows_per_group=20_000)
PAIRS = Table("pairs", rows.Pair, rows_per_group=2_000)
ROLLOUTS = Table("rollouts", rows.Rollout, rows_per_group=500)
ROLLOUT_TURNS = Table("rollout_turns", rows.RolloutTurn, rows_per_group=20_000)
PICKS = Table("picks", rows.Pick, rows_per_group=50_000)
PREFERENCES = Table("preferences", rows.Preference, rows_per_group=2_000)
LLM_CALLS = Table("llm_calls", rows.LlmCall, rows_per_group=50_000)
SEARCH_CALLS = Table("search_calls", rows.SearchCall, rows_per_group=50_000)
MARKS = Table("marks", rows.Mark, rows_per_group=20_000)
REJECTS = Table("rejects", rows.Reject, rows_per_group=20_000)

CANDIDATES: tuple[Table[Any], ...] = (LOADED, COMPOSED)
"""The tables of questions that are checked, one after the other."""

OPTIONAL = (ROLLOUTS, ROLLOUT_TURNS, PICKS, PREFERENCES)
"""Tables that only some stores have."""

INDEX = Folder("index", "documents, and an index of them for each local engine")

TABLES: tuple[Table[Any], ...] = (
    LOADED,
    PARAGRAPHS,
    ORIGINS,
    LINKS,
    CHAINS,
    MINING,
    COMPOSED,
    CHECKS,
    VERDICTS,
    QUESTIONS,
    PASSAGES,
    SUB_QUESTIONS,
    QUERIES,
    HITS,
    ENGINE_VOTES,
    VOTES,
    TRAJECTORIES,
    ROUNDS,
    QUALITY,
    PAIRS,
    ROLLOUTS,
    ROLLOUT_TURNS,
    PICKS,
    PREFERENCES,
    LLM_CALLS,
    SEARCH_CALLS,
    MARKS,
    REJECTS,
)
