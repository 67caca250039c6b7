"""The tables of the report: Table 3, gauges, tests, and the numbers behind Figures 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pulse_unlearn.report import paper
from pulse_unlearn.report.estimates import (
    LATENT,
    MAIN_SCOPE,
    PAPERS_SEQUENCE,
    SETS,
    Estimate,
    Numbers,
    Place,
)
from pulse_unlearn.report.scoreboard import Judged, Verdicts
from pulse_unlearn.report.words import (
    MISSING,
    THE_RETAIN_MODEL,
    interval,
    method_title,
    model_heads,
    model_title,
    percent,
    reading_title,
    scenario_title,
    set_title,
    spread,
)
from pulse_unlearn.texts import printable


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
    beside: tuple[str, ...] = ()
    """What must be read with it: unreadable answers, the spread between seeds, missing seeds."""
    estimate: Estimate | None = None
    """The number itself, for other ways to write it; None for words."""
    measure: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One table row: its header cells, its numbers, and the verdict on it."""

    heads: tuple[str, ...]
    cells: tuple[Shown, ...]
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table ready to print."""

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[tuple[str, str], ...]

    @property
    def judged(self) -> bool:
        """Whether a row has a verdict."""
        return any(row.judged for row in self.rows)


def shown(
    estimate: Estimate | None,
    measure: str,
    notes: Notes,
    *,
    seeds: int,
    paper_value: str = "",
    beside: Sequence[str] = (),
) -> Shown:
    """Turn an estimate into a cell; `seeds` is the run's number of seeds, to mark partial ones."""
    if estimate is None:
        return Shown(MISSING, paper=paper_value)
    told = [*beside, spread(estimate, measure)]
    if len(estimate.seeds) < seeds:
        told.append(f"{len(estimate.seeds)} of {seeds} seeds")
    return Shown(
        percent(estimate.value, measure),
        interval(estimate, measure),
        "" if _is_remark(measure) and estimate.value is not None else notes.mark(estimate.reason),
        paper_value,
        tuple(text for text in told if text),
        estimate,
        measure,
    )


def table3(
    numbers: Numbers, verdicts: Verdicts, reading: str, scenario: str = "finetuned"
) -> Table | None:
    """Build Table 3 in one reading: before, the retain model, each method after its last request.

    The paper has it for the fine-tuned scenario; its values stand beside its own reading alone.
    None if nothing was read so.
    """
    if not numbers.finals(scenario):
        return None
    notes, is_papers = Notes(), reading == "accuracy" and scenario == "finetuned"
    before = paper.TABLE3_BEFORE if is_papers else None
    rows = []
    start, *_ = models = numbers.models(scenario)
    for place in models:
        theirs = before if place == start else None
        if place.request:
            compare = is_papers and numbers.paper(place) == paper.TABLE3_METHOD
            theirs = paper.TABLE3_AFTER.get(place.scope) if compare else None
        title = model_title(place) + (" unlearning" if place == start else "")
        row = _table3_row(numbers, place, title, theirs, (reading, notes))
        judged = verdicts.at(place) if place.request else None
        rows.append(Row(row.heads, row.cells, judged))
    if not any(cell.value != MISSING for row in rows for cell in row.cells):
        return None
    columns = (
        "D_unlearn with image",
        "D_unlearn text only",
        "D_retain with image",
        "D_retain text only",
        "General ability",
    )
    return Table("Table 3", ("Parameters updated",), columns, tuple(rows), tuple(notes.items()))


def _is_remark(measure: str) -> bool:
    """Tell whether this measure's reason says what the number is, not what is wrong with it."""
    return measure == "letter_share" or measure.startswith("latent_")


def _table3_row(
    numbers: Numbers,
    place: Place,
    title: str,
    theirs: tuple[float, ...] | None,
    reading: tuple[str, Notes],
) -> Row:
    measure, notes = reading
    cells = []
    for position, (name, modality) in enumerate(paper.TABLE3_COLUMNS):
        estimate = numbers.get(place, name, modality, measure)
        beside = unreadable(numbers, place, name, modality) if measure == "accuracy" else ()
        cells.append(
            shown(
                estimate,
                measure,
                notes,
                seeds=seed_count(numbers),
                paper_value=f"{theirs[position]:.1f}" if theirs else "",
                beside=beside,
            )
        )
    return Row((title,), tuple(cells))


def unreadable(numbers: Numbers, place: Place, name: str, modality: str) -> tuple[str, ...]:
    """Return the share of D_unlearn answers nobody could read: no accuracy stands without it."""
    if name != "forget":
        return ()
    share = numbers.value(place, name, modality, "unreadable")
    return (f"{percent(share, digits=0)} % unreadable" if share is not None else "unreadable n/a",)


def seed_count(numbers: Numbers) -> int:
    """Return the run's number of seeds, against which a cell counts as partial."""
    return len(numbers.all_seeds())


def papers_ratios(numbers: Numbers, place: Place) -> paper.Relative | None:
    """Return the paper's ratios for a place; it has them for its main scope only."""
    if place.request == 0 or place.scope not in ("", MAIN_SCOPE):
        return None
    return paper.relative(place.scenario, numbers.paper(place), place.request)


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
    scenario = numbers.sequence()
    mains = numbers.mains(scenario)
    if not mains:
        return None
    is_papers = scenario == PAPERS_SEQUENCE and measure == "accuracy"
    last = max(place.request for place in mains)
    notes, rows = Notes(), []
    retain_model = numbers.retain_model(scenario)
    for name in FIGURE5_SETS:
        if retain_model and name in SETS:
            # One that never saw any of D_unlearn is for what a method says after its last request;
            # requests before it may have their own.
            own = [numbers.retain_model(scenario, request) for request in range(1, last)]
            path = [None, *own, retain_model]
            cells = _figure5_cells(numbers, path, (name, measure), (), notes)
            rows.append(Row((set_title(name), THE_RETAIN_MODEL), cells))
        for place in mains:
            label = numbers.paper(place) if is_papers else None
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
