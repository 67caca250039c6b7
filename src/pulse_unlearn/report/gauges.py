"""The gauges: every reading of every set, the habits of answering, and the tests of verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pulse_unlearn.report.estimates import SETS, HowOften, Numbers, Place
from pulse_unlearn.report.extras import ReadingTest, Verdict
from pulse_unlearn.report.scoreboard import Verdicts
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import (
    MISSING,
    listed,
    method_title,
    model_title,
    p_value,
    percent,
    scenario_title,
    set_title,
)

Measures = tuple[tuple[str, str], ...]
"""(measure, head of its column), in the order of the columns."""

READING_GAUGES: Measures = (
    ("accuracy", "Strict"),
    ("rotated_accuracy", "Rotated"),
    ("circular_accuracy", "Circular"),
    ("words_accuracy", "Words"),
    ("words_per_token_accuracy", "Words per token"),
    ("words_named", "Named in words"),
    ("mentions", "Mentions"),
    ("chance", "Chance"),
)
HABIT_GAUGES: Measures = (
    ("letter_share", "Largest letter"),
    ("letter_entropy", "Letter entropy"),
    ("rotation_flip_rate", "Changes with order"),
    ("letter_bias", "Letter bias"),
    ("unreadable", "Unreadable"),
    ("refused", "Refused"),
    ("words_lettered", "A letter in words"),
)
GAUGES: Mapping[str, Measures] = {"readings": READING_GAUGES, "habits": HABIT_GAUGES}
"""What is measured beside accuracy, in two tables, so that each has room on a page."""

MOST_MODELS = 12
"""Models of one scenario beyond which the page's gauges have `BRIEF_SETS` alone."""
BRIEF_SETS = ("forget", "retain", "general")


def gauges(
    numbers: Numbers, verdicts: Verdicts, scenario: str, *parts: str, briefly: bool = False
) -> Table:
    """Build parts of a scenario's gauges: each model, methods after their last request.

    `briefly` leaves out all sets but `BRIEF_SETS` where there are more models than a reader can
    survey, and says so in a note.
    """
    notes, rows, left_out = Notes(), [], set[str]()
    measures = tuple(one for part in parts for one in GAUGES[part])
    models = numbers.models(scenario)
    shown_sets = BRIEF_SETS if briefly and len(models) > MOST_MODELS else None
    for place in models:
        name = model_title(place)
        for group in numbers.sets(place):
            if place.is_retain_model and group not in SETS:
                continue  # it forgot no request before another
            if shown_sets and group not in shown_sets:
                left_out.add(set_title(group))
                continue
            modalities = ("all",) if group == "general" else ("multimodal", "text_only")
            for modality in modalities:
                cells = _gauge_cells(numbers, place, (group, modality), (measures, notes))
                if all(cell.value == MISSING for cell in cells):
                    continue
                what = set_title(group)
                if modality != "all":
                    what += ", with image" if modality == "multimodal" else ", text only"
                is_judged = place.request and group == "forget" and "readings" in parts
                judged = verdicts.at(place) if is_judged else None
                rows.append(Row((name, what), cells, judged))
    columns = tuple(title for _, title in measures)
    heads = ("Method", "Set")
    title = f"{scenario_title(scenario)}: {', '.join(parts)}"
    told = [("", f"Left out of so long a table: {listed(sorted(left_out))}. results.csv has them")]
    return Table(title, heads, columns, tuple(rows), (*notes.items(), *(told if left_out else ())))


def reading_tests(numbers: Numbers, verdicts: Sequence[Verdict]) -> Table | None:
    """Build the tests behind the verdicts: every reading of D_unlearn held against chance."""
    finals = numbers.finals()
    found = {
        (place, verdict.seed): verdict
        for place in finals
        for verdict in sorted(verdicts, key=lambda one: one.seed)
        if Place(verdict.scenario, verdict.method, verdict.scope, verdict.request) == place
    }
    every = [*READING_GAUGES, *HABIT_GAUGES]
    names = [name for name, _ in every]
    names = [n for n in names if any(t.reading == n for v in found.values() for t in v.readings)]
    if not names:
        return None
    rows = []
    for (place, seed), verdict in found.items():
        by_name = {test.reading: test for test in verdict.readings}
        heads = (scenario_title(place.scenario), method_title(place.method), f"seed {seed}")
        rows.append(Row(heads, tuple(_test_cell(by_name.get(name)) for name in names)))
    titles = dict(every)
    columns = tuple(titles[name] for name in names)
    return Table("Held against chance", ("Scenario", "Method", "Run"), columns, tuple(rows), ())


def _test_cell(test: ReadingTest | None) -> Shown:
    if test is None or test.value is None:
        return Shown(MISSING)
    told = (
        f"chance {percent(test.chance)}" if test.chance is not None else "",
        p_value(test.p_above),
        "above" if test.above_chance else "",
    )
    ends = ""
    if test.low is not None and test.high is not None:
        ends = f"{percent(test.low)} – {percent(test.high)}"
    return Shown(percent(test.value), ends, beside=tuple(text for text in told if text))


def _gauge_cells(
    numbers: Numbers, place: Place, what: tuple[str, str], part: tuple[Measures, Notes]
) -> tuple[Shown, ...]:
    cells, (measures, notes) = [], part
    for measure, _ in measures:
        beside = _beside(numbers, place, what, measure)
        found = numbers.get(place, *what, measure)
        cells.append(shown(found, measure, notes, seeds=seed_count(numbers), beside=beside))
    return tuple(cells)


def _beside(numbers: Numbers, place: Place, what: tuple[str, str], measure: str) -> tuple[str, ...]:
    """Return what a gauge must not be read without."""
    if measure == "mentions":
        others = numbers.value(place, *what, "mentions_of_others")
        return () if others is None else (f"others {percent(others)}",)
    if measure == "rotated_accuracy":
        return _true(numbers.how_often(place, *what, "below_chance"), "below chance")
    if measure == "letter_share":
        letters = tuple(f"letter {letter}" for letter in numbers.letters(place, *what))
        return letters + _true(numbers.how_often(place, *what, "one_letter"), "one letter")
    return ()


def _true(often: HowOften, text: str) -> tuple[str, ...]:
    """Say what is true, and in how many seeds if there are several; nothing if in none."""
    if often.true == 0:
        return ()
    return (f"{text} in {often.true} of {often.seeds} seeds" if often.seeds > 1 else text,)
