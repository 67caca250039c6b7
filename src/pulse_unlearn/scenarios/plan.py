"""What a plan is made of: people by id, operations, and the evaluations the results are rows of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pulse_unlearn.records import PLAIN, Cell, NamedRequest
from pulse_unlearn.scenarios.stages import NOBODY, ChoosingStage, Group, ScoreStage, Stage


@dataclass(frozen=True, slots=True)
class Operation:
    """One application of a method: the models before and after, and the sets it is measured on."""

    cell: Cell
    before: str
    """Score stage of the target model."""
    after: str
    """Score stage after this operation."""
    unlearn: str
    """The stage that applied the method; empty where somebody else did, out of sight."""
    target: tuple[str, ...]
    """Stages whose updates make up the target model."""
    chain: tuple[str, ...]
    """Stages whose updates make up the model after this operation; of a served system those of
    the model inside."""
    forget: Group
    retain: Group
    requests: tuple[Group, ...]
    unseen: tuple[tuple[str, Group], ...] = ()
    """Set name -> people who are neither forgotten nor in any retain batch."""
    model: str = ""
    """Label of the audited model after it; empty for the experiment's own with `chain`."""
    stem: str = ""
    """Where stages about its D_unlearn alone stand: how their names begin."""
    never_knew: str = ""
    """Score stage of a model that never learned D_unlearn; empty where there is none."""
    served: tuple[str, ...] = ()
    """Requests of a method that serves, first to last, this one included: what stands around the
    model. Empty for methods that change weights and no more."""
    not_forgotten: Group = NOBODY
    """Whom the target model was taught but for D_unlearn, where a stage chooses it: what a retain
    model is taught. Nobody where the people to forget were not taught here."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows of `results.csv`: one model's answers on the sets of an operation."""

    cell: Cell
    """With the condition under which the model was asked."""
    operation: Operation
    scores: str
    """Score stage of the model."""
    compared_to: str = ""
    """Score stage of the model that `forgotten_pct` and `kept_pct` are relative to; empty for the
    target model itself."""
    only: str = ""
    """Score stage to whose questions the answers are restricted; empty for all."""
    never_knew: str = ""
    """Score stage of a model that never learned D_unlearn, under the same condition; empty for the
    operation's, of a plain one."""
    taught: str = ""
    """Score stage of the same model on what an attack taught it about D_unlearn, the questions
    that are not in `only`; empty where that is not asked."""

    @property
    def control(self) -> str:
        """The model that these answers are held against; empty where there is none alike."""
        plain = self.operation.never_knew if self.cell.condition == PLAIN else ""
        return self.never_knew or plain


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered stages, the operations the report is about, and the evaluations of their models."""

    name: str
    stages: tuple[Stage, ...]
    operations: tuple[Operation, ...]
    evaluations: tuple[Evaluation, ...]
    notes: tuple[str, ...] = ()
    """What evaluations leave out, and why."""
    never_learned: Mapping[str, str] = field(default_factory=dict)
    """Score stage -> that of the same model about people it never learned."""

    def stage(self, name: str) -> Stage:
        """Return the stage of that name; raises KeyError."""
        return {stage.name: stage for stage in self.stages}[name]

    def asked_about(self) -> frozenset[str]:
        """Return the ids of everyone a model is asked about; of a choice all its candidates."""
        asking = [one for one in self.stages if isinstance(one, ScoreStage | ChoosingStage)]
        return frozenset(name for one in asking for group in one.groups() for name in group.ids)

    def selection(self, group: Group) -> ChoosingStage | None:
        """Return the stage that chooses a group's people; None where they are known."""
        if not group.selection:
            return None
        stage = self.stage(group.selection)
        if not isinstance(stage, ChoosingStage):
            raise TypeError(f"{stage.name} selects nobody")
        return stage


def by_turn(requests: Sequence[Collection[str]], request: int) -> dict[str, frozenset[str]]:
    """Return who was asked for before, at and behind a request; nothing where there is but one."""
    if len(requests) < 2:
        return {}
    turn = max(request - 1, 0)
    parts = {
        "forgotten_earlier": requests[:turn],
        "just_requested": requests[turn:request],
        "not_yet_requested": requests[request:],
    }
    return {
        name: frozenset(person for people in groups for person in people)
        for name, groups in parts.items()
        if groups
    }


def plain_evaluations(operations: tuple[Operation, ...]) -> Iterator[Evaluation]:
    """Yield what every plan measures: each target model once a cell, each model after it."""
    finals = {replace(operation.cell, request=0): operation for operation in operations}
    seen: set[Cell] = set()
    for operation in operations:
        target = replace(operation.cell, request=0)
        if target not in seen:
            seen.add(target)
            last = finals[target]
            sets = replace(operation, forget=last.forget, retain=last.retain, unseen=last.unseen)
            yield Evaluation(target, sets, operation.before, only=operation.after)
        yield Evaluation(operation.cell, operation, operation.after, operation.before)


@dataclass(frozen=True, slots=True)
class Roster:
    """Who there is: ids of the fictional people and of the celebrities, in data set order."""

    fictional: tuple[str, ...]
    celebrities: tuple[str, ...]
    requests: tuple[NamedRequest, ...] = ()
    """Of the scenario `requests`, in the order they are carried out."""
    retained: tuple[str, ...] = ()
    """People whom the file of requests names as D_retain; empty for all whom no request names."""
    has_general: bool = True
    """Whether there are general questions."""

    @property
    def everyone(self) -> tuple[str, ...]:
        """Ids of all people."""
        return self.fictional + self.celebrities
