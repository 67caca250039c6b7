"""What each stage of a plan will take: steps, questions, tokens, memory, disk, operations.

Upper bounds: a stop rule may end a training earlier, packing writes shared beginnings once, and
what a reference said is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pulse_unlearn.config import FinetuneSettings, UnlearnSettings
from pulse_unlearn.methods import Extent, build_method
from pulse_unlearn.models import costs
from pulse_unlearn.models.checkpoints import adapter_parameters
from pulse_unlearn.models.costs import NOTHING, Adapter, Asked, Batch, Memory
from pulse_unlearn.models.describe import Described
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.token_stats import EMPTY, Form, Pool, TokenStats
from pulse_unlearn.scenarios import FinetuneStage, ScoreStage, Stage, TrainingStage, UnlearnStage
from pulse_unlearn.training.steps import FinetuneSteps

ANSWER_BYTES = 100
"""Of one stored answer; the demo's take 32 to 67."""


@dataclass(frozen=True, slots=True)
class StageEstimate:
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
    trained_parameters: int = 0
    number_bytes: int = costs.ADAPTER_BYTES
    """Of one of them."""
    references: int = 0
    """Bytes kept of what the reference said."""
    forms: Mapping[Form, float] = field(default_factory=dict)
    """Operations of a score stage by what it asks."""

    @property
    def tokens(self) -> float:
        """All tokens of the language model."""
        return self.trained.tokens + self.asked.tokens

    @property
    def kept_bytes(self) -> int:
        """What the finished stage leaves on disk."""
        if self.kind == "score":
            return round(self.asked.questions * ANSWER_BYTES)
        return self._trained_bytes

    @property
    def passing_bytes(self) -> int:
        """What its checkpoints take until it is finished."""
        state = self._trained_bytes * costs.CHECKPOINT_NUMBERS + self.references
        return state * costs.CHECKPOINTS

    @property
    def _trained_bytes(self) -> int:
        return self.trained_parameters * self.number_bytes


