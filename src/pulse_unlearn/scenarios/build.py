"""Lays out the stages of an experiment: one function per scenario.

Source: PULSE (arXiv 2507.01271), Table 2 and the scenario definitions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pulse_unlearn.config import Decides, Experiment, MethodEntry, PretrainedScenario, SeedPart
from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import Cell
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios.plan import Group, Operation, Plan, Roster, Stage, View

NOBODY = Group()


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

    def seed(self, seed: int, part: SeedPart) -> int:
        """Return the seed of one part of a run: its own, or the first one's if it is not varied."""
        return seed if part in self.experiment.vary else self.experiment.seeds[0]

    def decides(self, scenario: ScenarioSettings | None) -> Decides:
        """Return the reading that ends a scenario's operations and chooses its people."""
        own = scenario.decided_by if scenario else None
        return own or self.experiment.scoring.decides

    def score(
        self,
        name: str,
        chain: Sequence[str],
        ask: Sequence[Group],
        *,
        view: View = "scored",
        turned: bool = False,
    ) -> str:
        chosen = tuple(dict.fromkeys(group.selection for group in ask if group.selection))
        return self.add(
            Stage(
                name,
                "score",
                seed=0,
                parents=(*chain, *chosen),
                chain=tuple(chain),
                ask=tuple(ask),
                view=view,
                turned=turned,
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
        else:
            seeds = self.experiment.seeds
            drawn = {name for seed in seeds for name in self.strangers(seed)}
            asked += sorted(drawn)
        return self.score("base/score", (), (Group(tuple(asked)),))

    def score_base_elsewhere(self, settings: PretrainedScenario) -> str:
        """Ask the base model about the candidates on views that are never reported."""
        candidates = Group(self.candidates(settings))
        turned = self.decides(settings) == "rotated"
        name = "base/score-other-view"
        return self.score(name, (), (candidates,), view="other_view", turned=turned)

    def learned(self, seed: int) -> tuple[str, ...]:
        """Return the fictional people this seed fine-tunes on, in drawn order."""
        count = self.experiment.finetune.individuals
        return _draw(self.roster.fictional, count, self.seed(seed, "people"), "finetune")

    def candidates(self, settings: PretrainedScenario) -> tuple[str, ...]:
        """Return the celebrities the choice is made among."""
        count = settings.candidates
        _draw(self.roster.celebrities, count, 0, "scenarios.pretrained")
        return self.roster.celebrities[:count]

    def strangers(self, seed: int) -> tuple[str, ...]:
        """Return unseen celebrities where none are chosen by behaviour."""
        count = min(self.experiment.scenarios.unseen.celebrities, len(self.roster.celebrities))
        return _draw(self.roster.celebrities, count, self.seed(seed, "people"), "unseen")

    def select(self, seed: int, settings: PretrainedScenario) -> str:
        """Add the choice of the celebrities the model knows best."""
        before = self.score_base()
        elsewhere = self.score_base_elsewhere(settings)
        drawn = self.seed(seed, "people")
        return self.add(
            Stage(
                f"seed{seed}/select",
                "select",
                seed=derive_seed(drawn, f"seed{drawn}/select"),
                parents=(elsewhere if settings.select_on == "other_view" else before,),
                ask=(Group(self.candidates(settings)),),
                decides=self.decides(settings),
                settings={
                    "pretrained": settings.model_dump(mode="json"),
                    "unseen": self.experiment.scenarios.unseen.celebrities,
                },
            )
        )

    def unseen(self, seed: int, *, learned: Group = NOBODY) -> tuple[tuple[str, Group], ...]:
        """Return the sets of people nobody forgets or replays; `learned` are fictional ones."""
        settings = self.experiment.scenarios.pretrained
        if settings is None:
            celebrities = Group(self.strangers(seed))
        elif self.experiment.scenarios.unseen.celebrities:
            celebrities = Group(selection=self.select(seed, settings), part="unseen")
        else:
            celebrities = NOBODY
        found = (("unseen", celebrities), ("unseen_fictional", learned))
        return tuple((name, group) for name, group in found if group != NOBODY)

    def finetune(self, seed: int) -> _Learned:
        """Add the fine-tuning of this seed; return its stage and what its people are for."""
        settings = self.experiment.finetune
        people = self.learned(seed)
        scenarios = self.experiment.scenarios
        chosen = scenarios.finetuned or scenarios.sustainability
        rest = len(people) - scenarios.unseen.fictional
        cut = chosen.forget if chosen else rest // 2
        name = f"seed{seed}/finetune"
        self.add(
            Stage(
                name,
                "finetune",
                seed=self._derived(seed, "training", name),
                order_seed=self._derived(seed, "order", name),
                retain=Group(people),
                decides="" if settings.target_accuracy is None else self.decides(None),
                settings={"finetune": settings.model_dump(mode="json")},
            )
        )
        return _Learned(name, Group(people[:cut]), Group(people[cut:rest]), Group(people[rest:]))

    def unlearn(
        self,
        stem: str,
        label: str,
        *,
        chain: Sequence[str],
        target_depth: int,
        forget: Group,
        retain: Group,
        before: str,
        decides: Decides,
        cell: Cell,
    ) -> str:
        """Add one application of a method on top of `chain`; return the stage's name.

        `before` asked the target model what the stop rule asks, whose reading is `decides`.
        """
        entry = self.experiment.methods[label]
        continued = entry.unlearn.adapter == "continued" and len(chain) > target_depth
        original = entry.unlearn.reference == "original"
        name = f"{stem}/unlearn"
        selection = (forget.selection,) if forget.selection else ()
        asked = (before,) if entry.unlearn.stop.target_forgetting is not None else ()
        return self.add(
            Stage(
                name,
                "unlearn",
                seed=self._derived(cell.seed, "training", name),
                order_seed=self._derived(cell.seed, "order", name),
                parents=(*chain, *selection, *asked),
                chain=tuple(chain[:-1]) if continued else tuple(chain),
                start_from=chain[-1] if continued else "",
                reference_depth=target_depth if original else len(chain),
                forget=forget,
                retain=retain,
                before=before if asked else "",
                decides=decides if asked else "",
                settings=_unlearn_settings(entry),
                cell=cell,
            )
        )

    def _derived(self, seed: int, part: SeedPart, name: str) -> int:
        """Derive a stage's seed; what is not varied derives from the first seed's stage."""
        drawn = self.seed(seed, part)
        return derive_seed(drawn, name.replace(f"seed{seed}/", f"seed{drawn}/", 1))


@dataclass(frozen=True, slots=True)
class _Learned:
    """A fine-tuning and what its people are for."""

    stage: str
    forget: Group
    retain: Group
    unseen: Group


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


@dataclass(frozen=True, slots=True)
class _Target:
    """The fine-tuned model before unlearning, and what it was asked."""

    learned: _Learned
    unseen: tuple[tuple[str, Group], ...]
    everyone: tuple[Group, ...]
    scored: str
    elsewhere: str
    """Asked about D_unlearn on views that are never reported."""


def _target(planner: _Planner, seed: int) -> _Target:
    learned = planner.finetune(seed)
    unseen = planner.unseen(seed, learned=learned.unseen)
    people = Group(learned.forget.ids + learned.retain.ids)
    everyone = (people, *(group for _, group in unseen))
    chain = (learned.stage,)
    scored = planner.score(f"seed{seed}/target/score", chain, everyone)
    scenarios = planner.experiment.scenarios
    used = [one for one in (scenarios.finetuned, scenarios.sustainability) if one]
    elsewhere = planner.score(
        f"seed{seed}/target/score-other-view",
        chain,
        (learned.forget,),
        view="other_view",
        turned="rotated" in map(planner.decides, used),
    )
    return _Target(learned, unseen, everyone, scored, elsewhere)


@SCENARIOS.register("finetuned")
def _finetuned(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Knowledge from fine-tuning, removed in one operation."""
    target = _target(planner, seed)
    tuned, forget, retain = target.learned.stage, target.learned.forget, target.learned.retain
    cell = Cell("finetuned", label, entry.unlearn.scope, seed, 1)
    stem = f"seed{seed}/finetuned/{label}"
    unlearn = planner.unlearn(
        stem,
        label,
        chain=(tuned,),
        target_depth=1,
        forget=forget,
        retain=retain,
        before=target.elsewhere,
        decides=planner.decides(planner.experiment.scenarios.finetuned),
        cell=cell,
    )
    after = planner.score(f"{stem}/score", (tuned, unlearn), target.everyone)
    planner.operations.append(
        Operation(
            cell,
            target.scored,
            after,
            unlearn,
            forget,
            retain,
            (forget,),
            target.unseen,
            never_knew=planner.score_base(),
        )
    )


@SCENARIOS.register("pretrained")
def _pretrained(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Knowledge from pre-training: the people this model knows best, chosen by its answers."""
    settings = planner.experiment.scenarios.pretrained
    if settings is None:
        raise ValueError("the pretrained scenario has no settings")
    before = planner.score_base()
    select = planner.select(seed, settings)
    forget, retain, everyone = (
        Group(selection=select, part=part) for part in ("forget", "retain", "all")
    )
    cell = Cell("pretrained", label, entry.unlearn.scope, seed, 1)
    stem = f"seed{seed}/pretrained/{label}"
    unlearn = planner.unlearn(
        stem,
        label,
        chain=(),
        target_depth=0,
        forget=forget,
        retain=retain,
        before=planner.score_base_elsewhere(settings),
        decides=planner.decides(settings),
        cell=cell,
    )
    after = planner.score(f"{stem}/score", (unlearn,), (everyone,))
    unseen = planner.unseen(seed)
    planner.operations.append(
        Operation(cell, before, after, unlearn, forget, retain, (forget,), unseen)
    )


@SCENARIOS.register("sustainability")
def _sustainability(planner: _Planner, seed: int, label: str, entry: MethodEntry) -> None:
    """Fine-tuned knowledge removed in sequential requests, everything scored after each."""
    settings = planner.experiment.scenarios.sustainability
    if settings is None:
        raise ValueError("the sustainability scenario has no settings")
    target = _target(planner, seed)
    forget, retain = target.learned.forget, target.learned.retain
    size = settings.forget // settings.requests
    requests = tuple(Group(forget.ids[size * k : size * (k + 1)]) for k in range(settings.requests))
    chain: tuple[str, ...] = (target.learned.stage,)
    for number, request in enumerate(requests, start=1):
        cell = Cell("sustainability", label, entry.unlearn.scope, seed, number)
        stem = f"seed{seed}/sustainability/{label}/request{number}"
        unlearn = planner.unlearn(
            stem,
            label,
            chain=chain,
            target_depth=1,
            forget=request,
            retain=retain,
            before=target.elsewhere,
            decides=planner.decides(settings),
            cell=cell,
        )
        below = planner.stages[unlearn].chain
        chain = (*below, unlearn)
        after = planner.score(f"{stem}/score", chain, target.everyone)
        planner.operations.append(
            Operation(
                cell,
                target.scored,
                after,
                unlearn,
                forget,
                retain,
                requests,
                target.unseen,
                never_knew=planner.score_base(),
            )
        )


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
