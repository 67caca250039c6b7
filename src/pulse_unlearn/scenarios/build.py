"""Lays out the stages of an experiment: one function per scenario.

Source: PULSE (arXiv 2507.01271), Table 2 and the scenario definitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from pulse_unlearn.config import (
    AuditScenario,
    Experiment,
    FinetunedScenario,
    PretrainedScenario,
    RequestsScenario,
    SameCheckpointScenario,
    SustainabilityScenario,
    label_of_retain_model,
)
from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios.audit import plan_audit
from pulse_unlearn.scenarios.evaluations import evaluations_of
from pulse_unlearn.scenarios.plan import Plan, Roster
from pulse_unlearn.scenarios.planner import Planner, Target, derive_seed
from pulse_unlearn.scenarios.same_checkpoint import plan_same_checkpoint
from pulse_unlearn.scenarios.stages import Group


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: its settings in the experiment file, and what it adds to a plan."""

    description: str
    settings: type[ScenarioSettings]
    plan: Callable[[Planner, int, str, Any], None]
    """Given the planner, a seed, a method's label and the settings: adds its operations."""
    labels: Callable[[Any], Iterable[str]] | None = None
    """Settings -> labels of what it measures, once; None for the methods that take part."""


SCENARIOS: Registry[Scenario] = Registry("scenario", group="pulse_unlearn.scenarios")


def _beside_retain_model(
    planner: Planner, seed: int, scenario: str, target: Target, settings: ScenarioSettings
) -> Target:
    """Return the target with the retain model that its scenario names, if it names one."""
    if settings.retain_model is None:
        return target
    label, name = label_of_retain_model(scenario), f"seed{seed}/{scenario}/retain-model/score"
    return replace(target, never_knew=planner.score(name, (), target.everyone, model=label))


def _finetuned_target(planner: Planner, seed: int) -> Target:
    """Return the model fine-tuned on fictional people, which several scenarios share."""
    learned = planner.finetuned(seed)
    unseen = planner.unseen(seed, learned=learned.unseen)
    people = Group(learned.forget.ids + learned.retain.ids)
    scenarios = planner.experiment.scenarios
    used = [one for one in (scenarios.finetuned, scenarios.sustainability) if one]
    chain, asked = (learned.stage,), (people, *(group for _, group in unseen))
    return Target(
        chain,
        scored=planner.score(f"seed{seed}/target/score", chain, asked),
        elsewhere=planner.score(
            f"seed{seed}/target/score-other-view",
            chain,
            (learned.forget,),
            view="other_view",
            turned="rotated" in map(planner.decides, used),
        ),
        everyone=asked,
        forget=learned.forget,
        retain=learned.retain,
        unseen=unseen,
        never_knew=planner.score_base(),
        others=planner.others(seed),
        stem=f"seed{seed}/",
    )


def _finetuned(planner: Planner, seed: int, label: str, settings: FinetunedScenario) -> None:
    target = _finetuned_target(planner, seed)
    target = _beside_retain_model(planner, seed, "finetuned", target, settings)
    planner.operate(
        "finetuned",
        seed,
        label,
        target=target,
        requests=(target.forget,),
        settings=settings,
        numbered=False,
    )


def _pretrained(planner: Planner, seed: int, label: str, settings: PretrainedScenario) -> None:
    scored = planner.score_base()
    select = planner.select(seed, settings)
    forget, retain, everyone = (
        Group(selection=select, part=part) for part in ("forget", "retain", "all")
    )
    elsewhere = planner.score_base_elsewhere(settings)
    target = Target(
        (),
        scored,
        elsewhere,
        (everyone,),
        forget,
        retain,
        unseen=planner.unseen(seed),
        others=planner.others(seed),
    )
    target = _beside_retain_model(planner, seed, "pretrained", target, settings)
    planner.operate(
        "pretrained",
        seed,
        label,
        target=target,
        requests=(forget,),
        settings=settings,
        numbered=False,
    )


def _sustainability(
    planner: Planner, seed: int, label: str, settings: SustainabilityScenario
) -> None:
    target = _finetuned_target(planner, seed)
    target = _beside_retain_model(planner, seed, "sustainability", target, settings)
    size = settings.forget // settings.requests
    ids = target.forget.ids
    requests = [Group(ids[size * k : size * (k + 1)]) for k in range(settings.requests)]
    if planner.seed(seed, "requests") != planner.experiment.seeds[0]:
        random.Random(derive_seed(seed, "requests")).shuffle(requests)
    planner.operate(
        "sustainability", seed, label, target=target, requests=requests, settings=settings
    )


