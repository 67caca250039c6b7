"""The numbers behind Figures 4 and 5 as tables, for those who cannot or will not read a plot."""

from __future__ import annotations

from pulse_unlearn.report import paper
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.tables import Notes, Row, Table, seed_count, shown, with_unparsable
from pulse_unlearn.report.words import method_title, scenario_title, scope_title, set_title

FIGURE5_SETS: tuple[str, ...] = ("forget", "retain", "general")
OTHER_SETS: tuple[str, ...] = (
    "just_requested",
    "forgotten_earlier",
    "not_yet_requested",
    "celebrities",
)

_RATIOS: tuple[tuple[str, str, str], ...] = (
    ("forget", "forgotten_pct", "forgotten"),
    ("forget", "forgotten_pct_over_chance", ""),
    ("forget", "letter_forgotten_pct", ""),
    ("retain", "kept_pct", "retain_kept"),
    ("retain", "kept_pct_over_chance", ""),
    ("general", "kept_pct", "general_kept"),
    ("general", "kept_pct_over_chance", ""),
)


def figure4_table(numbers: Numbers) -> Table | None:
    """Build the ratios of Figure 4, each beside its version with chance removed."""
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        for place in numbers.finals(scenario):
            label = numbers.paper(place)
            theirs = paper.relative(scenario, label, place.request)
            cells = []
            for name, measure, attribute in _RATIOS:
                text = f"{getattr(theirs, attribute):g}" if theirs and attribute else ""
                found = numbers.get(place, name, "all", measure)
                cells.append(
                    shown(found, measure, notes, seeds=seed_count(numbers), paper_value=text)
                )
            heads = (scenario_title(scenario), method_title(place.method), scope_title(place.scope))
            rows.append(Row(heads, tuple(cells)))
    if not rows:
        return None
    columns = (
        "D_unlearn forgotten",
        "chance removed",
        "read by letters",
        "D_retain kept",
        "chance removed",
        "General ability kept",
        "chance removed",
    )
    heads = ("Scenario", "Method", "Updated")
    return Table("Figure 4 in numbers", heads, columns, tuple(rows), tuple(notes.items()))


def figure5_table(numbers: Numbers) -> Table | None:
    """Build the numbers behind Figure 5: one row per set and method, one column per request."""
    mains = numbers.mains("sustainability")
    if not mains:
        return None
    last = max(place.request for place in mains)
    notes, rows = Notes(), []
    for name in (*FIGURE5_SETS, *OTHER_SETS):
        for place in mains:
            label = numbers.paper(place)
            theirs = paper.FIGURE5.get((name, label), ()) if label else ()
            found = [numbers.get(place.at(k), name, "all", "accuracy") for k in range(last + 1)]
            if not any(found):
                continue
            cells = []
            for request, estimate in enumerate(found):
                text = f"{theirs[request]:g}" if request < len(theirs) else ""
                cell = shown(
                    estimate, "accuracy", notes, seeds=seed_count(numbers), paper_value=text
                )
                cells.append(with_unparsable(numbers, place.at(request), name, "all", cell))
            rows.append(Row((set_title(name), method_title(place.method)), tuple(cells)))
    columns = ("before", *(f"request {k}" for k in range(1, last + 1)))
    return Table(
        "Figure 5 in numbers", ("Set", "Method"), columns, tuple(rows), tuple(notes.items())
    )
