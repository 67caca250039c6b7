"""What `pulse tune` found, as a file, and how an experiment's entry takes it in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pulse_unlearn.config.base import EMBEDDED, Positive, Settings
from pulse_unlearn.config.explain import Source, problems_from
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.files import home_path, plain_file

LEARNING_RATE, STEPS = "unlearn.optimiser.learning_rate", "unlearn.stop.max_steps"
"""What is tuned of every method, beside settings of its own."""


class Knob(Settings):
    """One number or choice that is tuned: a setting's place in a method's entry, and its range."""

    name: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    integer: bool = False
    choices: tuple[str, ...] = ()
    """Words to choose among; there are then no ends."""


class Trial(Settings):
    """One trial: what was set, and what came out."""

    number: int
    label: str
    """Name in the tuning run's results; the first trial has the settings as they were given."""
    values: dict[str, int | float | str]
    """Place in the method's entry -> value."""
    objective: float | None = None
    """None for a trial that failed."""
    known: float | None = None
    kept: dict[str, float] = Field(default_factory=dict)
    """By set."""
    verdict: str = ""
    steps: int = 0
    """Optimiser steps taken, which a stop rule may end early."""
    failed: str = ""
    """Why it has no number."""


class Budget(Settings):
    """What every method is given alike."""

    trials: Positive
    steps: Positive
    """Most optimiser steps of a trial."""
    seed: int


class Tuning(Settings):
    """Everything about the tuning of one method: the file that `pulse tune` writes."""

    format: int = 1
    pulse: str
    """Version of PULSE."""
    experiment: str
    scenario: str
    method: str
    """Registered name."""
    update: str
    """`unlearn.update` of every trial; learning rates of the two kinds are not alike."""
    space: tuple[Knob, ...]
    budget: Budget
    people: dict[str, tuple[str, ...]]
    """Set -> ids of its people, none of whom the experiment reports on."""
    objective: str
    """How a trial's number is made."""
    trials: tuple[Trial, ...]
    winner: int
    """Number of the trial with the highest number."""
    settings: dict[str, Any]
    """The winner's own settings of the method, in full."""
    model: str
    """SHA-256 of the model."""
    data: dict[str, str]
    """Source file -> SHA-256."""

    @property
    def best(self) -> Trial:
        """The winner."""
        return self.trials[self.winner]


class TunedBy(Settings):
    """Where an entry's settings were found; kept in a run's record, read no more."""

    file: str
    """Its path, or `world` for the one in the package."""
    sha256: str
    pulse: str
    experiment: str
    budget: Budget
    winner: Trial
    people: dict[str, tuple[str, ...]]
    """Set -> ids of those it was tuned on, whom no run that uses it may report on."""
    data: dict[str, str]


def put(tree: dict[str, Any], name: str, value: object) -> None:
    """Set `a.b.0.c` inside nested dicts and lists, making the dicts that are not there."""
    *way, last = name.split(".")
    node: Any = tree
    for part in way:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    node[last] = value


def fill_in(own: Any, found: Any) -> Any:
    """Return `own` with what it does not set taken from `found`, in nested dicts and lists."""
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        filled = {
            name: fill_in(own[name], found[name]) if name in own else found[name] for name in found
        }
        return {**filled, **{name: value for name, value in own.items() if name not in found}}
    if isinstance(own, list) and isinstance(found, list) and len(own) == len(found):
        return [fill_in(*pair) for pair in zip(own, found, strict=True)]
    return own


