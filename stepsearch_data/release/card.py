"""The dataset card: README.md, which the Hub shows and `datasets` reads, and the numbers in it."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stepsearch_data.audit import Numbers, audit
from stepsearch_data.core.markdown import Markup, code, example, fence, plain, table
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.release.dataset import TRACES, TRAJECTORIES, Config, configs_of
from stepsearch_data.release.documents import documents
from stepsearch_data.release.lineage import OTHER, Origin, attribution, citation
from stepsearch_data.release.record import DATA, PICTURE, REPORT, Record
from stepsearch_data.schemas.tables import REJECTS
from stepsearch_data.sql import connect
from stepsearch_data.stages import STAGES
from stepsearch_data.trajectory import read_trajectory

_RULES = {"majority": "at least half of", "any": "at least one of", "all": "all of"}
_VALID = {
    "gold": "a gold passage of its hop is among",
    "answer": "the answer of its hop occurs in",
    "gold-or-answer": "a gold passage of its hop is among, or the answer occurs in,",
}
_SEEN = "Released trajectories by source, hops and difficulty; the numbers are in the tables under Statistics"
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
_TAGS = ("multi-hop", "search-agents", "retrieval", "trajectories", "stepsearch")
_MEASURES = {
    "queries": "queries",
    "hop_hit_at_3": "hop hit@3",
    "pass_at_1": "pass@1",
    "pass_at_3": "pass@3",
    "pass_at_5": "pass@5",
    "kept_share": "kept",
    "leaks": "leaks",
}
_VOTED = {"queries": "queries", "answered": "answered", "valid": "valid", "gold_at_1": "gold@1", "gold_at_3": "gold@3"}
_WRITERS = {"compose", "decompose", "queries"}
"""Stages whose model writes texts; that of `verify` only judges."""
_TRACES = """

`traces` are the rollouts once more, each as a session with its searches as calls of a tool, in the columns in which the
Hub has sessions of agents. Calls of other tools are text. `metadata` has the rewards of every turn."""
_LICENCE_OF_TRACES = " Of `traces`, it is in `metadata`."
_FUNNEL = """
SELECT q.source, count(*), count(t.question_id), {splits}
FROM questions q LEFT JOIN trajectories t USING (question_id) LEFT JOIN quality USING (question_id)
GROUP BY q.source ORDER BY q.source
"""
_HOPS = """
SELECT t.source, hops, count(*) FROM trajectories t JOIN quality USING (question_id) WHERE complete AND passed
GROUP BY ALL ORDER BY ALL
"""
_DIFFICULTY = """
WITH steps AS (SELECT question_id, count(*) AS rounds, sum(step_reward) AS reward FROM rounds GROUP BY question_id)
SELECT t.source, count(*) FILTER (difficulty = 'easy'), count(*) FILTER (difficulty = 'medium'),
       count(*) FILTER (difficulty = 'hard'), printf('%.2f', avg(key_reward)),
       printf('%.2f', sum(reward) / sum(rounds)), printf('%.2f', avg(answer_reward))
