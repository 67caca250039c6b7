"""What each stage of a plan will take: steps, questions, tokens, memory, disk, operations.

Upper bounds: a stop rule may end a training earlier, packing writes shared beginnings once, and
what a reference said is remembered.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from pulse_unlearn.config import FinetuneSettings, UnlearnSettings
from pulse_unlearn.data import examples as make
from pulse_unlearn.methods import build_method
from pulse_unlearn.models import costs
from pulse_unlearn.models.costs import NOTHING, Adapter, Asked, Batch, Memory
from pulse_unlearn.models.describe import TEMPLATE_TOKENS, Described, TextCounter
from pulse_unlearn.models.shapes import PictureRule
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.records import Example, Picture
from pulse_unlearn.scenarios import Group, Stage
from pulse_unlearn.training.steps import FinetuneSteps

SAMPLE = 200
"""Questions of a pool whose tokens are counted; the rest is taken to be like them."""
ASSUMED_SIDE = 512
"""Pixels along both sides of a picture that is not there yet."""
ANSWER_BYTES = 100
"""Of one stored answer; the demo's take 32 to 67."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Questions that are drawn from: how many, and what one of them takes."""

    count: int
    each: Asked
    longest: int
    answer: int
    pictures: int
    """Tiles of the picture with the most."""
    patches: int
    """Of the tile with the most."""