def estimate_stages(inputs: Inputs, model: Described) -> tuple[StageEstimate, ...]:
    """Return the estimate of every stage, in the plan's order."""
    stats = TokenStats(inputs, model)
    return tuple(_Stage(inputs, model, stats, stage).estimate() for stage in inputs.plan.stages)


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage and what its estimate is made from."""

    inputs: Inputs
    model: Described
    stats: TokenStats
    stage: Stage

    def estimate(self) -> StageEstimate:
        if isinstance(self.stage, ScoreStage):
            return self._score(self.stage)
        if isinstance(self.stage, FinetuneStage):
            return self._finetune(self.stage)
        if isinstance(self.stage, UnlearnStage):
            return self._unlearn(self.stage)
        return StageEstimate(self.stage.name, self.stage.kind)

    def _score(self, stage: ScoreStage) -> StageEstimate:
        scoring = self.inputs.experiment.scoring
        pools = self.stats.scored(stage)
        by_form: dict[Form, Asked] = {}
        for form, pool in pools:
            by_form[form] = by_form.get(form, NOTHING) + pool.each.times(pool.count)
        asked = sum(by_form.values(), NOTHING)
        batch = _batch([pool for _, pool in pools], scoring.batch_size)
        memory = costs.asking_memory(
            self.model.shape,
            self.inputs.experiment.model,
            frozen=self._frozen(stage, merged=len(stage.chain)),
            batch=batch,
            generated=scoring.max_new_tokens,
        )
        operations = costs.forward_operations(self.model.shape, asked)
        return StageEstimate(
            stage.name,
            stage.kind,
            asked=asked,
            memory=memory,
            batch=batch,
            operations=operations,
            forms={
                form: costs.forward_operations(self.model.shape, taken)
                for form, taken in by_form.items()
            },
        )

    def _finetune(self, stage: FinetuneStage) -> StageEstimate:
        settings = stage.settings
        people = self.stats.training(stage.learn, settings.forms)
        replayed = round(settings.optimiser.batch_size * settings.replay)
        general = self.stats.replayed() if replayed else EMPTY
        steps = len(
            FinetuneSteps(
                lambda _: self.stats.epoch(stage.learn, settings.forms),
                lambda _: self.stats.general_epoch(),
                batch_size=settings.optimiser.batch_size,
                replay=settings.replay,
                epochs=settings.epochs,
                steps=settings.steps,
                seed=0,
            )
        )
        trained = people.each.times(steps * (settings.optimiser.batch_size - replayed))
        trained += general.each.times(steps * replayed)
        held_out = self.stats.checked(stage.learn, stage.decides)
        checks = steps // settings.check_every if settings.target_accuracy else 0
        asked = held_out.each.times(
            checks * self._checked(settings.check_examples, held_out, stage.decides)
        )
        return self._training(
            stage, steps, trained=trained, asked=asked, pools=(people, general), together=1
        )

    def _unlearn(self, stage: UnlearnStage) -> StageEstimate:
        settings = stage.settings
        needs = build_method(stage.method, dict(stage.method_settings)).needs
        steps, size = settings.stop.max_steps, settings.optimiser.batch_size
        forget = self.stats.training(stage.forget, settings.forms)
        retain = self.stats.training(stage.retain, settings.forms) if needs.retain else EMPTY
        shared = round(size * settings.general_share) if needs.retain else 0
        general = self.stats.replayed() if shared else EMPTY
        forgotten = forget.each.times(steps * size)
        kept = retain.each.times(steps * (size - shared)) + general.each.times(steps * shared)
        asked, references = NOTHING, 0
        if needs.forget_reference:
            asked += forgotten
            references += self._remembered(needs.forget_reference, [(forget, steps * size)])
        if needs.retain_reference:
            asked += kept
            drawn = [(retain, steps * (size - shared)), (general, steps * shared)]
            references += self._remembered(needs.retain_reference, drawn)
        if settings.stop.target_forgetting is not None:
            held_out = self.stats.checked(stage.forget, stage.decides)
            checks = 1 + steps // settings.stop.check_every
            count = checks * self._checked(settings.stop.check_examples, held_out, stage.decides)
            asked += held_out.each.times(count)
        return self._training(
            stage,
            steps,
            trained=forgotten + kept,
            asked=asked,
            pools=(forget, retain, general),
            together=2 if needs.retain else 1,
            reference=needs.reference,
            references=min(references, costs.KEPT_BYTES),
        )

    def _checked(self, questions: int, held_out: Pool, decides: str) -> int:
        """Return the examples one check asks: so many questions, in every order if turned."""
        turned = decides == "rotated"
        options = max(len(q.options) for p in self.inputs.people.values() for q in p.questions)
        return min(questions * (options if turned else 1), held_out.count)

    def _remembered(self, extent: Extent, drawn: Sequence[tuple[Pool, int]]) -> int:
        """Return the bytes of what a reference says of examples that come again."""
        each = 4 * (self.model.shape.vocabulary if extent == "distribution" else 1)
        return sum(pool.again(draws) * pool.answer * each for pool, draws in drawn)

    def _training(
        self,
        stage: TrainingStage,
        steps: int,
        *,
        trained: Asked,
        asked: Asked,
        pools: Sequence[Pool],
        together: int,
        reference: bool = False,
        references: int = 0,
    ) -> StageEstimate:
        """Finish a training stage's estimate; `together` batches are held until backward."""
        held, settings = self.inputs.experiment.model, stage.settings
        adapter = adapter_of(settings)
        shape = self.model.shape
        batch = _batch(pools, together * settings.optimiser.micro_batch_size)
        merged = min(stage.reference_depth, len(stage.chain))
        # A full update is trained in the weights, with all that is below it.
        frozen = 0 if adapter.update == "full" else self._frozen(stage, merged=merged)
        memory = costs.training_memory(
            shape,
            held,
            adapter=adapter,
            frozen=frozen,
            batch=batch,
            reference=reference,
            kept=references,
        )
        operations = costs.forward_operations(shape, asked) + costs.training_operations(
            shape, trained, adapter=adapter, checkpointing=held.gradient_checkpointing
        )
        return StageEstimate(
            self.stage.name,
            self.stage.kind,
            steps=steps,
            trained=trained,
            asked=asked,
            memory=memory,
            batch=batch,
            operations=operations,
            trained_parameters=adapter.parameters(shape),
            number_bytes=adapter.number_bytes(held),
            references=references,
        )

    def _frozen(self, stage: Stage, *, merged: int) -> int:
        """Count parameters of adapters beside the weights; the first `merged` may be inside.

        So are all up to the last full update.
        """
        chain = [self._made_by(name) for name in stage.chain]
        full = [place + 1 for place, made in enumerate(chain) if made.update == "full"]
        how = self.inputs.experiment.model.frozen_adapters
        inside = max([merged if how == "merged" else 0, *full])
        beside = chain[inside:]
        if isinstance(stage, TrainingStage) and stage.start_from:
            beside += [self._made_by(stage.start_from)] * (stage.reference_depth > len(chain))
        own = self.inputs.experiment.model.adapters if how == "stacked" and not full else ()
        return sum(made.parameters(self.model.shape) for made in beside) + sum(
            adapter_parameters(Path(folder)) for folder in own
        )

    def _made_by(self, name: str) -> Adapter:
        made = self.inputs.plan.stage(name)
        if not isinstance(made, TrainingStage):
            raise TypeError(f"{name} leaves no update")
        return adapter_of(made.settings)


def adapter_of(settings: FinetuneSettings | UnlearnSettings) -> Adapter:
    """Return what these settings train."""
    return Adapter(settings.scope, settings.lora.rank, settings.lora.dropout, settings.update)


def _batch(pools: Sequence[Pool], size: int) -> Batch:
    return Batch(
        sequences=size,
        longest=max(pool.longest for pool in pools),
        pictures=size * max(pool.pictures for pool in pools),
        patches=max(pool.patches for pool in pools),
        answer=max(pool.answer for pool in pools),
    )
