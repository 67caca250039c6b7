"""Lays out the stages of an experiment: one function per scenario.

Source: PULSE (arXiv 2507.01271), Table 2 and the scenario definitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from pulse_unlearn.config import Experiment, MethodEntry, PretrainedScenario
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import Cell
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios.plan import Group, Operation, Plan, Roster, Stage, View


def derive_seed(seed: int, name: str) -> int:
    """Return a 31-bit seed that depends on the run's seed and a name, on every machine alike."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


class _Planner:
    """Collects stages; scenarios share a stage by asking for it under the same name."""

    def __init__(self, experiment: Experiment, roster: Roster) -> None:
        self.experiment = experiment
        self.roster = roster
        self.stages: dict[str, Stage] = {}
        self.operations: list[Operation] = []

    def add(self, stage: Stage) -> str:
        known = self.stages.setdefault(stage.name, stage)
        if known != stage:
            raise ValueError(f"two different stages are named {stage.name}")
        return stage.name

    def score(self, name: str, chain: Sequence[str], ask: Group, *, view: View = "scored") -> str:
        parents = tuple(chain) + ((ask.selection,) if ask.selection else ())
        return self.add(
            Stage(
                name,
                "score",
                seed=0,
                parents=parents,
                chain=tuple(chain),
                ask=ask,
                view=view,
                general=view == "scored",
                settings={"scoring": self.experiment.scoring.model_dump(mode="json")},
            )
        )

    def score_base(self) -> str:
        """Ask the base model everything that is asked later, before anything is learned."""
        scenarios = self.experiment.scenarios
        asked: list[str] = []
        if scenarios.finetuned or scenarios.sustainability:
            drawn = {name for seed in self.experiment.seeds for name in self.learned(seed)}
            asked += sorted(drawn)
        if scenarios.pretrained:
            asked += self.candidates(scenarios.pretrained)
        return self.score("base/score", (), Group(tuple(asked)))

    def learned(self, seed: int) -> tuple[str, ...]:
        """Return the fictional people this seed fine-tunes on, in drawn order."""
        count = self.experiment.finetune.individuals
        return _draw(self.roster.fictional, count, seed, "finetune")

    def candidates(self, settings: PretrainedScenario) -> tuple[str, ...]:
        """Return the celebrities the choice is made among."""
        count = settings.candidates
        _draw(self.roster.celebrities, count, 0, "scenarios.pretrained")
        return self.roster.celebrities[:count]

    def finetune(self, seed: int) -> tuple[str, Group, Group]:
        """Add the fine-tuning of this seed; return its stage and the two halves of its people."""
        settings = self.experiment.finetune
        people = self.learned(seed)
        scenarios = self.experiment.scenarios
        chosen = scenarios.finetuned or scenarios.sustainability
        cut = chosen.forget if chosen else settings.individuals // 2
        name = f"seed{seed}/finetune"
        self.add(
            Stage(
                name,
                "finetune",
                seed=derive_seed(seed, name),
                retain=Group(people),
                settings={"finetune": settings.model_dump(mode="json")},
            )
        )
        return name, Group(people[:cut]), Group(people[cut:])

    def unlearn(
        self,
        stem: str,
        label: str,
        *,
        chain: Sequence[str],
        target_depth: int,
        forget: Group,
        retain: Group,
        cell: Cell,
    ) -> str:
        """Add one application of a method on top of `chain`; return the stage's name."""
        entry = self.experiment.methods[label]
        continued = entry.unlearn.adapter == "continued" and len(chain) > target_depth
        original = entry.unlearn.reference == "original"
        name = f"{stem}/unlearn"
        selection = (forget.selection,) if forget.selection else ()
        return self.add(
            Stage(
                name,
                "unlearn",
                seed=derive_seed(cell.seed, name),
                parents=tuple(chain) + selection,
                chain=tuple(chain[:-1]) if continued else tuple(chain),
                start_from=chain[-1] if continued else "",
                reference_depth=target_depth if original else len(chain),
                forget=forget,
                retain=retain,
                settings=_unlearn_settings(entry),
                cell=cell,
            )
        )


def _unlearn_settings(entry: MethodEntry) -> dict[str, Any]:
    return entry.model_dump(mode="json", include={"method", "unlearn", "settings"})


