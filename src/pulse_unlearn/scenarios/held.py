"""Whom the forget batches of an operation hold, and for how many steps."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.config import MethodEntry
from pulse_unlearn.scenarios.stages import Group


def forgotten(entry: MethodEntry, requests: Sequence[Group]) -> Group:
    """Return whom forget batches are about: the last of the requests, or all of them."""
    if entry.unlearn.forget == "request" or len(requests) == 1:
        return requests[-1]
    return Group(tuple(name for one in requests for name in one.ids))


def lasting(entry: MethodEntry, count: int) -> MethodEntry:
    """Return the entry with the steps of the operation that is the `count`-th of its sequence."""
    stop = entry.unlearn.stop
    held = count if entry.unlearn.forget == "requests_so_far" else 1
    if stop.steps_of == "operation" or held == 1:
        return entry
    longer = stop.model_copy(update={"max_steps": held * stop.max_steps})
    unlearn = entry.unlearn.model_copy(update={"stop": longer})
    return entry.model_copy(update={"unlearn": unlearn})
