"""Everything the template prints, brought together from one run record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.evaluation.scoring import DEFAULT_PARSER
from pulse_unlearn.report import paper
from pulse_unlearn.report.answer import Claim, ScoreRow, Status, claims, scoreboard
from pulse_unlearn.report.assumptions import Assumption, assumptions, flatten
from pulse_unlearn.report.categories import category_tables
from pulse_unlearn.report.curves import Panel, draw_curves, panels
from pulse_unlearn.report.drawing import Drawing
from pulse_unlearn.report.estimates import Estimate, Numbers
from pulse_unlearn.report.figure_tables import figure4_table, figure5_table
from pulse_unlearn.report.figures import figure4, figure5
from pulse_unlearn.report.findings import Finding, findings
from pulse_unlearn.report.load import Flag, RunRecord
from pulse_unlearn.report.printable import printable, printable_block
from pulse_unlearn.report.progress import Progress, progress
from pulse_unlearn.report.samples import SampleGroup, sample_groups
from pulse_unlearn.report.tables import Table, gauges, general_gauges, table3
from pulse_unlearn.report.words import (
    MISSING,
    interval,
    method_title,
    percent,
    scenario_title,
    scope_title,
    seeds_phrase,
)

_MOST_LINES = 60
_QUIET_FLAGS = frozenset({"stopped"})


@dataclass(frozen=True, slots=True)
class Bar:
    """One number of the scoreboard with its bar; positions are percent of the bar's length."""

    text: str
    interval: str
    paper: str
    value: float | None
    low: float | None
    high: float | None
    theirs: float | None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One row of the scoreboard."""

    scenario: str
    first: int
    """Rows that share the scenario's cell; 0 in all but the first of them."""
    method: str
    updated: str
    bars: tuple[Bar, ...]
    status: Status


@dataclass(frozen=True, slots=True)
class Page:
    """The report's content in reading order."""

    name: str
    facts: tuple[tuple[str, str], ...]
    seeds: str
    progress: Progress
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    parser: str
    """What read the answers."""
    claims: tuple[Claim, ...]
    board: tuple[BoardRow, ...]
    statuses: tuple[Status, ...]
    findings: tuple[Finding, ...]
    table3: Table | None
    table3_paper: tuple[tuple[str, tuple[str, ...]], ...]
    figure4_table: Table | None
    figure5_table: Table | None
    drawings: Mapping[str, Drawing]
    gauges: tuple[Table, ...]
    general_gauges: Table
    categories: tuple[Table, ...]
    warnings: tuple[tuple[str, str, str], ...]
    stops: tuple[tuple[str, str, str], ...]
    panels: tuple[Panel, ...]
    samples: tuple[SampleGroup, ...]
    sample_count: int
    assumptions: tuple[Assumption, ...]
    experiment: str
    environment: tuple[tuple[str, str], ...]
    digests: tuple[tuple[str, str], ...]
    reference: str = paper.REFERENCE
    bibtex: str = paper.BIBTEX


def make_page(record: RunRecord, *, digests: Sequence[tuple[str, str]]) -> Page:
    """Compute the page; `digests` are (file, SHA-256) of the files that its numbers come from."""
    numbers = Numbers(record.results, record.labels)
    rows = scoreboard(numbers, record.flags)
    shown = panels(record, numbers)
    drawn = (figure4(numbers), figure5(numbers), draw_curves(shown))
    groups = sample_groups(record.samples)
    statuses = {row.status.word: row.status for row in rows}
    done, parser = progress(record, numbers), _parser(record)
    return Page(
        name=printable(record.name, 80),
        facts=tuple(_facts(record, numbers, done)),
        seeds=seeds_phrase(numbers.all_seeds()),
        progress=done,
        notes=tuple(printable(" ".join(note.split()), 300) for note in record.notes[:_MOST_LINES]),
        problems=tuple(
            printable(" ".join(str(problem).split()), 300) for problem in record.problems
        ),
        parser=parser,
        claims=tuple(claims(numbers, rows, parser=parser)),
        board=tuple(_board(rows)),
        statuses=tuple(statuses.values()),
        findings=tuple(findings(numbers)),
        table3=table3(numbers, record.flags),
        table3_paper=_paper_table3(),
        figure4_table=figure4_table(numbers),
        figure5_table=figure5_table(numbers),
        drawings={drawing.name: drawing for drawing in drawn if drawing},
        gauges=tuple(gauges(numbers, record.flags, name) for name in numbers.scenarios()),
        general_gauges=general_gauges(numbers),
        categories=category_tables(numbers),
        warnings=_flag_lines([f for f in record.flags if f.flag not in _QUIET_FLAGS]),
        stops=_flag_lines([f for f in record.flags if f.flag in _QUIET_FLAGS]),
        panels=tuple(shown),
        samples=tuple(groups),
        sample_count=sum(len(group.samples) for group in groups),
        assumptions=tuple(assumptions(record.experiment)),
        experiment=printable_block(record.experiment_text),
        environment=tuple(
            (printable(name, 80), printable(value, 120))
            for name, value in flatten(record.environment)[:_MOST_LINES]
            if name
        ),
        digests=tuple(digests),
    )


