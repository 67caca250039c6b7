"""The settings of each scenario: who is to be forgotten, of what model, in how many requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from pulse_unlearn.config.base import Decides, Fraction, Positive, Settings


class AuditedModel(Settings):
    """A model that somebody else made: weights, and adapters on them.

    A text alone is a folder of either, or a hub id without its commit.
    """

    source: str = ""
    """A local folder or a hub id; empty for the weights of `model`, without its adapters."""
    revision: str | None = None
    """Commit of a hub id; required there."""
    adapters: tuple[str, ...] = ()
    """PEFT folders, or updates of whole tensors that a stage has left: all of them, in order."""

    @model_validator(mode="before")
    @classmethod
    def _by_its_place(cls, value: object) -> object:
        return {"source": value} if isinstance(value, str) else value


class Scenario(Settings):
    """What every scenario can say for itself."""

    decided_by: Decides | None = None
    """Ends this scenario's operations and chooses its people; None is what `scoring` says."""
    retain_model: AuditedModel | None = None
    """A model that somebody else made as the target model was made, but for D_unlearn: what perfect
    unlearning would be. It is asked what the target model is asked; none is trained in its place.
    A folder of weights or of an adapter will do."""


class FinetunedScenario(Scenario):
    """Knowledge from fine-tuning, removed in one operation (paper, Table 2)."""

    forget: Positive = 50
    retain: Positive = 50


class PretrainedScenario(Scenario):
    """Knowledge from pre-training: people chosen by the model's behaviour (paper, Table 2)."""

    candidates: Positive = 153
    forget: Positive = 20
    retain: Positive = 25
    select_on: Literal["other_view", "scored"] = "other_view"
    """Questions the choice is made on; `scored` favours people who were lucky on them."""


class SustainabilityScenario(Scenario):
    """Fine-tuned knowledge removed in sequential requests (paper, Table 2)."""

    forget: Positive = 50
    retain: Positive = 50
    requests: Positive = 5

    @model_validator(mode="after")
    def _requests_divide(self) -> SustainabilityScenario:
        if self.forget % self.requests:
            raise ValueError("forget must be a multiple of requests")
        return self


ArmLabel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=30)]
"""Name of a group of people in results: `same_checkpoint.LABEL`."""


