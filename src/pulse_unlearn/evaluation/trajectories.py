"""What the way of an operation says: where as much is forgotten, the frontier, and sequences.

Everything here is about one seed and takes accuracies that were measured, no answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

HALFWAY = 0.5
"""Share of the way from before down to the floor, at which methods are compared by default."""
CLIFF = 0.9
"""Share of general usable ability below which a sequence has fallen off."""


@dataclass(frozen=True, slots=True)
class Point:
    """A model on the way of an operation."""

    step: float | None
    """Optimiser steps of the operation, from 0; None where nobody noted when it ended."""
    remembered: float
    """Accuracy on D_unlearn by the reading that finds most."""
    kept: Mapping[str, float]
    """Name of a set -> accuracy over that before."""


def level_of(before: float, floor: float, share: float) -> float:
    """Return the accuracy on D_unlearn at a share of the way from before down to the floor."""
    return before - share * (before - floor)


def first_down_to(path: Sequence[Point], level: float) -> Point | None:
    """Return where a path first comes down to a level, by lines between its points.

    Its first point if that is there already; None if the path never gets there.
    """
    for number, point in enumerate(path):
        if point.remembered > level:
            continue
        if number == 0:
            return point
        return _between(path[number - 1], point, level)
    return None


def _between(before: Point, behind: Point, level: float) -> Point:
    share = (before.remembered - level) / (before.remembered - behind.remembered)
    step = None
    if before.step is not None and behind.step is not None:
        step = before.step + share * (behind.step - before.step)
    kept = {
        name: value + share * (behind.kept[name] - value)
        for name, value in before.kept.items()
        if name in behind.kept
    }
    return Point(step, level, kept)


def frontier(
    path: Sequence[Point], name: str, *, before: float, floor: float
) -> list[tuple[float, float]]:
    """Return (forgotten, kept) of the points that no other beats in both, least forgotten first.

    Forgotten is the share of the way from before down to the floor, kept that of the set `name`;
    both are cut at 0 and 1. The model before, (0, 1), is one of the points.
    """
    span = before - floor
    if span <= 0:
        return []
    found = {(0.0, 1.0)}
    for point in path:
        if name in point.kept:
            found.add((_share((before - point.remembered) / span), _share(point.kept[name])))
    best: list[tuple[float, float]] = []
    for gone, kept in sorted(found, reverse=True):
        if not best or kept > best[-1][1]:
            best.append((gone, kept))
    return best[::-1]


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def area_under(points: Sequence[tuple[float, float]]) -> float:
    """Return the area under a frontier, by trapezoids, from 0 to 1.

    1 is everything forgotten with everything kept. Short of the first point as much is kept as
    there, since that model forgot more; beyond the last nothing is, since no model got there.
    """
    if not points:
        return 0.0
    first = points[0][0] * points[0][1]
    parts = [(x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(points)]
    return first + sum(parts)


def with_least(kept: Mapping[str, float], sets: Sequence[str], name: str) -> dict[str, float]:
    """Return what is kept, with the least of some sets under a name; without it if none is there.

    No set counts as more than whole, so that gains in one make up for no loss in another.
    """
    there = [kept[one] for one in sets if one in kept]
    return {**kept, **({name: min([1.0, *there])} if there else {})}


def cliff(general: Sequence[float | None], *, share: float = CLIFF) -> int | None:
    """Return the first request after which general ability is below a share of that before.

    `general` is before (place 0) and after each request; None if it holds on to the end.
    """
    start = general[0]
    if not start:
        return None
    rest = enumerate(general[1:], start=1)
    return next((n for n, now in rest if now is not None and now < share * start), None)


def area_over(path: Sequence[float | None]) -> float | None:
    """Return the mean height of a line through before and each request, by trapezoids.

    None where a point is missing, or there is none behind the first.
    """
    there = [one for one in path if one is not None]
    if len(there) < max(len(path), 2):
        return None
    return sum((a + b) / 2 for a, b in pairwise(there)) / (len(there) - 1)


def rebound(row: Sequence[float | None], turn: int) -> float | None:
    """Return what people of request `turn` regain by the end, over right after their request.

    `row` is their accuracy before (place 0) and after each request. None for the last request,
    which nothing follows.
    """
    if turn >= len(row) - 1:
        return None
    then, end = row[turn], row[-1]
    return None if then is None or end is None else end - then


def eroded_before_turn(row: Sequence[float | None], turn: int) -> float | None:
    """Return what people of request `turn` lose through the requests before theirs.

    None for the first request, which nothing precedes.
    """
    if turn <= 1:
        return None
    start, then = row[0], row[turn - 1]
    return None if start is None or then is None else start - then
