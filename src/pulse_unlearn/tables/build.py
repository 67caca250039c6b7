"""Which tables a run has: those of the report, with a name and a caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import did_you_mean
from pulse_unlearn.report.arms import Arms, arms
from pulse_unlearn.report.estimates import LATENT, Numbers
from pulse_unlearn.report.gauges import GAUGES, gauges
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.scoreboard import ScoreRow, Verdicts, scoreboard
from pulse_unlearn.report.tables import (
    Notes,
    Row,
    Shown,
    Table,
    figure5_table,
    shown,
    table3,
)
from pulse_unlearn.report.words import (
    HIGHEST,
    MISSING,
    READING_TITLES,
    listed,
    model_heads,
    reading_title,
    scenario_title,
    seeds_phrase,
    set_title,
)

READINGS = (*READING_TITLES, LATENT)
"""Readings that accuracies can be taken by: the paper's, others, and the one that finds most."""
_GAUGES = (
    "accuracy",
    "rotated_accuracy",
    "circular_accuracy",
    "words_accuracy",
    "words_named",
    "mentions",
    "letter_share",
    "unreadable",
    "chance",
)
"""Columns of the table of readings, of those that the report has."""
_SETS = ("forget", "retain", "general")
"""Its rows."""


@dataclass(frozen=True, slots=True)
class NamedTable:
    """A table, the name of its file, and what stands above it."""

    name: str
    caption: str
    table: Table


def paper_tables(run: Path, *, reading: str = READINGS[0]) -> list[NamedTable]:
    """Return every table that the run has numbers for.

    Accuracies by scenario (the paper's Table 3) and by request are in one reading; the tables of
    readings and of verdicts are in all. Raises ConfigError for a reading that is none, StoreError
    for a folder without results.
    """
    if reading not in READINGS:
        fix = did_you_mean(reading, READINGS)
        raise ConfigError(
            Problem("unknown reading", "--reading", repr(reading), ", ".join(READINGS), fix)
        )
    record = load_run(run)
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    found = _tables(numbers, Verdicts(record.extras.verdicts), reading)
    return [*found, *_arms(arms(record.extras), _seeds(numbers))]


def choose(tables: Sequence[NamedTable], names: Sequence[str]) -> list[NamedTable]:
    """Return the tables of these names, `accuracy` being those of every scenario; all for none.

    Raises ConfigError, naming each name that is no table of the run.
    """
    there = [table.name for table in tables]
    kinds = {name: [one for one in there if _kind(one) == name] for name in map(_kind, there)}
    known = dict.fromkeys((*there, *kinds))
    problems = [
        Problem(
            "the run has no such table",
            "--table",
            name,
            ", ".join(known),
            did_you_mean(name, known),
        )
        for name in names
        if name not in known
    ]
    if problems:
        raise ConfigError(problems)
    wanted = {one for name in names for one in (name, *kinds.get(name, ()))}
    return [table for table in tables if not names or table.name in wanted]


def _kind(name: str) -> str:
    return name.partition("-")[0]


def _tables(numbers: Numbers, verdicts: Verdicts, reading: str) -> Iterator[NamedTable]:
    seeds = _seeds(numbers)
    by = HIGHEST if reading == LATENT else f"{reading_title(reading)} reading"
    for scenario in numbers.scenarios():
        found = table3(numbers, verdicts, reading, scenario)
        if found:
            title = scenario_title(scenario)
            caption = f"{title}: accuracy in percent, {by}. {seeds}"
            yield NamedTable(f"accuracy-{scenario}", caption, found)
    for scenario in numbers.scenarios():
        found = _some_columns(gauges(numbers, verdicts, scenario, *GAUGES))
        caption = f"{scenario_title(scenario)}: every reading, in percent. {seeds}"
        yield NamedTable(f"readings-{scenario}", caption, found)
    rows = scoreboard(numbers, verdicts)
    caption = (
        "Verdicts on D_unlearn after the last request, beside the accuracy of the strict reading "
        f"and of the reading that finds most, in percent. {seeds}"
    )
    yield NamedTable("verdicts", caption, _verdicts(numbers, rows))
    sequence = figure5_table(numbers, reading)
    if sequence:
        caption = f"Accuracy in percent by request, {by}. {seeds}"
        yield NamedTable(numbers.sequence(), caption, sequence)


def _arms(both: Arms | None, seeds: str) -> Iterator[NamedTable]:
    if both is None:
        return
    minus = f"{both.first} minus {both.second} people of one checkpoint, in points. {seeds}"
    for name, table in (("origin-forgotten", both.forgotten), ("origin-kept", both.kept)):
        if table:
            yield NamedTable(name, f"{table.title}: {minus}", table)


def _seeds(numbers: Numbers) -> str:
    seeds = numbers.all_seeds()
    how = (
        "t interval over the seeds"
        if len(seeds) > 1
        else "interval clustered by person, of this run"
    )
    text = f"{seeds_phrase(seeds)}; 95 % {how}."
    return text[0].upper() + text[1:]


def _some_columns(table: Table) -> Table:
    """Return the readings' table without what belongs to the report alone, and empty columns."""
    sets = tuple(set_title(name) for name in _SETS)
    kept = [row for row in table.rows if row.heads[-1].startswith(sets)]
    titles = [title for part in GAUGES.values() for name, title in part if name in _GAUGES]
    places = [
        place
        for place, title in enumerate(table.columns)
        if title in titles and any(row.cells[place].value != MISSING for row in kept)
    ]
    rows = [replace(row, cells=tuple(row.cells[place] for place in places)) for row in kept]
    return replace(table, columns=tuple(table.columns[p] for p in places), rows=tuple(rows))


def _verdicts(numbers: Numbers, rows: Sequence[ScoreRow]) -> Table:
    notes, found, seeds = Notes(), [], len(numbers.all_seeds())
    for row in rows:
        known, heads = row.forget, model_heads(row.place)
        by = listed([reading_title(name) for name in known.by])
        judged = row.judged
        found.append(
            Row(
                (scenario_title(row.place.scenario), *heads),
                (
                    Shown(judged.text if judged else MISSING),
                    Shown(_remembered(row) if judged else MISSING),
                    shown(known.usable, "accuracy", notes, seeds=seeds),
                    shown(known.latent, "latent_accuracy", notes, seeds=seeds),
                    Shown(by or MISSING),
                ),
            )
        )
    columns = ("Verdict", "Remembered", "Strict", "Highest", "By")
    return Table(
        "Verdicts", ("Scenario", "Method", "Updated"), columns, tuple(found), tuple(notes.items())
    )


def _remembered(row: ScoreRow) -> str:
    often = row.judged.remembered if row.judged else None
    if often is None or not often.seeds:
        return MISSING
    if often.seeds == 1:
        return "yes" if often.true else "no"
    return f"{often.true} of {often.seeds} seeds"
