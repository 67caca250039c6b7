"""Ctrl-C, SIGTERM and pre-emption: ask the work to stop, do not tear it apart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pulse_unlearn.errors import Interrupted, Problem
from pulse_unlearn.ranks import several

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Set by the first signal; the second one leaves at once.

    Not so if `patient`: a launcher of several processes sends them all what a terminal already has.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal: int | None = None
        self._patient = patient

    def __call__(self) -> bool:
        """Tell whether a signal came."""
        return self.signal is not None

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if self.signal is not None:
            name = signal.Signals(self.signal).name
            raise Interrupted(Problem("stopped on request", got=name))

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take one signal."""
        if self.signal is not None and not self._patient:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn stop signals into a StopRequest while inside; only possible in the main thread."""
    request = StopRequest(patient=several())
    before = {number: signal.signal(number, request.handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
