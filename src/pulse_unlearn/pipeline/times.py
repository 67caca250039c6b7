"""How long stages took, noted beside the run, and how long the others will take by that."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean

from pulse_unlearn.store import file_errors

LOGS = "logs"
"""Folder of logs in a run folder: the user's, no product of the run."""
_TIMES = "times.jsonl"


def logs_of(run: Path) -> Path:
    """Return the folder of logs, made if it is missing."""
    folder = run / LOGS
    with file_errors(folder, "make the folder of logs"):
        folder.mkdir(exist_ok=True)
    return folder


def note_time(run: Path, kind: str, stage: str, seconds: float, worker: str) -> None:
    """Append what a stage took and who computed it; one process at a time."""
    told = {"stage": stage, "kind": kind, "seconds": round(seconds, 2), "worker": worker}
    path = logs_of(run) / _TIMES
    with file_errors(path, "write"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


def noted_times(run: Path) -> dict[str, list[float]]:
    """Return the seconds that stages took, by kind."""
    found: dict[str, list[float]] = defaultdict(list)
    for _, kind, seconds in _noted(run):
        found[kind].append(seconds)
    return found


def stage_times(run: Path) -> dict[str, float]:
    """Return the seconds that each stage took, the last time that it was computed."""
    return {stage: seconds for stage, _, seconds in _noted(run)}


def _noted(run: Path) -> Iterator[tuple[str, str, float]]:
    """Yield stage, kind and seconds of each note; a line cut off by a crash is left out."""
    path = run / LOGS / _TIMES
    if not path.is_file():
        return
    with file_errors(path, "read"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        try:
            told = json.loads(line)
            yield str(told["stage"]), str(told["kind"]), float(told["seconds"])
        except (ValueError, KeyError, TypeError):
            continue


def time_left(
    kinds: Iterable[str], times: Mapping[str, list[float]], *, workers: int
) -> float | None:
    """Return the seconds that stages of these kinds take by others of their kind.

    Kinds that no stage has ended of count as the mean of all; None if none has ended at all.
    """
    known = [seconds for found in times.values() for seconds in found]
    if not known:
        return None
    each = [fmean(times[kind]) if times.get(kind) else fmean(known) for kind in kinds]
    return max(sum(each) / max(workers, 1), max(each, default=0.0))
