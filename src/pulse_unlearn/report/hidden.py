"""What the weights still know: adapters, router or guard switched off, or weights rounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
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
_STRICT = "accuracy"


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
    notes, rows = Notes(), []
    for scenario in numbers.scenarios() if widths else ():
        finals = numbers.finals(scenario)
        controls = [replace(one, condition=RETAIN_MODEL) for one in finals]
        control = next((one for one in controls if _rounded(numbers, one, widths)), None)
        model = numbers.retain_model(scenario)
        if control and model:
            asked = [model, *(_at_width(control, width) for width in widths)]
            cells = tuple(_cell(numbers, one, LATENT, notes) for one in asked)
            rows.append(Row((scenario_title(scenario), THE_RETAIN_MODEL, ""), cells))
        for place in finals:
            if _rounded(numbers, place, widths):
                asked = [place, *(_at_width(place, width) for width in widths)]
                cells = tuple(_cell(numbers, one, LATENT, notes) for one in asked)
                rows.append(Row((scenario_title(scenario), *model_heads(place)), cells))
    if not rows:
        return None
    columns = ("as trained", *(f"{width} bits" for width in widths))
    heads = ("Scenario", "Method", "Updated")
    return Table("Rounded weights", heads, columns, tuple(rows), tuple(notes.items()))


def _rounded(numbers: Numbers, place: Place, widths: Iterable[int]) -> bool:
    return any(_highest(numbers, _at_width(place, width)) for width in widths)


def _at_width(place: Place, width: int) -> Place:
    """Return a model, or the retain model beside it, with its weights rounded to so many bits."""
    before = f"{RETAIN_MODEL}+" if place.condition == RETAIN_MODEL else ""
    return replace(place, condition=f"{before}int{width}")


def _switched_off(place: Place) -> Place:
    return replace(place, condition=ADAPTER_OFF)


def _highest(numbers: Numbers, place: Place) -> Estimate | None:
    """Return the highest reading of D_unlearn; the strict one where there is no other."""
    latent = numbers.get(place, "forget", "all", LATENT)
    return latent or numbers.get(place, "forget", "all", _STRICT)


def _cell(numbers: Numbers, place: Place, measure: str, notes: Notes) -> Shown:
    found = numbers.get(place, "forget", "all", measure)
    return shown(found, measure, notes, seeds=seed_count(numbers))
