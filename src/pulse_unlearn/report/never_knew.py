"""How far each model is from one that never knew D_unlearn: differences, and distributions."""

from __future__ import annotations

from pulse_unlearn.records import MODALITIES
from pulse_unlearn.report.estimates import LIKE_NEVER_KNOWN, Estimate, Numbers, Place
from pulse_unlearn.report.tables import Notes, Row, Shown, Table
from pulse_unlearn.report.words import (
    MISSING,
    MODALITY_TITLES,
    interval,
    model_heads,
    p_value,
    points,
    reading_title,
    scenario_title,
)

_READINGS = ("accuracy", "rotated_accuracy", "words_accuracy")
_TOLD = (
    *((modality, "membership", MODALITY_TITLES[modality]) for modality in (*MODALITIES, "all")),
    ("all", "membership_mink", "Min-K, all questions"),
)
"""Modality, measure and column."""
_PROBABILITIES = (("rotated_probability", "KS, rotated"), ("words_probability", "KS, words"))


def never_knew_table(numbers: Numbers) -> Table | None:
    """Build the table of each last model; None where no model has one that never knew beside it."""
    notes, rows = Notes(), []
    for place in (one for name in numbers.scenarios() for one in numbers.finals(name)):
        cells = [_difference(numbers, place, reading, notes) for reading in _READINGS]
        cells += [_distance(numbers, place, name, notes) for name, _ in _PROBABILITIES]
        if any(cell.value != MISSING for cell in cells):
            heads = (scenario_title(place.scenario), *model_heads(place))
            rows.append(Row(heads, (*cells, _alike(numbers, place))))
    if not rows:
        return None
    columns = (
        *map(reading_title, _READINGS),
        *(title for _, title in _PROBABILITIES),
        "equivalent",
    )
    heads = ("Scenario", "Method", "Updated")
    return Table("Like never known?", heads, columns, tuple(rows), tuple(notes.items()))


def membership_table(numbers: Numbers) -> Table | None:
    """Build the table: how well each model tells D_unlearn from people it never learned.

    The target model and the retain model stand before the models of their scenario; None where
    nobody of them was asked about.
    """
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        finals = numbers.finals(scenario)
        model = numbers.retain_model(scenario)
        places = [*(one.at(0) for one in finals[:1]), *([model] if model else []), *finals]
        for place in places:
            cells = tuple(_told_apart(numbers, place, at, name, notes) for at, name, _ in _TOLD)
            if any(cell.value != MISSING for cell in cells):
                rows.append(Row((scenario_title(scenario), *model_heads(place)), cells))
    if not rows:
        return None
    columns = tuple(title for *_, title in _TOLD)
    heads = ("Scenario", "Method", "Updated")
    return Table("Membership", heads, columns, tuple(rows), tuple(notes.items()))


def _told_apart(numbers: Numbers, place: Place, modality: str, name: str, notes: Notes) -> Shown:
    found, chance = (
        numbers.get(place, "forget", modality, f"{name}_{kind}") for kind in ("auc", "p")
    )
    if found is None or found.value is None:
        return Shown(MISSING, mark=notes.mark(found.reason) if found else "")
    told = tuple(p_value(value) for _, value in chance.seeds) if chance else ()
    ends = "" if found.low is None or found.high is None else f"{found.low:.2f} – {found.high:.2f}"
    beside = tuple(dict.fromkeys(filter(None, told)))
    mark = notes.mark(found.reason)
    return Shown(f"{found.value:.2f}", ends, mark, beside=beside, estimate=found)


def _difference(numbers: Numbers, place: Place, reading: str, notes: Notes) -> Shown:
    found = _get(numbers, place, f"{reading}_from_never_knew")
    if found is None:
        return Shown(MISSING)
    return Shown(points(found.value), interval(found), notes.mark(found.reason), estimate=found)


def _distance(numbers: Numbers, place: Place, name: str, notes: Notes) -> Shown:
    found, chance = (_get(numbers, place, f"{name}_{kind}") for kind in ("ks", "ks_p"))
    if found is None or found.value is None:
        return Shown(MISSING)
    told = tuple(p_value(value) for _, value in chance.seeds) if chance else ()
    mark = notes.mark(chance.reason if chance else "")
    beside = tuple(dict.fromkeys(filter(None, told)))
    return Shown(f"{found.value:.2f}", mark=mark, beside=beside, estimate=found)


def _alike(numbers: Numbers, place: Place) -> Shown:
    """Say in how many seeds every reading is within the margin, and which are not."""
    often = numbers.how_often(place, "forget", "all", LIKE_NEVER_KNOWN)
    if not often.seeds:
        return Shown(MISSING)
    told = numbers.told(place, "forget", "all", LIKE_NEVER_KNOWN)
    beside = tuple(_with_titles(text) for text in told)
    if often.seeds == 1:
        return Shown("yes" if often.true else "no", beside=beside)
    return Shown(f"{often.true} of {often.seeds} seeds", beside=beside)


def _with_titles(text: str) -> str:
    head, colon, names = text.partition(": ")
    said = ", ".join(reading_title(name) for name in names.split(", ")) if colon else ""
    return f"{head}{colon}{said}"


def _get(numbers: Numbers, place: Place, measure: str) -> Estimate | None:
    return numbers.get(place, "forget", "all", measure)
