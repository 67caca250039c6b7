"""What the weights still know where adapters, a router or a guard are switched off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pulse_unlearn.report.estimates import LATENT, Estimate, Numbers, Place
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import method_title, model_heads, percent, scenario_title

ADAPTER_OFF = "adapter_off"
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


def _switched_off(place: Place) -> Place:
    return replace(place, condition=ADAPTER_OFF)


def _highest(numbers: Numbers, place: Place) -> Estimate | None:
    """Return the highest reading of D_unlearn; the strict one where there is no other."""
    latent = numbers.get(place, "forget", "all", LATENT)
    return latent or numbers.get(place, "forget", "all", _STRICT)


def _cell(numbers: Numbers, place: Place, measure: str, notes: Notes) -> Shown:
    found = numbers.get(place, "forget", "all", measure)
    return shown(found, measure, notes, seeds=seed_count(numbers))