FROM trajectories t JOIN quality USING (question_id) JOIN steps USING (question_id) WHERE complete AND passed
GROUP BY t.source ORDER BY t.source
"""


def card(numbers: Statistics, found: Sequence[Origin]) -> str:
    """Write the text of README.md."""
    record, licences = numbers.record, numbers.licences()
    splits = record.configs[TRAJECTORIES.name]
    text = (resources.files("stepsearch_data") / "release" / "card.md").read_text(encoding="utf-8")
    vote = numbers.manifest.stages["filter"].fingerprint["config"]
    return Template(text).substitute(
        front_matter=front_matter(record, found, licences),
        title=plain(record.name),
        name=record.name,
        revision=f", revision={record.version!r}" if record.version else "",
        at=f"@{record.version}" if record.version else "",
        first_split=next(iter(splits)),
        sizes=", ".join(f"{split.rows:,} in `{name}`" for name, split in splits.items()),
        configs=_configs(record),
        traces=_TRACES if TRACES.name in record.configs else "",
        licence_of_traces=_LICENCE_OF_TRACES if TRACES.name in record.configs else "",
        schemas="\n\n".join(
            f"### {config.name}\n\n{table(('column', 'type', 'meaning'), _columns(config.schema))}"
            for config in configs_of(record)
        ),
        picture=f"\n\n![{_SEEN}]({PICTURE})" if PICTURE in record.files else "",
        trajectory=numbers.trajectory(),
        report=_report(record),
        example=example(numbers.first),
        package=record.package,
        stages=table(("stage", "what it does", "fingerprint"), _stages(record)),
        documents=numbers.documents(),
        models="\n\n".join([_models(record), *_prompts(record)]),
        engines=f"{_engines(record)}\n\n{numbers.engines()}",
        gates=numbers.gates(),
        decontamination=_decontamination(record),
        rejects=numbers.rejects(),
        rule=_RULES.get(vote["rule"], f"{vote['rule']} of"),
        k=vote["k"],
        valid=_VALID[vote["valid"]],
        statistics=numbers.funnel(),
        hops=numbers.hops(),
        difficulty=numbers.difficulty(),
        audit=numbers.queries(),
        cost=_cost(record),
        limits=_limits(record, licences),
        licences=f"The release is under: {', '.join(licences)}.",
        attribution=attribution(found),
        version=f"Version {plain(record.version)}" if record.version else "No version",
        format=record.format,
        command=record.command,
        store=record.store,
        sources=table(("source", "SHA-256, or commit"), ((origin.label, origin.digest) for origin in found)),
        citation=citation(found),
    )


def _report(record: Record) -> str:
    """Say where all trajectories can be looked at."""
    if REPORT in record.files:
        return (
            f"[`{REPORT}`]({REPORT}) shows all, with charts and filters: download it and open it, it needs no network."
        )
    return (
        "All of them, with charts and filters: `stepsearch-data view --store store`, over the store that `pull` gets."
    )


def _configs(record: Record) -> str:
    names = list(record.configs[TRAJECTORIES.name])
    parts = {config: record.configs[config.name] for config in configs_of(record)}
    rows = (
        (code(config.name), config.doc, *(splits[name].rows if name in splits else None for name in names))
        for config, splits in parts.items()
    )
    return table(("config", "a row is", *(f"rows in {name}" for name in names)), rows)


def _columns(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[tuple[Markup, str, Markup]]:
    """Yield all columns, those inside of lists too: `rounds[].query`."""
    for field in fields:
        kind, name = field.type, f"{prefix}{field.name}"
        meaning = (field.metadata or {}).get(b"description", b"").decode()
        while pa.types.is_list(kind):
            kind, name = kind.value_type, f"{name}[]"
        nested = pa.types.is_struct(kind)
        of = "struct" if nested else _dtype(kind)
        yield code(name), f"{of} or null" if field.nullable else of, Markup(meaning)
        if nested:
            yield from _columns(kind, f"{name}.")


def _stages(record: Record) -> Iterator[tuple[Markup, str, str]]:
    built = record.lineage["stages"]
    return ((code(stage.name), stage.doc, built[stage.name]["fingerprint"]) for stage in STAGES if stage.name in built)


def _models(record: Record) -> str:
    models = record.lineage["models"]
    if not models:
        return "No language model: hops and queries are written by deterministic rules."
    return "\n".join(f"- {name}: {plain(model)}" for name, model in sorted(models.items()))


def _prompts(record: Record) -> list[str]:
    """Return prompts by digest, and the text of those that the package ships."""
    used = {key: sha for prompts in record.lineage["prompts"].values() for key, sha in prompts.items()}
    return [f"Prompt {plain(name)}, SHA-256 {sha}:{_text(name, sha)}" for name, sha in sorted(used.items())]


def _text(name: str, sha: str) -> str:
    file = resources.files("stepsearch_data") / "stages" / "prompts" / f"{name}.txt"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    known = hashlib.sha256(text.encode()).hexdigest() == sha
    return f"\n\n{fence(text, 'text')}" if known else " the publisher's own."


def _engines(record: Record) -> str:
    decides = {
        name: ", ".join(f"{key} = {value}" for key, value in made.items() if key != "kind" and value not in (None, ""))
        for name, made in record.lineage["engines"].items()
    }
    rows = ((name, record.lineage["engines"][name]["kind"], settings) for name, settings in decides.items())
    return table(("engine", "kind", "settings"), rows)


def _decontamination(record: Record) -> str:
    files = record.lineage["files"].get("quality", {})
    if not any(name.startswith("eval_") for name in files):
        return "No evaluation data was given to hold it against: compare it with yours before you train."
    listed = "\n".join(f"- {plain(name)}: {plain(content)}" for name, content in files.items())
    return f"Questions and gold paragraphs of this evaluation data were kept out:\n\n{listed}"


def _cost(record: Record) -> str:
    rows = [(*call.values(),) for call in record.lineage["cost"]]
    columns = ("stage", "model", "calls", "prompt tokens", "completion tokens", "US dollars")
    priced = [(*row[:-1], f"{row[-1]:.2f}") for row in rows]
    if rows:
        return table(columns, priced)
    if record.lineage["models"]:  # a store that was pulled comes without its logs
        return "Not on record here: the model's replies are from earlier builds, or the store came without its logs."
    return "No language model was asked."


def _limits(record: Record, licences: Sequence[str]) -> str:
    lines: list[str] = []
    if wrote := _WRITERS & record.lineage["models"].keys():
        written = "Questions, hops" if "compose" in wrote else "Hops"
        lines.append(
            f"- {written} or queries were written by a language model, whose provider's terms hold for them too. Asked "
            "again it may write others: `stepsearch-data pull` gets these."
        )
    if OTHER in licences:
        lines.append(
            "- Rows under `other` hold texts from elsewhere, such as snippets of web search, which stay their owners', "
            "or texts of licences that none covers together."
        )
    return "".join(f"\n{line}" for line in lines)


def front_matter(record: Record, found: Sequence[Origin], licences: Sequence[str]) -> str:
    """Write the YAML block with its rules."""
    import yaml  # comes with huggingface_hub

    rows = sum(split.rows for split in record.configs[TRAJECTORIES.name].values())
    fields = {
        "pretty_name": record.name.rpartition("/")[2],
        "license": licences[0] if len(licences) == 1 else list(licences),
        "language": ["en"],
        "annotations_creators": ["machine-generated"],
        "language_creators": _writers(record, found),
        "source_datasets": sorted({o.publication.tag if o.publication else "original" for o in found}),
        "size_categories": [_SIZES[bisect((1_000, 10_000, 100_000, 1_000_000), rows)]],
        "task_categories": ["question-answering", "text-generation", "reinforcement-learning"],
        "tags": [*_TAGS, *(["agent-traces"] if TRACES.name in record.configs else [])],
        "configs": [_config(record, config.name, default=config is TRAJECTORIES) for config in configs_of(record)],
        "dataset_info": [_info(record, config) for config in configs_of(record)],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1_000_000)}---"


def _writers(record: Record, found: Sequence[Origin]) -> list[str]:
    """Say who wrote the texts, in the Hub's words."""
    written = {"expert-generated" if origin.of == "sample" else "found" for origin in found}
    return sorted(written | ({"machine-generated"} if _WRITERS & record.lineage["models"].keys() else set()))


