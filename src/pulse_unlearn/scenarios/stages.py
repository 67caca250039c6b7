"""The kinds of stages, each with typed settings and what its output depends on.

A stage is one resumable unit of work. `pipeline.runners` has one runner for each kind; a plan with
a kind that has none is refused before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from pydantic_core import to_jsonable_python

from pulse_unlearn.config import (
    Experiment,
    FinetuneSettings,
    PretrainedScenario,
    SameCheckpointScenario,
    ScoringSettings,
    UnlearnSettings,
)
from pulse_unlearn.records import Cell, Facts, Prompting

View = Literal["scored", "other_view"]

# Where the model lies, or its layers, decides nothing: its digest, among the data, says which.
_ELSEWHERE = {
    *("device", "device_map", "source", "revision"),
    *("offline", "adapters", "trust_remote_code", "allow_base_mismatch"),
}


AUDITED = "audited"
"""How the digests of audited models are named: `audited/LABEL/model`."""


@dataclass(frozen=True, slots=True)
class Group:
    """Individuals by id, or a part of what a selection stage will have chosen."""

    ids: tuple[str, ...] = ()
    selection: str = ""
    """Name of the `select` stage; empty when the ids are known."""
    part: str = ""
    """Which of those it chose: one of its `parts`; `all` are forget, retain and unseen together."""

    def among(self, chosen: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the ids, given what the selection stage chose for each part."""
        parts = ("forget", "retain", "unseen") if self.part == "all" else (self.part,)
        return tuple(identity for part in parts for identity in chosen[part])


NOBODY = Group()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every stage has: a name, seeds, and the updates that its model carries."""

    kind: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the data whose digests are part of the fingerprint."""

    name: str
    seed: int = 0
    """Derived from the run's seed and the stage's name; 0 for stages that draw nothing."""
    order_seed: int = 0
    """Likewise; draws batches, option orders and views, where `seed` draws all else."""
    model: str = ""
    """Label of the audited model it starts from; empty for the experiment's own."""
    chain: tuple[str, ...] = ()
    """Stages whose updates the model carries, first to last."""
    cell: Cell | None = None
    """The part of the experiment it belongs to; None where several share it."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the stages whose output it reads, each once."""
        named = (*self.chain, *self._reads_stages(), *(group.selection for group in self.groups()))
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def sources(self) -> tuple[str, ...]:
        """Prefixes of the data it reads, with those of its own model."""
        own = f"{AUDITED}/{self.model}/" if self.model else "model"
        return tuple(own if name == "model" else name for name in self.reads)

    def groups(self) -> tuple[Group, ...]:
        """Return the people it is about."""
        return ()

    def _reads_stages(self) -> tuple[str, ...]:
        return ()

    def ingredients(self, experiment: Experiment) -> dict[str, Any]:
        """Return the settings that decide its output, as JSON can say them, and no others."""
        idle = {"cell"} if self.model else {"cell", "model"}
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in idle}
        prompts = [experiment.data.people_prompt, experiment.data.general_prompt]
        made_of: dict[str, Any] = to_jsonable_python({**own, "prompts": prompts})
        if "model" in self.reads:
            settings = experiment.model_of(self.model)
            made_of["model"] = settings.model_dump(mode="json", exclude=_ELSEWHERE)
        return made_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreStage(Stage):
    """Asks a model questions and stores every answer."""

    kind: ClassVar[str] = "score"
    reads: ClassVar[tuple[str, ...]] = ("people/", "general/", "model")

    scoring: ScoringSettings
    ask: tuple[Group, ...]
    """Individuals whose questions are asked."""
    view: View = "scored"
    turned: bool = False
    """Whether every order of the other view is asked, for the reading `rotated`."""
    general: bool = False
    """Whether general questions are asked, too."""
    facts: Facts = "all"
    facts_seed: int = 0
    step: int | None = None
    """Snapshot of the chain's last stage that the model carries; None for its final update."""
    served: tuple[str, ...] = ()
    """Requests of a method that serves, first to last: the system around the chain's model."""
    bits: int | None = None
    """What the weights of the language model's layers are rounded to; None as they are."""
    group: int | None = None
    """Rounded weights of an output row that share a scale; None for all of it."""
    prompted: Prompting | None = None
    """How questions are asked that are meant to bring back what plain ones do not; None plainly."""
    shots: int = 0
    """Solved questions in front of each, about people who are not asked about."""

    def groups(self) -> tuple[Group, ...]:
        """Return the people it asks about."""
        return self.ask

    def _reads_stages(self) -> tuple[str, ...]:
        return self.served

    def ingredients(self, experiment: Experiment) -> dict[str, Any]:
        """Leave out what only decides how stored answers are read: that needs no model."""
        made_of = Stage.ingredients(self, experiment)
        idle = {"parser", "decided_by", "margin"}
        idle |= {"people", "general", "words"} if self.view == "other_view" else set()
        made_of["scoring"] = {k: v for k, v in made_of["scoring"].items() if k not in idle}
        made_of["general_questions"] = experiment.data.general_questions
        if not self.served:  # all there was when keys of finished runs were made
            del made_of["served"]
        if self.bits is None:  # likewise
            del made_of["bits"], made_of["group"]
        if self.prompted is None:
            del made_of["prompted"], made_of["shots"]
        return made_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStage(ScoreStage):
    """Reads the letters of true options off a model's hidden states, and stores them as answers."""

    kind: ClassVar[str] = "probe"
    reads: ClassVar[tuple[str, ...]] = ("people/", "model")

    learn: tuple[Group, ...]
    """People whom the probe is fitted to."""
    depth: float
    """Which layer of the language model, as a share of its depth."""

    def groups(self) -> tuple[Group, ...]:
        """Return the people it asks about, and those it learns from."""
        return (*self.ask, *self.learn)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosingStage(Stage):
    """Chooses people by what a model answered: no model is needed, the pipeline does it itself."""

    asked: str
    """Score stage whose answers decide."""
    candidates: Group
    settings: PretrainedScenario | SameCheckpointScenario
    unseen: int
    """How many celebrities of those left are set aside as unseen people."""
    decides: str
    """Reading they are ranked by."""

    def groups(self) -> tuple[Group, ...]:
        """Return the people it chooses among."""
        return (self.candidates,)

    def likely(self, part: str) -> tuple[str, ...]:
        """Return as many candidates as a part will have: who stands for it before the choice."""
        raise NotImplementedError(self.kind)

    def _reads_stages(self) -> tuple[str, ...]:
        return (self.asked,)

    def ingredients(self, experiment: Experiment) -> dict[str, Any]:
        """Leave out the retain model, which is asked beside the others and chooses nobody."""
        made_of = Stage.ingredients(self, experiment)
        del made_of["settings"]["retain_model"]
        return made_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectStage(ChoosingStage):
    """Chooses the individuals that a model knows best, by its stored answers."""

    kind: ClassVar[str] = "select"

    settings: PretrainedScenario

    def likely(self, part: str) -> tuple[str, ...]:
        """Return the first candidates, or for `others` those behind."""
        sizes = {"forget": self.settings.forget, "retain": self.settings.retain}
        sizes["unseen"] = min(self.unseen, len(self.candidates.ids) - sum(sizes.values()))
        sizes["all"] = sum(sizes.values())
        if part == "others":
            return self.candidates.ids[sizes["all"] :]
        return self.candidates.ids[: sizes[part]]


