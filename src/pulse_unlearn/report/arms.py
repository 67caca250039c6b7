"""Two arms of one checkpoint: what each method does to people who were taught and to others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pulse_unlearn.report.estimates import Estimate
from pulse_unlearn.report.extras import ArmContrast, Extras, Match
from pulse_unlearn.report.findings import in_seed, settled_word
from pulse_unlearn.report.tables import Row, Shown, Table
from pulse_unlearn.report.words import (
    ARM_TITLES,
    MISSING,
    READING_TITLES,
    method_title,
    percent,
    points,
    reading_title,
    set_title,
)
from pulse_unlearn.texts import printable

_FORGOTTEN, _KEPT = ("before", "forgotten"), ("kept", "kept_matched")
_KINDS = {
    "before": "known before",
    "forgotten": "forgotten at the end",
    "kept": "kept at the end",
    "kept_matched": "kept where as much is forgotten",
}
_UPDATES = {"lora": "LoRA", "full": "full"}


@dataclass(frozen=True, slots=True)
class Arms:
    """The section on both arms."""

    first: str
    second: str
    by_origin: bool
    """Whether they are the people who were taught and those who were known before."""
    matched: tuple[str, ...]
    """How alike the people are, seed by seed."""
    forgotten: Table | None
    kept: Table | None


def arms(extras: Extras) -> Arms | None:
    """Return the contrasts of two arms; None where a run has none."""
    found = [one for one in extras.arms if len(one.arms) == 2]
    if not found:
        return None
    first, second = (_arm_title(one) for one in found[0].arms)
    return Arms(
        first,
        second,
        {*found[0].arms} == {*ARM_TITLES},
        tuple(text for one in extras.matches for text in _matched(one)),
        _table("Known before, and forgotten", found, _FORGOTTEN),
        _table("Kept", found, _KEPT),
    )


def _arm_title(label: str) -> str:
    return ARM_TITLES.get(label, printable(label, 40))


def _matched(one: Match) -> Iterator[str]:
    """Say how equally both arms were known before, if that is told of both."""
    if {len(side) for side in (one.arms, one.mean, one.everybody)} != {2}:
        return
    mean, everybody = ([percent(value) for value in side] for side in (one.mean, one.everybody))
    first, second = (_arm_title(label) for label in one.arms)
    yield (
        f"{printable(one.stage.partition('/')[0], 20)}: {one.forget} pairs in D_unlearn and "
        f"{one.retain} in D_retain. On views that are never scored, the true option has "
        f"{mean[0]} % with {first} people of D_unlearn and {mean[1]} % with {second} ones "
        f"({everybody[0]} % and {everybody[1]} % over all candidates); within a pair "
        f"{percent(one.apart)} points apart on average, {percent(one.furthest)} at most."
    )


def _table(title: str, found: Sequence[ArmContrast], kinds: Sequence[str]) -> Table | None:
    inside = [one for one in found if one.kind in kinds]
    readings = [name for name in READING_TITLES if any(one.measure == name for one in inside)]
    keys = dict.fromkeys((one.kind, one.set, one.method) for one in inside)
    rows = []
    for kind in kinds:
        for key in (key for key in keys if key[0] == kind):
            cells = {one.measure: one for one in inside if (one.kind, one.set, one.method) == key}
            rows.append(
                Row(
                    _heads(next(iter(cells.values()))),
                    tuple(_cell(cells.get(name)) for name in readings),
                )
            )
    if not rows:
        return None
    heads = ("What", "Method", "Trained")
    return Table(title, heads, tuple(map(reading_title, readings)), tuple(rows), ())


def _heads(one: ArmContrast) -> tuple[str, str, str]:
    about = "" if one.kind in _FORGOTTEN else f"{set_title(one.set)} "
    update = _UPDATES.get(one.update, printable(one.update, 20))
    method = method_title(one.method) if one.method else "before any"
    return (f"{about}{_KINDS[one.kind]}", method, update)


def _cell(one: ArmContrast | None) -> Shown:
    if one is None:
        return Shown(MISSING)
    told = tuple(printable(text, 120) for text in one.told)
    found = one.contrast
    if not found.by_seed:
        return Shown(MISSING, beside=told)
    runs, over = len(found.by_seed), found.over
    alone = found.by_seed[0] if runs == 1 else None
    value, low, high = (getattr(alone or over, end) for end in ("value", "low", "high"))
    gaps = tuple((gap.seed, gap.value) for gap in found.by_seed)
    estimate = Estimate(value, low, high, over.spread, gaps, 0, "")
    seeds = tuple(in_seed(gap, alone=runs == 1) for gap in found.by_seed)
    word = "" if alone else settled_word(found.settled, runs)  # the page says it once
    return Shown(
        points(value),
        "" if low is None or high is None else f"{points(low)} – {points(high)}",
        beside=tuple(filter(None, (word, *seeds, *told))),
        estimate=estimate,
        measure=one.measure,
    )