def _config(record: Record, name: str, *, default: bool) -> dict[str, Any]:
    files = [{"split": split, "path": f"{DATA}/{name}/{split}-*.parquet"} for split in record.configs[name]]
    return {"config_name": name, **({"default": True} if default else {}), "data_files": files}


def _info(record: Record, config: Config) -> dict[str, Any]:
    splits = record.configs[config.name]
    return {
        "config_name": config.name,
        "features": [_feature(field) for field in config.schema],
        "splits": [{"name": s, "num_bytes": part.bytes, "num_examples": part.rows} for s, part in splits.items()],
        "download_size": sum(record.files[path].bytes for part in splits.values() for path in part.files),
        "dataset_size": sum(part.bytes for part in splits.values()),
    }


def _feature(field: pa.Field) -> dict[str, Any]:
    if not pa.types.is_list(field.type):
        return {"name": field.name, "dtype": _dtype(field.type)}
    inner = field.type.value_type
    of = [_feature(part) for part in inner] if pa.types.is_struct(inner) else _dtype(inner)
    return {"name": field.name, "list": of}


def _dtype(kind: pa.DataType) -> str:
    """Name a type as `datasets` does."""
    return {pa.float64(): "float64", pa.json_(): "json"}.get(kind, str(kind))


@dataclass(frozen=True)
class Statistics:
    """What a card counts. `folder` is the release's."""

    folder: Path
    record: Record
    store: Store
    manifest: Manifest

    def licences(self) -> list[str]:
        """Return all licences that rows are under; those of traces are those of rollouts."""
        configs = [self.record.configs[c.name] for c in configs_of(self.record) if "licence" in c.schema.names]
        files = [self.folder / path for splits in configs for part in splits.values() for path in part.files]
        return sorted(
            {name for file in files for name in pq.read_table(file, columns=["licence"])[0].unique().to_pylist()}
        )

    @cached_property
    def first(self) -> dict[str, Any]:
        """Return the first row of the default config."""
        path = next(iter(self.record.configs[TRAJECTORIES.name].values())).files[0]
        with pq.ParquetFile(self.folder / path) as file:
            row: dict[str, Any] = next(file.iter_batches(batch_size=1)).to_pylist()[0]
        return row

    def trajectory(self) -> str:
        """Show that row as `stepsearch-data show` does."""
        return fence(str(read_trajectory(self.store, self.first["question_id"])), "text")

    def funnel(self) -> str:
        """Tabulate, by source, questions loaded, trajectories built, and those released, by split."""
        splits = self.record.configs[TRAJECTORIES.name]
        released = (f"count(*) FILTER (complete AND passed AND split = '{name}')" for name in splits)
        columns = ("source", "questions", "trajectories built", *(f"released: {name}" for name in splits))
        return table(columns, self._sql(_FUNNEL.format(splits=", ".join(released))))

    def hops(self) -> str:
        """Tabulate released trajectories by source and number of hops."""
        counts: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for source, hops, rows in self._sql(_HOPS):
            counts[source][hops] = rows
        columns = sorted({hops for of in counts.values() for hops in of})
        rows = ((source, *(of.get(hops, 0) for hops in columns)) for source, of in counts.items())
        return table(("source", *(f"{hops} {'hop' if hops == 1 else 'hops'}" for hops in columns)), rows)

    def difficulty(self) -> str:
        """Tabulate released trajectories by source and difficulty, and their mean rewards."""
        columns = ("source", "easy", "medium", "hard", "r_key", "r_step per round", "r_answer")
        return table(columns, self._sql(_DIFFICULTY))

    def documents(self) -> str:
        """Write what became of documents, where questions were composed of some."""
        with connect(self.store, self.manifest) as connection:
            return documents(connection, self.manifest, self._audited)

    def queries(self) -> str:
        """Tabulate what queries find, by source."""
        return _measured("source", self._audited["by_source"], _MEASURES)

    def engines(self) -> str:
        """Tabulate how each engine voted."""
        return _measured("engine", self._audited["by_engine"], _VOTED)

    def gates(self) -> str:
        """Tabulate trajectories that a gate has flagged, by source; name the gates that looked at nothing."""
        idle = self._audited["unchecked"]
        gates = {gate: counts for gate, counts in self._audited["by_gate"].items() if any(counts.values())}
        sources = sorted(self._audited["by_source"])
        rows = ((gate, *(counts.get(source, 0) for source in sources)) for gate, counts in gates.items())
        flagged = table(("gate", *sources), rows) if gates else "None."
        looked = "\n".join(f"- {code(gate)}: {why}" for gate, why in idle.items())
        return f"{flagged}\n\nGates that looked at nothing:\n\n{looked}" if idle else flagged

    def rejects(self) -> str:
        """Tabulate the rejected rows by stage."""
        counts = {name: entry.outputs[REJECTS.name].rows or 0 for name, entry in self.manifest.stages.items()}
        rows = [(name, count) for name, count in counts.items() if count]
        return f"Rows that a stage rejected:\n\n{table(('stage', 'rows'), rows)}" if rows else "No row was rejected."

    @cached_property
    def _audited(self) -> dict[str, dict[str, Any]]:
        return audit(self.store)

    def _sql(self, query: str) -> list[tuple[Any, ...]]:
        with connect(self.store, self.manifest) as connection:
            return connection.execute(query).fetchall()


def _measured(what: str, parts: dict[str, Numbers], measures: dict[str, str]) -> str:
    rows = ((name, *(numbers[measure] for measure in measures)) for name, numbers in parts.items())
    return table((what, *measures.values()), rows)