EMPTY = Pool(0, NOTHING, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class StageOutlook:
    """One stage: at most this much."""

    name: str
    kind: str
    steps: int = 0
    trained: Asked = NOTHING
    """Passed forward and backward."""
    asked: Asked = NOTHING
    """Passed forward: scoring, stop rules, references."""
    memory: Memory | None = None
    batch: Batch | None = None
    operations: float = 0.0
    adapter: int = 0
    """Trained parameters."""

    @property
    def tokens(self) -> float:
        """All tokens of the language model."""
        return self.trained.tokens + self.asked.tokens

    @property
    def kept_bytes(self) -> int:
        """What the finished stage leaves on disk."""
        if self.kind == "score":
            return round(self.asked.questions * ANSWER_BYTES)
        return self.adapter * costs.FROZEN_ADAPTER_BYTES

    @property
    def passing_bytes(self) -> int:
        """What its checkpoints take until it is finished."""
        return self.adapter * costs.CHECKPOINT_BYTES * costs.CHECKPOINTS


def look_ahead(inputs: Inputs, model: Described) -> tuple[StageOutlook, ...]:
    """Return the outlook of every stage, in the plan's order."""
    surveyor = Surveyor(inputs, model.shape.pictures, TextCounter(model.tokenizer))
    return tuple(_Stage(inputs, model, surveyor, stage).outlook() for stage in inputs.plan.stages)


class Surveyor:
    """Measures pools of questions, each once."""

    def __init__(self, inputs: Inputs, rule: PictureRule, count: Callable[[str], int]) -> None:
        self._inputs = inputs
        self._rule = rule
        self._count = count
        self._known: dict[object, Pool] = {}

    def training(self, group: Group, forms: make.Forms) -> Pool:
        """Return an epoch of training questions about people."""
        return self._pool(("training", group, forms), lambda: self.epoch(group, forms))

    def epoch(self, group: Group, forms: make.Forms) -> list[Example]:
        """Return the first epoch's examples."""
        profile = self._inputs.experiment.data.people_prompt
        people = [self._inputs.people[key] for key in self._ids(group)]
        return make.training(people, profile=profile, seed=0, epoch=0, forms=forms)

    def replayed(self) -> Pool:
        """Return general questions to train on."""
        return self._pool("replayed", self.general_epoch)

    def general_epoch(self) -> list[Example]:
        """Return their first epoch's examples."""
        profile = self._inputs.experiment.data.general_prompt
        questions = self._inputs.general_training
        return make.general_training(questions, profile=profile, seed=0, epoch=0)

    def held_out(self, group: Group) -> Pool:
        """Return what stop rules and the choice of people ask."""
        profile = self._inputs.experiment.data.people_prompt
        people = [self._inputs.people[key] for key in self._ids(group)]
        return self._pool(
            ("held out", group), lambda: make.other_view(people, profile=profile, seed=0)
        )

    def scored(self, group: Group) -> Pool:
        """Return people's questions as they are scored."""
        profile = self._inputs.experiment.data.people_prompt
        questions = [q for key in self._ids(group) for q in self._inputs.people[key].questions]
        return self._pool(("scored", group), lambda: make.scored(questions, profile=profile))

    def general(self) -> Pool:
        """Return the general questions, every rotation if they are scored so."""
        experiment = self._inputs.experiment
        ask = make.circular if experiment.scoring.general == "circular" else make.scored
        profile = experiment.data.general_prompt
        return self._pool("general", lambda: ask(self._inputs.general, profile=profile))

    def taken(self, examples: Sequence[Example]) -> Asked:
        """Return what these examples take together."""
        return sum((self._seen(example) for example in examples), NOTHING)

    def _ids(self, group: Group) -> tuple[str, ...]:
        """Return a group's people; of people yet to be chosen, as many of the candidates."""
        if not group.selection:
            return group.ids
        stage = self._inputs.plan.stage(group.selection)
        wanted = stage.settings["pretrained"]
        parts = ("forget", "retain") if group.part == "all" else (group.part,)
        return stage.ask.ids[: sum(int(wanted[part]) for part in parts)]

    def _pool(self, key: object, read: Callable[[], Sequence[Example]]) -> Pool:
        if key not in self._known:
            self._known[key] = self._measured(read())
        return self._known[key]

    def _measured(self, examples: Sequence[Example]) -> Pool:
        if not examples:
            return EMPTY
        sample = examples[:: max(1, len(examples) // SAMPLE)]
        seen = [self._seen(example) for example in sample]
        total = sum(seen, NOTHING)
        return Pool(
            len(examples),
            total.times(1 / len(seen)),
            longest=round(max(one.tokens for one in seen)),
            answer=round(max(one.answers for one in seen)),
            pictures=round(max(one.pictures for one in seen)),
            patches=round(max(one.patches / max(one.pictures, 1) for one in seen)),
        )

    def _seen(self, example: Example) -> Asked:
        answer = self._count(example.answer) + 1
        tokens = self._count(example.prompt) + TEMPLATE_TOKENS + answer
        pictures, patches = 0, 0
        if example.picture is not None:
            size = picture_size(example.picture)
            tokens += self._rule.tokens(*size)
            pictures, patches = self._rule.patches(*size)
        return Asked(
            questions=1,
            tokens=tokens,
            squares=tokens**2,
            answers=answer,
            pictures=pictures,
            patches=pictures * patches,
            patch_squares=pictures * patches**2,
        )


def picture_size(picture: Picture) -> tuple[int, int]:
    """Return width and height in pixels, from the file's head; assumed for a stand-in."""
    if not picture.data:
        return ASSUMED_SIDE, ASSUMED_SIDE
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.size


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage and what its outlook is made from."""

    inputs: Inputs
    model: Described
    surveyor: Surveyor
    stage: Stage

    def outlook(self) -> StageOutlook:
        if self.stage.kind == "score":
            return self._score()
        if self.stage.kind == "finetune":
            return self._finetune()
        if self.stage.kind == "unlearn":
            return self._unlearn()
        return StageOutlook(self.stage.name, self.stage.kind)

    def _score(self) -> StageOutlook:
        stage, scoring = self.stage, self.inputs.experiment.scoring
        of_people = self.surveyor.held_out if stage.view == "other_view" else self.surveyor.scored
        pools = [of_people(stage.ask)] + ([self.surveyor.general()] if stage.general else [])
        asked = sum((pool.each.times(pool.count) for pool in pools), NOTHING)
        batch = _batch(pools, scoring.batch_size, answer=scoring.max_new_tokens)
        memory = costs.asking_memory(
            self.model.shape,
            self.inputs.experiment.model,
            frozen=self._frozen(merged=len(stage.chain)),
            batch=batch,
        )
        operations = costs.forward_operations(self.model.shape, asked)
        return StageOutlook(
            stage.name,
            stage.kind,
            asked=asked,
            memory=memory,
            batch=batch,
            operations=operations,
        )

    def _finetune(self) -> StageOutlook:
        settings = FinetuneSettings.model_validate(self.stage.settings["finetune"])
        people = self.surveyor.training(self.stage.retain, settings.forms)
        replayed = round(settings.optimiser.batch_size * settings.replay)
        general = self.surveyor.replayed() if replayed else EMPTY
        steps = len(
            FinetuneSteps(
                lambda _: self.surveyor.epoch(self.stage.retain, settings.forms),
                lambda _: self.surveyor.general_epoch(),
                batch_size=settings.optimiser.batch_size,
                replay=settings.replay,
                epochs=settings.epochs,
                seed=0,
            )
        )
        trained = people.each.times(steps * (settings.optimiser.batch_size - replayed))
        trained += general.each.times(steps * replayed)
        held_out = self.surveyor.held_out(self.stage.retain)
        checks = steps // settings.check_every if settings.target_accuracy else 0
        asked = held_out.each.times(checks * min(settings.check_examples, held_out.count))
        return self._training(
            settings, steps, trained=trained, asked=asked, pools=(people, general), together=1
        )

    def _unlearn(self) -> StageOutlook:
        stage = self.stage
        settings = UnlearnSettings.model_validate(stage.settings["unlearn"])
        needs = build_method(stage.settings["method"], dict(stage.settings["settings"])).needs
        steps, size = settings.stop.max_steps, settings.optimiser.batch_size
        forget = self.surveyor.training(stage.forget, settings.forms)
        retain = self.surveyor.training(stage.retain, settings.forms) if needs.retain else EMPTY
        shared = round(size * settings.general_share) if needs.retain else 0
        general = self.surveyor.replayed() if shared else EMPTY
        forgotten = forget.each.times(steps * size)
        kept = retain.each.times(steps * (size - shared)) + general.each.times(steps * shared)
        asked = NOTHING
        if needs.forget_reference:
            asked += forgotten
        if needs.retain_reference:
            asked += kept
        if settings.stop.target_forgetting is not None:
            held_out = self.surveyor.held_out(stage.forget)
            checks = 1 + steps // settings.stop.check_every
            count = checks * min(settings.stop.check_examples, held_out.count)
            asked += held_out.each.times(count)
        return self._training(
            settings,
            steps,
            trained=forgotten + kept,
            asked=asked,
            pools=(forget, retain, general),
            together=2 if needs.retain else 1,
        )

    def _training(
        self,
        settings: FinetuneSettings | UnlearnSettings,
        steps: int,
        *,
        trained: Asked,
        asked: Asked,
        pools: Sequence[Pool],
        together: int,
    ) -> StageOutlook:
        """Finish a training stage's outlook; `together` batches are held until backward."""
        held = self.inputs.experiment.model
        lora = settings.lora
        adapter = Adapter(settings.scope, lora.rank, lora.dropout)
        shape = self.model.shape
        batch = _batch(pools, together * settings.optimiser.micro_batch_size)
        merged = min(self.stage.reference_depth, len(self.stage.chain))
        memory = costs.training_memory(
            shape, held, adapter=adapter, frozen=self._frozen(merged=merged), batch=batch
        )
        operations = costs.forward_operations(shape, asked) + costs.training_operations(
            shape, trained, adapter=adapter, checkpointing=held.gradient_checkpointing
        )
        return StageOutlook(
            self.stage.name,
            self.stage.kind,
            steps=steps,
            trained=trained,
            asked=asked,
            memory=memory,
            batch=batch,
            operations=operations,
            adapter=shape.adapter(adapter.scope, adapter.rank),
        )

    def _frozen(self, *, merged: int) -> int:
        """Count parameters of adapters beside the weights; the first `merged` may be inside."""
        how = self.inputs.experiment.model.frozen_adapters
        beside = list(self.stage.chain[merged:] if how == "merged" else self.stage.chain)
        if self.stage.start_from and self.stage.reference_depth > len(self.stage.chain):
            beside.append(self.stage.start_from)
        return sum(self._adapter_of(name) for name in beside)

    def _adapter_of(self, name: str) -> int:
        made = self.inputs.plan.stage(name)
        settings = made.settings["finetune" if made.kind == "finetune" else "unlearn"]
        return self.model.shape.adapter(settings["scope"], int(settings["lora"]["rank"]))


def _batch(pools: Sequence[Pool], size: int, *, answer: int | None = None) -> Batch:
    return Batch(
        sequences=size,
        longest=max(pool.longest for pool in pools),
        pictures=size * max(pool.pictures for pool in pools),
        patches=max(pool.patches for pool in pools),
        answer=max(pool.answer for pool in pools) if answer is None else answer,
    )
