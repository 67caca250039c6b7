"""The numbers behind Figures 4 and 5 as tables, for those who cannot or will not read a plot."""

from __future__ import annotations

from pulse_unlearn.report import paper
from pulse_unlearn.report.estimates import LATENT, Numbers
from pulse_unlearn.report.tables import (
    Notes,
    Row,
    Table,
    papers_ratios,
    seed_count,
    shown,
    unreadable,
)
from pulse_unlearn.report.words import (
    MISSING,
    method_title,
    reading_title,
    scenario_title,
    scope_title,
    set_title,
)

FIGURE5_SETS: tuple[str, ...] = (
    "forget",
    "retain",
    "general",
    "unseen",
    "unseen_fictional",
    "just_requested",
    "forgotten_earlier",
    "not_yet_requested",
)

_RATIOS: tuple[tuple[str, str, str, str], ...] = (
    ("forget", "forgotten_pct", "forgotten", "D_unlearn accuracy lost"),
    ("retain", "kept_pct", "retain_kept", "D_retain kept"),
    ("general", "kept_pct", "general_kept", "General ability kept"),
    ("unseen", "kept_pct", "", "Unseen people kept"),
)


def figure4_table(numbers: Numbers, prefix: str = "") -> Table | None:
    """Build the ratios of Figure 4, each beside its version with chance removed.

    `prefix` is the reading: empty for the paper's, ``latent_`` for the highest.
    """
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        for place in numbers.finals(scenario):
            theirs = papers_ratios(numbers, place) if not prefix else None
            cells = []
            for name, ratio, attribute, _ in _RATIOS:
                text = f"{getattr(theirs, attribute):g}" if theirs and attribute else ""
                for suffix, paper_value in (("", text), ("_over_chance", "")):
                    measure = f"{prefix}{ratio}{suffix}"
                    found = numbers.get(place, name, "all", measure)
                    seeds = seed_count(numbers)
                    cells.append(shown(found, measure, notes, seeds=seeds, paper_value=paper_value))
            heads = (scenario_title(scenario), method_title(place.method), scope_title(place.scope))
            rows.append(Row(heads, tuple(cells)))
    if all(cell.value == MISSING for row in rows for cell in row.cells):
        return None
    columns = tuple(text for _, _, _, title in _RATIOS for text in (title, "chance removed"))
    heads = ("Scenario", "Method", "Updated")
    return Table("Figure 4 in numbers", heads, columns, tuple(rows), tuple(notes.items()))


def figure5_table(numbers: Numbers, measure: str = "accuracy") -> Table | None:
    """Build the numbers behind Figure 5: one row per set and method, one column per request."""
    mains = numbers.mains("sustainability")
    if not mains:
        return None
    last = max(place.request for place in mains)
    notes, rows = Notes(), []
    for name in FIGURE5_SETS:
        for place in mains:
            label = numbers.paper(place) if measure == "accuracy" else None
            theirs = paper.FIGURE5.get((name, label), ()) if label else ()
            found = [numbers.get(place.at(k), name, "all", measure) for k in range(last + 1)]
            if not any(found):
                continue
            cells = []
            for request, estimate in enumerate(found):
                text = f"{theirs[request]:g}" if request < len(theirs) else ""
                at = place.at(request)
                beside = unreadable(numbers, at, name, "all") if measure == "accuracy" else ()
                if measure == LATENT:
                    beside = tuple(f"by {reading_title(by)}" for by in numbers.highest(at, name))
                seeds = seed_count(numbers)
                cells.append(
                    shown(estimate, measure, notes, seeds=seeds, paper_value=text, beside=beside)
                )
            rows.append(Row((set_title(name), method_title(place.method)), tuple(cells)))
    if not rows:
        return None
    columns = ("before", *(f"request {k}" for k in range(1, last + 1)))
    return Table(
        "Figure 5 in numbers", ("Set", "Method"), columns, tuple(rows), tuple(notes.items())
    )
