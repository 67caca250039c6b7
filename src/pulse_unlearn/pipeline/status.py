"""Where a run is, told from its folder alone, while others work in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.pipeline.failures import FAILURES
from pulse_unlearn.pipeline.progress import Working, working
from pulse_unlearn.pipeline.times import noted_times, time_left
from pulse_unlearn.store import StageKey, Store, file_errors

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Status:
    """Stages of a run's plan, by how far they are."""

    done: tuple[str, ...]
    running: tuple[Working, ...]
    begun: tuple[str, ...]
    """Begun by somebody who is gone; continued from its checkpoint."""
    failed: tuple[str, ...]
    """Stages that a plug-in failed in."""
    waiting: tuple[str, ...]
    ready: tuple[str, ...]
    """Those of `waiting` and `begun` that rest on nothing unfinished."""
    seconds_left: float | None
    """By the mean time of a kind's stages and the workers there are now; None before the first."""

    @property
    def total(self) -> int:
        """How many stages are planned."""
        parts = (self.done, self.running, self.begun, self.failed, self.waiting)
        return sum(len(part) for part in parts)


def status_of(run: Path) -> Status:
    """Look at a run folder; raises StoreError if there is no plan in it, Corrupted if it is bad."""
    store = Store(run)
    stages: dict[str, list[str]] = {"done": [], "begun": [], "failed": [], "waiting": []}
    running: list[Working] = []
    left = []
    planned = _planned(run)
    for stage, key in planned:
        if store.find(key) is not None:
            stages["done"].append(key.name)
            continue
        left.append(str(stage["kind"]))
        if (run / FAILURES / f"{key.rest}.txt").is_file():
            stages["failed"].append(key.name)
        elif holder := store.holder(key):
            running.append(working(key.name, _since(holder), holder))
        else:
            stages["begun" if store.unfinished(key).is_dir() else "waiting"].append(key.name)
    seconds = time_left(left, noted_times(run), workers=len(running)) if left else 0.0
    told = {name: tuple(names) for name, names in stages.items()}
    free = {*stages["begun"], *stages["waiting"]}
    ready = tuple(
        key.name
        for stage, key in planned
        if key.name in free and set(stage["parents"]) <= set(stages["done"])
    )
    return Status(running=tuple(running), ready=ready, seconds_left=seconds, **told)


def _planned(run: Path) -> list[tuple[Mapping[str, Any], StageKey]]:
    path = run / PLAN
    if not path.is_file():
        fix = "give the folder of a run, such as runs/demo; it is written when a run begins"
        raise StoreError(Problem("there is no plan of a run", str(path), fix=fix))
    with file_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        stages = json.loads(text)["stages"]
        return [(one, StageKey(one["number"], one["name"], one["fingerprint"])) for one in stages]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupted(Problem("is not the plan of a run", str(path), str(error))) from error


def _since(holder: Mapping[str, object]) -> float:
    try:
        started = datetime.fromisoformat(str(holder["started"]))
    except ValueError:
        return 0.0
    return max((datetime.now(UTC) - started).total_seconds(), 0.0)
