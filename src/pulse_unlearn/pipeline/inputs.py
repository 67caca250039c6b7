"""What a run works on: data read and checked once, the plan, and every stage's fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulse_unlearn.config import DataSettings, Experiment, ModelSettings
from pulse_unlearn.data import PROFILES, Dataset, Source, datasets
from pulse_unlearn.data.leaks import left_out, unknown_people
from pulse_unlearn.data.requests import read_request_file
from pulse_unlearn.errors import ConfigError, DataError, ModelError, Problem, StoreError
from pulse_unlearn.isolation import Origin
from pulse_unlearn.methods import METHODS, Checked, build_method, goes_by_steps, serves
from pulse_unlearn.models.adapter_base import Base, base_of, base_problem
from pulse_unlearn.models.adapter_files import adapter_config
from pulse_unlearn.models.checkpoints import FULL_FILE, model_digest
from pulse_unlearn.records import Individual, NamedRequest, Question
from pulse_unlearn.registry import third_party
from pulse_unlearn.scenarios import AUDITED, Plan, Roster, Stage, UnlearnStage, build_plan
from pulse_unlearn.store import StageKey, fingerprint

OUTCOME = "outcome.json"
"""How a training ended, in its stage's folder."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything a run reads, before anything is spent."""

    experiment: Experiment
    plan: Plan
    people: Mapping[str, Individual]
    general: tuple[Question, ...]
    general_training: tuple[Question, ...]
    digests: Mapping[str, str]
    """Source file -> SHA-256, for people, general questions and the model."""
    keys: Mapping[str, StageKey]
    """Stage name -> its identity in the store."""
    ingredients: Mapping[str, Ingredients]
    """Stage name -> what its fingerprint was made of."""
    bases: Mapping[str, Base] = field(default_factory=dict)
    """Label of an audited model, empty for the experiment's own -> the model without adapters."""
    requests: tuple[NamedRequest, ...] = ()
    """Those of the scenario `requests`, in the order they are carried out."""
    notes: tuple[str, ...] = ()
    """What was read in a way that could be another, and general questions left out."""

    def stage(self, name: str, fingerprint: str) -> Stage:
        """Return a stage that another process names; raises StoreError if it is not this one's."""
        key = self.keys.get(name)
        if key is None or key.fingerprint != fingerprint:
            raise StoreError(
                Problem(
                    "a worker sees other data, another model or other code than the run",
                    name,
                    fix="give all machines the same files, under the same paths, and versions",
                )
            )
        return self.plan.stage(name)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What decides a stage's output."""

    kind: str
    settings: Mapping[str, Any]
    data: Mapping[str, str]
    parents: tuple[str, ...]


def read_inputs(
    experiment: Experiment, *, placeholders: Mapping[str, Dataset] | None = None
) -> Inputs:
    """Read data, lay out the plan and derive fingerprints; raises on anything unusable.

    No weights are loaded: the model only contributes its digest. `placeholders` take the place of
    parts of the data that are not there yet (`people`, `general`, `general_training`); if they are
    given, even if there are none, not everything is read, and no stage has an identity.
    """
    absent = placeholders or {}
    people, general, training = _read_data(experiment, absent)
    check_settings(experiment, training.general_training)
    # Nobody whom an experiment or a question names is among placeholders.
    real = () if "people" in absent else _without(experiment.data, people.individuals)
    known = real or people.individuals
    _require_modalities(experiment, real)
    individuals = {person.id: person for person in known}
    roster = Roster(
        tuple(person.id for person in known if person.group == "fictional"),
        tuple(person.id for person in known if person.group == "celebrity"),
        has_general="general" in absent or bool(general.general),
    )
    if experiment.scenarios.requests is not None and real:
        named = read_request_file(Path(experiment.scenarios.requests.file), individuals)
        roster = replace(roster, requests=named.requests, retained=named.retained)
    plan = _laid_out(experiment, roster)
    tuned = _tuned_notes(experiment, plan, people.digests)
    allowed = experiment.data.allow_overlap
    kept, about = left_out(real, general.general, allowed=allowed)
    training_kept, more = left_out(real, training.general_training, allowed=allowed)
    questions = sample(kept, experiment.data.general_questions)
    fewer = {
        "general": _missing(general.general, kept),
        "general_training": _missing(training.general_training, training_kept),
    }
    inputs = Inputs(
        experiment,
        plan,
        individuals,
        questions,
        training_kept,
        digests={},
        keys={},
        ingredients={},
        requests=roster.requests,
        notes=tuple(
            dict.fromkeys(
                (*people.notes, *general.notes, *training.notes, *about, *more, *plan.notes, *tuned)
            )
        ),
    )
    if placeholders is not None:
        return inputs
    models = _models(experiment)
    digests = {
        **{f"people/{name}": value for name, value in people.digests.items()},
        **{f"general/{name}": value for name, value in general.digests.items()},
        **{f"general_training/{name}": value for name, value in training.digests.items()},
        **models.digests,
    }
    keys: dict[str, StageKey] = {}
    ingredients: dict[str, Ingredients] = {}
    for number, stage in enumerate(plan.stages, start=1):
        parents = tuple(keys[name].fingerprint for name in stage.parents)
        made_of = _ingredients(stage, experiment, digests, parents, fewer)
        ingredients[stage.name] = made_of
        identity = fingerprint(
            made_of.kind, made_of.settings, data=made_of.data, parents=made_of.parents
        )
        keys[stage.name] = StageKey(number, stage.name, identity)
    notes = tuple(dict.fromkeys((*inputs.notes, *models.notes)))
    return replace(
        inputs,
        digests=digests,
        keys=keys,
        ingredients=ingredients,
        bases=models.bases,
        notes=notes,
    )


