"""The leak matrix: unlearned with the image or by name, asked with the image or by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.records import MODALITIES
from pulse_unlearn.report.estimates import LATENT, Numbers, Place
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import (
    MISSING,
    MODALITY_TITLES,
    THE_RETAIN_MODEL,
    method_title,
    percent,
    scenario_title,
    scope_title,
)
from pulse_unlearn.texts import printable

_STRICT = "accuracy"
_SHOWN = {"both": "both", "multimodal": "the image", "text_only": "the name"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model of the matrix: its header cells and where its numbers stand."""

    heads: tuple[str, ...]
    place: Place


def shown_with(experiment: Mapping[str, Any]) -> dict[str, str]:
    """Return what each method's forget batches show, by label; those of an older run show both."""
    methods = experiment.get("methods")
    found = {}
    for label, entry in (methods if isinstance(methods, dict) else {}).items():
        settings = entry.get("unlearn") if isinstance(entry, dict) else None
        of = settings.get("modalities") if isinstance(settings, dict) else None
        found[str(label)] = str(of or "both")
    return found


def leak_tables(numbers: Numbers, modalities: Mapping[str, str]) -> tuple[Table, ...]:
    """Build the matrix and, where attributes were told apart, a second one of each attribute.

    `modalities` says what each label was unlearned with. Of methods that no label unlearns in one
    modality alone there is no row; none at all without any.
    """
    models = [one for name in numbers.scenarios() for one in _models(numbers, name, modalities)]
    notes, rows = Notes(), []
    for one in models:
        rows.append(Row(one.heads, tuple(_cells(numbers, one.place, "", notes))))
    if not rows:
        return ()
    heads = ("Scenario", "Method", "Updated", "Unlearned with")
    columns = tuple(f"asked {_asked(modality)}" for modality in MODALITIES)
    whole = Table("Leak matrix", heads, columns, tuple(rows), tuple(notes.items()))
    return (whole, *_by_attribute(numbers, models, heads, columns))


def _by_attribute(
    numbers: Numbers, models: list[_Asked], heads: tuple[str, ...], columns: tuple[str, ...]
) -> Iterator[Table]:
    notes, rows = Notes(), []
    for one in models:
        for attribute in numbers.parts(_STRICT, of="forget"):
            cells = tuple(_cells(numbers, one.place, f":{attribute}", notes))
            if any(cell.value != MISSING for cell in cells):
                told = printable(attribute.replace("_", "…"), 60)
                rows.append(Row((*one.heads, told), cells))
    if rows:
        title = "Leak matrix by attribute"
        yield Table(title, (*heads, "Asked after"), columns, tuple(rows), tuple(notes.items()))


def _models(numbers: Numbers, scenario: str, modalities: Mapping[str, str]) -> Iterator[_Asked]:
    finals = numbers.finals(scenario)
    apart = {numbers.kind(p) for p in finals if modalities.get(p.method, "both") != "both"}
    chosen = [place for place in finals if numbers.kind(place) in apart]
    if not chosen:
        return
    title = scenario_title(scenario)
    yield _Asked((title, "before", "", ""), chosen[0].at(0))
    if model := numbers.retain_model(scenario):
        yield _Asked((title, THE_RETAIN_MODEL, "", ""), model)
    for place in chosen:
        told = _SHOWN.get(modalities.get(place.method, "both"), MISSING)
        heads = (title, method_title(place.method), scope_title(place.scope), told)
        yield _Asked(heads, place)


def _asked(modality: str) -> str:
    return "by name" if modality == "text_only" else MODALITY_TITLES[modality]


def _cells(numbers: Numbers, place: Place, part: str, notes: Notes) -> Iterator[Shown]:
    """Yield the highest reading of D_unlearn in each modality, with the strict one beside it."""
    for modality in MODALITIES:
        found = numbers.get(place, "forget", modality, LATENT + part)
        strict = numbers.get(place, "forget", modality, _STRICT + part)
        beside = (f"strict {percent(strict.value)}",) if strict else ()
        yield shown(found, LATENT, notes, seeds=seed_count(numbers), beside=beside)
