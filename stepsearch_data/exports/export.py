"""Writing an export: from a store's rows to a format's files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.core.errors import ConfigError, StoreError
from stepsearch_data.core.intervals import BANDS, Passes
from stepsearch_data.core.progress import Meter
from stepsearch_data.exports import FORMATS
from stepsearch_data.exports.files import Files
from stepsearch_data.exports.formats import Format
from stepsearch_data.exports.marks import marked
from stepsearch_data.exports.reading import Played, count_taken, examples, played, split_names, taken
from stepsearch_data.exports.schema import TEXT
from stepsearch_data.pipeline.catalog import check_current
from stepsearch_data.pipeline.context import read_rows
from stepsearch_data.pipeline.demonstrations import refuse_templates
from stepsearch_data.pipeline.passes import KEEP_SOME
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import PASSAGES, QUESTIONS, ROLLOUTS, TRAJECTORIES, Table
from stepsearch_data.templates.examples import Example
from stepsearch_data.templates.template import Template

_NO_TRAJECTORY = ("no trajectory is complete and passed the quality gates", "take the others too: --all")
_NOTHING = {
    "marks": ("no trajectory is marked", "mark some in `stepsearch-data view`, or take the others too: --all"),
    "rollouts": ("no rollout is of a question that passed the quality gates", "take the others too: --all"),
    "teacher": (
        "of no rollout of a teacher is there a row of this format",
        "see why: stepsearch-data sql 'SELECT failed, count(*) FROM picks GROUP BY failed'",
    ),
    "trl-dpo": (
        "no hop has both a good search and one that the vote rejected",
        "more queries: --set queries.per_sub_question=6",
    ),
    "wanted": ("no trajectory has rollouts with such a pass rate", "another range: --pass-rate 0-1"),
    "curriculum": ("no trajectory that passed the quality gates has rollouts", KEEP_SOME),
}


_ORIGIN = pa.field("origin", TEXT)  # of rows where both origins are in a file: gold or teacher
Wanted = Callable[[Passes], bool]
Origin = Literal["gold", "teacher", "all"]


@dataclass(frozen=True)
class Written:
    """The files of an export: rows by path, and how a trainer loads them."""

    rows: dict[Path, int]
    load: str


def find_format(name: str) -> Format:
    """Load the format of that name. Raises ConfigError."""
    return FORMATS.load(name, Format)


def export(
    store: Store,
    form: Format,
    template: Template,
    folder: Path,
    meter: Meter,
    *,
    split: str | None = None,
    everything: bool = False,
    allow_templates: bool = False,
    wanted: Wanted | None = None,
    origin: Origin = "gold",
) -> Written:
    """Write the format's files into a folder, and replace existing ones.

    `origin` says whose trajectories: the gold ones, those taken of a teacher's rollouts, or both: then rows say it.
    With `wanted`, only trajectories whose question a policy passes so often (`parse_rates`).
    Where all splits are written, other splits' files of earlier exports are removed from the folder.

    Raises StoreError for a store that is incomplete, has nothing to write, or has questions by templates (unless
    `allow_templates`), ConfigError for a split that it does not have, OSError.
    """
    _check(store, form, template, folder, origin, everything=everything)
    both = origin == "all"
    schema = form.schema(template)
    schema = schema.append(_ORIGIN) if both else schema
    with store.reading() as manifest, Files(folder, form.suffix, schema, apart=form.apart) as written:
        if not allow_templates and form.of != "passages":
            refuse_templates(store.tables(manifest, QUESTIONS)[QUESTIONS])
        known = [form.stem] if form.stem else split_names(store, manifest)
        if split not in (None, *known):
            raise ConfigError(f"there is no split {split!r}", f"this store has: {', '.join(known)}")
        found = _items(
            store, manifest, form, meter, everything=everything, origin=origin, with_passes=wanted is not None
        )
        for own_split, item in found:
            if split in (None, own_split) and (wanted is None or _is_wanted(item, wanted)):
                for row in form.rows(item, template):
                    written.append(own_split, {**row, _ORIGIN.name: item.origin} if both else row)
        if not written.rows:
            keys = ("wanted" if wanted else "", origin, form.of, form.name)
            raise StoreError(*next((_NOTHING[key] for key in keys if key in _NOTHING), _NO_TRAJECTORY))
        written.commit(alone=split is None and not form.stem)
        paths = {name: str(written.path(name)) for name in written.rows}
        if form.beside:
            written.write_beside(form.beside(paths, template))
    return Written({written.path(name): count for name, count in written.rows.items()}, form.load(paths))


def parse_rates(text: str) -> Wanted:
    """Return what tells whether a pass rate is in a band, or in a range LOW-HIGH. Raises ConfigError."""
    if text in BANDS:
        return lambda passes: passes.band == text
    try:
        low, high = map(float, text.split("-"))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise ConfigError(f"{text} is no range of pass rates", f"such as 0.2-0.8, or one of {', '.join(BANDS)}")
    return lambda passes: low <= passes.rate <= high


def _is_wanted(item: Any, wanted: Wanted) -> bool:
    """Tell whether this is of a question that a policy passes as often as wanted, a rollout's own policy."""
    return isinstance(item, Example | Played) and item.passes is not None and wanted(item.passes)


def _check(store: Store, form: Format, template: Template, folder: Path, origin: Origin, *, everything: bool) -> None:
    if everything and origin == "teacher":
        raise ConfigError("a teacher's trajectories are those that were taken", "leave out --all")
    if origin != "gold" and (form.asks or form.of != "trajectories"):
        holds = "every kept rollout, whoever played it" if form.of == "rollouts" else "no searches"
        raise ConfigError(f"{form.name} holds {holds}: it is the same of any origin", "leave out --origin")
    if form.tags_only and template.tool:
        raise ConfigError(
            f"the trainer of {form.name} reads tags, and template {template.name} calls a tool",
            "--template musique or paper",
        )
    check_current(store)
    store.keep_out(folder)


def _items(
    store: Store,
    manifest: Manifest,
    form: Format,
    meter: Meter,
    *,
    everything: bool,
    origin: Origin,
    with_passes: bool,
) -> Iterator[tuple[str, Any]]:
    """Return what the format makes rows of, each with its split."""
    if form.of == "marks":
        return ((form.stem, one) for one in marked(store, manifest, everything=everything))
    if form.of == "rollouts":
        kept = manifest.output(ROLLOUTS.name)
        total = kept.rows or 0 if kept else 0
        return ((one.split, one) for one in meter.track(played(store, manifest, everything=everything), total))
    table: Table[Any] = PASSAGES if form.of == "passages" else TRAJECTORIES
    path = store.tables(manifest, table)[table]
    total = pq.read_metadata(path).num_rows
    if form.of == "passages":
        return ((form.stem, passage) for passage in meter.track(read_rows(path, PASSAGES), total))
    counted = with_passes or form.with_passes
    found: list[Iterator[Example]] = []
    if origin != "teacher":
        found.append(
            examples(store, manifest, everything=everything, with_rejected=form.with_rejected, with_passes=counted)
        )
    if origin != "gold":
        found.append(taken(store, manifest, with_passes=counted))
    total = (total if origin != "teacher" else 0) + (count_taken(store, manifest) if origin != "gold" else 0)
    return ((example.split, example) for example in meter.track(chain(*found), total))
