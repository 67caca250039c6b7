"""The board: entries of verified runs of one protocol, kept in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulse_unlearn import store
from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.leaderboard.entries import Entry, SeedEntry, entries_of
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.load import RunRecord, load_run

VERSION = 1
_MOST_TOLD = 5


@dataclass(frozen=True, slots=True)
class Board:
    """Entries of runs that asked the same of the same models."""

    protocol: Mapping[str, str]
    """Stage that no method's settings touch (base model, target, who was chosen, retain model) ->
    its fingerprint: of data, model, settings and seeds. Runs are comparable where these agree."""
    entries: tuple[Entry, ...]

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios of its entries, each once."""
        return tuple(dict.fromkeys(one.scenario for one in self.entries))

    def with_run(self, run: Path) -> Board:
        """Return the board with a run's entries; those of an earlier run under its name go.

        Raises Corrupted for files that are not the ones that were written, StoreError for a run
        without results or of another protocol, or for methods that another run has entered.
        """
        if problems := store.verify(run):
            raise Corrupted(problems)
        record = load_run(run)
        protocol = _protocol(run)
        _require_same(self.protocol, protocol, run)
        told = f"{record.name} ({_digest(run)[:12]})"
        found = entries_of(run, record, _numbers(record), told=told)
        if not found:
            raise StoreError(Problem("the run has no finished operation", str(run)))
        others = tuple(one for one in self.entries if one.run.split(" (")[0] != record.name)
        taken = {(one.scenario, one.method, one.scope): one.run for one in others}
        clashes = [
            Problem(
                "another run has entered this method",
                f"{one.scenario}, {one.method}",
                got=one.run,
                allowed=taken[one.scenario, one.method, one.scope],
                fix="give the method another label in the experiment",
            )
            for one in found
            if (one.scenario, one.method, one.scope) in taken
        ]
        if clashes:
            raise StoreError(clashes)
        return Board({**self.protocol, **protocol}, (*others, *found))


EMPTY = Board({}, ())


def read_board(path: Path) -> Board:
    """Read a board; an empty one if there is no file. Raises StoreError for what is none."""
    if not path.exists():
        return EMPTY
    with store.file_errors(path, "read the leaderboard"):
        text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        entries = tuple(_entry(one) for one in content["entries"])
        return Board(dict(content["protocol"]), entries)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        fix = "`pulse leaderboard add RUN` makes a new one under another name"
        got = f"{type(error).__name__}: {error}"
        raise StoreError(Problem("is no leaderboard", str(path), got=got, fix=fix)) from error


def write_board(path: Path, board: Board) -> None:
    """Write a board as JSON."""
    content = {
        "version": VERSION,
        "protocol": dict(sorted(board.protocol.items())),
        "entries": [asdict(one) for one in board.entries],
    }
    store.write_json(path, content)


def _entry(told: Mapping[str, Any]) -> Entry:
    seeds = tuple(SeedEntry(**_exactly(SeedEntry, one)) for one in told["seeds"])
    return Entry(**{**_exactly(Entry, told), "seeds": seeds})


def _exactly(kind: type[Entry | SeedEntry], told: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    if set(told) != names:
        raise ValueError(f"{kind.__name__} has {', '.join(sorted(set(told) ^ names))} wrong")
    return dict(told)


def _numbers(record: RunRecord) -> Numbers:
    return Numbers(record.results, record.labels, record.extras.over_seeds)


def _protocol(run: Path) -> dict[str, str]:
    """Return the fingerprints of what operations begin from and are held against.

    The models before, who never knew, and the stages that these rest on: what a method's own
    settings do not touch.
    """
    with store.file_errors(run, "read the plan"):
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    stages = {one["name"]: one for one in plan["stages"]}
    left = {one["before"] for one in plan["operations"]}
    left |= {one["never_knew"] for one in plan["operations"] if one["never_knew"]}
    found: dict[str, str] = {}
    while left:
        name = left.pop()
        found[name] = str(stages[name]["fingerprint"])
        left |= {one for one in stages[name]["parents"] if one not in found}
    return found


def _require_same(board: Mapping[str, str], run: Mapping[str, str], where: Path) -> None:
    """Raise StoreError unless what two protocols share is the same, and they share something."""
    shared = sorted(board.keys() & run.keys())
    differing = [name for name in shared if board[name] != run[name]]
    if board and (differing or not shared):
        told = ", ".join(differing[:_MOST_TOLD]) or "no stage in common"
        fix = (
            "take data, model, seeds, scenarios, scoring and fine-tuning of the board's experiment "
            "and change methods alone; `pulse diff` tells what differs"
        )
        raise StoreError(Problem("was run by another protocol", str(where), got=told, fix=fix))


def _digest(run: Path) -> str:
    """Return a SHA-256 of the index of the run's results."""
    with store.file_errors(run, "read the run's index"):
        return sha256((run / store.INDEX).read_bytes()).hexdigest()


def by_scenario(board: Board) -> dict[str, Sequence[Entry]]:
    """Return the entries of each scenario."""
    return {
        name: [one for one in board.entries if one.scenario == name] for name in board.scenarios
    }