def _draw(ids: Sequence[str], count: int, seed: int, purpose: str) -> tuple[str, ...]:
    if count > len(ids):
        raise ConfigError(
            Problem(
                f"not enough individuals for {purpose}",
                got=f"{count} wanted",
                allowed=f"at most {len(ids)} in this data set",
            )
        )
    return tuple(random.Random(derive_seed(seed, purpose)).sample(sorted(ids), count))


Scenario = Callable[[_Planner, int, str, MethodEntry], None]
SCENARIOS: Registry[Scenario] = Registry("scenario")


@SCENARIOS.register("finetuned")
def _finetuned(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Knowledge from fine-tuning, removed in one operation."""
    tuned, forget, retain = planner.finetune(seed)
    everyone = Group(forget.ids + retain.ids)
    before = planner.score(f"seed{seed}/target/score", (tuned,), everyone)
    cell = Cell("finetuned", label, entry.unlearn.scope, seed, 1)
    stem = f"seed{seed}/finetuned/{label}"
    unlearn = planner.unlearn(
        stem, label, chain=(tuned,), target_depth=1, forget=forget, retain=retain, cell=cell
    )
    after = planner.score(f"{stem}/score", (tuned, unlearn), everyone)
    planner.operations.append(Operation(cell, before, after, unlearn, forget, retain, (forget,)))


@SCENARIOS.register("pretrained")
def _pretrained(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Knowledge from pre-training: the people this model knows best, chosen by its answers."""
    settings = planner.experiment.scenarios.pretrained
    if settings is None:
        raise ValueError("the pretrained scenario has no settings")
    before = planner.score_base()
    evidence = before
    candidates = Group(planner.candidates(settings))
    if settings.select_on == "other_view":
        evidence = planner.score("base/score-other-view", (), candidates, view="other_view")
    select = planner.add(
        Stage(
            f"seed{seed}/select",
            "select",
            seed=derive_seed(seed, "select"),
            parents=(evidence,),
            ask=candidates,
            settings={"pretrained": settings.model_dump(mode="json")},
        )
    )
    forget, retain, both = (
        Group(selection=select, part=part) for part in ("forget", "retain", "all")
    )
    cell = Cell("pretrained", label, entry.unlearn.scope, seed, 1)
    stem = f"seed{seed}/pretrained/{label}"
    unlearn = planner.unlearn(
        stem, label, chain=(), target_depth=0, forget=forget, retain=retain, cell=cell
    )
    after = planner.score(f"{stem}/score", (unlearn,), both)
    planner.operations.append(Operation(cell, before, after, unlearn, forget, retain, (forget,)))


@SCENARIOS.register("sustainability")
def _sustainability(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Fine-tuned knowledge removed in sequential requests, everything scored after each."""
    settings = planner.experiment.scenarios.sustainability
    if settings is None:
        raise ValueError("the sustainability scenario has no settings")
    tuned, forget, retain = planner.finetune(seed)
    everyone = Group(forget.ids + retain.ids)
    before = planner.score(f"seed{seed}/target/score", (tuned,), everyone)
    size = settings.forget // settings.requests
    requests = tuple(Group(forget.ids[size * k : size * (k + 1)]) for k in range(settings.requests))
    chain: tuple[str, ...] = (tuned,)
    for number, request in enumerate(requests, start=1):
        cell = Cell("sustainability", label, entry.unlearn.scope, seed, number)
        stem = f"seed{seed}/sustainability/{label}/request{number}"
        unlearn = planner.unlearn(
            stem, label, chain=chain, target_depth=1, forget=request, retain=retain, cell=cell
        )
        below = planner.stages[unlearn].chain
        chain = (*below, unlearn)
        after = planner.score(f"{stem}/score", chain, everyone)
        planner.operations.append(Operation(cell, before, after, unlearn, forget, retain, requests))


def build_plan(experiment: Experiment, roster: Roster) -> Plan:
    """Lay out every stage of the experiment; raises ConfigError if people are too few."""
    planner = _Planner(experiment, roster)
    planner.score_base()
    for seed in experiment.seeds:
        for scenario in ("finetuned", "pretrained", "sustainability"):
            if getattr(experiment.scenarios, scenario) is None:
                continue
            for label, entry in experiment.methods.items():
                if scenario in entry.scenarios:
                    SCENARIOS.get(scenario)(planner, seed, label, entry)
    return Plan(experiment.name, tuple(planner.stages.values()), tuple(planner.operations))