def _requests(planner: Planner, seed: int, label: str, settings: RequestsScenario) -> None:
    asked = planner.roster.requests
    people = _Named(planner.roster, planner.known(seed))
    people.require_known()
    chain = (planner.finetuned(seed).stage,) if settings.target == "finetuned" else ()
    stem = f"seed{seed}/requests" if chain else "requests"
    groups = (Group(people.known),)
    scored = planner.score(f"{stem}/target/score", chain, groups) if chain else planner.score_base()
    turned = planner.decides(settings) == "rotated"
    targets = [
        Target(
            chain,
            scored,
            planner.score(
                f"{stem}/request{number}/target-other-view",
                chain,
                (Group(request.people),),
                view="other_view",
                turned=turned,
            ),
            groups,
            Group(people.until(number)),
            Group(people.retained()),
            people.unseen(),
            planner.score_base() if chain else "",
            replayed=Group(people.retained(number)),
            stem=f"{stem}/request{number}/",
        )
        for number, request in enumerate(asked, start=1)
    ]
    targets = [_beside_retain_model(planner, seed, "requests", one, settings) for one in targets]
    if targets:
        requests = [Group(request.people) for request in asked]
        planner.operate(
            "requests", seed, label, target=targets, requests=requests, settings=settings
        )


@dataclass(frozen=True, slots=True)
class _Named:
    """Who is forgotten, retained and neither, as named requests come in."""

    roster: Roster
    known: tuple[str, ...]

    def until(self, number: int | None = None) -> tuple[str, ...]:
        """Return whom the first so many requests name, or all."""
        return tuple(name for one in self.roster.requests[:number] for name in one.people)

    def retained(self, number: int | None = None) -> tuple[str, ...]:
        """Return who is retained after so many requests, or after all: nobody who is named."""
        gone = {*self.until(number)}
        kept = self.roster.retained or self.known
        return tuple(name for name in kept if name not in gone)

    def unseen(self) -> tuple[tuple[str, Group], ...]:
        """Return the set of those who are neither named nor retained."""
        taken = {*self.until(), *self.retained()}
        rest = tuple(name for name in self.known if name not in taken)
        return (("unseen", Group(rest)),) if rest else ()

    def require_known(self) -> None:
        """Raise ConfigError for people of the file whom the target model does not know."""
        where = "scenarios.requests.file"
        named = (*self.until(), *self.roster.retained)
        problems = [
            Problem(
                "the target model is not one that knows this person",
                where,
                name,
                fix="raise finetune.individuals, or set scenarios.requests.people",
            )
            for name in dict.fromkeys(named)
            if name not in self.known
        ]
        if self.roster.requests and not self.retained():
            fix = "add people to the data set, or set scenarios.requests.people"
            problems.append(Problem("nobody is left to be retained", where, fix=fix))
        if problems:
            raise ConfigError(problems)


for _name, _entry in {
    "finetuned": Scenario(
        "knowledge from fine-tuning, removed in one operation", FinetunedScenario, _finetuned
    ),
    "pretrained": Scenario(
        "knowledge from pre-training: the people this model knows best, chosen by its answers",
        PretrainedScenario,
        _pretrained,
    ),
    "sustainability": Scenario(
        "fine-tuned knowledge removed in sequential requests, everything scored after each",
        SustainabilityScenario,
        _sustainability,
    ),
    "same_checkpoint": Scenario(
        "two groups of people, each unlearned from one model that is equally sure of both",
        SameCheckpointScenario,
        plan_same_checkpoint,
    ),
    "requests": Scenario(
        "requests of any size that name people in a file, carried out by date",
        RequestsScenario,
        _requests,
    ),
    "audit": Scenario(
        "models that somebody else unlearned, asked as they are",
        AuditScenario,
        plan_audit,
        labels=lambda settings: settings.models,
    ),
}.items():
    SCENARIOS.add(_name, _entry)


def _labels(
    experiment: Experiment, name: str, entry: Scenario, settings: ScenarioSettings, seed: int
) -> Iterable[str]:
    """Return what a scenario measures in one seed."""
    if entry.labels:
        # Nothing is drawn: a second seed would only tell the same numbers again.
        return entry.labels(settings) if seed == experiment.seeds[0] else ()
    return [
        label
        for label, method in experiment.methods.items()
        if method.scenarios is None or name in method.scenarios
    ]


def build_plan(
    experiment: Experiment,
    roster: Roster,
    *,
    serving: Collection[str] = (),
    stepless: Collection[str] = (),
) -> Plan:
    """Lay out every stage of the experiment; raises ConfigError if people are too few.

    `serving` are the labels of methods that change what is served (`methods.Serves`), `stepless`
    of those whose steps are not on the way to their end (`methods.goes_by_steps`).
    """
    planner = Planner(experiment, roster, serving=serving, stepless=stepless)
    planner.score_base()
    chosen = experiment.scenarios.chosen()
    for seed in experiment.seeds:
        for scenario in chosen:
            entry = SCENARIOS.get(scenario)
            settings = experiment.scenarios.of(scenario, entry.settings)
            for label in _labels(experiment, scenario, entry, settings, seed):
                entry.plan(planner, seed, label, settings)
    if not planner.operations:
        raise ConfigError(
            Problem("no method takes part in a scenario", "methods", allowed=", ".join(chosen))
        )
    evaluations = evaluations_of(planner)
    return Plan(
        experiment.name,
        tuple(planner.stages.values()),
        tuple(planner.operations),
        evaluations,
        notes=tuple(dict.fromkeys(planner.notes)),
        never_learned=planner.never_learned,
    )
