"""The card's part about questions of documents: what is left after each step, and what nobody has checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stepsearch_data.attrition import gates, model_of, unasked
from stepsearch_data.core.markdown import code, plain, table
from stepsearch_data.pipeline.store import Manifest
from stepsearch_data.report.checks import SHARES, shares
from stepsearch_data.report.facts import interval
from stepsearch_data.stages.proof.decision import majority

if TYPE_CHECKING:
    import duckdb

_SECTION = """

## From documents to questions

`mine` finds chains of passages in documents, each of which names the title of the next, and pairs to compare. It asks
no model. {writer} wrote a question for each chain that was drawn. Only questions that passed their checks go on. A
share is that of the number in `of`. What is lost here is not counted among the rejects below.

{steps}

Of each source, the questions that a check speaks against. A gate rejects a question, a hint is only counted.{samples}

{checks}

Not verified:

{unverified}"""


def documents(connection: duckdb.DuckDBPyConnection, manifest: Manifest, audited: Mapping[str, dict[str, Any]]) -> str:
    """Write the section from what `audit` measured; nothing where no question was composed."""
    if "composed" not in audited["by_funnel"]:
        return ""
    writer, samples = model_of(manifest, "compose"), _samples(manifest)
    checks = shares(audited["by_check"], gates(manifest))
    return _SECTION.format(
        writer=plain(writer) if writer else "A template",
        steps=_steps(audited["by_funnel"]),
        samples=f" {samples}" if samples else "",
        checks=table(SHARES, [[source, code(check), *rest] for source, check, *rest in checks]),
        unverified="\n".join(f"- {line}" for line in _unverified(connection, manifest, audited["by_funnel"])),
    )


def _steps(by_funnel: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            name,
            of["count"],
            of["of"],
            of["share"],
            interval(of["low"], of["high"]),
            _dollars(of["dollars"], 2),
            _dollars(of["dollars_each"], 5),
        )
        for name, of in by_funnel.items()
    ]
    return table(("step", "left", "of", "share", "95 % interval", "US dollars up to here", "for each"), rows)


def _dollars(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:,.{digits}f}"


def _samples(manifest: Manifest) -> str:
    """Say how often a model was asked, and by how many samples it was decided."""
    verify, decide = (manifest.stages[name].fingerprint["config"] for name in ("verify", "decide"))
    if not model_of(manifest, "verify"):
        return ""
    samples, need = verify["samples"], decide["need"] or majority(verify["samples"])
    asked = (
        f"{plain(verify['llm'])} was asked {samples} times for each reading, at temperature {verify['temperature']:g}"
    )
    whole = f"{verify['sample_all']:.0%} of the questions went through all checks, whatever failed first"
    return f"{asked}; {need} samples decide. {whole}."


def _unverified(
    connection: duckdb.DuckDBPyConnection, manifest: Manifest, by_funnel: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Say in plain words what stands behind no check."""
    writer, judge = model_of(manifest, "compose"), model_of(manifest, "verify")
    if not writer:
        yield "Templates wrote the questions. They show how a build works, and are not for training."
    missing = unasked(connection, manifest)
    if missing:
        yield f"Nothing was asked for {', '.join(map(code, missing))} of these questions."
    if by_rules := by_funnel.get("passed by rules alone"):
        yield f"{by_rules['count']:,} of the {by_rules['of']:,} questions that passed were read by no model."
    if judge and judge == writer:
        yield "The model that checked the questions is the one that wrote them: what it misreads twice, nothing finds."
    if "unique" not in missing and judge:
        yield "Another answer was looked for in the gold passages and ten others that searches find, and nowhere else."
    yield "Whether the documents are true, and still are."
    yield "Whether people find the questions natural: nobody has read them all, and no share of good ones is known."
    yield "Whether training on them helps."
