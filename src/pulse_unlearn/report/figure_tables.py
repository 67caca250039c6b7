"""The numbers behind Figures 4 and 5 as tables, for those who cannot or will not read a plot."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.report import paper
from pulse_unlearn.report.estimates import LATENT, SETS, Estimate, Numbers, Place
from pulse_unlearn.report.tables import (
    Notes,
    Row,
    Shown,
    Table,
    papers_ratios,
    seed_count,
    shown,
    unreadable,
)
from pulse_unlearn.report.words import (
    MISSING,
    THE_RETAIN_MODEL,
    method_title,
    model_heads,
    reading_title,
    scenario_title,
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
        for place in numbers.models(scenario):
            if place.request == 0 and not place.is_retain_model:
                continue
            theirs = papers_ratios(numbers, place) if not prefix else None
            cells = []
            for name, ratio, attribute, _ in _RATIOS:
                text = f"{getattr(theirs, attribute):g}" if theirs and attribute else ""
                for suffix, paper_value in (("", text), ("_over_chance", "")):
                    measure = f"{prefix}{ratio}{suffix}"
                    found = numbers.get(place, name, "all", measure)
                    seeds = seed_count(numbers)
                    cells.append(shown(found, measure, notes, seeds=seeds, paper_value=paper_value))
            heads = (scenario_title(scenario), *model_heads(place))
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
    retain_model = numbers.retain_model("sustainability")
    for name in FIGURE5_SETS:
        if retain_model and name in SETS:
            # It never saw any of D_unlearn: what is asked of a method after its last request alone.
            path = [None] * last + [retain_model]
            cells = _figure5_cells(numbers, path, (name, measure), (), notes)
            rows.append(Row((set_title(name), THE_RETAIN_MODEL), cells))
        for place in mains:
            label = numbers.paper(place) if measure == "accuracy" else None
            theirs = paper.FIGURE5.get((name, label), ()) if label else ()
            path = [place.at(request) for request in range(last + 1)]
            cells = _figure5_cells(numbers, path, (name, measure), theirs, notes)
            rows.append(Row((set_title(name), method_title(place.method)), cells))
    rows = [row for row in rows if any(c.value != MISSING or c.mark for c in row.cells)]
    if not rows:
        return None
    columns = ("before", *(f"request {k}" for k in range(1, last + 1)))
    return Table(
        "Figure 5 in numbers", ("Set", "Method"), columns, tuple(rows), tuple(notes.items())
    )


def _figure5_cells(
    numbers: Numbers,
    path: Sequence[Place | None],
    what: tuple[str, str],
    theirs: Sequence[float],
    notes: Notes,
) -> tuple[Shown, ...]:
    """Return one set's numbers of one model along the requests, the paper's beside them."""
    name, measure = what
    cells = []
    for request, place in enumerate(path):
        found: Estimate | None = None
        beside: tuple[str, ...] = ()
        if place:
            found = numbers.get(place, name, "all", measure)
            beside = unreadable(numbers, place, name, "all") if measure == "accuracy" else ()
            if measure == LATENT:
                beside = tuple(f"by {reading_title(by)}" for by in numbers.highest(place, name))
        text = f"{theirs[request]:g}" if request < len(theirs) else ""
        seeds = seed_count(numbers)
        cells.append(shown(found, measure, notes, seeds=seeds, paper_value=text, beside=beside))
    return tuple(cells)
