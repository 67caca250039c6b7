"""General ability by category of question: which abilities an operation took along."""

from __future__ import annotations

from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.printable import printable
from pulse_unlearn.report.tables import Notes, Row, Table, seed_count, shown
from pulse_unlearn.report.words import method_title, scenario_title, scope_title


def category_tables(numbers: Numbers) -> tuple[Table, ...]:
    """Build one table per scenario: a row per category, a column per model; none without any."""
    tables = []
    for scenario in numbers.scenarios():
        finals = numbers.finals(scenario)
        start = (finals[0] if finals else Place(scenario, "", "", 0)).at(0)
        places = (start, *finals)
        measure = _measure(numbers, places)
        names = numbers.parts(measure)
        if not names:
            continue
        notes, rows = Notes(), []
        for name in names:
            key = f"{measure}:{name}"
            found = [numbers.get(place, "general", "all", key) for place in places]
            asked = str(max((one.questions for one in found if one), default=0))
            cells = tuple(shown(one, key, notes, seeds=seed_count(numbers)) for one in found)
            rows.append(Row((printable(name.replace("_", " "), 60), asked), cells))
        columns = tuple(_column(place) for place in places)
        reading = "circular accuracy" if measure == "circular_accuracy" else "accuracy"
        title = f"{scenario_title(scenario)}: {reading}"
        heads = ("Category", "Questions")
        tables.append(Table(title, heads, columns, tuple(rows), tuple(notes.items())))
    return tuple(tables)


def _measure(numbers: Numbers, places: tuple[Place, ...]) -> str:
    """Return the circular accuracy if a run has it, as MMBench reports that one."""
    circular = (numbers.value(place, "general", "all", "circular_accuracy") for place in places)
    has_it = any(value is not None for value in circular)
    return "circular_accuracy" if has_it and numbers.parts("circular_accuracy") else "accuracy"


def _column(place: Place) -> str:
    if place.request == 0:
        return "before"
    return f"{method_title(place.method)} · {scope_title(place.scope)}"
