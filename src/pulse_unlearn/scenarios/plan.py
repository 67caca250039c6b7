"""What a plan is made of: people by id, stages, and the operations the report is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pulse_unlearn.records import Cell

StageKind = Literal["score", "select", "finetune", "unlearn"]
View = Literal["scored", "other_view"]


@dataclass(frozen=True, slots=True)
class Group:
    """Individuals by id, or a part of what a selection stage will have chosen."""

    ids: tuple[str, ...] = ()
    selection: str = ""
    """Name of the `select` stage; empty when the ids are known."""
    part: Literal["", "forget", "retain", "unseen", "all"] = ""
    """`all` are forget, retain and unseen together."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One resumable unit of work; `parents` are the stages whose output it reads."""

    name: str
    kind: StageKind
    seed: int
    """Derived from the run's seed and the stage's name; 0 for stages that draw nothing."""
    order_seed: int = 0
    """Likewise; draws batches, option orders and views, where `seed` draws all else."""
    parents: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    """Stages whose adapters the model carries, first to last."""
    reference_depth: int = 0
    """How many adapters of `chain` the reference model carries."""
    start_from: str = ""
    """Stage whose adapter is trained further; empty for a fresh one."""
    forget: Group = Group()
    retain: Group = Group()
    ask: tuple[Group, ...] = ()
    """Individuals whose questions a score stage asks; those a selection chooses among."""
    turned: bool = False
    """Whether a score stage asks every order of its view, for the reading `rotated`."""
    decides: str = ""
    """Reading that ends this training or chooses these people; empty where none does."""
    before: str = ""
    """Score stage that asked the target model what this training's stop rule asks."""
    view: View = "scored"
    general: bool = False
    """Whether a score stage also asks the general questions."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    cell: Cell | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the story: a cell, the sets it is measured on, before and after stages."""

    cell: Cell
    before: str
    """Score stage of the target model."""
    after: str
    """Score stage after this operation."""
    unlearn: str
    """The stage that applied the method."""
    forget: Group
    retain: Group
    requests: tuple[Group, ...]
    unseen: tuple[tuple[str, Group], ...] = ()
    """Set name -> people who are neither forgotten nor in any retain batch."""
    never_knew: str = ""
    """Score stage of a model that never learned D_unlearn; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered stages and the operations the report is about."""

    name: str
    stages: tuple[Stage, ...]
    operations: tuple[Operation, ...]

    def stage(self, name: str) -> Stage:
        """Return the stage of that name; raises KeyError."""
        return {stage.name: stage for stage in self.stages}[name]


@dataclass(frozen=True, slots=True)
class Roster:
    """Who there is: ids of the fictional people and of the celebrities, in data set order."""

    fictional: tuple[str, ...]
    celebrities: tuple[str, ...]
