"""A file of erasure requests: who asked to be forgotten, together with whom, and when."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.registry import did_you_mean

COLUMNS = ("individual", "request", "date", "set")


@dataclass(frozen=True, slots=True)
class RequestFile:
    """What the file says: requests in the order they are carried out, and whom to retain."""

    requests: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Name, ISO date or an empty text, ids of the people."""
    retained: tuple[str, ...]


def read_request_file(path: Path, known: Collection[str]) -> RequestFile:
    """Read a CSV file of requests.

    Columns: `individual` (an id of the data set); `request`, a name that people of one request
    share; optionally `date` (ISO) and `set`, `forget` unless it says `retain`. Requests are carried
    out by date, those without one last, and then in the file's order. Raises DataError with every
    row that cannot be used.
    """
    rows = _rows(path)
    problems: list[Problem] = []
    people: dict[str, list[str]] = {}
    dates: dict[str, str] = {}
    retained: list[str] = []
    seen: dict[str, int] = {}
    for line, row in rows:
        where, identity = f"{path}:{line}", row.get("individual", "")
        problems += _problems(row, where, known)
        if identity in seen:
            problems.append(
                Problem(
                    "the individual stands there twice", where, identity, f"line {seen[identity]}"
                )
            )
        seen.setdefault(identity, line)
        if row.get("set") == "retain":
            retained.append(identity)
            continue
        name, when = row.get("request", ""), row.get("date", "")
        people.setdefault(name, []).append(identity)
        if dates.setdefault(name, when) != when:
            got = f"{when or 'none'}, after {dates[name] or 'none'}"
            problems.append(Problem(f"request {name} has two dates", where, got))
    if not people and not problems:
        problems.append(Problem("nobody asks to be forgotten", str(path)))
    if not retained and not problems:
        problems.append(
            Problem("nobody is to be retained", str(path), fix="add rows with set: retain")
        )
    if problems:
        raise DataError(problems)
    names = sorted(people, key=lambda name: (not dates[name], dates[name]))
    requests = tuple((name, dates[name], tuple(people[name])) for name in names)
    return RequestFile(requests, tuple(retained))


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            Problem("the file of requests cannot be read", str(path), str(error))
        ) from error
    table = csv.DictReader(text.splitlines())
    names = table.fieldnames or []
    wrong = [
        Problem("unknown column", str(path), name, ", ".join(COLUMNS), did_you_mean(name, COLUMNS))
        for name in names
        if name not in COLUMNS
    ]
    wrong += [
        Problem("a column is missing", str(path), allowed=name)
        for name in COLUMNS[:2]
        if name not in names
    ]
    if wrong:
        raise DataError(wrong)
    return [
        (table.line_num, {key: (value or "").strip() for key, value in row.items() if key})
        for row in table
    ]


def _problems(row: dict[str, str], where: str, known: Collection[str]) -> list[Problem]:
    problems = []
    identity, when, of_set = (row.get(name, "") for name in ("individual", "date", "set"))
    if identity not in known:
        fix = did_you_mean(identity, known)
        problems.append(Problem("nobody in the data set has this id", where, identity, fix=fix))
    if of_set not in ("", "forget", "retain"):
        problems.append(Problem("unknown set", where, of_set, "forget, retain"))
    if of_set != "retain" and not row.get("request"):
        problems.append(Problem("the request has no name", where))
    if when:
        try:
            date.fromisoformat(when)
        except ValueError:
            problems.append(Problem("not a date", where, when, "ISO, such as 2026-03-31"))
    return problems
