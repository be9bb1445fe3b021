"""Publishing the policy of a run as a model on the Hub: `publish --run`, and `train --push-to-hub`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stepsearch_data.cli.hub import Sending, find_hub, send
from stepsearch_data.core.errors import ConfigError
from stepsearch_data.core.progress import Reporter

if TYPE_CHECKING:
    from stepsearch_data.release.hub import Hub


def publish_run(
    repo: str,
    run: Path,
    sending: Sending,
    output: Path | None = None,
    patience: float | None = None,
    *,
    version: str | None = None,
    best: bool = False,
    data: str | None = None,
    evaluations: Sequence[Path] = (),
) -> None:
    """Publish a run's policy as a model, and print where it is. Raises PublishError, ConfigError."""
    reporter = Reporter(quiet=sending.quiet)
    hub = find_model(repo, sending.patience(patience), reporter)
    from stepsearch_data.release.policy import check_data, write_policy
    from stepsearch_data.release.policy_card import Card
    from stepsearch_data.release.publish import check_account, check_tag

    check_tag(version)
    if not sending.dry_run:
        check_account(hub, private=sending.private)
    if data:
        check_data(run, *find_hub(data, patience, reporter))
    policy = write_policy(run, output or _policy_folder(run), Card(hub.repo, version, best, data, evaluations))
    reporter.line(f"wrote {policy.folder}")
    if send(hub, policy, sending, reporter):
        revision = f', revision="{version}"' if version else ""
        print(f"{hub.url}/tree/{version or 'main'}")
        print(f'AutoModelForCausalLM.from_pretrained("{hub.repo}"{revision})')


def check_push(repo: str, run: Path, *, quiet: bool) -> bool:
    """Raise PublishError or ConfigError where a run's policy may not be published; tell whether the model is new."""
    hub = find_model(repo, None, Reporter(quiet=quiet))
    from stepsearch_data.release.policy import check_folder, check_repository
    from stepsearch_data.release.publish import check_account

    check_account(hub, private=False)
    check_repository(hub)
    check_folder(_policy_folder(run))
    return hub.find() is None


def _policy_folder(run: Path) -> Path:
    return run.with_name(f"{run.resolve().name}.policy")


def find_model(repo: str, patience: float | None, reporter: Reporter) -> Hub:
    """Find a model repository on the Hub. Raises ConfigError for a name with a revision, PublishError."""
    hub, revision = find_hub(repo, patience, reporter, kind="model")
    if revision:
        raise ConfigError(f"{repo}: a policy is named when it is published", f"--tag {revision}")
    return hub
