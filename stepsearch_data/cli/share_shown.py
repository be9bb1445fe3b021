"""What the verbs of `verbs.sharing` print."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from stepsearch_data.cli.printing import grid, print_json, say, size, store_flag
from stepsearch_data.core.terminal import visible
from stepsearch_data.exports.formats import Format

if TYPE_CHECKING:
    from stepsearch_data.release.hub import Hub
    from stepsearch_data.release.publish import Plan, Rehearsal
    from stepsearch_data.release.pull import Restored
    from stepsearch_data.release.verify import Report as Verified

_COMMITTED = {"new": "add", "changed": "replace", "stale": "delete", "same": "keep"}


def formats(known: Sequence[Format]) -> None:
    """What `export` can write."""
    grid(("format", "files", "for"), [(form.name, f".{form.suffix}", form.doc) for form in known])


def verified(report: Verified, *, as_json: bool) -> None:
    """How every file stands: all of them as JSON, for people those that are not as recorded."""
    if as_json:
        print_json({**asdict(report), "ok": not report.faults})
        return
    counts = Counter(str(finding.state) for finding in report.findings)
    for fault in report.faults:
        say((f"{fault.state:<11}", "bold red"), fault.path)
    say(f"{report.kind} {report.where}: ", ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())))
    if counts["absent"]:
        say("absent: an index, which a build makes anew", style="dim")
    say(f"sha256 {report.digest}", style="dim")


def changes(plan: Plan, repo: str) -> None:
    """What a commit would do to the repository, by folder."""
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


def rehearsed(found: Rehearsal, repo: str) -> None:
    """What publishing would do, and what would end it."""
    if found.plan:
        changes(found.plan, repo)
    if found.fault:
        what = "" if found.plan else "nothing was compared, and "
        print(f"note: {what}publishing would fail now: {visible(found.fault.message)}", file=sys.stderr)
        print(f"hint: {visible(found.fault.hint)}", file=sys.stderr)


def published(plan: Plan, hub: Hub) -> None:
    """Where the release is, and how it is loaded."""
    version = plan.release.record.version
    revision = f', revision="{version}"' if version else ""
    print(f"{hub.url}/tree/{version or 'main'}")
    print(f'load_dataset("{hub.repo}", "{next(iter(plan.release.record.configs))}"{revision})')


def pulled(restored: Restored) -> None:
    """A store that came from the Hub."""
    say(f"{restored.store.root}  sha256 {restored.digest}", "" if restored.fresh else "  (it was there already)")
    say(f"try: stepsearch-data audit{store_flag(restored.store)}")
