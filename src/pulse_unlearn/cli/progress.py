"""Progress on screen: bars on a terminal, plain lines otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pulse_unlearn.pipeline.progress import Lines, Named, Working, describe


@contextmanager
def make_progress() -> Iterator[Lines | OnTerminal]:
    """Yield bars if standard error is a terminal, plain lines if not."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(partial(click.echo, err=True))
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


class OnTerminal:
    """A bar for the stages and one for the work within the current stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stages: Any = None
        self._work: Any = None
        self._done = 0
        self._beside: dict[str, Any] = {}

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

    def working(self, now: Sequence[Working]) -> None:
        """Keep a bar for each stage that is worked on elsewhere."""
        self._bars.update(self._work, visible=False)
        for name in [one for one in self._beside if one not in {each.stage for each in now}]:
            self._bars.remove_task(self._beside.pop(name))
        for one in now:
            if one.stage not in self._beside:
                self._beside[one.stage] = self._bars.add_task(one.stage, total=None, values="")
            self._bars.update(
                self._beside[one.stage], completed=one.done, total=one.total, values=one.worker
            )

    def logged(self, stage: Named, log: Path) -> None:
        """Show nothing more of a stage that is done."""

    def warn(self, text: str) -> None:
        """Print a warning above the bars."""
        self._bars.console.print(f"warning: {text}", style="yellow", highlight=False)
