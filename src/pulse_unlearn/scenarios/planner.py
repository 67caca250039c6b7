"""What scenarios and evaluations lay stages out with; stages asked for twice are shared."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256

from pulse_unlearn.config import (
    Decides,
    Experiment,
    FinetuneSettings,
    MethodEntry,
    PretrainedScenario,
    SameCheckpointScenario,
    SeedPart,
)
from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import Cell, Facts, Prompting
from pulse_unlearn.scenarios.held import forgotten, lasting
from pulse_unlearn.scenarios.plan import Operation, Roster
from pulse_unlearn.scenarios.stages import (
    NOBODY,
    FinetuneStage,
    Group,
    ScoreStage,
    SelectStage,
    Stage,
    UnlearnStage,
    View,
)

ARM = "."
"""Between a scenario and one of its arms, in the names of cells."""


def derive_seed(seed: int, name: str) -> int:
    """Return a 31-bit seed that depends on the run's seed and a name, on every machine alike."""
    return int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:4], "big") >> 1


def draw(ids: Sequence[str], count: int, seed: int, purpose: str) -> tuple[str, ...]:
    """Return so many of the ids in drawn order; raises ConfigError if there are not as many."""
    if count > len(ids):
        raise ConfigError(
            Problem(
                f"not enough individuals for {purpose}",
                got=f"{count} wanted",
                allowed=f"at most {len(ids)} in this data set",
            )
        )
    return tuple(random.Random(derive_seed(seed, purpose)).sample(sorted(ids), count))


@dataclass(frozen=True, slots=True)
class Learned:
    """A fine-tuning and what its people are for."""

    stage: str
    forget: Group
    retain: Group
    unseen: Group


@dataclass(frozen=True, slots=True)
class Target:
    """A model before unlearning, what it was asked, and who is to be forgotten."""

    chain: tuple[str, ...]
    """Stages whose updates make it up; empty for the base model."""
    scored: str
    """Score stage on all questions that are asked later."""
    elsewhere: str
    """Score stage about D_unlearn on views that are never reported."""
    everyone: tuple[Group, ...]
    """Whom every later score stage asks about."""
    forget: Group
    retain: Group
    unseen: tuple[tuple[str, Group], ...] = ()
    never_knew: str = ""
    """Score stage of a model that never learned D_unlearn; empty where there is none."""
    replayed: Group = NOBODY
    """Whom retain batches draw on as D_retain; all of it where nobody."""
    others: Group = NOBODY
    """People the model knows who are neither forgotten nor retained nor unseen."""
    stem: str = ""
    """How the names of stages about its D_unlearn alone begin."""
    not_forgotten: Group = NOBODY
    """Whom it was taught but for D_unlearn, where a stage chooses it."""


def _replayed(name: str, target: Target, entry: MethodEntry) -> tuple[Group, Group]:
    """Return whom retain batches draw on, and who shares their half with those people, if anybody.

    Raises ConfigError if other people are not known.
    """
    source = entry.unlearn.retain
    kept = target.replayed if target.replayed != NOBODY else target.retain
    if source == "d_retain":
        return kept, NOBODY
    if source not in ("other_known", "all_known"):
        return NOBODY, NOBODY
    if target.others == NOBODY:
        raise ConfigError(
            Problem(
                "the model knows nobody who is not forgotten, retained or unseen",
                f"unlearn.retain of {name}",
                got=source,
                allowed="d_retain, general, none",
                fix="people known from pre-training would do: lower scenarios.unseen.celebrities",
            )
        )
    return (target.others, NOBODY) if source == "other_known" else (kept, target.others)


