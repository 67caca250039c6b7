"""The tables of the report: Table 3, and the gauges that stand beside every accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pulse_unlearn.report import paper
from pulse_unlearn.report.answer import Status, status
from pulse_unlearn.report.estimates import Estimate, Numbers, Place
from pulse_unlearn.report.load import Flag
from pulse_unlearn.report.printable import printable
from pulse_unlearn.report.words import (
    MISSING,
    interval,
    method_title,
    percent,
    scenario_title,
    scope_title,
    set_title,
)

GAUGES: tuple[str, ...] = (
    "accuracy",
    "unparsable",
    "refused",
    "letter_accuracy",
    "correct_probability",
    "chance",
)
GENERAL_GAUGES: tuple[str, ...] = ("circular_accuracy", "rotation_flip_rate", "letter_bias")


@dataclass(slots=True)
class Notes:
    """Why numbers of one table are undefined: each reason once, under a letter."""

    reasons: list[str] = field(default_factory=list)

    def mark(self, reason: str) -> str:
        """Return the letter of a reason; empty for no reason."""
        if not reason:
            return ""
        text = printable(reason, 160)
        if text not in self.reasons:
            self.reasons.append(text)
        position = self.reasons.index(text)
        return chr(ord("a") + position) if position < 26 else f"n{position}"

    def items(self) -> list[tuple[str, str]]:
        """Return (letter, reason) in order."""
        return [(self.mark(reason), reason) for reason in list(self.reasons)]


@dataclass(frozen=True, slots=True)
class Shown:
    """One number as a table cell prints it."""

    value: str
    interval: str = ""
    mark: str = ""
    paper: str = ""
    unparsable: str = ""
    seeds: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One table row: its header cells, its numbers, and whether it is flagged."""

    heads: tuple[str, ...]
    cells: tuple[Shown, ...]
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to print."""

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...]


def shown(
    estimate: Estimate | None, measure: str, notes: Notes, *, seeds: int, paper_value: str = ""
) -> Shown:
    """Turn an estimate into a cell; `seeds` is the run's number of seeds, to mark partial ones."""
    if estimate is None:
        return Shown(MISSING, paper=paper_value)
    partial = len(estimate.seeds) < seeds
    return Shown(
        percent(estimate.value, measure),
        interval(estimate, measure),
        notes.mark(estimate.reason),
        paper_value,
        seeds=f"{len(estimate.seeds)} of {seeds} seeds" if partial else "",
    )


def table3(numbers: Numbers, flags: Sequence[Flag]) -> Table | None:
    """Build Table 3 (fine-tuned scenario): before, then each method and scope, with the paper's."""
    finals = numbers.finals("finetuned")
    if not finals:
        return None
    notes = Notes()
    rows = [_table3_row(numbers, finals[0].at(0), "before unlearning", paper.TABLE3_BEFORE, notes)]
    for place in finals:
        compared = (
            paper.TABLE3_AFTER.get(place.scope)
            if numbers.paper(place) == paper.TABLE3_METHOD
            else None
        )
        title = f"{method_title(place.method)} · {scope_title(place.scope)}"
        row = _table3_row(numbers, place, title, compared, notes)
        rows.append(Row(row.heads, row.cells, status(numbers, flags, place)))
    columns = (
        "D_unlearn with image",
        "D_unlearn text only",
        "D_retain with image",
        "D_retain text only",
        "General ability",
    )
    return Table("Table 3", ("Parameters updated",), columns, tuple(rows), tuple(notes.items()))


def gauges(numbers: Numbers, flags: Sequence[Flag], scenario: str) -> Table:
    """Build the gauges of one scenario: before, and each method after its last request."""
    notes, rows = Notes(), []
    finals = numbers.finals(scenario)
    start = (finals[0] if finals else Place(scenario, "", "", 0)).at(0)
    for place in (start, *finals):
        name = "before" if place.request == 0 else method_title(place.method)
        verdict = status(numbers, flags, place) if place.request else None
        sets = numbers.sets(place) or ["forget", "retain", "general"]
        for group in sets:
            modalities = ("all",) if group == "general" else ("multimodal", "text_only")
            for modality in modalities:
                found = [numbers.get(place, group, modality, gauge) for gauge in GAUGES]
                if not any(found):
                    continue
                updated = scope_title(place.scope if place.request else "")
                what = set_title(group)
                if modality != "all":
                    what += ", with image" if modality == "multimodal" else ", text only"
                cells = tuple(
                    shown(estimate, gauge, notes, seeds=seed_count(numbers))
                    for gauge, estimate in zip(GAUGES, found, strict=True)
                )
                rows.append(
                    Row((name, updated, what), cells, verdict if group == "forget" else None)
                )
    columns = (
        "Accuracy",
        "Unreadable",
        "Refused",
        "Letter accuracy",
        "P(true letter)",
        "Chance",
    )
    heads = ("Method", "Updated", "Set")
    return Table(scenario_title(scenario), heads, columns, tuple(rows), tuple(notes.items()))


def general_gauges(numbers: Numbers) -> Table:
    """Build the general-ability gauges: plain and circular accuracy, flips, letter bias."""
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        finals = numbers.finals(scenario)
        start = (finals[0] if finals else Place(scenario, "", "", 0)).at(0)
        for place in (start, *finals):
            measures = ("accuracy", *GENERAL_GAUGES)
            found = [numbers.get(place, "general", "all", measure) for measure in measures]
            if not any(found):
                continue
            name = method_title(place.method) if place.request else "before"
            heads = (
                scenario_title(scenario),
                name,
                scope_title(place.scope if place.request else ""),
            )
            cells = tuple(
                shown(estimate, measure, notes, seeds=seed_count(numbers))
                for measure, estimate in zip(measures, found, strict=True)
            )
            rows.append(Row(heads, cells))
    columns = ("Accuracy", "Circular accuracy", "Changes with option order", "Letter bias")
    heads = ("Scenario", "Method", "Updated")
    return Table("General ability", heads, columns, tuple(rows), tuple(notes.items()))


def _table3_row(
    numbers: Numbers, place: Place, title: str, theirs: tuple[float, ...] | None, notes: Notes
) -> Row:
    cells = []
    for position, (name, modality) in enumerate(paper.TABLE3_COLUMNS):
        estimate = numbers.get(place, name, modality, "accuracy")
        text = f"{theirs[position]:.1f}" if theirs else ""
        cell = shown(estimate, "accuracy", notes, seeds=seed_count(numbers), paper_value=text)
        cells.append(with_unparsable(numbers, place, name, modality, cell))
    return Row((title,), tuple(cells))


def with_unparsable(numbers: Numbers, place: Place, name: str, modality: str, cell: Shown) -> Shown:
    """Add to a D_unlearn accuracy the share of answers nobody could read; never print it alone."""
    if name != "forget" or cell.value == MISSING:
        return cell
    share = numbers.value(place, name, modality, "unparsable")
    text = f"{percent(share, digits=0)} % unreadable" if share is not None else "unreadable n/a"
    return Shown(cell.value, cell.interval, cell.mark, cell.paper, text, cell.seeds)


def seed_count(numbers: Numbers) -> int:
    """Return the run's number of seeds, against which a cell counts as partial."""
    return len(numbers.all_seeds())
