"""One small registry: names to entries, third-party entry points, and "did you mean"."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar, cast

from pulse_unlearn.errors import ConfigError, PluginError, Problem
from pulse_unlearn.isolation import Origin, isolated

T = TypeVar("T")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


class Registry(Generic[T]):
    """Entries by name; `group` names the entry points through which third parties add theirs.

    `stand_in` makes an entry for one that cannot be loaded, from its name and what went wrong;
    without it `get` raises.
    """

    def __init__(
        self, kind: str, *, group: str = "", stand_in: Callable[[str, Problem], T] | None = None
    ) -> None:
        self.kind = kind
        self._group = group
        self._stand_in = stand_in
        self._entries: dict[str, T] = {}
        self._origins: dict[str, Origin] = {}
        self._failures: dict[str, Problem] = {}
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
        """Return the entry; raises ConfigError with the allowed names if there is none.

        Of an entry point that cannot be loaded it says which package it is from, and the error.
        """
        self._load_entry_points()
        if name not in self._entries and name in self._failures:
            raise ConfigError(self._failures[name])
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
        for point in _installed(tuple(sys.path)).select(group=self._group):
            origin = origin_of(point)
            try:
                with isolated(f"{self.kind} '{point.name}' ({point.value})", origin):
                    self.add(point.name, point.load())
            except PluginError as error:  # one broken package must not stop all others
                self._failures[point.name] = error.problems[0]
                if self._stand_in and point.name not in self._entries:
                    self._entries[point.name] = self._stand_in(point.name, error.problems[0])
                    self._origins[point.name] = origin
            else:
                self._origins[point.name] = origin

    def origin(self, name: str) -> Origin | None:
        """Return where a third party's entry comes from; None for an entry of this package."""
        self._load_entry_points()
        return self._origins.get(name)

    def failures(self) -> dict[str, Problem]:
        """Return the names of entry points that could not be loaded, and why."""
        self._load_entry_points()
        return dict(self._failures)


def third_party(group: str, name: str) -> Origin | None:
    """Return where an entry point of that name comes from, without loading it."""
    points = _installed(tuple(sys.path)).select(group=group, name=name)
    return next((origin_of(point) for point in points), None)


def third_parties(group: str) -> list[Origin]:
    """Return where the entry points of a group come from, without loading them."""
    return [origin_of(point) for point in _installed(tuple(sys.path)).select(group=group)]


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> EntryPoints:
    """Return all entry points of the packages on `sys.path`, whose files are read once for it."""
    del path
    return cast("EntryPoints", entry_points())  # Python 3.11 has another class, with `select` too


def origin_of(point: EntryPoint) -> Origin:
    """Return an entry point's distribution, version, and a digest of its package's sources."""
    package = point.module.partition(".")[0]
    spec = find_spec(package)
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    files = [path for folder in folders for path in folder.rglob("*.py")]
    if not files and spec and spec.origin:
        files = [Path(spec.origin)]
    digest = sha256()
    for path in sorted(files):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    distribution = point.dist
    return Origin(
        distribution.name if distribution else package,
        distribution.version if distribution else "",
        digest.hexdigest(),
    )
