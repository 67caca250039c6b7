"""Locks that the operating system frees when their holder dies."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pulse_unlearn.errors import Problem, RunLocked
from pulse_unlearn.store.atomic import file_errors, write_json


@contextmanager
def held(lock: Path, place: Path, *, working: str) -> Iterator[None]:
    """Hold the lock file `lock`, which guards `place`; the file stays when the lock is free.

    The lock is the operating system's (`flock`), so it is free the moment its holder dies, however
    it dies. Raises RunLocked, naming the holder, if another holds it, and StoreError. `working`
    completes "another process is working ..." in the message.
    """
    system_lock = FileLock(lock, thread_local=False)
    with file_errors(place, "take the lock"):
        # Not with parents: a run folder that vanished must not come back as an empty one.
        lock.parent.mkdir(exist_ok=True)
        try:
            system_lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLocked(_held_by_another(lock, place, working)) from error
    try:
        write_json(holder_file(lock), _myself())
        yield
    finally:
        # The file means nothing once the lock is free, so its removal must not hide a real error.
        with suppress(OSError):
            holder_file(lock).unlink()
        with file_errors(place, "free the lock"):
            system_lock.release()


def holder_file(lock: Path) -> Path:
    """Return the file that says who holds a lock, for the error message of the next."""
    return lock.with_name(f"{lock.name}-holder.json")


def _myself() -> dict[str, object]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _held_by_another(lock: Path, place: Path, working: str) -> Problem:
    try:
        holder = json.loads(holder_file(lock).read_bytes())
        who = f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "a process that has not yet said who it is"
    return Problem(
        f"another process is working {working}",
        str(place),
        got=who,
        allowed="one process at a time",
        fix="wait for it or stop it: the lock ends with the process, there is no file to delete",
    )
