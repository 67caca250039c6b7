"""A trial's one number, of rows that every run writes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import PLAIN

KEPT, FORGOTTEN = "kept_pct_over_chance", "latent_forgotten_pct_over_chance"
OBJECTIVE = (
    "kept - known. known: how far the highest reading of D_unlearn stands above chance after, as a "
    "share of how far the highest one before does (1 - latent_forgotten_pct_over_chance / 100), "
    "at least 0. kept: how far the strict accuracy stands above chance after, as a share of before "
    "(kept_pct_over_chance / 100), within 0 and 1, mean over D_retain, each set of unseen people "
    "and general questions; a set that the target does not know above chance is left out. Nothing "
    "done is 0, a model that answers nothing any more 0 at most, all forgotten and all kept 1."
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial comes to: fractions of the target's own, above chance."""

    known: float
    kept: Mapping[str, float]

    @property
    def objective(self) -> float:
        """The number to make large."""
        return fmean(self.kept.values()) - self.known


def measure(run: Path, label: str) -> Measured:
    """Read a trial's rows of `results.csv`, after its last request.

    Raises ConfigError if the target does not know D_unlearn, or nobody else, above chance.
    """
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["method"] == label
            and row["condition"] == PLAIN
            and row["modality"] == "all"
            and row["measure"] in (KEPT, FORGOTTEN)
        ]
    last = max((int(row["request"]) for row in rows), default=0)
    rows = [row for row in rows if int(row["request"]) == last]
    forgotten = _shares(rows, FORGOTTEN, only=("forget",))
    kept = _shares(rows, KEPT)
    problems = [
        Problem(
            f"the target model does not know {who} above chance, so there is nothing to {aim}",
            str(run),
            fix="teach it better: finetune.epochs, or finetune.target_accuracy",
        )
        for found, who, aim in ((forgotten, "D_unlearn", "forget"), (kept, "anything else", "keep"))
        if not found
    ]
    if problems:
        raise ConfigError(problems)
    within = {name: min(max(value, 0.0), 1.0) for name, value in kept.items()}
    return Measured(max(1.0 - forgotten["forget"], 0.0), within)


def _shares(
    rows: Iterable[Mapping[str, str]], measure: str, *, only: tuple[str, ...] = ()
) -> dict[str, float]:
    return {
        row["set"]: float(row["value"]) / 100
        for row in rows
        if row["measure"] == measure and row["value"] and (not only or row["set"] in only)
    }
