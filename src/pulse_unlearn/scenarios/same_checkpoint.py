"""Two groups of people unlearned from one model, which knows both equally well.

The paper unlearns people it taught from a fine-tuned model and people known from pre-training from
the model before that: origin and checkpoint differ at once. Here the checkpoint is the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pulse_unlearn.config import SameCheckpointScenario, label_of_retain_model
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import did_you_mean
from pulse_unlearn.scenarios.plan import Operation
from pulse_unlearn.scenarios.planner import ARM, Planner, Target, derive_seed
from pulse_unlearn.scenarios.stages import NOBODY, SIDES, Group, MatchStage

SAME_CHECKPOINT = "same_checkpoint"
OTHER_ARM = "other_arm"
"""Set of the people whom the other arm forgets: as well known, and of the other kind."""


@dataclass(frozen=True, slots=True)
class _Arm:
    label: str
    people: tuple[str, ...]
    taught: bool
    """Whether the target model was taught all of them."""


def plan_same_checkpoint(
    planner: Planner, seed: int, label: str, settings: SameCheckpointScenario
) -> None:
    """Add the choice of the pairs, and a method's operation on either arm."""
    arms = _arms(planner, seed, settings)
    targets = _targets(planner, seed, settings, arms)
    for arm, target in zip(arms, targets, strict=True):
        planner.operate(
            f"{SAME_CHECKPOINT}{ARM}{arm.label}",
            seed,
            label,
            target=target,
            requests=(target.forget,),
            settings=settings,
            numbered=False,
        )


def arms_of(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the names under which the cells of the two arms stand; none without the scenario."""
    names = dict.fromkeys(one.cell.scenario for one in operations)
    return tuple(name for name in names if name.startswith(f"{SAME_CHECKPOINT}{ARM}"))


def _targets(
    planner: Planner, seed: int, settings: SameCheckpointScenario, arms: tuple[_Arm, ...]
) -> list[Target]:
    match = _match(planner, seed, settings, arms)
    chain, stem = _chain(planner, seed, settings), f"seed{seed}/{SAME_CHECKPOINT}"
    forget = tuple(Group(selection=match, part=side) for side in SIDES)
    retain, others = (Group(selection=match, part=part) for part in ("retain", "others"))
    stage, unseen = planner.stages[match], planner.experiment.scenarios.unseen
    if not isinstance(stage, MatchStage):
        raise TypeError(f"{match} pairs nobody")
    aside = tuple(
        (part, Group(selection=match, part=part))
        for part, count in (("unseen", unseen.celebrities), ("unseen_fictional", unseen.fictional))
        if count and stage.likely(part)
    )
    asked = (*forget, retain, *(group for _, group in aside))
    start = Target(
        chain,
        scored=planner.score(f"{stem}/target/score", chain, asked),
        elsewhere=stage.asked,
        everyone=asked,
        forget=NOBODY,
        retain=retain,
        others=others if stage.likely("others") else NOBODY,
    )
    targets = []
    for place, (arm, side) in enumerate(zip(arms, SIDES, strict=True)):
        target = replace(
            start,
            forget=forget[place],
            unseen=(*aside, (OTHER_ARM, forget[1 - place])),
            stem=f"{stem}{ARM}{arm.label}/",
        )
        if arm.taught:
            stay = Group(selection=match, part=f"without_{side}")
            target = replace(target, never_knew=planner.score_base(), not_forgotten=stay)
        elif settings.retain_model:
            name = label_of_retain_model(SAME_CHECKPOINT)
            gold = planner.score(f"{stem}/retain-model/score", (), asked, model=name)
            target = replace(target, never_knew=gold)
        targets.append(target)
    return targets


def _match(
    planner: Planner, seed: int, settings: SameCheckpointScenario, arms: tuple[_Arm, ...]
) -> str:
    """Add the choice of the pairs, by what the target model answers on views never reported."""
    learned = _learned(planner, seed, settings)
    celebrities = planner.candidates(settings)
    everyone = Group(tuple(dict.fromkeys((*learned, *celebrities, *_people(arms)))))
    unseen = planner.experiment.scenarios.unseen
    chain, drawn = _chain(planner, seed, settings), planner.seed(seed, "people")
    return planner.add(
        MatchStage(
            name=f"seed{seed}/{SAME_CHECKPOINT}/match",
            seed=derive_seed(drawn, f"seed{drawn}/{SAME_CHECKPOINT}/match"),
            asked=planner.score(
                f"seed{seed}/{SAME_CHECKPOINT}/target/score-other-view",
                chain,
                (everyone,),
                view="other_view",
                turned=planner.decides(settings) == "rotated",
            ),
            candidates=everyone,
            settings=settings,
            unseen=unseen.celebrities,
            unseen_fictional=unseen.fictional,
            decides=planner.decides(settings),
            arms=tuple((arm.label, arm.people) for arm in arms),
            taught=learned,
        )
    )


def _chain(planner: Planner, seed: int, settings: SameCheckpointScenario) -> tuple[str, ...]:
    """Return the updates that make the target model."""
    return (planner.finetuned(seed).stage,) if settings.target == "finetuned" else ()


def _learned(planner: Planner, seed: int, settings: SameCheckpointScenario) -> tuple[str, ...]:
    """Return whom the target model was taught."""
    return planner.learned(seed) if settings.target == "finetuned" else ()


def _people(arms: Iterable[_Arm]) -> tuple[str, ...]:
    return tuple(person for arm in arms for person in arm.people)


def _arms(planner: Planner, seed: int, settings: SameCheckpointScenario) -> tuple[_Arm, ...]:
    """Return both groups; raises ConfigError for people whom the target model does not know."""
    learned = _learned(planner, seed, settings)
    if settings.arms is None:
        return (
            _Arm("finetuned", learned, taught=True),
            _Arm("pretrained", planner.candidates(settings), taught=False),
        )
    known = {*learned, *planner.roster.celebrities}
    others = ", or raise finetune.individuals and leave people out of vary" if learned else ""
    problems = [
        Problem(
            "the target model is not one that knows this person",
            f"scenarios.{SAME_CHECKPOINT}.arms.{label}",
            person,
            fix=did_you_mean(person, known) or f"name celebrities{others}",
        )
        for label, ids in settings.arms.items()
        for person in ids
        if person not in known
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(
        _Arm(label, tuple(dict.fromkeys(ids)), taught={*ids} <= {*learned})
        for label, ids in settings.arms.items()
    )
