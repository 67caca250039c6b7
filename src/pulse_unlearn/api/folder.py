"""A finished run's folder: what was planned, and where each stage's answers lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.records import Cell
from pulse_unlearn.store import INDEX, STAGES, StageKey, Store, file_errors

_CONTINUE = "the same `pulse run` command continues it"
_CELL = tuple(one.name for one in fields(Cell))


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model that rows of `results.csv` are about, and the stages that hold its answers."""

    cell: Cell
    scores: str
    """Score stage of the model."""
    compared_to: str
    """Score stage of the model before; empty for the model before itself."""
    only: str
    """Score stage to whose questions the answers are restricted; empty for all."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What was planned, and what of it is there."""

    path: Path
    plan: Mapping[str, Any]
    """`plan.json`."""
    stages: Mapping[str, Path]
    """Finished stage -> its folder, in plan order."""
    scored: tuple[str, ...]
    """The finished stages that hold answers."""
    evaluations: tuple[Evaluated, ...]
    """Those whose answers are there."""


def open_folder(run: Path) -> Folder:
    """Look at a run folder.

    Raises StoreError if it is none, or if a planned stage is not finished; stages that a third
    party's code failed in, and those resting on them, may be missing, as in the report.
    """
    if not run.is_dir():
        raise StoreError(Problem("there is no such run folder", str(run)))
    if not (run / "plan.json").is_file() and not (run / STAGES).is_dir():
        allowed = f"one that `pulse run` wrote, with plan.json, {STAGES}/ and {INDEX}"
        raise StoreError(Problem("is not a run folder", str(run), allowed=allowed))
    plan = read_json(run / "plan.json")
    try:
        keys = [StageKey(one["number"], one["name"], one["fingerprint"]) for one in plan["stages"]]
        kinds = {one["name"]: one["kind"] for one in plan["stages"]}
        planned = [_evaluated(one) for one in plan["evaluations"]]
    except (KeyError, TypeError) as error:
        fix = "`pulse run` writes it again"
        raise Corrupted(
            Problem("is not a plan of this version", str(run), repr(error), fix=fix)
        ) from error
    found = {key.name: Store(run).find(key) for key in keys}
    missing = [name for name, folder in found.items() if folder is None]
    if missing and not any((run / "failures").glob("*.txt")):
        raise StoreError(
            [Problem("this stage is not complete", str(run), one, fix=_CONTINUE) for one in missing]
        )
    stages = {name: folder for name, folder in found.items() if folder is not None}
    return Folder(
        run,
        plan,
        stages,
        tuple(name for name in stages if kinds[name] == "score"),
        tuple(
            one for one in planned if {one.scores, one.compared_to, one.only} - {""} <= {*stages}
        ),
    )


def read_json(path: Path) -> Any:
    """Return what a file of the run holds; raises StoreError, or Corrupted if it is not JSON."""
    if not path.is_file():
        raise StoreError(
            Problem("the run is not complete: the file is missing", str(path), fix=_CONTINUE)
        )
    try:
        with file_errors(path, "read"):
            return json.loads(plain_file(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Corrupted(Problem("is not JSON", str(path), got=str(error))) from error


def _evaluated(entry: Mapping[str, Any]) -> Evaluated:
    cell = Cell(**{name: entry[name] for name in _CELL})
    return Evaluated(cell, entry["scores"], entry["compared_to"], entry["only"])
