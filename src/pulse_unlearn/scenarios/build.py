"""Lays out the stages of an experiment: one function per scenario.

Source: PULSE (arXiv 2507.01271), Table 2 and the scenario definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.config import (
    Experiment,
    FinetunedScenario,
    PretrainedScenario,
    RequestsScenario,
    SustainabilityScenario,
)
from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios.evaluations import evaluations_of
from pulse_unlearn.scenarios.plan import Plan, Roster
from pulse_unlearn.scenarios.planner import Planner, Target
from pulse_unlearn.scenarios.stages import Group


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: its settings in the experiment file, and what it adds to a plan."""

    description: str
    settings: type[ScenarioSettings]
    plan: Callable[[Planner, int, str, Any], None]
    """Given the planner, a seed, a method's label and the settings: adds its operations."""

    def add_to(self, planner: Planner, seed: int, label: str, name: str) -> None:
        """Add the operations of one seed and method to the planner."""
        self.plan(planner, seed, label, planner.experiment.scenarios.of(name, self.settings))


SCENARIOS: Registry[Scenario] = Registry("scenario", group="pulse_unlearn.scenarios")


def _finetuned_target(planner: Planner, seed: int) -> Target:
    """Return the model fine-tuned on fictional people, which several scenarios share."""
    learned = planner.finetuned(seed)
    unseen = planner.unseen(seed, learned=learned.unseen)
    people = Group(learned.forget.ids + learned.retain.ids)
    scenarios = planner.experiment.scenarios
    used = [one for one in (scenarios.finetuned, scenarios.sustainability) if one]
    return _scored_target(
        planner,
        f"seed{seed}/target",
        (learned.stage,),
        asked=(people, *(group for _, group in unseen)),
        forget=learned.forget,
        retain=learned.retain,
        unseen=unseen,
        used=used,
    )


def _scored_target(
    planner: Planner,
    stem: str,
    chain: tuple[str, ...],
    *,
    asked: tuple[Group, ...],
    forget: Group,
    retain: Group,
    unseen: tuple[tuple[str, Group], ...],
    used: Sequence[ScenarioSettings],
) -> Target:
    """Score a target model on everything, and on D_unlearn elsewhere for stop rules."""
    scored = planner.score(f"{stem}/score", chain, asked) if chain else planner.score_base()
    turned = "rotated" in map(planner.decides, used)
    name = f"{stem}/score-other-view"
    elsewhere = planner.score(name, chain, (forget,), view="other_view", turned=turned)
    never = planner.score_base() if chain else ""
    return Target(chain, scored, elsewhere, asked, forget, retain, unseen, never)


def _finetuned(planner: Planner, seed: int, label: str, settings: FinetunedScenario) -> None:
    target = _finetuned_target(planner, seed)
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
    target = Target((), scored, elsewhere, (everyone,), forget, retain, unseen=planner.unseen(seed))
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
    size = settings.forget // settings.requests
    ids = target.forget.ids
    requests = [Group(ids[size * k : size * (k + 1)]) for k in range(settings.requests)]
    planner.operate(
        "sustainability", seed, label, target=target, requests=requests, settings=settings
    )


def _requests(planner: Planner, seed: int, label: str, settings: RequestsScenario) -> None:
    forget, retain = Group(planner.named()), Group(planner.roster.retained)
    stem, chain = "named/base", tuple[str, ...]()
    if settings.target == "finetuned":
        stem = f"seed{seed}/named"
        people = Group((*forget.ids, *retain.ids))
        chain = (planner.finetune(seed, f"{stem}/finetune", people),)
    unseen = planner.unseen(seed)
    target = _scored_target(
        planner,
        stem,
        chain,
        asked=(Group((*forget.ids, *retain.ids)), *(group for _, group in unseen)),
        forget=forget,
        retain=retain,
        unseen=unseen,
        used=(settings,),
    )
    requests = [Group(request.people) for request in planner.roster.requests]
    planner.operate("requests", seed, label, target=target, requests=requests, settings=settings)


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
    "requests": Scenario(
        "requests of any size that name people in a file, carried out by date",
        RequestsScenario,
        _requests,
    ),
}.items():
    SCENARIOS.add(_name, _entry)


def build_plan(experiment: Experiment, roster: Roster) -> Plan:
    """Lay out every stage of the experiment; raises ConfigError if people are too few."""
    planner = Planner(experiment, roster)
    planner.score_base()
    chosen = experiment.scenarios.chosen()
    for seed in experiment.seeds:
        for scenario in chosen:
            for label, method in experiment.methods.items():
                if method.scenarios is None or scenario in method.scenarios:
                    entry = SCENARIOS.get(scenario)
                    entry.plan(
                        planner, seed, label, experiment.scenarios.of(scenario, entry.settings)
                    )
    if not planner.operations:
        raise ConfigError(
            Problem("no method takes part in a scenario", "methods", allowed=", ".join(chosen))
        )
    evaluations = evaluations_of(planner)
    return Plan(
        experiment.name, tuple(planner.stages.values()), tuple(planner.operations), evaluations
    )
