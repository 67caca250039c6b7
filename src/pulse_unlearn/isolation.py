"""Third parties' code, called so that whatever goes wrong in it is told with its name."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.errors import Interrupted, MethodError, PluginError, Problem, StoreError


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a third party's entry comes from."""

    package: str
    version: str
    sources: str
    """SHA-256 over the package's Python files."""

    def __str__(self) -> str:
        return f"{self.package} {self.version}".strip()


@contextmanager
def isolated(what: str, origin: Origin | None, *, fix: str = "") -> Iterator[None]:
    """Turn whatever is raised inside, `sys.exit` too, into a PluginError that names the plug-in.

    What is not the plug-in's doing passes: Ctrl-C, a request to stop, a run folder that cannot be
    written, no memory. Without an origin, for an entry of this package, everything does.
    """
    try:
        yield
    except (Interrupted, StoreError, MemoryError, PluginError):
        raise
    except (Exception, SystemExit) as error:  # others' code may raise anything
        if origin is None:
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        got += f" ({Path(frame.filename).name}, line {frame.lineno})"
        fix = fix or f"`pulse plugin check {origin.package}` looks for the cause"
        raise PluginError(
            Problem(f"the plug-in {origin} failed", what, got=got, fix=fix)
        ) from error


class _Overdue(BaseException):
    """Raised by the alarm; no Exception, so that `except Exception` in a plug-in lets it pass."""


@contextmanager
def deadline(seconds: float, *, fix: str = "") -> Iterator[Callable[[], None]]:
    """Raise MethodError once `seconds` have passed since the last call of what is yielded.

    Uses the alarm of POSIX systems, in the main thread; elsewhere, and for 0 seconds, nothing is
    limited. Compiled code that does not return to Python is only interrupted once it does.
    """
    can_ring = threading.current_thread() is threading.main_thread()
    if not seconds or not can_ring or not hasattr(signal, "setitimer"):
        yield lambda: None
        return
    inside = True

    def ring(_number: int, _frame: object) -> None:
        if inside:
            raise _Overdue

    def more_time() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again, should it be swallowed

    before = signal.signal(signal.SIGALRM, ring)
    try:
        more_time()
        yield more_time
    except _Overdue as error:
        got = f"nothing for {seconds:g} s"
        problem = Problem("does not return, so it was interrupted", got=got, fix=fix)
        raise MethodError(problem) from error
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
