"""What a person sees of training, on stderr: a live table in a terminal, a line per update elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from stepsearch_data.trainer.callbacks import Callback
from stepsearch_data.trainer.callbacks.collapse import CollapseDetector
from stepsearch_data.trainer.callbacks.sample import sample
from stepsearch_data.trainer.episode_score import EpisodeScore
from stepsearch_data.trainer.search_env import Episode

_ROWS = 12  # updates that the live table holds
_NUMBER = 6  # characters of most numbers
_COLUMNS = (  # name, metric, format; those that do not fit a narrow terminal are left out from the right
    ("reward", "reward", ".3f"),
    ("F1", "f1", ".3f"),
    ("key", "key", ".3f"),
    ("gain", "gain", ".3f"),
    ("redund.", "redundancy", ".3f"),
    ("EM", "em", ".3f"),
    ("searches", "searches", ".2f"),
    ("invalid", "invalid", ".2f"),
    ("KL", "kl", ".3f"),
    ("entropy", "entropy", ".3f"),
    ("v. loss", "value_loss", ".3f"),
    ("expl. var", "explained_variance", ".2f"),
    ("tokens/s", "tokens_per_second", ",.0f"),
    ("held out", "eval_em", ".3f"),
)


@contextmanager
def console_callback(updates: int, *, sample_every: int = 10, console: Console | None = None) -> Iterator[Callback]:
    """Show a training of so many updates on the console, until the block ends.

    Every `sample_every` updates it prints a rollout, 0 prints none. Signs of collapse are warnings with a hint.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield ConsoleCallback(updates, sample_every, console, lambda row, _: console.print(row, soft_wrap=True))
        return
    with Live(console=console, redirect_stdout=False, auto_refresh=False) as live:
        yield ConsoleCallback(updates, sample_every, console, lambda _, table: live.update(table, refresh=True))


class ConsoleCallback:
    """Shows updates by `show(line, table)`; samples and warnings are printed above."""

    def __init__(self, updates: int, sample_every: int, console: Console, show: Callable[[Text, Group], None]) -> None:
        self._updates, self._every, self._console, self._show = updates, sample_every, console, show
        self._rows: deque[Mapping[str, float]] = deque(maxlen=_ROWS)
        self._known: set[str] = set()  # metrics that there have been: without a critic, none of its own
        self._collapse = CollapseDetector()
        self._begun, self._seen, self._held_out = time.monotonic(), 0, ""

    def __call__(
        self, metrics: Mapping[str, float], episodes: Sequence[Episode], scored: Sequence[EpisodeScore]
    ) -> None:
        """Show an update; update 0 is the evaluation before training."""
        update = int(metrics["update"])
        self._seen += update > 0
        self._rows.append(metrics)
        self._known.update(metrics)
        if "eval_em" in metrics:
            self._held_out = f"held-out exact match {metrics['eval_em']:.3f} at update {update}"
        cells = [f"{name} {_cell(metrics, metric, form)}" for name, metric, form in _COLUMNS if metric in metrics]
        line = (f"update {update} of {self._updates}", *cells, self._left(update))
        self._show(Text("  ".join(filter(None, line))), self._table())
        for sign in self._collapse(metrics, episodes):
            self._console.print(Text(f"warning: update {update}: {sign.message}", "bold yellow"), soft_wrap=True)
            self._console.print(Text(f"hint: {sign.hint}"), soft_wrap=True)
        if self._every and episodes and update % self._every == 0:
            self._console.print(Rule(f"a rollout of update {update}", align="left", style="dim"))
            self._console.print(sample(episodes[0], scored[0]), soft_wrap=not self._console.is_terminal)
            self._console.print(Rule(style="dim"))

    def _left(self, update: int) -> str:
        """Estimate the time left at the pace so far."""
        if not self._seen:
            return ""
        each = (time.monotonic() - self._begun) / self._seen
        return f"{timedelta(seconds=round(each * (self._updates - update)))} left"

    def _table(self) -> Group:
        columns = [column for column in _COLUMNS if column[1] in self._known]
        ends = accumulate(max(len(name), _NUMBER) + 2 for name, *_ in columns)  # two blanks before each column
        fitting = columns[: sum(end <= self._console.width - len("update") for end in ends)]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("update", *(name for name, *_ in fitting)):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._rows:
            table.add_row(f"{row['update']:.0f}", *(_cell(row, metric, form) for _, metric, form in fitting))
        last = int(self._rows[-1]["update"])
        below = (f"{last} of {self._updates} updates", self._left(last), self._held_out)
        return Group(table, Text("   ".join(filter(None, below)), "dim"))


def _cell(metrics: Mapping[str, float], metric: str, form: str) -> str:
    value = metrics.get(metric)
    return "" if value is None else f"{value:{form}}" if math.isfinite(value) else str(value)
