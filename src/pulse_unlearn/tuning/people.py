"""The experiment that settings are tuned by: as it is, on people whom it does not report on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pulse_unlearn.config import Experiment, MethodEntry, SustainabilityScenario
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.methods import METHODS
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.registry import did_you_mean

Scenario = Literal["finetuned", "sustainability"]
FEWEST = 2
"""Fewer people in a set tell nothing."""
UNSEEN_SHARE = 5
"""Where no celebrity is left, one of so many fictional people is unseen."""


@dataclass(frozen=True, slots=True)
class _Counts:
    forget: int
    retain: int
    unseen: int
    celebrities: int


def entry_of(experiment: Experiment, method: str) -> MethodEntry:
    """Return the entry of that label, or a plain one of a registered method.

    Raises ConfigError if there is neither.
    """
    if method in experiment.methods:
        return experiment.methods[method].model_copy(update={"scenarios": None, "tuned": None})
    names = sorted({*experiment.methods, *METHODS.names()})
    if method not in METHODS.names():
        listed, fix = ", ".join(names), did_you_mean(method, names)
        raise ConfigError(Problem("unknown method", got=repr(method), allowed=listed, fix=fix))
    return MethodEntry(
        method=method,
        unlearn=experiment.unlearn,
        settings=METHODS.get(method)().model_dump(mode="json"),
    )


def tuning_experiment(
    experiment: Experiment, entry: MethodEntry, *, scenario: Scenario, seed: int
) -> Experiment:
    """Return the experiment with one scenario and seed, on other people than those it asks about.

    Whoever is asked about in any seed and scenario is left out: forgotten, retained, unseen, and
    all candidates of a choice. Of the others as many are forgotten and retained as the experiment
    has, or half of those there are each. Raises ConfigError if they are too few.
    """
    settings = getattr(experiment.scenarios, scenario)
    if settings is None:
        chosen = ", ".join(experiment.scenarios.chosen())
        raise ConfigError(
            Problem("the experiment has no such scenario", "--scenario", scenario, chosen)
        )
    inputs = read_inputs(experiment)
    reported = inputs.plan.asked_about()
    counts = _counts(experiment, settings.forget, settings.retain, inputs, reported)
    forget = counts.forget
    if isinstance(settings, SustainabilityScenario):
        forget -= forget % settings.requests
    if min(forget, counts.retain) < FEWEST:
        raise ConfigError(
            Problem(
                "too few people are left to tune on, whom the experiment does not report on",
                experiment.name,
                got=f"{forget} to forget, {counts.retain} to retain",
                allowed=f"{FEWEST} of each, or one for each request",
                fix="fewer people or seeds, vary without people, or a larger data set",
            )
        )
    others = {one: None for one in experiment.scenarios.chosen() if one != scenario}
    own = settings.model_copy(update={"forget": forget, "retain": counts.retain})
    unseen = experiment.scenarios.unseen.model_copy(
        update={"celebrities": counts.celebrities, "fictional": counts.unseen}
    )
    scenarios = experiment.scenarios.model_copy(update={**others, scenario: own, "unseen": unseen})
    people = forget + counts.retain + counts.unseen
    left_out = (*experiment.data.leave_out, *sorted(reported))
    return experiment.model_copy(
        update={
            "name": f"{experiment.name}-tuning",
            "seeds": (seed,),
            "data": experiment.data.model_copy(update={"leave_out": left_out}),
            "finetune": experiment.finetune.model_copy(update={"individuals": people}),
            "methods": {"given": entry},
            "scenarios": scenarios,
            "evaluations": {},
            "trackers": (),
        }
    )


def _counts(
    experiment: Experiment, forget: int, retain: int, inputs: Inputs, reported: frozenset[str]
) -> _Counts:
    free = [one for one in inputs.people.values() if one.id not in reported]
    fictional = sum(one.group == "fictional" for one in free)
    asked = experiment.scenarios.unseen
    celebrities = min(asked.celebrities, len(free) - fictional)
    unseen = min(asked.fictional, fictional // UNSEEN_SHARE)
    if celebrities < FEWEST:
        unseen = fictional // UNSEEN_SHARE
    half = (fictional - unseen) // 2
    return _Counts(min(forget, half), min(retain, half), unseen, celebrities)
