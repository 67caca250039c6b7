"""The rows of `results.csv` by cell, set and modality, with what they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pulse_unlearn.evaluation.measures import ALL
from pulse_unlearn.records import MODALITIES, PLAIN, Cell, Measurement
from pulse_unlearn.report.load import RunRecord
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL
from pulse_unlearn.texts import printable
from pulse_unlearn.view.answers import Filters
from pulse_unlearn.view.comparisons import GENERAL

MEASURES: Mapping[str, str] = {
    "accuracy": "Strict",
    "rotated_accuracy": "Rotated",
    "circular_accuracy": "Circular",
    "words_accuracy": "Words",
    "mentions": "Mentions",
    "latent_accuracy": "Highest",
    "unreadable": "Unreadable",
    "letter_share": "Largest letter",
}
"""Measure of `results.csv` -> the head of its column."""


def result_rows(record: RunRecord, filters: Filters) -> list[dict[str, Any]]:
    """Return a row for each cell, set and modality that is wanted, with its numbers."""
    words = {
        Cell(one.scenario, one.method, one.scope, one.seed, one.request): one.word
        for one in record.extras.verdicts
    }
    rows: dict[tuple[Cell, str, str], dict[str, Any]] = {}
    for result in record.results:
        cell, number = result.cell, result.measurement
        if number.measure not in MEASURES or not _takes(filters, cell, number):
            continue
        place = (cell, number.set, number.modality)
        if place not in rows:
            rows[place] = {
                "scenario": cell.scenario,
                "method": cell.method,
                "scope": cell.scope,
                "seed": cell.seed,
                "request": cell.request,
                "condition": cell.condition,
                "set": number.set,
                "modality": number.modality,
                "questions": number.questions,
                "verdict": printable(words.get(cell, ""), 60) if number.set == "forget" else "",
                "numbers": {},
            }
        rows[place]["numbers"][number.measure] = [number.value, number.low, number.high]
    return list(rows.values())


def _takes(filters: Filters, cell: Cell, number: Measurement) -> bool:
    """Tell whether a row is wanted; what it is held against stands beside it."""
    is_model_of_reference = cell.request == 0
    wanted = (
        (filters.scenario, cell.scenario),
        (filters.method, cell.method),
        (filters.seed, cell.seed),
        (filters.request, filters.request if is_model_of_reference else cell.request),
        (filters.condition, PLAIN if cell.condition == RETAIN_MODEL else cell.condition),
        (filters.set, number.set),
    )
    modalities = (number.modality, *_any_modality(number.set))
    fits = (filters.modality or ALL) in modalities
    return fits and all(one in ("", str(value)) for one, value in wanted)


def _any_modality(of_set: str) -> tuple[str, ...]:
    """Return what general questions pass as: they are not told apart."""
    return (*MODALITIES, ALL) if of_set == GENERAL else ()
