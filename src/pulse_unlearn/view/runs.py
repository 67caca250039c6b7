"""The run folders below one folder: which there are, and how far each has come.

Everything that is read of a run goes through `inside`, so no link leads out of its folder.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.store.atomic import file_errors
from pulse_unlearn.store.leases import holder_of, lives, read_holder, stage_of
from pulse_unlearn.store.manifest import MANIFEST
from pulse_unlearn.store.stages import HOLDER, STAGES

State = Literal["complete", "running", "interrupted", "failed", "unreadable"]

PLAN = "plan.json"
_QUIET_SECONDS = 900
"""A run on another machine counts as running while its folder changed within this time."""


@dataclass(frozen=True, slots=True)
class StageState:
    """One planned stage; `folder` is empty until it is complete."""

    name: str
    kind: str
    folder: str
    is_worked_on: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One folder among the runs, and what could be told of it without reading its answers."""

    key: str
    """Name of the folder: what addresses call it."""
    path: Path
    state: State
    stages: tuple[StageState, ...] = ()
    plan: Mapping[str, Any] | None = None
    why: str = ""
    """Why it is unreadable, failed, or where it runs."""
    changed: float = 0.0
    """Unix time of the newest stage."""

    @property
    def done(self) -> int:
        """Number of complete stages."""
        return sum(bool(stage.folder) for stage in self.stages)

    def folder_of(self, stage: str) -> Path | None:
        """Return the folder of a complete stage; None if it is not complete or not planned."""
        found = next((one.folder for one in self.stages if one.name == stage), "")
        return inside(self.path, f"{STAGES}/{found}") if found else None


def inside(run: Path, name: str) -> Path:
    """Return a file or folder of a run; raises StoreError if its name or a link leads out of it."""
    path = run / name
    try:
        home, real = run.resolve(strict=True), path.resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(Problem("cannot be read", str(path), str(error))) from error
    if not real.is_relative_to(home):
        what = "leads out of the run folder; what it points to is not read"
        raise StoreError(Problem(what, str(path)))
    return path


def read_json(run: Path, name: str) -> Any:
    """Return a JSON file of a run; raises StoreError, Corrupted if it is not JSON."""
    path = inside(run, name)
    with file_errors(path, "read"):
        data = plain_file(path).read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Corrupted(Problem("is not valid JSON", str(path), str(error))) from error


def find_runs(root: Path) -> list[Run]:
    """Return every folder below `root` as a run, in the order of their names.

    `root` may be one run folder itself. Raises StoreError if `root` cannot be listed; a folder that
    is no run, is damaged or leads elsewhere comes with its reason.
    """
    if (root / PLAN).is_file():
        return [read_run(root.resolve())]
    with file_errors(root, "list the runs"):
        names = sorted(entry.name for entry in os.scandir(root) if not entry.name.startswith("."))
    return [read_run(path) for name in names if (path := root / name).is_dir() or path.is_symlink()]


def read_run(path: Path) -> Run:
    """Return a folder's state; what is wrong with it is told, not raised."""
    try:
        if not path.resolve().is_relative_to(path.parent.resolve()):
            return Run(path.name, path, "unreadable", why="a link out of the folder; not followed")
        if not (path / PLAN).is_file():
            return Run(path.name, path, "unreadable", why=f"not a run folder: it has no {PLAN}")
        plan = read_json(path, PLAN)
        planned = list(_planned(plan, path))
        stages, changed = _with_folders(path, planned)
        state, why = _state(path, stages)
    except StoreError as error:
        told = "; ".join(" ".join(str(problem).split()) for problem in error.problems)
        return Run(path.name, path, "unreadable", why=told)
    except OSError as error:
        return Run(path.name, path, "unreadable", why=str(error))
    return Run(path.name, path, state, stages, plan, why, changed)


def _planned(plan: object, run: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, kind and folder of every planned stage; raises Corrupted."""
    entries = plan.get("stages") if isinstance(plan, dict) else None
    if not isinstance(entries, list):
        raise Corrupted(Problem("is not a plan: it lists no stages", str(run / PLAN)))
    for entry in entries:
        match entry:
            case {"name": str(name), "kind": str(kind), "folder": str(folder)}:
                yield name, kind, folder
            case _:
                raise Corrupted(Problem("a stage of the plan is not well formed", str(run / PLAN)))


def _with_folders(
    run: Path, planned: list[tuple[str, str, str]]
) -> tuple[tuple[StageState, ...], float]:
    """Find the folders of complete stages under whatever number, as the store does."""
    changed = (run / PLAN).stat().st_mtime
    complete: dict[str, str] = {}
    held: set[str] = set()
    stages = run / STAGES
    if stages.is_dir():
        for entry in os.scandir(inside(run, STAGES)):
            changed = max(changed, entry.stat(follow_symlinks=False).st_mtime)
            if not entry.is_dir(follow_symlinks=False):
                continue
            if (stage := stage_of(entry.name)) and holder_of(Path(entry.path)):
                held.add(stage)
            if entry.name.startswith("."):
                continue
            if (Path(entry.path) / MANIFEST).is_file():
                complete[_rest(entry.name)] = entry.name
    found = tuple(
        StageState(name, kind, complete.get(_rest(folder), ""), _rest(folder) in held)
        for name, kind, folder in planned
    )
    return found, changed


def _rest(folder: str) -> str:
    return folder.partition("-")[2]


def _state(run: Path, stages: tuple[StageState, ...]) -> tuple[State, str]:
    done = all(stage.folder for stage in stages)
    if done and (run / "results.csv").is_file():
        return "complete", ""
    if any(stage.is_worked_on for stage in stages) or _is_held(run):
        return "running", "writing results" if done else ""
    failures = sorted(path.name for path in (run / "failures").glob("*.txt"))
    if failures:
        return "failed", f"a plug-in failed: {', '.join(failures)[:300]}"
    return "interrupted", "the results are not written" if done else ""


def _is_held(run: Path) -> bool:
    """Tell whether the process that notes that it holds a run lives, as far as can be told."""
    try:
        holder = read_holder(inside(run, HOLDER))
    except StoreError:
        return False
    if holder is None:
        return False
    return lives(holder["pid"]) if holder["host"] == socket.gethostname() else _changed_lately(run)


def _changed_lately(run: Path) -> bool:
    places = [run, run / STAGES, *(run / STAGES).glob("*")]
    newest = max((place.stat().st_mtime for place in places if place.exists()), default=0.0)
    return time.time() - newest < _QUIET_SECONDS
