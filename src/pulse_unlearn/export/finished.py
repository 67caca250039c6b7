"""A finished run read again: its plan, its stages' folders, and which model a stage stands for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn import registries
from pulse_unlearn.config import load_experiment
from pulse_unlearn.errors import ConfigError, Problem, PulseError, StoreError
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.scenarios import Group, ScoreStage, Stage, TrainingStage
from pulse_unlearn.store import Store


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run folder and what it was made from; nothing in it is changed."""

    folder: Path
    inputs: Inputs

    def folder_of(self, name: str) -> Path:
        """Return the folder of a finished stage; raises StoreError if it is not finished."""
        found = Store(self.folder).find(self.inputs.keys[name])
        if found is None:
            raise StoreError(
                Problem(
                    "this stage is not finished, or the run's data has changed since",
                    str(self.folder),
                    got=name,
                    fix=f"finish the run first: pulse run {self.folder}/experiment.yaml "
                    f"--runs {self.folder.parent}",
                )
            )
        return found

    def check(self, names: Sequence[str]) -> None:
        """Hash the files of finished stages; raises with everything missing or changed."""
        problems: list[Problem] = []
        for name in names:
            try:
                self.folder_of(name)
                Store(self.folder).check(self.inputs.keys[name])
            except PulseError as error:
                problems += error.problems
        if problems:
            raise StoreError(problems)

    def resolve(self, group: Group) -> tuple[str, ...]:
        """Return the people of a group, reading a finished selection if need be."""
        if not group.selection:
            return group.ids
        self.check([group.selection])
        path = self.folder_of(group.selection) / "selection.json"
        return group.among(json.loads(path.read_text(encoding="utf-8")))


def open_run(run: Path) -> FinishedRun:
    """Read a run folder's experiment and data; raises StoreError if it is no run folder."""
    if not (run / "experiment.yaml").is_file():
        problem = "is not a run folder"
        raise StoreError(Problem(problem, str(run), allowed="one with an experiment.yaml"))
    experiment = load_experiment(str(run / "experiment.yaml"), schemas=registries.schemas())
    return FinishedRun(run, read_inputs(experiment))


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """One model of a run: the updates that make it up, and the stage that asked it."""

    named: Stage
    score: ScoreStage
    """Asked this model; its chain is the model's."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages that must be finished and unchanged."""
        return (*self.score.chain, self.score.name)


def choose_model(run: FinishedRun, stage: str) -> ChosenModel:
    """Return the model that a stage made or asked, by the stage's name or a unique end of it.

    Raises ConfigError that lists what there is, and for a model that was never asked or is the
    base model itself, and for a served system, which is no model.
    """
    named = _named(run, stage)
    _refuse_served(run, named)
    score = named if isinstance(named, ScoreStage) else _score_of(run, named)
    if not score.chain:
        raise ConfigError(
            Problem(
                "this stage asked the base model: there is no update to export",
                got=named.name,
                fix=f"the base model is {run.inputs.experiment.model.source}",
            )
        )
    return ChosenModel(named, score)


def _refuse_served(run: FinishedRun, named: Stage) -> None:
    """Raise ConfigError for a request of a served system, or the stage that asked the system."""
    asked = [one for one in run.inputs.plan.stages if isinstance(one, ScoreStage) and one.served]
    for one in asked:
        if named.name == one.name or named.name in one.served:
            raise ConfigError(
                Problem(
                    "this is a served system and no model: its router or guard stands in front of "
                    "one, and transformers would load that without it",
                    str(run.folder),
                    got=named.name,
                    fix=f"serve it yourself from served.json and served.safetensors of "
                    f"{one.served[-1]}; to export the model inside, name "
                    f"{one.chain[-1] if one.chain else 'the base model'}",
                )
            )


def _named(run: FinishedRun, stage: str) -> Stage:
    stages = [one for one in run.inputs.plan.stages if isinstance(one, ScoreStage | TrainingStage)]
    exact = [one for one in stages if one.name == stage]
    found = exact or [one for one in stages if one.name.endswith(f"/{stage.strip('/')}")]
    if len(found) == 1:
        return found[0]
    what = (
        f"{len(found)} stages have names that end like this" if found else "there is no such stage"
    )
    shown = "\n".join(f"    {one.name}" for one in found or stages)
    raise ConfigError(
        Problem(what, str(run.folder), got=stage, allowed=f"one of\n{shown}"),
    )


def _score_of(run: FinishedRun, named: Stage) -> ScoreStage:
    """Return the stage that asked the model a training left, the reported questions first."""
    asked = [
        one
        for one in run.inputs.plan.stages
        if isinstance(one, ScoreStage) and one.chain[-1:] == (named.name,) and one.step is None
    ]
    if not asked:
        raise ConfigError(
            Problem(
                "the model of this stage was never asked, so an export could not be checked",
                got=named.name,
            )
        )
    return min(asked, key=lambda one: one.view != "scored")