SIDES = ("first", "second")
"""Parts of a match: D_unlearn of either arm, in the order of the pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchStage(ChoosingStage):
    """Pairs people of two groups of whom a model is equally sure, and says what pairs are for.

    Parts: `first` and `second`; `retain`, both people of further pairs; `unseen` and
    `unseen_fictional`, the best known of those left; `others`, the celebrities left then;
    `without_first` and `without_second`, those who were taught but for that D_unlearn.
    """

    kind: ClassVar[str] = "match"

    settings: SameCheckpointScenario
    arms: tuple[tuple[str, tuple[str, ...]], ...]
    """Label and people of either group."""
    taught: tuple[str, ...]
    unseen_fictional: int

    def likely(self, part: str) -> tuple[str, ...]:
        """Return the first people of a group, and of those in none of the pairs."""
        (_, first), (_, second) = self.arms
        pairs, count = self.settings.forget + self.settings.retain, self.settings.forget
        paired = {*first[:pairs], *second[:pairs]}
        left = [one for one in self.candidates.ids if one not in paired]
        celebrities = [one for one in left if one not in self.taught]
        parts: dict[str, Sequence[str]] = {
            "first": first[:count],
            "second": second[:count],
            "retain": (*first[count:pairs], *second[count:pairs]),
            "unseen": celebrities[: self.unseen],
            "others": celebrities[self.unseen :],
            "unseen_fictional": [one for one in left if one in self.taught][
                : self.unseen_fictional
            ],
        }
        for side in SIDES:
            parts[f"without_{side}"] = [one for one in self.taught if one not in parts[side]]
        return tuple(parts[part])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage(Stage):
    """What leaves an update of the model: a low-rank adapter or whole tensors."""

    reads: ClassVar[tuple[str, ...]] = ("people/", "general_training/", "model")

    settings: FinetuneSettings | UnlearnSettings
    start_from: str = ""
    """Stage whose update is trained further; empty for a fresh one."""
    reference_depth: int = 0
    """How many updates of `chain` the reference model carries."""
    decides: str = ""
    """Reading that ends it; empty where none does."""
    snapshots: tuple[int, ...] = ()
    """Steps after which the update is kept as well, for evaluations on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneStage(TrainingStage):
    """Teaches the model people: the target model, a retain model, or what an attacker knows."""

    kind: ClassVar[str] = "finetune"

    settings: FinetuneSettings
    learn: Group
    facts: Facts = "all"
    facts_seed: int = 0

    def groups(self) -> tuple[Group, ...]:
        """Return the people it teaches."""
        return (self.learn,)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlearnStage(TrainingStage):
    """Applies one method to one request."""

    kind: ClassVar[str] = "unlearn"

    settings: UnlearnSettings
    method: str
    """Registered name."""
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    forget: Group
    retain: Group
    others: Group = NOBODY
    """People whom half of the retained questions about people are about instead; often nobody."""
    before: str = ""
    """Score stage that asked the target model what the stop rule asks."""
    history: tuple[str, ...] = ()
    """Stages of the earlier requests of this sequence, first to last."""

    def groups(self) -> tuple[Group, ...]:
        """Return the people to forget, and those whom retain batches are about."""
        return (self.forget, self.retain, self.others)

    def ingredients(self, experiment: Experiment) -> dict[str, Any]:
        """Leave out what forget batches show where it is all there is to show, and nobody."""
        made_of = Stage.ingredients(self, experiment)
        # As keys of finished runs were made.
        for name, usual in (("modalities", "both"), ("forget", "request")):
            if getattr(self.settings, name) == usual:
                del made_of["settings"][name]
        del made_of["settings"]["stop"]["steps_of"]  # the planner has counted them
        if self.others == NOBODY:
            del made_of["others"]
        return made_of

    def _reads_stages(self) -> tuple[str, ...]:
        return (self.start_from, *self.history, self.before)
