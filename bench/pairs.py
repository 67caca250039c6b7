"""Timing two things against each other on a machine that may be shared: in turn, with spread."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PAIRS = 5
LOUD = 0.05
"""Share of the machine that others may take before a timing is called disturbed."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Seconds of A and of B, measured A B A B."""

    first: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """A over B, of each pair: what else the machine does falls on both alike."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio."""
        return min(self.ratios), max(self.ratios)


def seconds(work: Callable[[], object]) -> float:
    """Return what one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def paired(
    first: Callable[[], object], second: Callable[[], object], *, pairs: int = PAIRS
) -> Paired:
    """Time two things in turn; raises ValueError for no pairs.

    To be called when both have paid for what only a first pass pays.
    """
    if pairs < 1:
        raise ValueError(f"no pairs to time: {pairs}")
    measured = [(seconds(first), seconds(second)) for _ in range(pairs)]
    return Paired(tuple(a for a, _ in measured), tuple(b for _, b in measured))


class Neighbours:
    """Watches what other processes take of the machine between its making and a question."""

    def __init__(self) -> None:
        self._began, self._own, self._busy = time.monotonic(), _own_seconds(), _busy_seconds()

    @property
    def share(self) -> float | None:
        """What others took, as a share of all cores; None where the system does not tell."""
        busy = _busy_seconds()
        if busy is None or self._busy is None:
            return None
        passed = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        others = busy - self._busy - (_own_seconds() - self._own)
        return max(others, 0.0) / max(passed, 1e-9)

    def warn(self) -> None:
        """Say on standard error if others took so much that times cannot be trusted alone."""
        share = self.share
        if share is not None and share > LOUD:
            print(
                f"warning: other processes took {share:.0%} of this machine meanwhile; "
                "ratios of pairs stand, seconds do not",
                file=sys.stderr,
            )


def _own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _busy_seconds() -> float | None:
    """Return the seconds that all cores have worked since the system started."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, soft = map(int, fields[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