def _laid_out(experiment: Experiment, roster: Roster) -> Plan:
    """Lay out the plan, which is told what methods are like and knows none."""
    methods = {label: entry.method for label, entry in experiment.methods.items()}
    return build_plan(
        experiment,
        roster,
        serving={label for label, name in methods.items() if serves(name)},
        stepless={label for label, name in methods.items() if not goes_by_steps(name)},
    )


def _without(data: DataSettings, people: Sequence[Individual]) -> tuple[Individual, ...]:
    """Return the people but for those the experiment leaves out; raises ConfigError for no id."""
    known = {person.id for person in people}
    unknown = [
        *unknown_people((one for pair in data.different_people for one in pair), known),
        *unknown_people(data.leave_out, known, where="data.leave_out"),
    ]
    if unknown:
        raise ConfigError(unknown)
    return tuple(person for person in people if person.id not in data.leave_out)


def _require_modalities(experiment: Experiment, people: Sequence[Individual]) -> None:
    """Raise ConfigError for a method that is to forget people by questions nobody is asked."""
    there = {question.modality for person in people for question in person.questions}
    problems = [
        Problem(
            "nobody is asked anything of this modality",
            f"methods.{label}.unlearn.modalities",
            got=entry.unlearn.modalities,
            allowed=", ".join(sorted(there)),
        )
        for label, entry in experiment.methods.items()
        if people and entry.unlearn.modalities not in {"both", *there}
    ]
    if problems:
        raise ConfigError(problems)


def _tuned_notes(experiment: Experiment, plan: Plan, digests: Mapping[str, str]) -> list[str]:
    """Say whose settings were tuned; raises ConfigError if that was on people reported on."""
    problems, notes = [], []
    for label, entry in experiment.methods.items():
        if entry.tuned is None:
            continue
        by, people = entry.tuned, {name for ids in entry.tuned.people.values() for name in ids}
        read = {f"people/{name}": value for name, value in digests.items()}
        both = plan.asked_about() & people if read.items() <= by.data.items() else ()
        if both:
            what = "the run would report on people whom these settings were tuned on"
            fix = f"tune it anew: pulse tune {experiment.name} {entry.method}"
            where = f"methods.{label}.tuned"
            problems.append(Problem(what, where, ", ".join(sorted(both)), fix=fix))
        notes.append(
            f"{label} has the settings of trial {by.winner.number} of {by.budget.trials}, each of "
            f"{by.budget.steps} steps at most, seed {by.budget.seed}, on {len(people)} other "
            f"people (pulse tune, {by.sha256[:12]})"
        )
    if problems:
        raise ConfigError(problems)
    return notes


@dataclass(frozen=True, slots=True)
class _Models:
    """The models of a run, as far as their files tell."""

    digests: dict[str, str] = field(default_factory=dict)
    bases: dict[str, Base] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _models(experiment: Experiment) -> _Models:
    """Return the digest of every model; raises ModelError with what is wrong with their files."""
    found = _Models()
    bases: dict[tuple[str, str | None], Base] = {}
    problems: list[Problem] = []
    for label in ("", *experiment.audited):
        settings = experiment.model_of(label)
        try:
            own = (settings.source, settings.revision)
            base = found.bases[label] = bases[own] = bases.get(own) or base_of(settings)
            place = f"{AUDITED}/{label}/model" if label else "model"
            found.digests[place] = model_digest(settings) if settings.adapters else base.sha256
            for folder in map(Path, settings.adapters):
                if not (folder / FULL_FILE).is_file():
                    adapter_config(folder)
            refused = _other_bases(settings, base)
        except ModelError as error:
            # The settings that a problem names are the label's own, not the experiment's model.
            of = f"{label} ({settings.source}): " if label else ""
            problems += [replace(one, where=f"{of}{one.where}") for one in error.problems]
            continue
        if settings.allow_base_mismatch:
            found.notes.extend(
                f"allowed by model.allow_base_mismatch: {one.where} was made for {one.got}, and "
                f"goes on {one.allowed}"
                for one in refused
            )
        else:
            problems += refused
    if problems:
        raise ModelError(list(dict.fromkeys(problems)))
    return found


def _other_bases(settings: ModelSettings, base: Base) -> list[Problem]:
    """Return a problem for each adapter of a model that was made for another."""
    found = [base_problem(Path(folder), base) for folder in settings.adapters]
    return [problem for problem in found if problem]


