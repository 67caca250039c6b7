"""Print a run's main numbers, mean and spread over seeds: `python bench/findings.py runs/demo`."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("forget image", "forget", "multimodal", "accuracy"),
    ("forget name", "forget", "text_only", "accuracy"),
    ("retain image", "retain", "multimodal", "accuracy"),
    ("retain name", "retain", "text_only", "accuracy"),
    ("general", "general", "all", "accuracy"),
    ("unreadable", "forget", "all", "unreadable"),
    ("letter", "forget", "all", "letter_accuracy"),
    ("forgotten %", "forget", "all", "forgotten_pct"),
    ("general kept %", "general", "all", "kept_pct"),
    ("not yet req.", "not_yet_requested", "all", "accuracy"),
)


def main(run: Path) -> None:
    """Print one line per scenario, method, scope and request."""
    cells: dict[tuple[str, ...], dict[tuple[str, str, str], list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    with (run / "results.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["value"]:
                condition = () if row["condition"] == "plain" else (row["condition"],)
                cell = (row["scenario"], row["method"], row["scope"], row["request"], *condition)
                key = (row["set"], row["modality"], row["measure"])
                cells[cell][key].append(float(row["value"]))
    print(" | ".join(["cell", *(name for name, *_ in COLUMNS)]))
    for cell, values in cells.items():
        shown = [_shown(values.get(column[1:], []), measure=column[3]) for column in COLUMNS]
        print(" | ".join([" ".join(cell), *shown]))


def _shown(values: list[float], *, measure: str) -> str:
    """Return mean and spread between seeds in percent; `*_pct` measures are percent already."""
    if not values:
        return "-"
    scale = 1.0 if "_pct" in measure else 100.0
    spread = f" ({scale * stdev(values):.0f})" if len(values) > 1 else ""
    return f"{scale * fmean(values):.0f}{spread}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
