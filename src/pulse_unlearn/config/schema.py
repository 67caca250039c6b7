"""The experiment file, typed: every value the paper leaves open is a named setting here.

Models are frozen and refuse unknown keys. Settings a method alone understands (NPO's beta, the KL
weight) live with the method; `load` checks them against the schemas it is handed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pulse_unlearn.config.base import EMBEDDED, Decides, Fraction, Positive, Settings
from pulse_unlearn.config.scenarios import (
    AuditedModel,
    ScenarioSettings,
    label_of_retain_model,
)
from pulse_unlearn.config.tuned import TunedBy
from pulse_unlearn.records import Modalities

Scope = Literal["projector", "llm", "projector+llm", "vision", "all"]


class ModelSettings(Settings):
    """Which model, and how it is held in memory."""

    source: str = EMBEDDED
    """`world` (the embedded model), a local folder, or a hub id."""
    revision: str | None = None
    """Commit of a hub id; required there, so that a run names exact weights."""
    offline: bool = False
    """Read a hub id from the cache alone; what is not there is told, with how to fetch it."""
    trust_remote_code: tuple[str, ...] = ()
    """Models, named one by one, whose own Python code may be executed; nothing else is."""
    adapters: tuple[str, ...] = ()
    """PEFT folders that belong to the model, first to last; held as `frozen_adapters` says."""
    allow_base_mismatch: bool = False
    """Load adapters whose base, by digest or by name, is another model; the run notes which."""
    image_aspect: Literal["processor", "pad"] = "processor"
    """`processor` shows pictures as the model's files say; `pad` makes them square with borders, as
    LLaVA-1.5 was trained."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    device_map: Literal["none", "auto", "balanced", "sequential"] = "none"
    """Spread the layers over all devices, in accelerate's way; `device` then has no say."""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """Hold the language model's weights in fewer bits (bitsandbytes, extra `quant`)."""
    gradient_checkpointing: bool = False
    frozen_adapters: Literal["merged", "stacked"] = "merged"
    """How the model's adapters and those of earlier stages are held: added into the weights, or
    kept beside them, where half precision does not round small updates away."""

    @model_validator(mode="after")
    def _quantised_weights_stay(self) -> ModelSettings:
        if self.quantise != "none" and self.frozen_adapters == "merged":
            raise ValueError("quantise rounds what is merged: set frozen_adapters to stacked")
        return self


class SourceSettings(Settings):
    """One data source: a registered data set and, unless it is embedded, its path.

    Relative paths, that of a model folder too, are taken from the current folder when the
    experiment is read; a run's own `experiment.yaml` holds them in full.
    """

    source: str = "world"
    path: str | None = None
    """File or folder; with a revision `owner/name` or `owner/name/inside` on the hub."""
    revision: str | None = None
    """Commit of a data set on the hub; required there, so that a run names exact data."""


class PeopleSettings(SourceSettings):
    """Where people come from, and the choices a reader of their files has to make."""

    scored_picture: Literal["own", "other_pose"] = "own"
    """Score on the picture beside the questions, or on a further pose (`Test_Set`)."""
    options: Annotated[int, Field(ge=2, le=8)] = 4
    """How many options a question gets without options in its file (not `mllmu`, `umu`)."""
    options_seed: int = 0
    """Draws those options among other people's answers."""


Overlap = Literal["same_person", "trained_on_scored", "named", "pictured"]


