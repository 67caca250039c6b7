"""General ability by category of question: which abilities an operation took along."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.printable import printable
from pulse_unlearn.report.tables import Notes, Row, Table, seed_count, shown
from pulse_unlearn.report.words import model_title, scenario_title


def category_tables(numbers: Numbers) -> tuple[Table, ...]:
    """Build a table per scenario and kind of category: a row per category, a column per model.

    MMBench's wider `l2-category` comes first; a kind that no question has gets no table.
    """
    tables = []
    for scenario in numbers.scenarios():
        models = numbers.models(scenario)
        for kind, column in (("l2_", "l2-category"), ("", "category")):
            table = _table(numbers, models, kind, column)
            tables += [table] if table.rows else []
    return tuple(tables)


def _table(numbers: Numbers, places: Sequence[Place], kind: str, column: str) -> Table:
    measure = _measure(numbers, places)
    notes, rows = Notes(), []
    for name in numbers.parts(f"{kind}{measure}"):
        key = f"{kind}{measure}:{name}"
        found = [numbers.get(place, "general", "all", key) for place in places]
        asked = str(max((one.questions for one in found if one), default=0))
        cells = tuple(shown(one, measure, notes, seeds=seed_count(numbers)) for one in found)
        rows.append(Row((printable(name.replace("_", " "), 60), asked), cells))
    columns = tuple(model_title(place) for place in places)
    reading = "circular accuracy" if measure == "circular_accuracy" else "accuracy"
    title = f"{scenario_title(places[0].scenario)}: {reading} by {column}"
    heads = (column, "Questions")
    return Table(title, heads, columns, tuple(rows), tuple(notes.items()))


def _measure(numbers: Numbers, places: Sequence[Place]) -> str:
    """Return the circular accuracy if a run has it, as MMBench reports that one."""
    circular = (numbers.value(place, "general", "all", "circular_accuracy") for place in places)
    has_it = any(value is not None for value in circular)
    return "circular_accuracy" if has_it and numbers.parts("circular_accuracy") else "accuracy"
