"""What a plan's graph allows: the longest chain, and how soon N workers can be done."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

Parents = Mapping[str, Sequence[str]]
"""Stage -> the stages that it rests on."""
Cost = Callable[[str], float]


def ranks_of(parents: Parents, cost: Cost = lambda _: 1.0) -> dict[str, float]:
    """Return what is left to do from each stage to the end of its longest chain, itself included.

    The longest first is the order in which the critical path waits for nothing.
    """
    ranks: dict[str, float] = {}
    below: dict[str, float] = {}
    for name in reversed([*TopologicalSorter(parents).static_order()]):
        ranks[name] = cost(name) + below.get(name, 0.0)
        for parent in parents[name]:
            below[parent] = max(below.get(parent, 0.0), ranks[name])
    return ranks


def critical_path(parents: Parents, cost: Cost) -> list[str]:
    """Return the stages of the chain that takes longest, first to last."""
    ranks = ranks_of(parents, cost)
    children: dict[str, list[str]] = {name: [] for name in parents}
    for name, above in parents.items():
        for parent in above:
            children[parent].append(name)
    path = []
    ahead = [name for name, above in parents.items() if not above]
    while ahead:
        path.append(max(ahead, key=ranks.__getitem__))
        ahead = children[path[-1]]
    return path


def lower_bound(parents: Parents, cost: Cost, *, workers: int) -> float:
    """Return a time that no schedule on so many workers can beat.

    The longest chain; or, for any moment, that moment and an equal share of all work that cannot
    begin before it.
    """
    heads: dict[str, float] = {}
    for name in TopologicalSorter(parents).static_order():
        heads[name] = max((heads[one] + cost(one) for one in parents[name]), default=0.0)
    chain = max((heads[name] + cost(name) for name in heads), default=0.0)
    best, work = chain, 0.0
    for name in sorted(heads, key=heads.__getitem__, reverse=True):
        work += cost(name)
        best = max(best, heads[name] + work / workers)
    return best


def makespan(parents: Parents, cost: Cost, *, workers: int) -> float:
    """Return the time that so many workers take in the order in which the coordinator starts."""
    ends = [now for now, _ in moments(parents, cost, workers=workers)]
    return ends[-1] if ends else 0.0


def moments(
    parents: Parents, cost: Cost, *, workers: int
) -> Iterator[tuple[float, tuple[str, ...]]]:
    """Yield each moment after which one of so many workers is free, and the stages at work then."""
    ranks, graph = ranks_of(parents), TopologicalSorter(parents)
    graph.prepare()
    now = 0.0
    waiting: list[tuple[float, str]] = []
    busy: list[tuple[float, str]] = []
    while graph.is_active():
        for name in graph.get_ready():
            heapq.heappush(waiting, (-ranks[name], name))
        while waiting and len(busy) < workers:
            _, name = heapq.heappop(waiting)
            heapq.heappush(busy, (now + cost(name), name))
        together = tuple(name for _, name in busy)
        now, name = heapq.heappop(busy)
        yield now, together
        graph.done(name)
