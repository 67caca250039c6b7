"""Who works on an unfinished stage, whether still, and how others are kept out of it.

A stage is worked on in a folder that holds a lease, which its holder renews and at last removes.
Whoever takes over a stage whose lease ran out renames the folder to its next term
(`.partial-<name>~<term>`, a fencing token). So the one before, if it is alive after all, finds its
folder gone: it can neither write there nor publish. A lease runs out by the file system's clock,
which is the same for all machines.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pulse_unlearn.errors import Problem, RunLocked
from pulse_unlearn.store.atomic import file_errors, scratch_beside, write_json
from pulse_unlearn.store.manifest import CHECKPOINTS

PARTIAL = ".partial-"
LEASE = "lease.json"
"""File beside a stage's checkpoints that says who works on it."""
CLAIM = ".claim-"
"""Start of the names of files that last while a stage is claimed."""
_WORKING = "on this stage"
RENEWED_EVERY, RUNS_OUT_AFTER = 10.0, 60.0
"""Seconds; a machine that sleeps for longer loses its stages."""

Holder = dict[str, object]
"""`pid`, `host`, `started`, and what the holder notes of its progress."""


def folder_of(stages: Path, rest: str) -> Path:
    """Return where a stage is worked on, under its highest term; it need not be there."""
    return _newest(stages, rest)[1]


def stage_of(folder: str) -> str | None:
    """Return the stage that a folder of this name is for, without its term; None for others."""
    return folder.removeprefix(PARTIAL).partition("~")[0] if folder.startswith(PARTIAL) else None


def note(folder: Path, told: Mapping[str, object]) -> None:
    """Add to what a stage's holder says of itself; call it under the stage's lock."""
    write_json(_lease(folder), {**(read_holder(_lease(folder)) or myself()), **told})


def holder_of(folder: Path) -> Holder | None:
    """Return who works in a folder, for people: None if nobody, or a process that is gone."""
    holder = read_holder(_lease(folder))
    if holder is None or (holder["host"] == socket.gethostname() and not lives(holder["pid"])):
        return None
    try:
        old = datetime.now(UTC).timestamp() - _lease(folder).stat().st_mtime
    except OSError:
        return None
    return None if old > RUNS_OUT_AFTER else holder


def lapsed(folder: Path) -> float | None:
    """Return when a holder on another machine last renewed a lease that it let run out.

    None if it has not, or has given it back. By the file system's clock.
    """
    lease = _lease(folder)
    holder = read_holder(lease)
    if holder is None or holder["host"] == socket.gethostname():
        return None
    try:
        return lease.stat().st_mtime if _age(lease) > RUNS_OUT_AFTER else None
    except OSError:
        return None  # taken over or published in this moment


@contextmanager
def leased(stages: Path, rest: str, *, alone: bool) -> Iterator[Path]:
    """Hold a stage's lease, renewed in the background, and yield the folder to work in.

    `alone` says that nobody else on this machine can hold it, by a lock of the operating system.
    Raises RunLocked, naming the holder, if its lease has not run out or another was faster.
    """
    with file_errors(stages / f"{PARTIAL}{rest}", "take the stage"):
        folder = _claim(stages, rest, alone=alone)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(_lease(folder), done), daemon=True)
    renewing.start()
    try:
        yield folder
    finally:
        done.set()
        renewing.join()
        with suppress(OSError):  # the stage may be published; a real error must not be hidden
            _lease(folder).unlink()
            (folder / CHECKPOINTS).rmdir()  # if nothing is in it
            folder.rmdir()


def _claim(stages: Path, rest: str, *, alone: bool) -> Path:
    stages.mkdir(exist_ok=True)
    with _undisturbed(stages, rest, alone=alone):
        term, folder = _newest(stages, rest)
        if not folder.is_dir():
            folder.mkdir()
        elif holder := read_holder(_lease(folder)):
            if _is_held(_lease(folder), holder, alone=alone):
                raise RunLocked(locked(folder, holder, _WORKING))
            old, folder = folder, stages / f"{PARTIAL}{rest}~{term + 1}"
            old.rename(folder)  # whoever still works there finds it gone
        (folder / CHECKPOINTS).mkdir(exist_ok=True)
        write_json(_lease(folder), myself())
    return folder


@contextmanager
def _undisturbed(stages: Path, rest: str, *, alone: bool) -> Iterator[None]:
    """Keep all others from claiming a stage at the same moment; raises RunLocked if one does."""
    ticket = stages / f"{CLAIM}{rest}"
    mine = scratch_beside(ticket)
    write_json(mine, myself())
    try:
        clear_claim(ticket, alone=alone)
        os.link(mine, ticket)  # with what it says in it, and only if there is none
    except FileExistsError as error:
        raise RunLocked(locked(ticket, read_holder(ticket), _WORKING)) from error
    finally:
        mine.unlink(missing_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            ticket.unlink()


def clear_claim(ticket: Path, *, alone: bool) -> None:
    """Remove what a process left that claimed a stage and was killed, or could not remove it."""
    holder = read_holder(ticket)
    with suppress(FileNotFoundError):
        if holder is not None and not _is_held(ticket, holder, alone=alone):
            ticket.unlink()


def _newest(stages: Path, rest: str) -> tuple[int, Path]:
    first = f"{PARTIAL}{rest}"
    name = re.compile(re.escape(first) + r"(?:~(\d+))?")
    with file_errors(stages, "list the stages"):
        names = os.listdir(stages) if stages.is_dir() else []
    terms = [int(match[1] or 0) for one in names if (match := name.fullmatch(one))]
    term = max(terms, default=0)
    return term, stages / (f"{first}~{term}" if term else first)


def _is_held(lease: Path, holder: Holder, *, alone: bool) -> bool:
    """Tell whether the process that wrote a lease or ticket of its own still has it."""
    if holder["host"] == socket.gethostname():
        return not alone and lives(holder["pid"])
    try:
        return _age(lease) <= RUNS_OUT_AFTER
    except FileNotFoundError:
        return False  # freed in this moment


def _age(path: Path) -> float:
    """Return the seconds since a file changed, by the clock of the file system it is on."""
    probe = scratch_beside(path)
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()


def _renew(lease: Path, done: threading.Event) -> None:
    while not done.wait(RENEWED_EVERY):
        try:
            os.utime(lease)
        except FileNotFoundError:
            return  # taken over: whatever is written next says so
        except OSError:
            continue  # a network that comes back in time


def _lease(folder: Path) -> Path:
    return folder / CHECKPOINTS / LEASE


def myself() -> Holder:
    """Return what tells this process from others."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def read_holder(path: Path) -> Holder | None:
    """Return what a holder wrote of itself; None if it has not, or not yet in full."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(holder, dict) and {"pid", "host", "started"} <= holder.keys()
    return holder if whole else None


def locked(place: Path, holder: Holder | None, working: str) -> Problem:
    """Return the problem that another process holds a place; `working` completes its sentence."""
    who = (
        f"process {holder['pid']} on {holder['host']}, started {holder['started']}"
        if holder
        else "a process that has not yet said who it is"
    )
    return Problem(
        f"another process is working {working}",
        str(place),
        got=who,
        allowed="one process at a time",
        fix="wait for it or stop it: the lock ends with the process, there is no file to delete",
    )


def lives(pid: object) -> bool:
    """Tell whether a process of this machine is there and at work."""
    try:
        number = int(str(pid))
        if number <= 0:
            return False
        os.kill(number, 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    # A process that was killed and that nobody has waited for yet still has its number.
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