class SameCheckpointScenario(Scenario):
    """Two groups of people, each unlearned from the same model in one operation.

    The arm `finetuned` are people it was taught, `pretrained` celebrities it knew before. People of
    both are paired by how sure the model is of the true option before anything is unlearned.
    """

    forget: Positive = 10
    """Pairs that are forgotten, one person of each in either arm."""
    retain: Positive = 10
    """Further pairs, both people of each in D_retain of both arms."""
    candidates: Positive = 153
    """Celebrities among whom pairs are looked for; of those it was taught, all are."""
    at_least: Fraction = 0.5
    """Nobody of whom the model is less sure is paired: who isn't known cannot be forgotten."""
    caliper: Fraction = 0.1
    """Largest difference in a pair, the mean over its modalities; further ones are no pair."""
    target: Literal["base", "finetuned"] = "finetuned"
    """`base` is the model as `model` names it, which knows celebrities alone, so that both arms are
    to be named; `finetuned` is trained as `finetune` says."""
    arms: Annotated[dict[ArmLabel, tuple[str, ...]], Field(min_length=2, max_length=2)] | None = (
        None
    )
    """Two groups of your own by label, as ids of people whom the model knows, in place of those who
    were taught and of celebrities."""

    @model_validator(mode="after")
    def _arms_are_apart(self) -> SameCheckpointScenario:
        if self.arms is None:
            if self.target == "base":
                raise ValueError("target: base: nobody was taught, so name two groups in arms")
            return self
        wanted = self.forget + self.retain
        problems = [
            f"arms.{label}: {len({*ids})} people, and {wanted} pairs are wanted (forget + retain)"
            for label, ids in self.arms.items()
            if len({*ids}) < wanted
        ]
        first, second = self.arms.values()
        if both := sorted({*first} & {*second}):
            problems.append(f"arms: in both: {', '.join(both)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class RequestsScenario(Scenario):
    """Requests of any size that name people in a file, carried out one after the other.

    Everyone known is asked after each request, whoever may be named later: a new line at the end of
    the file adds stages and changes none.
    """

    file: str
    """JSON lines (`.jsonl`) with `who`, `when` and `why`, in the order they came in; or a CSV file
    with the columns `individual`, `request`, and optionally `date` (ISO; requests are carried out
    by date, then as the file lists them), `set` (`forget` or `retain`) and `why`."""
    target: Literal["base", "finetuned"] = "base"
    """`base` is the model as `model` names it, also one that somebody else has taught; `finetuned`
    teaches it `finetune.individuals` fictional people first, the same as other scenarios do."""
    people: Literal["all", "fictional", "celebrity"] | None = None
    """Who is known: asked after each request, and retained until named, unless the file says who
    is. None is everyone; where the target is fine-tuned, whom it was taught."""


Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Name in results, and of folders."""
RETAINED = "retain_model"
"""Name of the audit's retain model among models that somebody else made."""


def label_of_retain_model(scenario: str) -> str:
    """Return the label of the retain model that a scenario names; no other model can have it."""
    return RETAINED if scenario == "audit" else f"{RETAINED}:{scenario}"


class AuditScenario(Scenario):
    """Models that somebody else unlearned, beside the one they were made from: `model`."""

    models: Annotated[dict[Label, AuditedModel], Field(min_length=1)]
    """By a label of your choice."""
    forget: tuple[str, ...] | None = None
    """Ids of D_unlearn; None for all people of the data set."""
    retain: tuple[str, ...] | None = None
    """Ids of D_retain; None for all others. Who is in neither was retrained by nobody: unseen."""

    @model_validator(mode="after")
    def _labels_and_sets(self) -> AuditScenario:
        problems = []
        if RETAINED in self.models:
            problems.append(f"models: {RETAINED} is no label; name it in retain_model")
        both = sorted({*(self.forget or ())} & {*(self.retain or ())})
        if both:
            problems.append(f"in forget and in retain: {', '.join(both)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class UnseenPeople(Settings):
    """People who are neither forgotten nor in any retain batch: what happens to all the others."""

    celebrities: Annotated[int, Field(ge=0)] = 25
    """The best known that no scenario takes; without the pre-trained scenario they are drawn."""
    fictional: Annotated[int, Field(ge=0)] = 0
    """Fine-tuned on with the others, in no D_unlearn and no D_retain."""


class ScenarioSettings(Settings):
    """The scenarios to run; leave one out to skip it.

    Registered ones of other packages stand beside these, under their names.
    """

    model_config = ConfigDict(extra="allow")

    finetuned: FinetunedScenario | None = None
    pretrained: PretrainedScenario | None = None
    sustainability: SustainabilityScenario | None = None
    same_checkpoint: SameCheckpointScenario | None = None
    requests: RequestsScenario | None = None
    audit: AuditScenario | None = None
    unseen: UnseenPeople = UnseenPeople()

    def chosen(self) -> list[str]:
        """Return the names of the scenarios to run, those of this package first."""
        own = [name for name in type(self).model_fields if name != "unseen"]
        return [name for name in own if getattr(self, name)] + list(self.model_extra or ())

    def teaches(self) -> bool:
        """Tell whether some scenario starts from a model that was taught fictional people."""
        same = self.same_checkpoint
        taught = same is not None and same.target == "finetuned"
        return taught or bool(self.finetuned or self.sustainability)

    def retain_models(self) -> dict[str, AuditedModel]:
        """Return the retain models that scenarios name, by scenario."""
        own = {name: getattr(self, name) for name in self.chosen()}
        named = {
            name: one.get("retain_model") if isinstance(one, dict) else one and one.retain_model
            for name, one in own.items()
        }
        return {name: AuditedModel.model_validate(gold) for name, gold in named.items() if gold}

    def of(self, name: str, schema: type[Scenario]) -> Scenario:
        """Return the settings of one scenario to run, as its own model."""
        own = getattr(self, name)
        return own if isinstance(own, schema) else schema.model_validate(own or {})
