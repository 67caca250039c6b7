"""What a model still knows: adapters, router or guard off, weights rounded, or asked otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pulse_unlearn.report.estimates import LATENT, RETAIN_MODEL, Estimate, Numbers, Place
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import (
    THE_RETAIN_MODEL,
    method_title,
    model_heads,
    percent,
    scenario_title,
)

ADAPTER_OFF = "adapter_off"
_ROUNDED = re.compile(r"int(\d)")
_PROBED = re.compile(r"probed@([0-9.]+)")
_STRICT = "accuracy"
_WAYS: Mapping[str, str] = {
    "few_shot": "few-shot",
    "answer_begun": "answer begun",
    "paraphrase_memory": "“from memory”",
    "paraphrase_quiz": "as a quiz",
    "blank_picture": "blank picture",
    "swapped_picture": "other’s picture",
}
"""Condition -> column, in this order."""


def weights_know(numbers: Numbers, places: Iterable[Place]) -> list[str]:
    """Say of each model what is known without what its requests added; nothing if not asked."""
    told = []
    for place in places:
        off, now = (_highest(numbers, one) for one in (_switched_off(place), place))
        if off is None or off.value is None:
            continue
        beside = ""
        if now is not None and now.value is not None:
            beside = f" ({percent(now.value)} % as it is asked)"
        told.append(
            f"The weights beneath {method_title(place.method)} still know {percent(off.value)} % "
            f"of D_unlearn{beside}: whoever leaves out its adapters, router or guard has the "
            "difference back, so it is hidden and not deleted."
        )
    return told


def hidden_table(numbers: Numbers) -> Table | None:
    """Build the table: each last model as it is asked, and with its adapters off."""
    notes, rows = Notes(), []
    for place in (one for name in numbers.scenarios() for one in numbers.finals(name)):
        off = _switched_off(place)
        if _highest(numbers, off) is None:
            continue
        cells = tuple(
            _cell(numbers, one, measure, notes)
            for measure in (_STRICT, LATENT)
            for one in (place, off)
        )
        rows.append(Row((scenario_title(place.scenario), *model_heads(place)), cells))
    if not rows:
        return None
    columns = ("strict", "strict, switched off", "highest reading", "highest, switched off")
    heads = ("Scenario", "Method", "Updated")
    return Table("Adapters off", heads, columns, tuple(rows), tuple(notes.items()))


def rounded_table(numbers: Numbers) -> Table | None:
    """Build the table: each last model and the retain model, as they are and with weights rounded.

    None where no model was asked so.
    """
    places = [one for name in numbers.scenarios() for one in numbers.finals(name)]
    widths = sorted(
        {int(m[1]) for p in places for c in numbers.conditions(p) if (m := _ROUNDED.fullmatch(c))},
        reverse=True,
    )
    columns = {f"int{width}": f"{width} bits" for width in widths}
    return _attacked_table(numbers, "Rounded weights", columns, plainly="as trained")


def prompted_table(numbers: Numbers) -> Table | None:
    """Build the table: each last model and the retain model, asked plainly and in other ways.

    With the image and by name beside the mean of both, as some ways change the picture. None where
    no model was asked so.
    """
    places = [one for name in numbers.scenarios() for one in numbers.finals(name)]
    asked = {condition for place in places for condition in numbers.conditions(place)}
    columns = {way: title for way, title in _WAYS.items() if way in asked}
    return _attacked_table(numbers, "Prompt attacks", columns, plainly="plainly", apart=True)


def probed_table(numbers: Numbers) -> Table | None:
    """Build the table of what probes read off hidden states, a column for each depth."""
    places = [one for name in numbers.scenarios() for one in numbers.finals(name)]
    asked = {condition for place in places for condition in numbers.conditions(place)}
    depths = sorted(float(match[1]) for one in asked if (match := _PROBED.fullmatch(one)))
    columns = {f"probed@{depth:g}": f"layer at {100 * depth:g} %" for depth in depths}
    return _attacked_table(numbers, "Probed layers", columns, plainly="as it answers")


def _attacked_table(
    numbers: Numbers, title: str, columns: Mapping[str, str], *, plainly: str, apart: bool = False
) -> Table | None:
    """Build a table with a column for each condition, behind one of no attack.

    The target model, where it was asked so, and the retain model stand before the models of their
    scenario. `apart` shows modalities, too.
    """

    def row(*heads: str, plain: Place, attacked: Place) -> Row:
        asked = [plain, *(_under(attacked, condition) for condition in columns)]
        cells = tuple(
            _cell(numbers, one, LATENT, notes, beside=_apart(numbers, one) if apart else ())
            for one in asked
        )
        return Row(heads, cells)

    def attacked(place: Place) -> bool:
        return any(_highest(numbers, _under(place, one)) for one in columns)

    notes, rows = Notes(), []
    for scenario in numbers.scenarios() if columns else ():
        finals, told = numbers.finals(scenario), scenario_title(scenario)
        controls = [replace(one, condition=RETAIN_MODEL) for one in finals]
        target = finals[0].at(0)
        if attacked(target):
            rows.append(row(told, *model_heads(target), plain=target, attacked=target))
        control, model = next(filter(attacked, controls), None), numbers.retain_model(scenario)
        if control and model:
            rows.append(row(told, THE_RETAIN_MODEL, "", plain=model, attacked=control))
        rows += [
            row(told, *model_heads(one), plain=one, attacked=one)
            for one in filter(attacked, finals)
        ]
    if not rows:
        return None
    heads = ("Scenario", "Method", "Updated")
    return Table(title, heads, (plainly, *columns.values()), tuple(rows), tuple(notes.items()))


def _under(place: Place, condition: str) -> Place:
    """Return a model, or the retain model beside it, under a condition."""
    before = f"{RETAIN_MODEL}+" if place.condition == RETAIN_MODEL else ""
    return replace(place, condition=f"{before}{condition}")


def _apart(numbers: Numbers, place: Place) -> tuple[str, ...]:
    """Return the highest reading with the image and by name, in words."""
    found = [
        (title, numbers.value(place, "forget", modality, LATENT))
        for modality, title in (("multimodal", "image"), ("text_only", "name"))
    ]
    return tuple(f"{title} {percent(value)}" for title, value in found if value is not None)


def _switched_off(place: Place) -> Place:
    return replace(place, condition=ADAPTER_OFF)


def _highest(numbers: Numbers, place: Place) -> Estimate | None:
    """Return the highest reading of D_unlearn; the strict one where there is no other."""
    latent = numbers.get(place, "forget", "all", LATENT)
    return latent or numbers.get(place, "forget", "all", _STRICT)


def _cell(
    numbers: Numbers, place: Place, measure: str, notes: Notes, *, beside: Sequence[str] = ()
) -> Shown:
    found = numbers.get(place, "forget", "all", measure)
    return shown(found, measure, notes, seeds=seed_count(numbers), beside=beside)