class Planner:
    """Collects stages and operations in the order they are asked for."""

    def __init__(
        self,
        experiment: Experiment,
        roster: Roster,
        *,
        serving: Collection[str] = (),
        stepless: Collection[str] = (),
    ) -> None:
        """Plan for an experiment; see `build_plan` for the labels of methods."""
        self.experiment = experiment
        self.roster = roster
        self.serving = serving
        self.stepless = stepless
        self.notes: list[str] = []
        self.stages: dict[str, Stage] = {}
        self.operations: list[Operation] = []
        self.never_learned: dict[str, str] = {}
        """Score stage -> that of the same model about people it never learned."""

    def add(self, stage: Stage) -> str:
        """Add a stage, or find the same one under its name; return the name."""
        known = self.stages.setdefault(stage.name, stage)
        if known != stage:
            raise ValueError(f"two different stages are named {stage.name}")
        return stage.name

    def seed(self, seed: int, part: SeedPart) -> int:
        """Return the seed of one part of a run: its own, or the first one's if it is not varied."""
        return seed if part in self.experiment.vary else self.experiment.seeds[0]

    def derived(self, seed: int, part: SeedPart, name: str) -> int:
        """Derive a stage's seed; what is not varied derives from the first seed's stage."""
        drawn = self.seed(seed, part)
        return derive_seed(drawn, name.replace(f"seed{seed}/", f"seed{drawn}/", 1))

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
        general: bool | None = None,
        facts: Facts = "all",
        facts_seed: int = 0,
        step: int | None = None,
        model: str = "",
        served: Sequence[str] = (),
        bits: int | None = None,
        group: int | None = None,
        prompted: Prompting | None = None,
        shots: int = 0,
    ) -> str:
        """Add the scoring of a model; general questions are asked with the scored view."""
        if general is None:
            general = view == "scored" and self.roster.has_general
        return self.add(
            ScoreStage(
                name=name,
                model=model,
                chain=tuple(chain),
                ask=tuple(ask),
                view=view,
                turned=turned,
                general=general,
                facts=facts,
                facts_seed=facts_seed,
                step=step,
                served=tuple(served),
                bits=bits,
                group=group,
                prompted=prompted,
                shots=shots,
                scoring=self.experiment.scoring,
            )
        )

    def score_base(self) -> str:
        """Ask the base model everything that is asked later, before anything is learned."""
        scenarios, seeds = self.experiment.scenarios, self.experiment.seeds
        asked: list[str] = []
        if scenarios.teaches():
            asked += sorted({name for seed in seeds for name in self.learned(seed)})
        if scenarios.requests:
            asked += {name: None for seed in seeds for name in self.known(seed)}
        if scenarios.audit:
            asked += self.roster.everyone
        if scenarios.pretrained:
            asked += self.candidates(scenarios.pretrained)
        elif {*scenarios.chosen()} - {"audit", "same_checkpoint"}:
            asked += sorted({name for seed in seeds for name in self.strangers(seed)})
        return self.score("base/score", (), (Group(tuple(dict.fromkeys(asked))),))

    def score_base_elsewhere(self, settings: PretrainedScenario) -> str:
        """Ask the base model about the candidates on views that are never reported."""
        candidates = Group(self.candidates(settings))
        turned = self.decides(settings) == "rotated"
        name = "base/score-other-view"
        return self.score(name, (), (candidates,), view="other_view", turned=turned)

    def learned(self, seed: int) -> tuple[str, ...]:
        """Return the fictional people this seed fine-tunes on, in drawn order."""
        count = self.experiment.finetune.individuals
        return draw(self.roster.fictional, count, self.seed(seed, "people"), "finetune")

    def candidates(self, settings: PretrainedScenario | SameCheckpointScenario) -> tuple[str, ...]:
        """Return the celebrities the choice is made among."""
        count = settings.candidates
        own = isinstance(settings, PretrainedScenario)
        name = "pretrained" if own else "same_checkpoint"
        draw(self.roster.celebrities, count, 0, f"scenarios.{name}")
        return self.roster.celebrities[:count]

    def known(self, seed: int) -> tuple[str, ...]:
        """Return whom the target of named requests knows: the same whoever is named."""
        settings, roster = self.experiment.scenarios.requests, self.roster
        if settings is None:
            return ()
        taught = settings.target == "finetuned"
        fictional = self.learned(seed) if taught else roster.fictional
        people = settings.people or ("fictional" if taught else "all")
        return {
            "fictional": fictional,
            "celebrity": roster.celebrities,
            "all": fictional + roster.celebrities,
        }[people]

    def strangers(self, seed: int) -> tuple[str, ...]:
        """Return unseen celebrities where none are chosen by behaviour."""
        free = self.roster.celebrities
        count = min(self.experiment.scenarios.unseen.celebrities, len(free))
        return draw(free, count, self.seed(seed, "people"), "unseen")

    def select(self, seed: int, settings: PretrainedScenario) -> str:
        """Add the choice of the celebrities the model knows best."""
        before = self.score_base()
        elsewhere = self.score_base_elsewhere(settings)
        drawn = self.seed(seed, "people")
        return self.add(
            SelectStage(
                name=f"seed{seed}/select",
                seed=derive_seed(drawn, f"seed{drawn}/select"),
                asked=elsewhere if settings.select_on == "other_view" else before,
                candidates=Group(self.candidates(settings)),
                settings=settings,
                unseen=self.experiment.scenarios.unseen.celebrities,
                decides=self.decides(settings),
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

    def others(self, seed: int) -> Group:
        """Return celebrities in nobody's forget, retain or unseen set; nobody if there are none."""
        settings = self.experiment.scenarios.pretrained
        if settings is None:
            unseen = self.strangers(seed)
            return Group(tuple(name for name in self.roster.celebrities if name not in unseen))
        left = settings.candidates - settings.forget - settings.retain
        if left <= self.experiment.scenarios.unseen.celebrities:
            return NOBODY
        return Group(selection=self.select(seed, settings), part="others")

    def finetune(
        self,
        seed: int,
        name: str,
        people: Group,
        *,
        settings: FinetuneSettings | None = None,
        chain: Sequence[str] = (),
        facts: Facts = "all",
        facts_seed: int = 0,
        snapshots: tuple[int, ...] = (),
        model: str = "",
    ) -> str:
        """Add a training that teaches people; the experiment's `finetune` unless told otherwise."""
        chosen = settings or self.experiment.finetune
        return self.add(
            FinetuneStage(
                name=name,
                model=model,
                seed=self.derived(seed, "training", name),
                order_seed=self.derived(seed, "order", name),
                chain=tuple(chain),
                reference_depth=len(chain),
                learn=people,
                decides="" if chosen.target_accuracy is None else self.decides(None),
                settings=chosen,
                facts=facts,
                facts_seed=facts_seed,
                snapshots=snapshots,
            )
        )

    def finetuned(self, seed: int) -> Learned:
        """Add the fine-tuning of this seed; return its stage and what its people are for."""
        people = self.learned(seed)
        scenarios = self.experiment.scenarios
        chosen = scenarios.finetuned or scenarios.sustainability
        rest = len(people) - scenarios.unseen.fictional
        cut = chosen.forget if chosen else rest // 2
        stage = self.finetune(seed, f"seed{seed}/finetune", Group(people))
        return Learned(stage, Group(people[:cut]), Group(people[cut:rest]), Group(people[rest:]))

    def operate(
        self,
        scenario: str,
        seed: int,
        label: str,
        *,
        target: Target | Sequence[Target],
        requests: Sequence[Group],
        settings: ScenarioSettings | None,
        numbered: bool = True,
    ) -> None:
        """Add a method's operations on one request after the other, and score after each.

        One target for all, or for each request as it was seen then. `numbered` names stages by
        request; a scenario of a single operation may do without. A method that serves begins each
        request from the target model, and the system around it grows by one.
        """
        entry = self.experiment.methods[label]
        targets = [target] * len(requests) if isinstance(target, Target) else target
        chain, history = targets[0].chain, tuple[str, ...]()
        for number, target in enumerate(targets, start=1):
            cell = Cell(scenario, label, entry.unlearn.scope, seed, number)
            stem = f"seed{seed}/{scenario}/{label}" + (f"/request{number}" if numbered else "")
            unlearn = self._unlearn(
                f"{stem}/unlearn",
                lasting(entry, number),
                cell=cell,
                target=target,
                chain=chain,
                history=history,
                forget=forgotten(entry, requests[:number]),
                decides=self.decides(settings),
            )
            history = (*history, unlearn)
            served = history if label in self.serving else ()
            if not served:
                chain = (*self.stages[unlearn].chain, unlearn)
            self.operations.append(
                Operation(
                    cell,
                    before=target.scored,
                    after=self.score(f"{stem}/score", chain, target.everyone, served=served),
                    unlearn=unlearn,
                    target=target.chain,
                    chain=chain,
                    forget=target.forget,
                    retain=target.retain,
                    requests=tuple(requests),
                    unseen=target.unseen,
                    stem=target.stem,
                    never_knew=target.never_knew,
                    served=served,
                    not_forgotten=target.not_forgotten,
                )
            )

    def _unlearn(
        self,
        name: str,
        entry: MethodEntry,
        *,
        cell: Cell,
        target: Target,
        chain: tuple[str, ...],
        history: tuple[str, ...],
        forget: Group,
        decides: Decides,
    ) -> str:
        serving = cell.method in self.serving
        continued = entry.unlearn.adapter == "continued" and bool(history) and not serving
        depth = len(target.chain)
        original = entry.unlearn.reference == "original"
        asked = entry.unlearn.stop.target_forgetting is not None
        retain, others = _replayed(name, target, entry)
        # The arms of a scenario differ in their people, and in nothing that is drawn.
        drawn = name.replace(f"/{cell.scenario}/", f"/{cell.scenario.partition(ARM)[0]}/", 1)
        return self.add(
            UnlearnStage(
                name=name,
                seed=self.derived(cell.seed, "training", drawn),
                order_seed=self.derived(cell.seed, "order", drawn),
                chain=chain[:-1] if continued else chain,
                start_from=chain[-1] if continued else "",
                reference_depth=depth if original else len(chain),
                forget=forget,
                retain=retain,
                others=others,
                before=target.elsewhere if asked else "",
                history=history,
                decides=decides if asked else "",
                method=entry.method,
                method_settings=entry.settings,
                settings=entry.unlearn,
                cell=cell,
            )
        )
