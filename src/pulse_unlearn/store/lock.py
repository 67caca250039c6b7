"""One process at a time in a run folder."""

from __future__ import annotations

import json
import os
import socket
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from pulse_unlearn.errors import Problem, RunLocked
from pulse_unlearn.store.atomic import file_errors, write_json
from pulse_unlearn.store.stages import sweep

LOCK = ".lock"
"""The file the operating system's lock is on; it stays when the lock is free."""

HOLDER = ".lock-holder.json"
"""Who holds the lock, for the error message of the next; without meaning while it is free."""


class RunLock:
    """Hold a run folder, which is made if it is missing; a context manager.

    The lock is the operating system's (`flock`), so it is free the moment its holder dies, however
    it dies. Entering raises RunLocked, naming the holder, if another holds it, and StoreError if
    the folder cannot be used; it also removes what a killed holder left half-written.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._held = ExitStack()

    def __enter__(self) -> RunLock:
        with ExitStack() as held:
            with file_errors(self.run, "use the run folder"):
                self.run.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self.run / LOCK, thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout as error:
                    raise RunLocked(_held_by_another(self.run)) from error
                held.callback(lock.release)
            write_json(self.run / HOLDER, _myself())
            held.callback(_forget_holder, self.run)
            sweep(self.run)
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with file_errors(self.run, "leave the run folder"):
            self._held.close()


def _myself() -> dict[str, object]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _forget_holder(run: Path) -> None:
    # The file means nothing once the lock is free, so its removal must not hide a real error.
    with suppress(OSError):
        (run / HOLDER).unlink()


def _held_by_another(run: Path) -> Problem:
    try:
        holder = json.loads((run / HOLDER).read_bytes())
        who = f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "a process that has not yet said who it is"
    return Problem(
        "another process is working in this run folder",
        str(run),
        got=who,
        allowed="one process at a time",
        fix="wait for it or stop it: the lock ends with the process, there is no file to delete",
    )
