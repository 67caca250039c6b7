"""What the pipeline tells whoever watches; the command line decides how it looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pulse_unlearn.scenarios import Stage

_HIDDEN = {"step", "learning_rate", "grad_norm", "seconds"}
"""Values of a step that say how it went; the others are losses, whatever a method calls them."""
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_NOTES = 2.0


class Named(Protocol):
    """Whatever is worked on: a stage, or a part of some other long work."""

    @property
    def name(self) -> str:
        """What the screen calls it."""


@dataclass(frozen=True, slots=True)
class Working:
    """A stage that another process works on, and how far it says it is."""

    stage: str
    worker: str
    """Process and machine; empty as long as none has said so."""
    seconds: float
    """Since it was started."""
    done: int = 0
    total: int | None = None

    def __str__(self) -> str:
        far = f"{self.done}/{self.total}, " if self.total else ""
        return f"{self.stage}: {far}{self.seconds:.0f} s, {self.worker or 'no worker yet'}"


def working(stage: str, seconds: float, holder: Mapping[str, object]) -> Working:
    """Return what a stage's holder says of itself (`Store.holder`)."""
    done, total = holder.get("done"), holder.get("total")
    return Working(
        stage,
        f"process {holder['pid']} on {holder['host']}" if holder else "",
        seconds,
        done if isinstance(done, int) else 0,
        total if isinstance(total, int) else None,
    )


class StageProgress(Protocol):
    """Receives what happens within a stage."""

    def prepare(self, what: str) -> None:
        """Something is done first that takes a while, such as loading the model."""

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Steps or examples done within the stage, with the newest values."""

    def warn(self, text: str) -> None:
        """Something was repaired or skipped and should be known."""


class Progress(StageProgress, Protocol):
    """Receives what happens during a run."""

    def begin(self, total: int) -> None:
        """`total` stages are planned."""

    def reuse(self, number: int, stage: Stage) -> None:
        """A completed stage was found and checked."""

    def start(self, number: int, stage: Stage) -> None:
        """Work on a stage begins."""

    def finish(self, number: int, stage: Stage, seconds: float) -> None:
        """A stage is complete."""

    def working(self, now: Sequence[Working]) -> None:
        """These stages are worked on by other processes at the moment."""

    def logged(self, stage: Stage, log: Path) -> None:
        """A stage that another process has finished may have logged its steps here."""


class Noting:
    """Passes everything on, and notes every few seconds how far a stage is, for other processes."""

    def __init__(self, inner: StageProgress, note: Callable[[Mapping[str, object]], None]) -> None:
        self._inner, self._note, self._last = inner, note, 0.0

    def prepare(self, what: str) -> None:
        """Pass on what is done first."""
        self._inner.prepare(what)

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Pass on how far the stage is, and note it."""
        self._inner.advance(done, total, values)
        if time.monotonic() - self._last > _SECONDS_BETWEEN_NOTES:
            self._last = time.monotonic()
            self._note({"done": done, "total": total})

    def warn(self, text: str) -> None:
        """Pass on what should be known."""
        self._inner.warn(text)


class Silent:
    """Tells nobody."""

    def begin(self, total: int) -> None:
        """Ignore."""

    def reuse(self, number: int, stage: Stage) -> None:
        """Ignore."""

    def start(self, number: int, stage: Stage) -> None:
        """Ignore."""

    def prepare(self, what: str) -> None:
        """Ignore."""

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Ignore."""

    def finish(self, number: int, stage: Stage, seconds: float) -> None:
        """Ignore."""

    def working(self, now: Sequence[Working]) -> None:
        """Ignore."""

    def logged(self, stage: Stage, log: Path) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""


class Lines:
    """One plain line when a stage begins and ends, and every ten seconds in between."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
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

    def working(self, now: Sequence[Working]) -> None:
        """Say how far the stages are that others work on, at most every ten seconds."""
        if time.monotonic() - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = time.monotonic()
        for one in now:
            self._say(f"    {one}")

    def logged(self, stage: Named, log: Path) -> None:
        """Say nothing more of a stage that is done."""

    def warn(self, text: str) -> None:
        """Say what was repaired or skipped."""
        self._say(f"warning: {text}")


def describe(values: Mapping[str, object]) -> str:
    """Return the losses worth showing, such as `nll 0.512`."""
    shown = {name: value for name, value in values.items() if isinstance(value, float)}
    return " ".join(f"{name} {shown[name]:.3f}" for name in shown if name not in _HIDDEN)