class DataSettings(Settings):
    """People, general questions, and the text they are asked with."""

    people: PeopleSettings = PeopleSettings()
    general: SourceSettings = SourceSettings()
    people_prompt: str = "short"
    general_prompt: str = "short"
    general_questions: Positive | None = None
    """Score only this many general questions, the same ones in every run; None scores all."""
    allow_overlap: tuple[Overlap, ...] = ()
    """Go on although the same person stands on both sides (`same_person`) or scored material is
    trained on (`trained_on_scored`); keep general questions that name (`named`) or show
    (`pictured`) people of the run. The report lists what was let pass."""
    leave_out: tuple[str, ...] = ()
    """Ids of people whom the experiment is not to know of: nobody learns, forgets or asks them."""
    different_people: tuple[tuple[str, str], ...] = ()
    """Ids, two by two, of people who share a name or look alike and yet are two: that is not
    refused then, and the report says so. One id, the same answers or the very same picture still
    are, whatever is declared."""

    @field_validator("different_people")
    @classmethod
    def _pairs_of_two(cls, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        seen: set[frozenset[str]] = set()
        problems = []
        for pair in pairs:
            shown = " and ".join(pair)
            if len(set(pair)) == 1:
                problems.append(f"{shown} is one person")
            elif frozenset(pair) in seen:
                problems.append(f"{shown} stand there twice")
            seen.add(frozenset(pair))
        if problems:
            raise ValueError("; ".join(problems))
        return pairs


class ScoringSettings(Settings):
    """How answers are produced and read; `likelihood` takes the likeliest, whatever is said."""

    parser: str = "strict"
    """A registered answer parser, or `likelihood`."""
    decided_by: Decides | None = None
    """Chooses people, ends trainings; None is `likelihood` if the parser is that, `rotated` if it
    is `declared`, else strict. `rotated` asks every order of the options, so that no preference for
    a letter can decide."""
    people: Literal["circular", "vanilla"] = "circular"
    """`circular` asks people's questions in every cyclic order of their options, without which a
    broken habit cannot be told from a lost memory; `vanilla` asks the file's order alone."""
    general: Literal["circular", "vanilla"] = "circular"
    """The same for general questions."""
    words: Literal["all", "people", "none"] = "all"
    """Whose questions are also asked bare, to be answered in words."""
    max_new_tokens: Positive = 8
    batch_size: Positive = 64
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.10
    """Largest difference in accuracy from a model that never knew D_unlearn that counts as none."""

    @property
    def decides(self) -> Decides:
        """The reading that people are chosen and trainings ended by.

        A model that talks never says a bare letter, which `strict` would wait for.
        """
        own: dict[str, Decides] = {"likelihood": "likelihood", "declared": "rotated"}
        return self.decided_by or own.get(self.parser, "strict")


class SpeedSettings(Settings):
    """Short cuts that change no number beyond rounding; none is part of a fingerprint."""

    packing: Literal["auto", "off"] = "auto"
    """`auto` writes shared beginnings once where that is exact; `off` writes every question out."""
    pack_tokens: Positive | None = None
    """Most tokens of a row, unless those on one picture are more; None takes the model's width."""
    sharding: Literal["none", "layers"] = "none"
    """`layers`: each of the processes that torchrun starts holds a part of every language layer."""

    @field_validator("packing", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        # YAML reads a bare `off` as False.
        return "off" if value is False else value


Update = Literal["lora", "full"]
"""What is trained: low-rank matrices beside the scope's linear layers, or all its tensors."""


class LoraSettings(Settings):
    """Low-rank adapters on every linear layer of the scope, by full module path."""

    rank: Annotated[int, Field(ge=1, le=65_536)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class OptimiserSettings(Settings):
    """AdamW and its schedule."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    batch_size: Positive = 8
    """Examples per optimiser step."""
    micro_batch_size: Positive = 8
    """Examples per forward pass; gradients accumulate up to `batch_size`."""
    shuffle: Literal["pictures", "questions"] = "pictures"
    """`pictures` keeps the questions on one picture together, so that a batch pays for the picture
    once; `questions` mixes all."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Fraction = 0.0
    """Share of the steps over which the learning rate rises from zero."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0

    @model_validator(mode="after")
    def _micro_divides(self) -> OptimiserSettings:
        if self.batch_size % self.micro_batch_size:
            raise ValueError("batch_size must be a multiple of micro_batch_size")
        return self


class FinetuneSettings(Settings):
    """How the fictional people are learned (paper, section on the fine-tuned scenario)."""

    individuals: Positive = 100
    scope: Scope = "projector+llm"
    forms: Literal["multiple_choice", "short_answer", "both"] = "both"
    """Which questions are trained on; the paper does not say."""
    update: Update = "lora"
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    epochs: Positive = 10
    steps: Positive | None = None
    """This many optimiser steps, whatever the epochs."""
    replay: Fraction = 0.0
    """Share of each batch drawn from general training questions."""
    target_accuracy: Fraction | None = None
    """Stop once this accuracy is reached on views and option orders that are never reported."""
    check_every: Positive = 25
    check_examples: Positive = 200
    """How many of those questions a check asks, drawn by seed."""


class StopSettings(Settings):
    """When an unlearning operation ends; the first rule that holds ends it."""

    max_steps: Positive = 32
    steps_of: Literal["operation", "request"] = "operation"
    """What has so many steps: an operation, or each request whose people its forget batches hold
    (`unlearn.forget: requests_so_far`), so that the fifth operation has five times as many."""
    loss_bound: Annotated[float, Field(gt=0)] | None = None
    """Stop once the forget examples' mean negative log-likelihood per token (nats) is above it."""
    target_forgetting: Fraction | None = None
    """Stop once this share of the target model's accuracy is gone, on views never reported."""
    floor: Literal["chance", "none"] = "chance"
    """`chance` never asks for less than guessing would score: below it lies broken or avoided
    output, not forgetting. `none` takes the share literally."""
    check_every: Positive = 4
    check_examples: Positive = 200
    """How many of those questions a check asks, drawn by seed."""


class UnlearnSettings(Settings):
    """One application of a method, apart from what the method alone understands."""

    scope: Scope = "projector+llm"
    update: Update = "lora"
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    stop: StopSettings = StopSettings()
    reference: Literal["original", "previous_request"] = "original"
    """The frozen model inside NPO and KL: before any request, or before this one."""
    adapter: Literal["fresh", "continued"] = "fresh"
    """Whether a later request starts a new adapter or goes on training the last one."""
    answer_tokens: Literal["with_end", "text"] = "text"
    """Whether the end-of-turn token counts as part of the answer."""
    forms: Literal["multiple_choice", "short_answer", "both"] = "multiple_choice"
    modalities: Modalities = "both"
    """What forget batches and the stop rule ask about D_unlearn: questions with its picture, by
    name, or both. Retain batches and scores always hold both."""
    forget: Literal["request", "requests_so_far"] = "request"
    """Whom forget batches ask about: the people of the request, or of the earlier ones, too. With
    drawn or refused answers that needs no word of what was true."""
    retain: Literal["d_retain", "other_known", "all_known", "general", "none"] = "d_retain"
    """Whom retain batches ask about: D_retain; other people the model knows, who are neither
    forgotten nor retained nor unseen; half of each; nobody, with general questions alone; or no
    retain batch at all, for methods that need none. Unseen people are scored and never used."""
    general_share: Fraction = 0.0
    """Share of the retain batch drawn from general training questions; all of it where `retain` is
    `general`."""

    @property
    def replayed_share(self) -> float:
        """Share of the retain batch that general questions really have."""
        return 1.0 if self.retain == "general" else self.general_share


Label = Annotated[str, Field(pattern=r"^\w[\w .,()+%-]*$", max_length=80)]
"""A name that stands in tables, file names and spreadsheets: no formula, nothing unseen."""


class MethodEntry(Settings):
    """One line of the comparison: a method with its settings, by a label of your choice."""

    method: str
    scenarios: tuple[str, ...] | None = None
    """Scenarios of the experiment it takes part in; None for all."""
    unlearn: UnlearnSettings = UnlearnSettings()
    settings: dict[str, Any] = Field(default_factory=dict)
    tuned: TunedBy | None = None
    """In a file: the path of what `pulse tune` wrote, or `world` for what was found for the method
    on the embedded world. Its winner fills in what the entry does not set itself; a run's own
    record holds the settings, and here where they are from."""


SeedPart = Literal["people", "training", "order", "requests"]


class Experiment(Settings):
    """One experiment file: everything that decides the numbers of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    vary: Annotated[tuple[SeedPart, ...], Field(min_length=1)] = ("people", "training", "order")
    """What differs between the seeds: who is in which set, the training's own draws (adapters,
    dropout), the order of its batches, in which order the requests of `sustainability` come. What
    is left out stays as with the first seed."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    scoring: ScoringSettings = ScoringSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    unlearn: UnlearnSettings = UnlearnSettings()
    """Defaults of every method entry; an entry's own values win."""
    methods: dict[Label, MethodEntry] = Field(default_factory=dict)
    """By a label of your choice; none where only models of somebody else are audited."""
    scenarios: ScenarioSettings
    evaluations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What is measured besides, by registered name, with the settings of each: `retain_model`,
    `relearning`, `adapter_off`."""
    speed: SpeedSettings = SpeedSettings()
    trackers: tuple[str, ...] = ()
    """Where losses and results are shown besides, by registered name: `tensorboard`, `wandb`,
    `trackio`. Changes no result; one that fails is left out of the rest of the run."""
    checkpoint_seconds: Annotated[int, Field(ge=0)] = 60
    """Seconds of training between checkpoints, 0 for one after each step; changes no result."""
    plugin_seconds: Annotated[int, Field(ge=0)] = 600
    """Seconds that a third party's method may take for one step, or between two, before it is
    interrupted; 0 sets no limit. Changes no result."""

    @model_validator(mode="after")
    def _counts_agree(self) -> Experiment:
        problems = self._quantised_updates()
        if self.speed.sharding == "layers":
            for name in ("quantise", "device_map"):
                if getattr(self.model, name) != "none":
                    problems.append(f"speed.sharding: layers goes with model.{name}: none")
        if not self.methods and not self.scenarios.audit:
            problems.append("methods: name at least 1, unless models are audited (scenarios.audit)")
        if len(set(self.seeds)) < len(self.seeds):
            problems.append("seeds: one stands there twice; each run needs a seed of its own")
        for name in ("finetuned", "sustainability"):
            scenario = getattr(self.scenarios, name)
            if scenario is None:
                continue
            people = scenario.forget + scenario.retain + self.scenarios.unseen.fictional
            if people != self.finetune.individuals:
                problems.append(
                    f"scenarios.{name}: forget + retain + unseen.fictional is {people}, "
                    f"finetune.individuals is {self.finetune.individuals}; they must be equal"
                )
        if len(self.seeds) > 1 and "people" in self.vary:
            problems += [
                f"scenarios.{name}.retain_model: each seed draws other people, whom one model "
                "cannot all lack; take one seed, or leave people out of vary"
                for name in self.scenarios.retain_models()
                if name != "audit"
            ]
        pretrained = self.scenarios.pretrained
        if pretrained and pretrained.forget + pretrained.retain > pretrained.candidates:
            problems.append("scenarios.pretrained: forget + retain exceeds candidates")
        problems += self._too_few_to_pair()
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _too_few_to_pair(self) -> list[str]:
        """Tell which arm of `same_checkpoint` has fewer people than pairs are wanted."""
        same = self.scenarios.same_checkpoint
        if same is None or same.arms is not None:
            return []
        wanted, unseen = same.forget + same.retain, self.scenarios.unseen.fictional
        there = {
            f"finetune.individuals - unseen.fictional is {self.finetune.individuals - unseen}": (
                self.finetune.individuals - unseen
            ),
            f"candidates is {same.candidates}": same.candidates,
        }
        return [
            f"scenarios.same_checkpoint: forget + retain is {wanted}, and {told}; lower the first"
            for told, people in there.items()
            if people < wanted
        ]

    @property
    def audited(self) -> dict[str, AuditedModel]:
        """Models that somebody else made, by label: audited ones, then retain models."""
        own = dict(self.scenarios.audit.models) if self.scenarios.audit else {}
        named = self.scenarios.retain_models()
        return own | {label_of_retain_model(name): gold for name, gold in named.items()}

    def model_of(self, label: str) -> ModelSettings:
        """Return an audited model, held as `model` is; `model` itself for an empty label."""
        if not label:
            return self.model
        other = self.audited[label]
        chosen = {"source": other.source, "revision": other.revision} if other.source else {}
        return self.model.model_copy(update={**chosen, "adapters": other.adapters})

    def _quantised_updates(self) -> list[str]:
        """Tell which settings would train weights that are held in fewer bits."""
        if self.model.quantise == "none":
            return []
        updates = {"finetune": self.finetune.update, "unlearn": self.unlearn.update}
        updates |= {
            f"methods.{label}.unlearn": entry.unlearn.update
            for label, entry in self.methods.items()
        }
        return [
            f"{where}.update: full cannot be trained with model.quantise; set it to lora"
            for where, update in updates.items()
            if update == "full"
        ]
