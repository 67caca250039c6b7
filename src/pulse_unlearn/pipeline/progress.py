"""What the pipeline tells whoever watches; the command line decides how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pulse_unlearn.scenarios import Stage


class Progress(Protocol):
    """Receives what happens during a run."""

    def begin(self, total: int) -> None:
        """`total` stages are planned."""

    def reuse(self, number: int, stage: Stage) -> None:
        """A completed stage was found and checked."""

    def start(self, number: int, stage: Stage) -> None:
        """Work on a stage begins."""

    def prepare(self, what: str) -> None:
        """Something is done first that takes a while, such as loading the model."""

    def advance(self, done: int, total: int, values: Mapping[str, object]) -> None:
        """Steps or examples done within the stage, with the newest values."""

    def finish(self, number: int, stage: Stage, seconds: float) -> None:
        """A stage is complete."""

    def warn(self, text: str) -> None:
        """Something was repaired or skipped and should be known."""


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

    def warn(self, text: str) -> None:
        """Ignore."""
