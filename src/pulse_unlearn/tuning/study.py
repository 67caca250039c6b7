"""One method's trials, one after the other, in a run folder that all of them share.

The folder is the memory: the draws follow from the seed and the numbers so far, so a study that was
stopped is walked through again, and finds every stage that was complete. With several workers the
first trials, which are drawn at random, are computed side by side and then walked through likewise;
each later one is drawn by those before it, and only its own stages go side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_unlearn import __version__
from pulse_unlearn.config import (
    Budget,
    Experiment,
    Knob,
    MethodEntry,
    Trial,
    Tuning,
)
from pulse_unlearn.errors import ConfigError, MethodError, Problem
from pulse_unlearn.estimate.room import require_room
from pulse_unlearn.launch import launched
from pulse_unlearn.pipeline.inputs import OUTCOME, read_inputs
from pulse_unlearn.pipeline.progress import Progress, Silent
from pulse_unlearn.pipeline.run import Finished, run_experiment
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.scenarios import UnlearnStage
from pulse_unlearn.store import StageKey, Store
from pulse_unlearn.tuning.objective import OBJECTIVE, measure
from pulse_unlearn.tuning.people import Scenario, entry_of, tuning_experiment
from pulse_unlearn.tuning.space import Values, short, space_of, values_given, with_values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import Trial as DrawnTrial

AT_RANDOM = 5
"""Trials drawn at random before the sampler learns from them, that of the given settings too."""


@dataclass(frozen=True, slots=True)
class Studied:
    """What came of the trials, and where their answers are."""

    tuning: Tuning
    run: Path


def tune(
    experiment: Experiment,
    method: str,
    runs: Path,
    *,
    trials: int,
    seed: int = 0,
    scenario: Scenario = "finetuned",
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    on: str = "local",
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Studied:
    """Tune a label or registered method of an experiment; the same call continues where it stopped.

    `on` is as for `pulse run`; what is found does not depend on it. `tell` is given each trial as
    it ends. A trial whose settings are refused has no number; the
    first one raises. Raises ConfigError if optuna is missing, too few people are left, or the
    target does not know them.
    """
    entry = entry_of(experiment, method)
    space = space_of(experiment, entry)
    study = _new_study(seed)
    base = tuning_experiment(experiment, entry, scenario=scenario, seed=seed)
    work = _Work(base, method, runs, progress or Silent(), stop or StopRequest(), on)
    given = values_given(entry, space)
    if on != "local":
        work.ahead([given, *_at_random(seed, space, min(trials, AT_RANDOM) - 1)])
    done: list[Trial] = []
    for number in range(trials):
        asked: DrawnTrial | None = None
        if number:
            asked, values = _draw(study, space)
        else:
            values = given
        done.append(work.trial(number, values))
        tell(done[-1])
        if asked is not None:
            _answer(study, asked.number, done[-1].objective)
        elif done[-1].objective is not None:
            _seen(study, space, given, done[-1].objective)
    tuning = _tuning(
        experiment,
        base,
        entry,
        space,
        done,
        Budget(trials=trials, steps=experiment.unlearn.stop.max_steps, seed=seed),
        scenario,
    )
    work.finish(done)
    return Studied(tuning, runs / base.name)


class _Work:
    """Carries out trials in one run folder."""

    def __init__(
        self,
        base: Experiment,
        method: str,
        runs: Path,
        progress: Progress,
        stop: StopRequest,
        on: str,
    ) -> None:
        self.base, self.method, self.runs, self.on = base, method, runs, on
        self.progress, self.stop = progress, stop
        self.entries: dict[str, MethodEntry] = {}

    def ahead(self, drawn: list[Values]) -> None:
        """Compute the stages of trials side by side, for `trial` to find.

        What is wrong with one of them is left for its own trial to tell, where it comes again.
        """
        entries = {}
        for number, values in enumerate(drawn):
            with suppress(ConfigError, MethodError):
                entries[self._label(number)] = with_values(self.base.methods["given"], values)
        with suppress(ConfigError, MethodError):
            self._run(entries)

    def _label(self, number: int) -> str:
        return f"{self.method}-{number:03d}"

    def trial(self, number: int, values: Values) -> Trial:
        """Run one trial, or find it complete, and measure it."""
        label = self._label(number)
        said = Trial(number=number, label=label, values=values)
        try:
            entry = with_values(self.base.methods["given"], values)
            finished = self._run({label: entry})
            finished.raise_failures()
        except (ConfigError, MethodError) as error:
            if not number:
                raise  # as given it does not run at all
            return said.model_copy(update={"failed": str(error)})
        self.entries[label] = entry
        found = measure(finished.run, label)
        told = {
            "objective": round(found.objective, 6),
            "known": round(found.known, 6),
            "kept": {name: round(value, 6) for name, value in found.kept.items()},
            "verdict": _verdict(finished.run),
            "steps": _steps(finished.run),
        }
        return said.model_copy(update=told)

    def finish(self, done: list[Trial]) -> None:
        """Write the results of all trials into the run folder; nothing is computed."""
        self._run({one.label: self.entries[one.label] for one in done if one.objective is not None})

    def _run(self, methods: dict[str, MethodEntry]) -> Finished:
        experiment = self.base.model_copy(update={"methods": methods})
        return run_experiment(
            experiment,
            self.runs,
            progress=self.progress,
            stop=self.stop,
            carry_out=launched(self.on, experiment, self.runs, check=require_room),
        )


def _steps(run: Path) -> int:
    """Return how many steps the operations of the run took."""
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    keys = [
        StageKey(one["number"], one["name"], one["fingerprint"])
        for one in plan["stages"]
        if one["kind"] == UnlearnStage.kind
    ]
    folders = [folder for folder in map(Store(run).find, keys) if folder]
    ended = [json.loads((one / OUTCOME).read_text(encoding="utf-8")) for one in folders]
    return sum(one["steps"] for one in ended)


def _verdict(run: Path) -> str:
    """Return the word for the last operation of the run."""
    verdicts = json.loads((run / "results.json").read_text(encoding="utf-8"))["verdicts"]
    return str(verdicts[-1]["word"]) if verdicts else ""


def _new_study(seed: int) -> Study:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigError(
            Problem(
                "tuning takes optuna, which is not installed",
                fix="pip install 'pulse-unlearn[tune]'",
            )
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _draw(study: Study, space: tuple[Knob, ...]) -> tuple[DrawnTrial, Values]:
    asked = study.ask({knob.name: _distribution(knob) for knob in space})
    return asked, {knob.name: short(asked.params[knob.name]) for knob in space}


def _at_random(seed: int, space: tuple[Knob, ...], count: int) -> list[Values]:
    """Return the draws after the settings as given, which follow from the seed alone."""
    study = _new_study(seed)
    return [_draw(study, space)[1] for _ in range(count)]


def _distribution(knob: Knob) -> BaseDistribution:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if knob.low is None or knob.high is None:
        return CategoricalDistribution(knob.choices)
    if knob.integer:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def _answer(study: Study, number: int, objective: float | None) -> None:
    from optuna.trial import TrialState

    if objective is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, objective)


def _seen(study: Study, space: tuple[Knob, ...], given: Values, objective: float) -> None:
    """Let the sampler learn from the settings as given, if they lie in the ranges."""
    from optuna.trial import create_trial

    if all(_holds(knob, given[knob.name]) for knob in space):
        known = {knob.name: _distribution(knob) for knob in space}
        study.add_trial(create_trial(params=dict(given), distributions=known, value=objective))


def _holds(knob: Knob, value: int | float | str) -> bool:
    if isinstance(value, str) or knob.low is None or knob.high is None:
        return value in knob.choices
    return knob.low <= value <= knob.high


def _tuning(
    experiment: Experiment,
    base: Experiment,
    entry: MethodEntry,
    space: tuple[Knob, ...],
    done: list[Trial],
    budget: Budget,
    scenario: str,
) -> Tuning:
    numbered = [one for one in done if one.objective is not None]
    winner = max(numbered, key=lambda one: (one.objective or 0.0, -one.number))
    inputs = read_inputs(base)
    operation = inputs.plan.operations[-1]
    groups = {"forget": operation.forget, "retain": operation.retain, **dict(operation.unseen)}
    return Tuning(
        pulse=__version__,
        experiment=experiment.name,
        scenario=scenario,
        method=entry.method,
        update=entry.unlearn.update,
        space=space,
        budget=budget,
        people={name: group.ids for name, group in groups.items()},
        objective=OBJECTIVE,
        trials=tuple(done),
        winner=winner.number,
        settings=with_values(entry, winner.values).settings,
        model=inputs.digests["model"],
        data={name: value for name, value in inputs.digests.items() if name != "model"},
    )
