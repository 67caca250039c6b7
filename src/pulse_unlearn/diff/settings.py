"""What two nested records say differently, leaf by leaf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ABSENT = "(not there)"


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is not the same in both; `ABSENT` where one has none."""

    where: str
    """Dotted name, as for `--set`."""
    a: Any
    b: Any


def changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the leaves that differ, in the order of `a`, then those only `b` has."""
    first, second = dict(_leaves(a)), dict(_leaves(b))
    return tuple(
        Change(name, first.get(name, ABSENT), second.get(name, ABSENT))
        for name in dict.fromkeys((*first, *second))
        if name not in first or name not in second or first[name] != second[name]
    )


def _leaves(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", inner
