"""One small registry: names to entries, third-party entry points, and "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from pulse_unlearn.errors import ConfigError, Problem

T = TypeVar("T")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


class Registry(Generic[T]):
    """Entries by name; `group` names the entry points through which third parties add theirs."""

    def __init__(self, kind: str, *, group: str = "") -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, T] = {}
        self._loaded = not group

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate an entry to register it; a name can be taken once."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def add(self, name: str, entry: T) -> None:
        """Register one entry; raises ConfigError if the name is taken by another entry."""
        if self._entries.get(name, entry) is not entry:
            raise ConfigError(Problem(f"two {self.kind} entries are named '{name}'"))
        self._entries[name] = entry

    def get(self, name: str) -> T:
        """Return the entry; raises ConfigError with the allowed names if there is none."""
        self._load_entry_points()
        if name not in self._entries:
            raise ConfigError(
                Problem(
                    f"unknown {self.kind}",
                    got=repr(name),
                    allowed=", ".join(sorted(self._entries)),
                    fix=did_you_mean(name, self._entries),
                )
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._load_entry_points()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        for name in self.names():
            yield name, self._entries[name]

    def _load_entry_points(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for point in entry_points(group=self._group):
            self.add(point.name, point.load())
