"""A file of erasure requests: who asked to be forgotten, together with whom, when, and why."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.files import plain_file
from pulse_unlearn.records import NamedRequest
from pulse_unlearn.registry import did_you_mean

COLUMNS = ("individual", "request", "date", "set", "why")
KEYS = ("who", "when", "why", "request", "retain")
_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class RequestFile:
    """What the file says: requests in the order they are carried out, and whom to retain."""

    requests: tuple[NamedRequest, ...]
    retained: tuple[str, ...] = ()
    """Empty where the file names nobody: then it is everyone who is not to be forgotten."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One place of the file that names people."""

    where: str
    people: tuple[str, ...]
    request: str
    """Empty for people to be retained."""
    date: str = ""
    why: str = ""


def read_request_file(path: Path, known: Collection[str]) -> RequestFile:
    """Read requests from JSON lines (`.jsonl`) or a CSV file; `known` are the data set's ids.

    JSON lines are requests in the order they came in: `{"who": "f012", "when": "2026-03-31"}`, also
    `"who": ["f012", "f013"]`, with `why` and a name (`request`) if there are any; dates must not go
    back. At most one line says `{"retain": ["f020", ...]}`.

    CSV columns: `individual`; `request`, a name that people of one request share; optionally `date`
    (ISO), `set` (`forget` unless it says `retain`) and `why`. Requests are carried out by date,
    those without one last, and then in the file's order.

    Whoever is to be retained may still ask to be forgotten. Raises DataError with everything in the
    file that cannot be used.
    """
    text = _read(path)
    if path.suffix in _LINES:
        entries, problems = _from_lines(path, text)
    else:
        entries, problems = _from_table(path, text)
    problems += _unknown(entries, known)
    requests, more = _gathered(entries)
    problems += more
    if path.suffix in _LINES:
        problems += _going_back(entries)
    else:
        requests.sort(key=lambda one: (not one.date, one.date))
    if not requests and not problems:
        problems.append(Problem("nobody asks to be forgotten", str(path)))
    if problems:
        raise DataError(problems)
    retained = (person for one in entries if not one.request for person in one.people)
    return RequestFile(tuple(requests), tuple(dict.fromkeys(retained)))


def people_in(path: Path, *, retained: bool = False) -> tuple[str, ...]:
    """Return whom a file of requests names, or retains; of another file, the id on each line.

    Whether anybody has these ids is for the reader to see.
    """
    text = _read(path)
    if path.suffix not in (*_LINES, ".csv"):
        return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    entries, problems = (_from_lines if path.suffix in _LINES else _from_table)(path, text)
    if problems:
        raise DataError(problems)
    chosen = (one for one in entries if bool(one.request) != retained)
    return tuple(dict.fromkeys(person for one in chosen for person in one.people))


def _read(path: Path) -> str:
    try:
        return plain_file(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            Problem("the file of requests cannot be read", str(path), str(error))
        ) from error


def _from_lines(path: Path, text: str) -> tuple[list[_Entry], list[Problem]]:
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.append(Problem("not a line of JSON", where, str(error)))
            continue
        wrong = _wrong_line(said, where)
        problems += wrong
        if wrong:
            continue
        if "retain" in said:
            entries.append(_Entry(where, tuple(said["retain"]), ""))
            continue
        who = said["who"]
        people = (who,) if isinstance(who, str) else tuple(who)
        name = said.get("request") or f"line {number}"
        entries.append(_Entry(where, people, name, said.get("when", ""), said.get("why", "")))
    retaining = [one.where for one in entries if not one.request]
    problems += [
        Problem("a second line of people to retain", where, allowed=f"one, as in {retaining[0]}")
        for where in retaining[1:]
    ]
    return entries, problems


