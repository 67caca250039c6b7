"""Compare the results of two runs number by number: did a change of the code change a result?

    python bench/compare_runs.py OLD/results.csv NEW/results.csv

Rows are matched by every column that both files have beside the numbers; a column that only one
has is left out if it is the same in all matched rows' terms (a `condition` of `plain`). Exit code 0
if every row of OLD is in NEW with the same numbers; rows that only NEW has are counted, not wrong.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path

NUMBERS = ("value", "low", "high", "questions", "individuals")
BESIDE = (*NUMBERS, "reason")
"""Columns that say nothing about which row it is."""
DEFAULTS = {"condition": "plain"}
"""What an older file without the column stands for."""

Rows = Mapping[tuple[str, ...], Mapping[str, str]]


def read(path: Path) -> Rows:
    """Return the rows by key: every column that is no number, absent ones at their default."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{**DEFAULTS, **row} for row in csv.DictReader(file)]
    names = sorted(name for name in rows[0] if name not in BESIDE)
    found = {tuple(f"{name}={row[name]}" for name in names): row for row in rows}
    if len(found) != len(rows):
        raise SystemExit(f"{path}: {len(rows) - len(found)} rows repeat another one")
    return found


def compare(old: Rows, new: Rows) -> tuple[list[str], int]:
    """Return what differs, a line each, and how many rows only the new file has."""
    differences = []
    for key, row in old.items():
        other = new.get(key)
        if other is None:
            differences.append(f"missing: {' '.join(key)}")
            continue
        differences += [
            f"{' '.join(key)}: {name} {row[name]} -> {other[name]}"
            for name in NUMBERS
            if row[name] != other[name]
        ]
    return differences, len(new.keys() - old.keys())


def main() -> None:
    """Print what differs."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    old, new = (read(Path(argument)) for argument in sys.argv[1:])
    differences, more = compare(old, new)
    print(f"{len(old)} rows compared, {len(differences)} differences, {more} rows are new")
    print("\n".join(differences[:50]))
    raise SystemExit(1 if differences else 0)


if __name__ == "__main__":
    main()
