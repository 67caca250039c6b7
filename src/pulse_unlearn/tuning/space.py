"""What is tuned: ranges that a method declares, and the learning rate and steps of every one."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pulse_unlearn.config import (
    LEARNING_RATE,
    STEPS,
    Choice,
    Experiment,
    Knob,
    MethodEntry,
    Span,
    put,
)
from pulse_unlearn.errors import ConfigError, MethodError, Problem
from pulse_unlearn.methods import build_method
from pulse_unlearn.methods.composed import LossChoice

AROUND = 10.0
"""Learning rates from the experiment's own divided by this up to it multiplied by this."""
FEWEST = 4
"""Steps from a share of 1 in so many of the experiment's own up to all of them."""
DIGITS = 3
"""Significant digits of what is drawn."""
Values = dict[str, int | float | str]
"""A setting's place in the method's entry -> its value."""


def space_of(experiment: Experiment, entry: MethodEntry) -> tuple[Knob, ...]:
    """Return what to tune of an entry: learning rate and steps, as of every other, and its own.

    Raises MethodError for a range that is none.
    """
    rate = experiment.unlearn.optimiser.learning_rate
    steps = experiment.unlearn.stop.max_steps
    least = max(1, steps // FEWEST)
    shared = (
        Knob(name=LEARNING_RATE, low=short(rate / AROUND), high=short(rate * AROUND), log=True),
        Knob(name=STEPS, low=least, high=steps, log=True, integer=True),
    )
    own = tuple(_declared(build_method(entry.method, entry.settings), "settings"))
    problems = [
        Problem(
            "this range cannot be searched",
            f"{entry.method} {one.name}",
            f"{one.low} to {one.high}",
        )
        for one in own
        if one.low is not None
        and one.high is not None
        and (one.low > one.high or (one.log and one.low <= 0))
    ]
    if problems:
        raise MethodError(problems)
    return (*shared, *own)


def short(value: Any) -> Any:
    """Return a number with few digits, so that people can read and copy it; all else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _declared(settings: object, place: str) -> Iterator[Knob]:
    """Yield the ranges in a settings model and those inside it, parts in lists too."""
    if isinstance(settings, LossChoice):
        yield from _declared(settings.build(), f"{place}.settings")
    if not isinstance(settings, BaseModel):
        return
    for name, info in type(settings).model_fields.items():
        value, here = getattr(settings, name), f"{place}.{name}"
        for mark in info.metadata:
            if isinstance(mark, Span):
                whole = info.annotation is int
                yield Knob(name=here, low=mark.low, high=mark.high, log=mark.log, integer=whole)
            elif isinstance(mark, Choice):
                yield Knob(name=here, choices=typing.get_args(info.annotation))
        if isinstance(value, tuple):
            for number, part in enumerate(value):
                yield from _declared(part, f"{here}.{number}")
        else:
            yield from _declared(value, here)


def values_given(entry: MethodEntry, space: tuple[Knob, ...]) -> Values:
    """Return what an entry has before anything is tuned."""
    parts, method = _parts(entry), build_method(entry.method, entry.settings)
    return {
        # Of a loss inside the method the entry holds only what somebody has set.
        one.name: _held(method, own) if own != one.name else _look_up(parts, one.name)
        for one in space
        for own in [one.name.removeprefix("settings.")]
    }


def with_values(entry: MethodEntry, values: Mapping[str, int | float | str]) -> MethodEntry:
    """Return the entry with these values; raises ConfigError where the method refuses one."""
    parts = _parts(entry)
    for name, value in values.items():
        put(parts, name, value)
    try:
        build_method(entry.method, parts["settings"])
        return MethodEntry.model_validate(parts)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigError(
            [Problem("a value of its range is refused", entry.method, one) for one in told]
        ) from error


def _parts(entry: MethodEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def _held(settings: Any, name: str) -> Any:
    for part in name.split("."):
        if isinstance(settings, LossChoice) and part == "settings":
            settings = settings.build()
        elif isinstance(settings, tuple):
            settings = settings[int(part)]
        else:
            settings = getattr(settings, part)
    return settings


def _look_up(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree
