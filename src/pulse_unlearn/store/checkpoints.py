"""Checkpoints of unfinished work: whole or absent, hashed, and never without a good one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.errors import Problem, PulseError, StoreError
from pulse_unlearn.store.atomic import (
    delete_at_once,
    delete_scratch,
    file_errors,
    removed_on_failure,
    scratch_beside,
    sync_folder,
)
from pulse_unlearn.store.manifest import (
    compare_files,
    describe_files,
    list_files,
    read_sealed,
    table_from_json,
    table_to_json,
    write_sealed,
)

RECORD = "checkpoint.json"
VERSION = 1

_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose hashes hold."""

    step: int
    """Optimiser steps done when it was taken."""
    path: Path


def save(folder: Path, step: int, write: Callable[[Path], None], *, keep: int = 2) -> Path:
    """Save the state after `step` steps under `folder` and return the checkpoint's folder.

    `write` is given an empty folder and fills it; only when all of it is hashed and on the disk
    does it become `step-<8 digits>`, and only then are all but the `keep` newest deleted, and
    those of later steps, which belong to a continuation that was abandoned. An intact checkpoint
    of the same step is kept as it is, without calling `write`. The parent of `folder` must exist.
    Raises StoreError, and whatever `write` raises; both leave the older checkpoints as they were.
    """
    if step < 0 or keep < 1:
        raise StoreError(
            Problem(
                "step or keep out of range",
                str(folder),
                got=f"step={step}, keep={keep}",
                allowed="step >= 0, keep >= 1",
            )
        )
    final = folder / _name(step)
    with file_errors(final, "save the checkpoint"):
        folder.mkdir(exist_ok=True)
        if not final.exists() or checkpoint_problems(final):
            delete_scratch(folder)
            _write(final, step, write)
        _prune(folder, step, keep)
    return final


def latest(folder: Path, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest checkpoint whose hashes hold, or None.

    `warn` is told of each one that is skipped, which file is bad and why; bad ones stay on the disk
    until `save` replaces or outdates them. Raises StoreError if `folder` cannot be listed.
    """
    for step, path in reversed(_steps(folder)):
        problems = checkpoint_problems(path)
        if not problems:
            return Checkpoint(step, path)
        details = "\n".join(str(problem) for problem in problems)
        warn(f"checkpoint {path.name} is damaged; going back to the one before it:\n{details}")
    return None


def checkpoint_problems(path: Path) -> list[Problem]:
    """Return everything that differs between a checkpoint and the one that was written."""
    record = path / RECORD
    try:
        content = read_sealed(record)
        table = table_from_json(content.get("files"), record)
    except PulseError as error:
        return list(error.problems)
    if content.get("version") != VERSION or _name(content.get("step")) != path.name:
        return [Problem("belongs to another checkpoint or version", str(record))]
    return compare_files(path, table, skip={RECORD})


def _name(step: object) -> str:
    return f"step-{step!s:0>8}"


def _write(final: Path, step: int, write: Callable[[Path], None]) -> None:
    scratch = scratch_beside(final)
    scratch.mkdir()
    with removed_on_failure(scratch):
        write(scratch)
        names = list_files(scratch)
        if not names or RECORD in names:
            raise StoreError(
                Problem(
                    "nothing was written" if not names else f"{RECORD} is the store's own file",
                    str(final),
                    allowed="one file or more, under other names",
                )
            )
        table = table_to_json(describe_files(scratch, names, sync=True))
        write_sealed(scratch / RECORD, {"version": VERSION, "step": step, "files": table})
        if final.exists():  # damaged, or it would have been kept
            delete_at_once(final)
        scratch.rename(final)
    sync_folder(final.parent)


def _prune(folder: Path, step: int, keep: int) -> None:
    found = _steps(folder)
    past = [path for other, path in found if other <= step]
    abandoned = [path for other, path in found if other > step]
    for path in [*past[:-keep], *abandoned]:
        delete_at_once(path)


def _steps(folder: Path) -> list[tuple[int, Path]]:
    with file_errors(folder, "list the checkpoints"):
        entries = list(folder.iterdir()) if folder.is_dir() else []
    found = [(_FOLDER.fullmatch(entry.name), entry) for entry in entries]
    return sorted((int(match[1]), entry) for match, entry in found if match)