def people_source(data: DataSettings) -> Source:
    """Return where people are read, and the choices made in reading them."""
    asked = data.people
    chosen = {"scored_picture", "options", "options_seed"}
    return Source(asked.path, asked.revision, **asked.model_dump(include=chosen))


def _read_data(
    experiment: Experiment, absent: Mapping[str, Dataset]
) -> tuple[Dataset, Dataset, Dataset]:
    """Read people, general questions and those to train on; all problems are told together."""
    data = experiment.data
    questions = Source(data.general.path, data.general.revision)
    read: list[Dataset] = []
    problems: list[Problem] = []
    for part, load, name, source in (
        ("people", datasets.load_people, data.people.source, people_source(data)),
        ("general", datasets.load_general, data.general.source, questions),
        ("general_training", datasets.load_general_training, data.general.source, questions),
    ):
        try:
            read.append(absent[part] if part in absent else load(name, source))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    return read[0], read[1], read[2]


def check_settings(experiment: Experiment, training: tuple[Question, ...]) -> None:
    """Raise ConfigError for each setting that asks in vain, of data or of the prompt."""
    problems = [
        *_rotated_in_vain(experiment),
        *([] if training else _wanting(experiment)),
        *_unfit_methods(experiment),
    ]
    if problems:
        raise ConfigError(problems)


def _rotated_in_vain(experiment: Experiment) -> list[Problem]:
    profile = experiment.data.general_prompt
    if experiment.scoring.general == "vanilla" or PROFILES.get(profile).options_shown:
        return []
    return [
        Problem(
            "every rotation is the same question where the options are not shown",
            "scoring.general",
            got=f"circular, with data.general_prompt {profile}",
            allowed="vanilla, or a general_prompt that shows the options",
            fix="--set scoring.general=vanilla",
        )
    ]


def _unfit_methods(experiment: Experiment) -> list[Problem]:
    """Return what methods say of settings they do not work with."""
    problems = []
    for label, entry in experiment.methods.items():
        method = build_method(entry.method, entry.settings)
        found = [*method.problems(entry.unlearn)] if isinstance(method, Checked) else []
        if entry.unlearn.retain == "none" and method.needs.retain:
            what = "the method needs a retain batch"
            allowed = "d_retain, other_known, all_known, general"
            found.append(Problem(what, "unlearn.retain", "none", allowed))
        elif entry.unlearn.retain in ("none", "general") and method.needs.decoupled:
            what = "the method asks about retained people"
            allowed = "d_retain, other_known, all_known"
            found.append(Problem(what, "unlearn.retain", entry.unlearn.retain, allowed))
        problems += [replace(one, where=f"methods.{label}.{one.where}") for one in found]
    return problems


def _wanting(experiment: Experiment) -> list[Problem]:
    """Return the settings that take general training questions."""
    wanting = ["finetune.replay"] if experiment.finetune.replay else []
    wanting += [
        f"methods.{label}.unlearn." + ("general_share" if entry.unlearn.general_share else "retain")
        for label, entry in experiment.methods.items()
        if entry.unlearn.replayed_share
    ]
    if "general" in experiment.evaluations.get("relearning", {}).get("teach", ()):
        wanting.append("evaluations.relearning.teach")
    return [
        Problem(
            "there are no general training questions",
            where,
            got=f"data set {experiment.data.general.source}",
            fix="set it to 0, or leave general out, or give the data set training questions",
        )
        for where in wanting
    ]


def plugin_of(stage: Stage) -> Origin | None:
    """Return whose code carries a stage out; None for this package's own."""
    if isinstance(stage, UnlearnStage):
        return METHODS.origin(stage.method)
    return third_party("pulse_unlearn.runners", stage.kind)


def _ingredients(
    stage: Stage,
    experiment: Experiment,
    digests: Mapping[str, str],
    parents: tuple[str, ...],
    missing: Mapping[str, list[str]],
) -> Ingredients:
    """Gather what decides this stage's output, and nothing that cannot change it."""
    settings = stage.ingredients(experiment)
    plugin = plugin_of(stage)
    if plugin:
        settings["plugin"] = asdict(plugin)
    gone = {name: ids for name, ids in missing.items() if ids and f"{name}/" in stage.reads}
    if gone:
        settings["left_out"] = gone
    data = {name: value for name, value in digests.items() if name.startswith(stage.sources)}
    return Ingredients(stage.kind, settings, data if stage.reads else {}, parents)


def _missing(all_of: tuple[Question, ...], kept: tuple[Question, ...]) -> list[str]:
    stays = {question.id for question in kept}
    return sorted(question.id for question in all_of if question.id not in stays)


def sample(questions: tuple[Question, ...], count: int | None) -> tuple[Question, ...]:
    """Return so many questions, chosen by a hash of their ids: the same ones for every seed."""
    if count is None or count >= len(questions):
        return questions
    ranked = sorted(questions, key=lambda question: sha256(question.id.encode()).digest())
    chosen = {question.id for question in ranked[:count]}
    return tuple(question for question in questions if question.id in chosen)
