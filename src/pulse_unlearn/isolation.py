"""Third parties' code, called so that whatever goes wrong in it is told with its name."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pulse_unlearn.errors import (
    Interrupted,
    MethodError,
    PluginError,
    Problem,
    RankLost,
    StoreError,
)


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
    """Turn whatever is raised inside into a PluginError that names the plug-in.

    `sys.exit` and `os._exit` too: a plug-in that ends the process would end it as if all went well.

    What is not the plug-in's doing passes: Ctrl-C, a request to stop, a run folder that cannot be
    written, no memory. Without an origin, for an entry of this package, everything does.
    """
    try:
        with _exit_raises() if origin else nullcontext():
            yield
    except (Interrupted, RankLost, StoreError, MemoryError, PluginError):
        raise
    except (Exception, SystemExit) as error:  # others' code may raise anything
        if origin is None:
            raise
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((one for one in frames[::-1] if one.filename != __file__), frames[-1])
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        got += f" ({Path(frame.filename).name}, line {frame.lineno})"
        fix = fix or f"`pulse plugin check {origin.package}` looks for the cause"
        raise PluginError(
            Problem(f"the plug-in {origin} failed", what, got=got, fix=fix)
        ) from error


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let `os._exit` raise SystemExit inside; processes that were forked here may leave by it."""
    leave, own = os._exit, os.getpid()

    def refuse(status: int) -> NoReturn:
        if os.getpid() != own:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave


_TICK = 1.0
"""Seconds between two looks at the clock."""
GRACE = 8.0
"""Seconds that third parties' code may still take once the run was asked to stop."""


class _Overdue(BaseException):
    """Raised by the alarm; no Exception, so that `except Exception` in a plug-in lets it pass."""


@contextmanager
def deadline(
    seconds: float, *, fix: str = "", stopped: Callable[[], bool] = lambda: False
) -> Iterator[Callable[[], None]]:
    """Raise MethodError once `seconds` have passed since the last call of what is yielded.

    Raises Interrupted if `stopped` has said so for `GRACE` seconds: what does not return does not
    hear of it otherwise. Uses the alarm of POSIX systems, in the main thread; elsewhere, and for 0
    seconds, nothing is limited. Compiled code that does not return to Python is only interrupted
    once it does.
    """
    can_ring = threading.current_thread() is threading.main_thread()
    if not seconds or not can_ring or not hasattr(signal, "setitimer"):
        yield lambda: None
        return
    tick = min(seconds, _TICK)
    inside, last, asked = True, time.monotonic(), 0.0

    def ring(_number: int, _frame: object) -> None:
        nonlocal asked
        now = time.monotonic()
        asked = (asked or now) if stopped() else 0.0
        late = now - last >= seconds - tick / 10 or (asked and now - asked >= GRACE)
        if inside and late:
            raise _Overdue  # again at the next tick, should it be swallowed

    def more_time() -> None:
        nonlocal last
        last = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, tick, tick)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        more_time()
        yield more_time
    except _Overdue as error:
        if asked:
            what = "stopped on request, in code that did not hear of it"
            raise Interrupted(Problem(what, got=f"nothing for {GRACE:g} s")) from error
        got = f"nothing for {seconds:g} s"
        problem = Problem("does not return, so it was interrupted", got=got, fix=fix)
        raise MethodError(problem) from error
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