def take_tuned(
    raw: dict[str, Any], schemas: Mapping[str, type[BaseModel]], source: Source
) -> list[Problem]:
    """Fill entries that name a file by `tuned` with its winner's settings, below their own.

    `world` names the file in the package, for the entry's method on the embedded world.

    The entry then says what the file said instead of where it is. Returns what does not fit.
    """
    methods, defaults = raw.get("methods"), raw.get("unlearn")
    problems: list[Problem] = []
    for label, entry in methods.items() if isinstance(methods, dict) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("tuned"), str):
            continue
        if any(not isinstance(entry.get(part) or {}, dict) for part in ("settings", "unlearn")):
            entry["tuned"] = None
            continue  # what is wrong with the entry itself is told with all that is wrong
        where = source.where(("methods", label, "tuned"))
        named, method = entry["tuned"], str(entry.get("method", label))
        shipped = named == EMBEDDED
        path = shipped_tuning(method) if shipped else home_path(named).absolute()
        try:
            tuning, digest = read_tuning(path)
        except ConfigError as error:
            problems += error.problems
            entry["tuned"] = None
            continue
        below = fill_in(entry.get("unlearn") or {}, defaults if isinstance(defaults, dict) else {})
        found = [
            *_other_method(tuning, method, below, where),
            *_unknown_settings(tuning, schemas, path),
        ]
        problems += found
        entry["tuned"] = _record(tuning, EMBEDDED if shipped else str(path), digest)
        if not found:
            values = {name: tuning.best.values[name] for name in (LEARNING_RATE, STEPS)}
            tuned: dict[str, Any] = {"settings": tuning.settings}
            for name, value in values.items():
                put(tuned, name, value)
            for part in ("settings", "unlearn"):
                entry[part] = fill_in(entry.get(part) or {}, tuned[part])
    return problems


def shipped_tuning(method: str) -> Path:
    """Return where the package has what was found for a registered method on the embedded world."""
    return Path(str(files("pulse_unlearn"))) / "experiments" / "tuned" / f"{method}.json"


def read_tuning(path: Path) -> tuple[Tuning, str]:
    """Return what such a file says and its SHA-256; raises ConfigError."""
    try:
        text = plain_file(path).read_text(encoding="utf-8")
        value = json.loads(text)
        tuning = Tuning.model_validate_json(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        fix = "write one with `pulse tune`"
        raise ConfigError(
            Problem("cannot read the tuned settings", str(path), str(error), fix=fix)
        ) from error
    except ValidationError as error:
        source = Source(str(path), value if isinstance(value, dict) else {})
        raise ConfigError(problems_from(error, Tuning, source)) from error
    numbers = [trial.number for trial in tuning.trials]
    missing = (
        [name for name in (LEARNING_RATE, STEPS) if name not in tuning.best.values]
        if (0 <= tuning.winner < len(numbers))
        else ["winner"]
    )
    if missing:
        raise ConfigError(
            Problem("the tuned settings are not complete", str(path), f"no {', '.join(missing)}")
        )
    return tuning, sha256(text.encode()).hexdigest()


def _other_method(
    tuning: Tuning, method: str, unlearn: Mapping[str, Any], where: str
) -> list[Problem]:
    update = unlearn.get("update", "lora")
    problems = []
    if method != tuning.method:
        what = "these settings were tuned for another method"
        problems.append(Problem(what, where, tuning.method, method))
    if update != tuning.update:
        what = "these settings were tuned for another kind of update"
        problems.append(Problem(what, where, tuning.update, f"the entry's: {update}"))
    return problems


def _unknown_settings(
    tuning: Tuning, schemas: Mapping[str, type[BaseModel]], path: Path
) -> list[Problem]:
    schema = schemas.get(tuning.method)
    if schema is None:
        return []  # told as an unknown or another method
    try:
        schema.model_validate(tuning.settings)
    except ValidationError as error:
        return problems_from(error, schema, Source(str(path), {}), prefix=("settings",))
    return []


def _record(tuning: Tuning, file: str, digest: str) -> dict[str, Any]:
    record = TunedBy(
        file=file,
        sha256=digest,
        winner=tuning.best,
        **{
            name: getattr(tuning, name)
            for name in ("pulse", "experiment", "budget", "people", "data")
        },
    )
    return record.model_dump(mode="json")
