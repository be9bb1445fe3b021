"""The dataset card: README.md, which the Hub shows and `datasets` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from string import Template

import pyarrow as pa

from stepsearch_data.release.licences import OTHER, Origin
from stepsearch_data.release.markdown import Markup, code, example, fence, plain, table
from stepsearch_data.release.metadata import front_matter
from stepsearch_data.release.record import Record
from stepsearch_data.release.sources import attribution, citation
from stepsearch_data.release.statistics import Statistics
from stepsearch_data.release.tables import CONFIGS, TRAJECTORIES, Config, dtype

_STAGES = {
    "load": "reads the sources and checks every row",
    "corpus": "makes one corpus of all their paragraphs",
    "decompose": "splits each question into hops",
    "queries": "writes search queries for each hop",
    "index": "indexes the corpus for the local engines",
    "retrieve": "tries every query on every engine",
    "filter": "keeps the queries that pass the vote",
    "trajectories": "chooses a query for each hop and writes the rollout",
    "quality": "judges each trajectory and puts it into a split",
    "pairs": "compares good rounds with worse ones",
}
_RULES = {"majority": "at least half of", "any": "at least one of", "all": "all of"}
_VALID = {
    "gold": "a gold passage of its hop is among",
    "answer": "the answer of its hop occurs in",
    "gold-or-answer": "a gold passage of its hop is among, or the answer occurs in,",
}


def card(numbers: Statistics, found: Sequence[Origin]) -> str:
    """The text of README.md."""
    record, licences = numbers.record, numbers.licences()
    splits = record.configs[TRAJECTORIES.name]
    text = (resources.files("stepsearch_data") / "release" / "card.md").read_text(encoding="utf-8")
    vote = numbers.manifest.stages["filter"].recipe["config"]
    return Template(text).substitute(
        front_matter=front_matter(record, found, licences),
        title=plain(record.name),
        name=record.name,
        revision=f", revision={record.version!r}" if record.version else "",
        at=f"@{record.version}" if record.version else "",
        first_split=next(iter(splits)),
        sizes=", ".join(f"{split.rows:,} in `{name}`" for name, split in splits.items()),
        configs=_configs(record),
        schemas="\n\n".join(_schema(config) for config in CONFIGS),
        example=example(numbers.example()),
        package=record.package,
        stages=table(("stage", "what it does", "recipe"), _stages(record)),
        models="\n\n".join([_models(record), *_prompts(record)]),
        engines=f"{_engines(record)}\n\n{numbers.engines()}",
        gates=numbers.gates(),
        decontamination=_decontamination(record),
        rejects=_rejects(numbers),
        rule=_RULES.get(vote["rule"], f"{vote['rule']} of"),
        k=vote["k"],
        valid=_VALID[vote["valid"]],
        statistics=numbers.funnel(),
        hops=numbers.hops(),
        audit=numbers.queries(),
        cost=_cost(record),
        limits=_limits(record, licences),
        licences=f"The release is under: {', '.join(licences)}.",
        attribution=attribution(found),
        version=_version(record),
        command=record.command,
        store=record.store,
        sources=table(("source", "SHA-256, or commit"), ((origin.label, origin.digest) for origin in found)),
        citation=citation(found),
    )


def _configs(record: Record) -> str:
    names = list(record.configs[TRAJECTORIES.name])
    parts = {config: record.configs[config.name] for config in CONFIGS}
    rows = (
        (code(config.name), config.doc, *(splits[name].rows if name in splits else None for name in names))
        for config, splits in parts.items()
    )
    return table(("config", "a row is", *(f"rows in {name}" for name in names)), rows)


def _schema(config: Config) -> str:
    return f"### {config.name}\n\n{table(('column', 'type', 'meaning'), _columns(config.schema))}"


def _columns(fields: Iterable[pa.Field], prefix: str = "") -> Iterator[tuple[Markup, str, Markup]]:
    """All columns, those inside of lists too: `rounds[].query`."""
    for field in fields:
        kind, name = field.type, f"{prefix}{field.name}"
        meaning = (field.metadata or {}).get(b"description", b"").decode()
        while pa.types.is_list(kind):
            kind, name = kind.value_type, f"{name}[]"
        nested = pa.types.is_struct(kind)
        of = "struct" if nested else dtype(kind)
        yield code(name), f"{of} or null" if field.nullable else of, Markup(meaning)
        if nested:
            yield from _columns(kind, f"{name}.")


def _stages(record: Record) -> Iterator[tuple[Markup, str, str]]:
    built = record.lineage["stages"]
    return ((code(name), does, built[name]["recipe"]) for name, does in _STAGES.items() if name in built)


def _models(record: Record) -> str:
    models = record.lineage["models"]
    if not models:
        return "No language model: hops and queries are written by deterministic rules."
    return "\n".join(f"- {name}: {plain(model)}" for name, model in sorted(models.items()))


def _prompts(record: Record) -> list[str]:
    """Prompts by digest, and the text of those that the package ships."""
    used = {key: sha for prompts in record.lineage["prompts"].values() for key, sha in prompts.items()}
    return [f"Prompt {plain(name)}, SHA-256 {sha}:{_text(name, sha)}" for name, sha in sorted(used.items())]


def _text(name: str, sha: str) -> str:
    file = resources.files("stepsearch_data") / "stages" / "prompts" / f"{name}.txt"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    known = hashlib.sha256(text.encode()).hexdigest() == sha
    return f"\n\n{fence(text, 'text')}" if known else " the publisher's own."


def _engines(record: Record) -> str:
    return table(("engine", "kind", "settings"), (_engine(*item) for item in record.lineage["engines"].items()))


def _engine(name: str, recipe: dict[str, object]) -> tuple[str, object, str]:
    settings = (f"{key} = {value}" for key, value in recipe.items() if key != "kind" and value not in (None, ""))
    return name, recipe["kind"], ", ".join(settings)


def _decontamination(record: Record) -> str:
    files = record.lineage["files"].get("quality", {})
    if not any(name.startswith("eval_") for name in files):
        return "No evaluation data was given to hold it against: compare it with yours before you train."
    listed = "\n".join(f"- {plain(name)}: {plain(content)}" for name, content in files.items())
    return f"Questions and gold paragraphs of this evaluation data were kept out:\n\n{listed}"


def _rejects(numbers: Statistics) -> str:
    rows = numbers.rejects()
    return f"Rows that a stage set aside:\n\n{table(('stage', 'rows'), rows)}" if rows else "No row was set aside."


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
    if record.lineage["models"]:
        lines.append(
            "- Hops or queries were written by a language model, whose provider's terms hold for them too. Asked again "
            "it may write others: `stepsearch-data pull` gets these."
        )
    if OTHER in licences:
        lines.append(
            "- Rows under `other` hold texts from elsewhere, such as snippets of web search, which stay their owners', "
            "or texts of licences that none covers together."
        )
    return "".join(f"\n{line}" for line in lines)


def _version(record: Record) -> str:
    at = f"Version {plain(record.version)}." if record.version else "No version."
    return f"{at} `release.json` format {record.format}, store `{record.store}`."
