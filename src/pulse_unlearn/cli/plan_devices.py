"""What several devices would bring, told from a plan's graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pulse_unlearn.estimate.stages import StageEstimate
from pulse_unlearn.launch.schedule import critical_path, lower_bound, makespan
from pulse_unlearn.scenarios import Plan

_DEVICES = (2, 4, 8, 32)


def devices_told(
    plan: Plan,
    stages: Sequence[StageEstimate],
    seconds: Callable[[StageEstimate], float],
    told: Callable[[float], str],
) -> str:
    """Return one sentence: the longest chain, and how many times as fast N devices are.

    Each stage has one device; the order is the coordinator's.
    """
    takes = {stage.name: seconds(stage) for stage in stages}
    parents = {stage.name: stage.parents for stage in plan.stages}

    def cost(name: str) -> float:
        return takes.get(name, 0.0)

    total = sum(takes.values())
    if not total:
        return ""
    chain = [name for name in critical_path(parents, cost) if cost(name)]
    longest = lower_bound(parents, cost, workers=len(parents))
    gains = [
        f"{devices}: {total / makespan(parents, cost, workers=devices):.1f}"
        for devices in _DEVICES
        if devices < 2 * len(parents)
    ]
    return (
        f"side by side (--on), a stage a device: {', '.join(gains)} times as fast, at most "
        f"{total / longest:.1f}; the longest chain takes {told(longest)}: {chain[0]} to "
        f"{chain[-1]}, {len(chain)} stages"
    )
