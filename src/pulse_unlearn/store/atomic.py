"""Files that are either whole or absent, and file-system errors that say what to do.

Every file is written beside its place, flushed to the disk and renamed; then the folder is flushed
too. A process killed in between leaves at most a file or folder named `.writing-*`, which the next
holder of the lock, the run's or the stage's, removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pulse_unlearn.errors import Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.store.fingerprint import readable_text

SCRATCH = ".writing-"
"""Start of the names of unfinished files and folders."""

_FIXES = {
    errno.ENOSPC: "free space on this disk, then give the same command again: it continues",
    errno.EDQUOT: "free space in your quota, then give the same command again: it continues",
    errno.EFBIG: "raise the file size limit (ulimit -f), then give the same command again",
    errno.EROFS: "the disk is mounted read-only: write the run somewhere else",
    errno.EACCES: "make the folder writable for this user, or write the run somewhere else",
    errno.EPERM: "make the folder writable for this user, or write the run somewhere else",
    errno.ENOENT: "the folder was moved or deleted: put it back, or start the run again",
    errno.EIO: "the disk reports errors: check it before trusting anything on it",
}

_OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries written in Rust tell the number of an OSError that they make one of their own."""


@contextmanager
def file_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError inside into a StoreError that names the path, the cause and the way out.

    So is what safetensors makes of one. `action` completes "cannot ...", such as "write" or "save
    the checkpoint".
    """
    try:
        yield
    except OSError as error:
        raise typed(error, path, action) from error
    except Exception as error:
        told = _OS_ERROR.search(str(error))
        if told is None:
            raise
        number = int(told[1])
        problem = Problem(f"cannot {action}: {os.strerror(number)}", str(path))
        raise StoreError(replace(problem, fix=_FIXES.get(number, ""))) from error


def typed(error: OSError, path: Path, action: str) -> StoreError:
    """Return the StoreError that `file_errors` raises for an OSError."""
    cause = error.strerror or str(error) or type(error).__name__
    problem = Problem(f"cannot {action}: {cause}", _path_of(error, path))
    return StoreError(replace(problem, fix=_FIXES.get(error.errno or 0, "")))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    The folder must exist: one that has vanished is not made again behind the user's back.
    Raises StoreError.
    """
    scratch = scratch_beside(path)
    with file_errors(path, "write"), removed_on_failure(scratch):
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does, with line ends as given; raises StoreError."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object, *, sort_keys: bool = False) -> None:
    """Write indented JSON as `write_bytes` does; raises StoreError, also for NaN and infinity."""
    write_text(path, readable_text(value, where=path.name, sort_keys=sort_keys))


def write_folder(
    folder: Path, write: Callable[[Path], None], *, action: str = "write the folder"
) -> None:
    """Let `write` fill a folder so that a crash leaves all of it or nothing of it.

    For libraries that write files by themselves: `write` is given an empty folder beside `folder`,
    which takes its place once all is on the disk. `action` is as for `file_errors`. Raises
    StoreError, and whatever `write` raises.
    """
    scratch = scratch_beside(folder)
    with file_errors(folder, action):
        scratch.mkdir()
        with removed_on_failure(scratch):
            write(scratch)
            for parent, _, files in os.walk(scratch):
                for name in files:
                    sync_file(Path(parent, name))
                sync_folder(Path(parent))
            delete(folder)
            scratch.rename(folder)
        sync_folder(folder.parent)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits; raises StoreError."""
    with file_errors(path, "read"), plain_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk; raises OSError."""
    # Reading suffices, so a file without write permission can be flushed, but not on Windows.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk; raises OSError."""
    if sys.platform == "win32":  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems keep names durable by themselves and refuse the call.
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def scratch_beside(path: Path) -> Path:
    """Return an unused name beside `path`, on the same disk, for something unfinished."""
    return path.parent / f"{SCRATCH}{secrets.token_hex(8)}"


@contextmanager
def removed_on_failure(scratch: Path) -> Iterator[None]:
    """Remove the unfinished file or folder if anything at all is raised inside."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first error is the one to report
            delete(scratch)
        raise


def delete(path: Path) -> None:
    """Delete a file, a link or a whole folder, if it is there; raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def delete_at_once(folder: Path) -> None:
    """Delete a folder so that a crash leaves it whole or gone, never half; raises OSError."""
    scratch = scratch_beside(folder)
    folder.rename(scratch)
    delete(scratch)


def delete_scratch(folder: Path, *, skip: str = SCRATCH) -> None:
    """Delete what writes that were killed left in `folder` and below; raises OSError.

    Folders whose names begin with `skip` are not looked into.
    """
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.startswith(SCRATCH):
                delete(Path(parent, name))
        folders[:] = [name for name in folders if not name.startswith((SCRATCH, skip))]


def _path_of(error: OSError, fallback: Path) -> str:
    name = error.filename
    # The scratch name means nothing to the reader; the file being written does.
    if not isinstance(name, str) or any(part.startswith(SCRATCH) for part in Path(name).parts):
        return str(fallback)
    return name
