"""What a store was made from: its sources, their licences and authors, its fingerprints; and how to make it again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.markdown import fence, plain
from stepsearch_data.core.toml import write_value
from stepsearch_data.pipeline.catalog import frame
from stepsearch_data.pipeline.stage import Fingerprint, digest
from stepsearch_data.pipeline.store import Manifest, Store
from stepsearch_data.schemas.tables import LLM_CALLS, PASSAGES
from stepsearch_data.sources import DATASETS
from stepsearch_data.sources.dataset import Publication, dataset_of
from stepsearch_data.sources.source import parse_source

OTHER = "other"
"""The Hub's name for any licence that it does not know, and for a mix that no licence covers."""
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_SAMPLE = "apache-2.0"
_BY_STRICTNESS = ("cc0-1.0", "mit", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0")
"""Texts under one of these may be passed on together, under the last of those that occur."""

_CHANGES = "Changed: questions were selected, split into hops, and joined with queries, search results and rollouts."
_STEPSEARCH = """\
@inproceedings{stepsearch,
  title     = {StepSearch: Igniting LLMs Search Ability via Step-Wise Proximal Policy Optimization},
  author    = {Wang, Ziliang and Zheng, Xuhui and An, Kang and Ouyang, Cijun and Cai, Jialu and Wang, Yuhang and
               Wu, Yichao},
  booktitle = {EMNLP},
  year      = {2025},
  note      = {arXiv:2505.15107}
}"""
_HEAD = """\
# What made this release. Official files are not in it: put yours beside this file under the names below, which a
# build checks by nothing but its result: compare `stepsearch-data status --json` with `store` in release.json.
"""


@dataclass(frozen=True)
class Origin:
    """A source of a store: its kind, what identifies its content, its licence, and who says so.

    `of` is official (a public dataset), sample (our own text) or own (the publisher's).
    """

    label: str
    kind: str
    digest: str
    licence: str
    of: str

    @property
    def publication(self) -> Publication | None:
        """Return whose it is, where it is a public dataset."""
        return dataset_of(self.kind).publication if self.of == "official" else None


def origins(load: Fingerprint, given: Mapping[str, str]) -> list[Origin]:
    """Return the sources that a store was loaded from.

    `given` are the publisher's licences by kind. Raises ConfigError where a licence is not known, does not look like a
    name of the Hub's, or belongs to no source.
    """
    kinds = {label: label.partition("(")[2].removesuffix(")") for label in load["inputs"]}
    unknown = sorted(given.keys() - kinds.values())
    if unknown:
        named = ", ".join(sorted(set(kinds.values())))
        raise ConfigError(f"--license: the store has no source {unknown[0]}", f"it has: {named}; give KIND=LICENCE")
    return [_origin(label, kinds[label], digest, given) for label, digest in load["inputs"].items()]


def _origin(label: str, kind: str, digest: str, given: Mapping[str, str]) -> Origin:
    dataset = dataset_of(kind)
    if dataset.sample and digest == parse_source(f"{kind}=sample").digest():
        return Origin(label, kind, digest, _SAMPLE, "sample")
    if kind in given:
        if not _ID.fullmatch(given[kind]):
            hint = "use the Hub's, such as apache-2.0, cc-by-4.0 or other"
            raise ConfigError(f"{given[kind]!r} is not a licence identifier", hint)
        return Origin(label, kind, digest, given[kind], "own")
    if dataset.publication:
        return Origin(label, kind, digest, dataset.publication.licence, "official")
    raise ConfigError(f"{label} is your own data: its licence is not known", "name it: --license cc-by-4.0")


def by_kind(found: Iterable[Origin]) -> dict[str, str]:
    """Return the licence of each kind of source; a row only knows the kind that it came from."""
    listed = list(found)
    return {kind: combined(o.licence for o in listed if o.kind == kind) for kind in {o.kind for o in listed}}


def combined(licences: Iterable[str]) -> str:
    """Return the licence of texts that are passed on together.

    It is the strictest, or `other` where none covers all.
    """
    distinct = set(licences)
    if len(distinct) == 1:
        return distinct.pop()
    return max(distinct, key=_BY_STRICTNESS.index) if distinct and distinct <= set(_BY_STRICTNESS) else OTHER


def attribution(found: Iterable[Origin]) -> str:
    """Write a line per source, as its licence asks for."""
    return "\n".join(f"- {line}" for line in dict.fromkeys(_line(origin) for origin in found))


def _line(origin: Origin) -> str:
    if published := origin.publication:
        return f"{published.credit}. {_CHANGES}"
    if origin.of == "sample":
        return f"The sample in {origin.kind}'s format that stepsearch-data ships: its own sentences, Apache-2.0."
    return (
        f"The publisher's own data, given in the format {origin.kind}: {plain(origin.licence)}, as the publisher says."
    )


def citation(found: Sequence[Origin]) -> str:
    """Return BibTeX of StepSearch and of the public datasets that are in the release."""
    public = {origin.kind: origin.publication.bibtex for origin in found if origin.publication}
    return fence("\n\n".join([_STEPSEARCH, *(public[kind] for kind in DATASETS.names() if kind in public)]), "bibtex")


def lineage(store: Store, manifest: Manifest, found: Sequence[Origin]) -> dict[str, Any]:
    """Describe every input by what identifies it, and the fingerprint of every stage by its digest.

    `cost` sums the calls of language models that were paid for, as far as the store has its log of them.
    """
    passages = manifest.output(PASSAGES.name)
    assert passages
    fingerprints = {name: entry.fingerprint for name, entry in manifest.stages.items()}
    return {
        "sources": [asdict(origin) for origin in found],
        "files": {name: made["files"] for name, made in fingerprints.items() if made.get("files")},
        "corpus": {"sha256": passages.digest, "passages": passages.rows},
        "models": {name: model for name, made in fingerprints.items() if (model := model_of(made["config"]))},
        "prompts": {name: made["prompts"] for name, made in fingerprints.items() if made.get("prompts")},
        "engines": {name: r for name, r in fingerprints["retrieve"].get("engines", {}).items() if name != "use"},
        "stages": {
            name: {
                "fingerprint": digest(entry.fingerprint),
                "version": entry.fingerprint["version"],
                "outputs": {key: output.digest for key, output in entry.outputs.items()},
            }
            for name, entry in manifest.stages.items()
        },
        "cost": cost(store, manifest),
    }


def model_of(config: dict[str, Any]) -> str | None:
    """Return the language model that a stage asked; None for rules."""
    model = config.get("llm")
    return None if model in (None, "offline") else str(model)


def cost(store: Store, manifest: Manifest) -> list[dict[str, Any]]:
    """Sum by stage and model: calls that were paid, their tokens and US dollars."""
    calls = frame(store, manifest, LLM_CALLS.name).filter(~pl.col("cached")).group_by("stage", "model")
    tokens, dollars = pl.col("prompt_tokens", "completion_tokens").sum(), pl.col("cost").sum().round(6)
    return calls.agg(pl.len().alias("calls"), tokens, dollars).sort("stage", "model").collect().to_dicts()


def run_file(manifest: Manifest, found: Sequence[Origin]) -> str:
    """Write a run file that makes this store again, from files of the same content."""
    parts = [_HEAD, 'store = "store"', "sources = [", *_sources(found), "]"]
    for name, entry in manifest.stages.items():
        made = entry.fingerprint
        parts += ["", f"[{name}]", *_settings(made["config"])]
        parts += [f"# {file}: {content}" for file, content in made.get("files", {}).items()]
        parts += [f"# prompt {prompt}: sha256 {content}" for prompt, content in made.get("prompts", {}).items()]
    engines = manifest.stages["retrieve"].fingerprint.get("engines", {})
    parts += ["", "[engines]", f"use = {write_value(engines.get('use', []))}"]
    for name in engines.get("use", []):
        fingerprint = engines[name]
        decides = {key: value for key, value in fingerprint.items() if key not in ("version", "corpus")}
        parts += ["", f"[engines.{name}]", *_settings(decides)]
        if "corpus" in fingerprint:
            parts += [f'# index = ""  # of another corpus: {fingerprint["corpus"]}']
    return "\n".join(parts) + "\n"


def _sources(found: Sequence[Origin]) -> Iterable[str]:
    for number, origin in enumerate(found, start=1):
        if origin.of == "sample":
            yield f"  {write_value(f'{origin.kind}=sample')},"
        elif "@" in origin.digest:  # a dataset of the Hub, at its commit
            location = origin.digest.replace(":/", ":")  # there is no config
            yield f"  {write_value(f'{origin.kind}=hf:{location}')},"
        else:
            suffix = dataset_of(origin.kind).suffix
            yield f"  {write_value(f'{origin.kind}=source-{number}.{suffix}')},  # sha256 {origin.digest}"


def _settings(values: dict[str, Any]) -> Iterable[str]:
    return (f"{name} = {write_value(value)}" for name, value in values.items() if value is not None)
