"""Finding a repository on the Hub, and sending to it: what `publish`, `pull` and `verify` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from stepsearch_data.cli.printing import grid, say, size, tell
from stepsearch_data.core.errors import PublishError
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.release.hub import Hub
    from stepsearch_data.release.publish import Plan
    from stepsearch_data.release.record import Published

_COMMITTED = {"new": "add", "changed": "replace", "stale": "delete", "same": "keep"}
_GLANCE = 10.0  # seconds that a dry run waits for the Hub


@dataclass(frozen=True)
class Sending:
    """How something is sent: with `dry_run` nothing is, and without `yes` a person is asked first."""

    private: bool = False
    message: str | None = None
    dry_run: bool = False
    yes: bool = True
    quiet: bool = False

    def patience(self, given: float | None) -> float | None:
        """Return the seconds to wait for the Hub; None for the usual ones."""
        return given or (_GLANCE if self.dry_run else None)


def find_hub(
    repo: str, patience: float | None, reporter: Reporter, kind: Literal["dataset", "model"] = "dataset"
) -> tuple[Hub, str | None]:
    """Find a repository on the Hub, and the revision that was named with it."""
    from stepsearch_data.remote.secrets import check_hub

    check_hub()
    hint = "pip install 'stepsearch-data[hub]'"
    try:
        import huggingface_hub

        if huggingface_hub.__version__.startswith("1."):  # which the lowest transformers of a training bring
            raise PublishError(
                f"the Hub needs huggingface_hub 2: here is {huggingface_hub.__version__}",
                f"{hint}; beside vLLM: in another environment",
            )
        from stepsearch_data.release.hub import PATIENCE, Hub, parse_name
    except ImportError as error:
        raise PublishError(f"the Hub needs an extra: there is no {error.name}", hint) from error
    name, revision = parse_name(repo)
    return Hub(name, patience or PATIENCE, reporter.line, kind), revision


def send(hub: Hub, published: Published, sending: Sending, reporter: Reporter) -> bool:
    """Show what would change, ask, and send it; tell whether it is there. Raises PublishError."""
    from stepsearch_data.release.publish import carry_out, prepare, rehearse

    if sending.dry_run:
        _print_rehearsal(*rehearse(hub, published, private=sending.private), hub.repo)
        return False
    plan = prepare(hub, published)
    if not sending.quiet:
        _print_changes(plan, hub.repo)
    if not (plan.nothing or sending.yes or typer.confirm(f"Publish to {hub.url}?", err=True)):
        raise PublishError("nothing was sent")
    with reporter.stage("publish") as meter:
        carry_out(hub, plan, meter, private=sending.private, message=sending.message)
    return True


def _print_changes(plan: Plan, repo: str) -> None:
    """Print what a commit would do to the repository, by folder."""
    groups: dict[tuple[str, str], list[int]] = {}
    for change in plan.changes:
        folder = "/".join(change.path.split("/")[:-1][:2]) or change.path
        groups.setdefault((change.state, folder), []).append(change.bytes)
    order = {"new": 0, "changed": 1, "stale": 2, "same": 3}
    listed = sorted(groups.items(), key=lambda group: order[group[0][0]])
    rows = [(_COMMITTED[state], folder, len(sizes), size(sum(sizes))) for (state, folder), sizes in listed]
    grid(("would", f"in {repo}", "files", "size"), rows)
    if plan.head is None:
        say(f"{repo} is made first")
    if plan.nothing:
        say("all of it is there already")


def _print_rehearsal(plan: Plan | None, fault: PublishError | None, repo: str) -> None:
    """Print what publishing would do, and what would end it."""
    if plan:
        _print_changes(plan, repo)
    if fault:
        what = "" if plan else "nothing was compared, and "
        tell(f"note: {what}publishing would fail now: {fault.message}", f"hint: {fault.hint}")
