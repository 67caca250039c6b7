"""What an engine is, and what goes between it and the coordinator."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pulse_unlearn.errors import PulseError
from pulse_unlearn.launch.devices import Fleet


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker of a run is told."""

    experiment: str
    """The resolved experiment, as YAML."""
    runs: Path
    """Folder of the run folders; for workers on other machines one that all of them see."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage went, as its worker saw it."""

    worker: str
    seconds: float
    computed: bool = True
    """False if another process had completed it."""
    error: PulseError | None = None
    traceback: str = ""
    """Of the error, as the worker saw it."""


class WorkerLost(BrokenExecutor):
    """A worker died, or its machine did, before it said how the stage went."""


class Engine(Protocol):
    """Starts stages, each in a worker of its own, on what the engine has at its disposal."""

    @property
    def slots(self) -> int:
        """How many stages are worked on at a time; may change while a run is under way."""

    def fleet(self) -> Fleet:
        """Return the machines there are now."""

    def start(self, stage: str, fingerprint: str) -> Future[Outcome]:
        """Start a stage whose parents are complete.

        The future raises BrokenExecutor if the worker died.
        """

    def stop(self, *, now: bool = False) -> None:
        """Ask all workers to write a checkpoint and end; with `now` end them as they are."""

    def close(self) -> None:
        """Let go of the workers."""
