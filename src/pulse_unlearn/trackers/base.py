"""What a tracker is told, and the registry it is named in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pulse_unlearn.records import Result
from pulse_unlearn.registry import Registry


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run a tracker is opened for."""

    name: str
    folder: Path
    """The tracker's own, inside the run folder, for it to make if it writes files."""
    settings: Mapping[str, Any]
    """The experiment in full, as plain data."""


@dataclass(frozen=True, slots=True)
class StageEvent:
    """Something that happened to a stage."""

    name: str
    number: int
    total: int
    state: Literal["reused", "started", "finished"]
    seconds: float = 0.0
    """How long a finished one took."""


class Tracker(Protocol):
    """What is told of a run as it goes on; whatever a method raises ends this tracker alone."""

    def stage(self, event: StageEvent) -> None:
        """A stage was found complete, has begun, or is done."""

    def step(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """An optimiser step of a stage: losses and what else was logged, counted from 1."""

    def results(self, rows: Sequence[Result]) -> None:
        """The numbers of `results.csv`; not told if there are none."""

    def close(self) -> None:
        """The run has ended, or was stopped."""


OpenTracker = Callable[[TrackedRun], Tracker]
TRACKERS: Registry[OpenTracker] = Registry("tracker", group="pulse_unlearn.trackers")
"""Name in the experiment's `trackers` -> what opens one for a run."""

_HEADLINES = frozenset(
    {
        "accuracy",
        "rotated_accuracy",
        "words_accuracy",
        "latent_accuracy",
        "unreadable",
        "letter_share",
        "remembered",
        "forgotten_pct",
        "kept_pct",
        "latent_forgotten_pct",
        "latent_kept_pct",
    }
)


def headline(rows: Iterable[Result]) -> Iterator[tuple[str, int, float]]:
    """Yield (name, request, value) of the numbers worth a curve, of both modalities together."""
    for row in rows:
        cell, number = row.cell, row.measurement
        if number.value is None or number.modality != "all" or number.measure not in _HEADLINES:
            continue
        of_cell = (cell.scenario, cell.method, cell.scope, f"seed{cell.seed}", cell.condition)
        name = "/".join(["results", *of_cell, number.set, number.measure])
        yield name, cell.request, number.value
