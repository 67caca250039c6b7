"""Models that somebody else unlearned: asked, beside the one they were made from; never trained."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_unlearn.config import RETAINED, AuditScenario
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import Cell
from pulse_unlearn.registry import did_you_mean
from pulse_unlearn.scenarios.plan import Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.stages import Group


@dataclass(frozen=True, slots=True)
class _Sets:
    """Who is in which set."""

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    unseen: tuple[str, ...]


def plan_audit(planner: Planner, seed: int, label: str, settings: AuditScenario) -> None:
    """Add the scoring of one audited model as an operation whose training nobody saw."""
    sets = _sets(planner, settings)
    everyone = (Group(planner.roster.everyone),)
    gold = ""
    if settings.retain_model:
        gold = planner.score(f"audit/{RETAINED}/score", (), everyone, model=RETAINED)
    planner.operations.append(
        Operation(
            Cell("audit", label, "", seed, 1),
            before=planner.score_base(),
            after=planner.score(f"audit/{label}/score", (), everyone, model=label),
            unlearn="",
            target=(),
            chain=(),
            forget=Group(sets.forget),
            retain=Group(sets.retain),
            requests=(Group(sets.forget),),
            unseen=(("unseen", Group(sets.unseen)),) if sets.unseen else (),
            model=label,
            never_knew=gold,
        )
    )


def _sets(planner: Planner, settings: AuditScenario) -> _Sets:
    """Return the sets; raises ConfigError for people whom the data set does not know."""
    everyone = planner.roster.everyone
    asked = {"forget": settings.forget, "retain": settings.retain}
    problems = [
        Problem(
            "nobody in the data set has this id",
            f"scenarios.audit.{name}",
            person,
            fix=did_you_mean(person, everyone),
        )
        for name, people in asked.items()
        for person in people or ()
        if person not in everyone
    ]
    if problems:
        raise ConfigError(problems)
    forget = tuple(dict.fromkeys(everyone if settings.forget is None else settings.forget))
    left = tuple(name for name in everyone if name not in {*forget})
    retain = left if settings.retain is None else tuple(dict.fromkeys(settings.retain))
    return _Sets(forget, retain, tuple(name for name in left if name not in {*retain}))
