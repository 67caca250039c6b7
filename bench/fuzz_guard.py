"""One `pulse` command in this process, watched: how it ended, and what it must never do.

The command is the console script's own `main`, with `sys.argv` set. An audit hook refuses, and
remembers, whatever would be written outside the allowed folders; a timer ends what hangs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PROCESSOR_SECONDS = 5.0
WAITING_SECONDS = 30.0
"""A pipe that nobody writes to costs no processor time. Waiting for a processor does not count."""
ALLOWED_CODES = (0, 1, 2)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.remove": (0,),
    "os.rename": (0, 1),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "os.mkfifo": (0,),
    "shutil.rmtree": (0,),
}
"""Audit event -> which of its arguments are paths that it changes."""


class Hung(BaseException):
    """Raised by the timer; no `except Exception` of the program catches it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one command ended."""

    code: int
    output: str
    seconds: float
    fault: str = ""
    """What it must not do: `traceback`, `hang`, `write outside`, `exit code`, `controls`."""
    detail: str = ""


class Guard:
    """Watches commands; one for each process, as an audit hook cannot be removed."""

    def __init__(self, *allowed: Path) -> None:
        self.allowed = tuple(str(folder.resolve()) for folder in allowed)
        self.active = self.hung = False
        self.began = 0.0
        self.outside: list[str] = []
        sys.addaudithook(self._see)

    def pulse(self, *argv: object, limit: float = PROCESSOR_SECONDS) -> Outcome:
        """Run `pulse ARGV`, as the console script does, for so many processor seconds."""
        from pulse_unlearn.cli import main

        sys.argv = ["pulse", *map(str, argv)]
        return self.call(main, limit=limit)

    def call(self, work: Callable[[], object], *, limit: float = PROCESSOR_SECONDS) -> Outcome:
        """Run what ends as `main` does: by returning, or with SystemExit."""
        told, fault, detail, code = io.StringIO(), "", "", 0
        began = time.perf_counter()
        self.outside.clear()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                with self._watched(limit):
                    work()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 70
            except Hung:
                fault, detail = "hang", traceback.format_exc()
            except BaseException:  # noqa: BLE001 - what a command lets through is what is looked for
                fault, detail = "traceback", traceback.format_exc()
        output = told.getvalue()
        if self.outside:
            fault, detail = "write outside", "\n".join(self.outside)
        elif self.hung:  # also where something on the way has swallowed what the timer raised
            fault = "hang"
        elif not fault and "Traceback (most recent call last)" in output:
            fault, detail = "traceback", output
        elif not fault and code not in ALLOWED_CODES:
            fault, detail = "exit code", f"{code}\n{output}"
        elif not fault and (found := _CONTROLS.search(output)):
            fault, detail = "controls", f"{found[0]!r} in\n{output}"
        return Outcome(code, output, time.perf_counter() - began, fault, detail)

    @contextlib.contextmanager
    def _watched(self, limit: float) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in (_BUSY, _WAITS)}
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS)
        self.active, self.hung, self.began = True, False, _asleep()
        try:
            yield
        finally:
            self.active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number == _WAITS and (left := WAITING_SECONDS - (_asleep() - self.began)) > 0:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1.0))
            return
        self.hung = True
        raise Hung

    def _see(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.active:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & _WRITES
            if writes or (isinstance(mode, str) and set(mode) & set("wxa+")):
                self._require_inside(event, path)
        elif event in _CHANGES:
            for place in _CHANGES[event]:
                self._require_inside(event, arguments[place])
        elif event in {"socket.connect", "subprocess.Popen", "os.system", "os.exec"}:
            self._refuse(f"{event} {arguments[:2]}")

    def _require_inside(self, event: str, path: object) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return  # an open file: its opening was looked at
        place = os.path.realpath(os.fsdecode(path))
        inside = any(place == one or place.startswith(f"{one}{os.sep}") for one in self.allowed)
        if not inside and place != os.devnull:
            self._refuse(f"{event} {place}")

    def _refuse(self, told: str) -> None:
        self.outside.append(told)
        raise PermissionError(f"refused by the fuzzer: {told}")


def _asleep() -> float:
    """Return a clock of seconds that stands while a thread works, or waits for a processor."""
    nanoseconds = 0
    for thread in Path("/proc/self/task").glob("*/schedstat"):  # nothing where this isn't Linux
        with contextlib.suppress(OSError):  # it ended meanwhile
            works, waits, _ = map(int, thread.read_text().split())
            nanoseconds += works + waits
    return time.monotonic() - nanoseconds / 1e9


_BUSY, _WAITS = signal.SIGPROF, signal.SIGALRM