def _wrong_line(said: Any, where: str) -> list[Problem]:
    """Return what keeps a line of JSON from being a request."""
    example = '{"who": "<id>", "when": "2026-03-31", "why": "..."}'
    if not isinstance(said, dict):
        return [Problem("the line is no request", where, type(said).__name__, example)]
    problems = [
        Problem("unknown key", where, repr(key), ", ".join(KEYS), did_you_mean(key, KEYS))
        for key in said
        if key not in KEYS
    ]
    if "retain" in said and len(said) > 1:
        problems.append(Problem("a line of people to retain says nothing else", where))
    key = "retain" if "retain" in said else "who"
    people = said.get(key)
    listed = [people] if isinstance(people, str) and key == "who" else people
    if not isinstance(listed, list) or not listed or not all(isinstance(p, str) for p in listed):
        problems.append(Problem(f"{key!r} names nobody", where, repr(people), "ids, as a list"))
    problems += [
        Problem(f"{key!r} is not text", where, repr(said[key]), "text")
        for key in ("when", "why", "request")
        if not isinstance(said.get(key, ""), str)
    ]
    when = said.get("when", "")
    return problems + (_not_a_date(when, where) if isinstance(when, str) else [])


def _from_table(path: Path, text: str) -> tuple[list[_Entry], list[Problem]]:
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
    entries: list[_Entry] = []
    problems: list[Problem] = []
    for row in table:
        where = f"{path}:{table.line_num}"
        cells = {key: (value or "").strip() for key, value in row.items() if key}
        of_set, name, when = (cells.get(key, "") for key in ("set", "request", "date"))
        if of_set not in ("", "forget", "retain"):
            problems.append(Problem("unknown set", where, of_set, "forget, retain"))
        if of_set == "retain":
            name = ""
        elif not name:
            problems.append(Problem("the request has no name", where))
            continue
        problems += _not_a_date(when, where)
        why = cells.get("why", "")
        entries.append(_Entry(where, (cells.get("individual", ""),), name, when, why))
    return entries, problems


def _not_a_date(when: str, where: str) -> list[Problem]:
    try:
        if when:
            date.fromisoformat(when)
    except ValueError:
        return [Problem("not a date", where, when, "ISO, such as 2026-03-31")]
    return []


def _unknown(entries: Iterable[_Entry], known: Collection[str]) -> list[Problem]:
    """Return who is not in the data set, and who asks, or is to be retained, twice."""
    problems: list[Problem] = []
    seen: dict[tuple[str, bool], str] = {}
    for entry in entries:
        for person in entry.people:
            if person not in known:
                fix = did_you_mean(person, known)
                what = "nobody in the data set has this id"
                problems.append(Problem(what, entry.where, person, fix=fix))
            key = (person, bool(entry.request))
            if key in seen:
                what = "the individual stands there twice"
                problems.append(Problem(what, entry.where, person, f"once, as in {seen[key]}"))
            seen.setdefault(key, entry.where)
    return problems


def _gathered(entries: Iterable[_Entry]) -> tuple[list[NamedRequest], list[Problem]]:
    """Return the requests, each with all of its people, in the file's order."""
    found: dict[str, NamedRequest] = {}
    problems = []
    for entry in entries:
        if not entry.request:
            continue
        earlier = found.get(entry.request)
        if earlier is None:
            found[entry.request] = NamedRequest(entry.request, entry.people, entry.date, entry.why)
            continue
        if earlier.date != entry.date:
            got = f"{entry.date or 'none'}, after {earlier.date or 'none'}"
            problems.append(Problem(f"request {entry.request} has two dates", entry.where, got))
        people, why = (*earlier.people, *entry.people), earlier.why or entry.why
        found[entry.request] = NamedRequest(entry.request, people, earlier.date, why)
    return list(found.values()), problems


def _going_back(entries: Iterable[_Entry]) -> list[Problem]:
    """Return the lines dated before an earlier line: requests are carried out as they came in."""
    problems, latest = [], ""
    for entry in entries:
        if entry.date and entry.date < latest:
            fix = "new requests stand below all earlier ones"
            problems.append(
                Problem("the date goes back", entry.where, entry.date, f"{latest} or later", fix)
            )
        latest = max(latest, entry.date)
    return problems