def _facts(record: RunRecord, numbers: Numbers, done: Progress) -> list[tuple[str, str]]:
    facts = []
    model = record.experiment.get("model")
    source = model.get("source") if isinstance(model, dict) else model
    if source:
        facts.append(("Model", printable(source, 80)))
    people = _people(record.sets)
    if people:
        facts.append(("D_unlearn / D_retain", people))
    seeds = numbers.all_seeds()
    facts.append(("Seeds", "single seed" if len(seeds) == 1 else str(len(seeds))))
    facts.append(("Cells finished", f"{done.finished} of {done.planned}"))
    return facts


def _parser(record: RunRecord) -> str:
    scoring = record.experiment.get("scoring")
    found = scoring.get("parser") if isinstance(scoring, dict) else None
    return printable(found or DEFAULT_PARSER, 40)


def _people(sets: Mapping[str, Any]) -> str:
    counts: dict[str, str] = {}
    for key, groups in sets.items():
        scenario = scenario_title(str(key).split("/", 1)[0])
        if isinstance(groups, dict):
            sizes = [len(groups.get(name) or ()) for name in ("forget", "retain")]
            counts[scenario] = f"{sizes[0]} / {sizes[1]}"
    if len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} people"
    return "; ".join(f"{scenario} {count}" for scenario, count in counts.items())


def _board(rows: Sequence[ScoreRow]) -> list[BoardRow]:
    board, last = [], ""
    for row in rows:
        scenario = row.place.scenario
        theirs = row.paper if row.place.scope in ("", "projector+llm") else None
        bars = (
            _bar(row.forgotten, "forgotten_pct", theirs.forgotten if theirs else None),
            _bar(row.with_image, "forgotten_pct", None),
            _bar(row.text_only, "forgotten_pct", None),
            _bar(row.retain_kept, "kept_pct", theirs.retain_kept if theirs else None),
            _bar(row.general_kept, "kept_pct", theirs.general_kept if theirs else None),
            _bar(row.unparsable, "unparsable", None),
        )
        same = sum(other.place.scenario == scenario for other in rows)
        first = same if scenario != last else 0
        last = scenario
        request = f", request {row.place.request}" if row.place.request > 1 else ""
        title = scenario_title(scenario) + request
        method, updated = method_title(row.place.method), scope_title(row.place.scope)
        board.append(BoardRow(title, first, method, updated, bars, row.status))
    return board


def _bar(estimate: Estimate | None, measure: str, theirs: float | None) -> Bar:
    shown = f"{theirs:g}" if theirs is not None else ""
    if estimate is None or estimate.value is None:
        text = "n/a" if estimate else MISSING
        return Bar(text, "", shown, None, None, None, theirs)
    scale = 1.0 if "_pct" in measure else 100.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(min(max(scale * value, 0.0), 100.0), 2)

    return Bar(
        percent(estimate.value, measure, digits=0),
        interval(estimate, measure, digits=0),
        shown,
        place(estimate.value),
        place(estimate.low),
        place(estimate.high),
        theirs,
    )


def _paper_table3() -> tuple[tuple[str, tuple[str, ...]], ...]:
    rows = [("before unlearning", paper.TABLE3_BEFORE)]
    rows += [(f"GA · {scope_title(name)}", values) for name, values in paper.TABLE3_AFTER.items()]
    return tuple((title, tuple(f"{value:.1f}" for value in values)) for title, values in rows)


def _flag_lines(flags: Sequence[Flag]) -> tuple[tuple[str, str, str], ...]:
    """Return (cell, flag, detail) lines; beyond the first sixty only their number is told."""
    lines = []
    for flag in flags[:_MOST_LINES]:
        parts = [
            scenario_title(flag.scenario),
            method_title(flag.method),
            scope_title(flag.scope),
            f"request {printable(flag.request, 10)}",
            f"seed {printable(flag.seed, 10)}",
        ]
        lines.append((" · ".join(parts), printable(flag.flag, 60), printable(flag.detail, 240)))
    if len(flags) > _MOST_LINES:
        lines.append((f"and {len(flags) - _MOST_LINES} more", "", "see results.json"))
    return tuple(lines)
