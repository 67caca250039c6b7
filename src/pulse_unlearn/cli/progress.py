"""Progress on screen: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_HIDDEN = {"step", "learning_rate", "grad_norm", "seconds"}
"""Values of a step that say how it went; the others are losses, whatever a method calls them."""
_SECONDS_BETWEEN_LINES = 10.0


class Named(Protocol):
    """Whatever is worked on: a stage, or a part of some other long work."""

    @property
    def name(self) -> str:
        """What the screen calls it."""


@contextmanager
def make_progress() -> Iterator[Lines | OnTerminal]:
    """Yield bars if standard error is a terminal, plain lines if not."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
        console=console,
        transient=True,
    ) as bars:
        yield OnTerminal(bars)


class Lines:
    """One plain line when a stage begins and ends, and every ten seconds in between."""

    def __init__(self) -> None:
        self._total = 0
        self._last = self._began = 0.0
        self._resumed_at: int | None = None

    def begin(self, total: int) -> None:
        """Remember how many stages there are."""
        self._total = total

    def reuse(self, number: int, stage: Named) -> None:
        """Say that a stage was there already."""
        self._say(f"[{number}/{self._total}] {stage.name}: complete")

    def start(self, number: int, stage: Named) -> None:
        """Say that a stage begins."""
        self._last = self._began = time.monotonic()
        self._resumed_at = None
        self._say(f"[{number}/{self._total}] {stage.name}")

    def prepare(self, what: str) -> None:
        """Say what is done first."""
        self._say(f"    {what}")

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Say how far the stage is, at most every ten seconds."""
        now = time.monotonic()
        if self._resumed_at is None:
            # A resumed stage begins with steps that cost this process nothing.
            self._resumed_at, self._began = done, now
        if now - self._last < _SECONDS_BETWEEN_LINES or done == self._resumed_at:
            return
        self._last = now
        left = (now - self._began) / (done - self._resumed_at) * (total - done)
        self._say(f"    {done}/{total}, {left:.0f} s left {describe(values)}".rstrip())

    def finish(self, number: int, stage: Named, seconds: float) -> None:
        """Say how long the stage took."""
        self._say(f"[{number}/{self._total}] {stage.name}: done in {seconds:.1f} s")

    def warn(self, text: str) -> None:
        """Say what was repaired or skipped."""
        self._say(f"warning: {text}")

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


class OnTerminal:
    """A bar for the stages and one for the work within the current stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stages: Any = None
        self._work: Any = None

    def begin(self, total: int) -> None:
        """Show the bar of stages."""
        self._stages = self._bars.add_task("stages", total=total, values="")
        self._work = self._bars.add_task("", total=None, values="", visible=False)

    def reuse(self, number: int, stage: Named) -> None:
        """Move the bar of stages on."""
        self._bars.update(self._stages, completed=number)

    def start(self, number: int, stage: Named) -> None:
        """Show the bar of a stage."""
        self._bars.reset(self._work, description=stage.name, total=None, values="", visible=True)

    def prepare(self, what: str) -> None:
        """Show what is done first behind the bar of the stage."""
        self._bars.update(self._work, values=what)

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Move the bar of the stage on."""
        self._bars.update(self._work, completed=done, total=total, values=describe(values))

    def finish(self, number: int, stage: Named, seconds: float) -> None:
        """Print a line for the stage and move the bar of stages on."""
        self._bars.console.print(f"  {stage.name}  {seconds:.1f} s", highlight=False)
        self._bars.update(self._work, visible=False)
        self._bars.update(self._stages, completed=number)

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self._bars.console.print(f"warning: {text}", style="yellow", highlight=False)


def describe(values: Mapping[str, object]) -> str:
    """Return the losses worth showing, such as `nll 0.512`."""
    shown = {name: value for name, value in values.items() if isinstance(value, float)}
    return " ".join(f"{name} {shown[name]:.3f}" for name in shown if name not in _HIDDEN)
