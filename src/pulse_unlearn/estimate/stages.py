"""What each stage of a plan will take: steps, questions, tokens, memory, disk, operations.

Upper bounds: a stop rule may end a training earlier, packing writes shared beginnings once, and
what a reference said is remembered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pulse_unlearn.config import FinetuneSettings, UnlearnSettings
from pulse_unlearn.estimate import counts
from pulse_unlearn.estimate.counts import NOTHING, Adapter, Asked, Batch, Memory
from pulse_unlearn.estimate.questions import Form, Pool, Pools
from pulse_unlearn.estimate.sizes import SizedModel
from pulse_unlearn.methods import Extent, build_method, serves
from pulse_unlearn.methods.served import Gated
from pulse_unlearn.models.checkpoints import adapter_parameters
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import (
    FinetuneStage,
    ProbeStage,
    ScoreStage,
    Stage,
    TrainingStage,
    UnlearnStage,
)
from pulse_unlearn.training.references import KEPT_BYTES

ASKING = frozenset({ScoreStage.kind, ProbeStage.kind})
"""Kinds of stages that train no model: their passes are forward."""
ANSWER_BYTES = 100
"""Of one stored answer; the demo's take 32 to 67."""
CHECKPOINT_NUMBERS = 4
"""Numbers a trained parameter has in a checkpoint: weight, two moments, last good copy."""
CHECKPOINTS = 3
"""Two are kept while the third is written."""


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
    number_bytes: int = counts.ADAPTER_BYTES
    """Of one of them."""
    references: int = 0
    """Bytes kept of what the reference said."""
    updates: int = 1
    """How many times the finished stage holds what was trained: its end, and snapshots."""
    forms: Mapping[Form, float] = field(default_factory=dict)
    """Operations of a score stage by what it asks."""

    @property
    def tokens(self) -> float:
        """All tokens of the language model."""
        return self.trained.tokens + self.asked.tokens

    @property
    def kept_bytes(self) -> int:
        """What the finished stage leaves on disk."""
        if self.kind in ASKING:
            return round(self.asked.questions * ANSWER_BYTES)
        return self.trained_parameters * self.number_bytes * self.updates

    @property
    def passing_bytes(self) -> int:
        """What its checkpoints take until it is finished."""
        trained = self.trained_parameters * self.number_bytes
        return (trained * CHECKPOINT_NUMBERS + self.references) * CHECKPOINTS


def estimate_stages(inputs: Inputs, model: SizedModel) -> tuple[StageEstimate, ...]:
    """Return the estimate of every stage, in the plan's order."""
    estimator = _Estimator(inputs, model, Pools(inputs, model))
    return tuple(estimator.estimate(stage) for stage in inputs.plan.stages)


def adapter_of(settings: FinetuneSettings | UnlearnSettings) -> Adapter:
    """Return what these settings train."""
    return Adapter(settings.scope, settings.lora.rank, settings.lora.dropout, settings.update)


@dataclass(frozen=True, slots=True)
class _Estimator:
    inputs: Inputs
    model: SizedModel
    pools: Pools

    def estimate(self, stage: Stage) -> StageEstimate:
        if isinstance(stage, ProbeStage):
            return self._probe(stage)
        if isinstance(stage, ScoreStage):
            return self._score(stage)
        if isinstance(stage, FinetuneStage):
            return self._finetune(stage)
        if isinstance(stage, UnlearnStage):
            return self._unlearn(stage)
        return StageEstimate(stage.name, stage.kind)

    def _score(self, stage: ScoreStage) -> StageEstimate:
        pools = self.pools.scored(stage)
        by_form: dict[Form, Asked] = {}
        for form, pool in pools:
            by_form[form] = by_form.get(form, NOTHING) + pool.each.times(pool.count)
        if stage.served:
            rounds = self._rounds(stage)
            by_form = {
                form: replace(one.times(rounds), questions=one.questions)
                for form, one in by_form.items()
            }
        forms = {form: counts.forward_operations(self.model, one) for form, one in by_form.items()}
        generated = self.inputs.experiment.scoring.max_new_tokens
        asked = sum(by_form.values(), NOTHING)
        estimate = self._asking(stage, asked, [pool for _, pool in pools], generated=generated)
        return replace(estimate, forms=forms)

    def _probe(self, stage: ProbeStage) -> StageEstimate:
        """Count those whom it learns from with those whom it asks about, all asked by letter."""
        everybody = replace(stage, ask=(*stage.ask, *stage.learn))
        pools = [pool for form, pool in self.pools.scored(everybody) if form != "words"]
        asked = sum((pool.each.times(pool.count) for pool in pools), NOTHING)
        return self._asking(stage, replace(asked, answers=0.0), pools)

    def _asking(
        self, stage: ScoreStage, asked: Asked, pools: Sequence[Pool], *, generated: int = 0
    ) -> StageEstimate:
        batch = _batch(pools, self.inputs.experiment.scoring.batch_size)
        return StageEstimate(
            stage.name,
            stage.kind,
            asked=asked,
            memory=counts.asking_memory(
                self.model,
                self.inputs.experiment.model,
                frozen=self._frozen(stage, merged=len(stage.chain)),
                batch=batch,
                generated=generated,
            ),
            batch=batch,
            operations=counts.forward_operations(self.model, asked),
        )

    def _rounds(self, stage: ScoreStage) -> int:
        """Return how often a served system asks a question: itself, for its gates, its adapter."""
        return 3 if self._routed(stage) else 2

    def _routed(self, stage: ScoreStage) -> bool:
        """Tell whether the system around a model picks adapters, which lie beside its weights."""
        last = self.inputs.plan.stage(stage.served[-1])
        return isinstance(last, UnlearnStage) and serves(last.method) == "adapter"

    def _finetune(self, stage: FinetuneStage) -> StageEstimate:
        settings = stage.settings
        size = settings.optimiser.batch_size
        replayed = round(size * settings.replay)
        people = self.pools.trained(stage, stage.learn)
        general = self.pools.replayed(stage) if replayed else Pool()
        steps = self.pools.steps(stage)
        trained = people.each.times(steps * (size - replayed))
        checks = steps // settings.check_every if settings.target_accuracy else 0
        held_out = self.pools.checked(stage.learn, stage.decides)
        return self._training(
            stage,
            steps,
            trained=trained + general.each.times(steps * replayed),
            asked=self._checks(checks, settings.check_examples, held_out, stage.decides),
            pools=(people, general),
        )

    def _unlearn(self, stage: UnlearnStage) -> StageEstimate:
        settings, stop = stage.settings, stage.settings.stop
        method = build_method(stage.method, dict(stage.method_settings))
        needs = method.needs
        steps, size = stop.max_steps, settings.optimiser.batch_size
        shared = round(size * settings.replayed_share) if needs.retain else 0
        forget = self.pools.trained(stage, stage.forget)
        retain, known = (
            self.pools.trained(stage, group) if needs.retain else Pool()
            for group in (stage.retain, stage.others)
        )
        general = self.pools.replayed(stage) if shared else Pool()
        about = (size - shared) // 2 if known.count else 0
        drawn = [
            (retain, steps * (size - shared - about)),
            (known, steps * about),
            (general, steps * shared),
        ]
        forgotten = forget.each.times(steps * size)
        kept = sum((pool.each.times(draws) for pool, draws in drawn), NOTHING)
        others = self.pools.others(stage, needs)
        beside = [one.pool.each.times(steps * size * one.each) for one in others]
        asked, references = NOTHING, 0
        if needs.forget_reference:
            asked += forgotten
            references += self._remembered(needs.forget_reference, [(forget, steps * size)])
        if needs.retain_reference:
            asked += kept
            references += self._remembered(needs.retain_reference, drawn)
        if needs.alternative_reference:  # none of it comes again
            asked += beside[0]
        if stop.target_forgetting is not None:
            held_out = self.pools.checked(stage.forget, stage.decides)
            checks = 1 + steps // stop.check_every
            asked += self._checks(checks, stop.check_examples, held_out, stage.decides)
        if serves(stage.method):
            # Its gate looks at some epochs of each, with and without options.
            epochs = method.epochs if isinstance(method, Gated) else 1
            views = epochs * (1 if settings.forms == "both" else 2)
            asked += sum(
                (p.each.times(views * p.count) for p in (forget, retain, known, general)), NOTHING
            )
        untrained = serves(stage.method) == "refusal"
        estimate = self._training(
            stage,
            0 if untrained else steps,
            trained=NOTHING if untrained else forgotten + kept + sum(beside, NOTHING),
            asked=asked,
            pools=(forget, retain, known, general, *(one.pool for one in others)),
            together=math.ceil(1 + needs.retain + sum(one.each for one in others)),
            reference=needs.reference,
            references=min(references, KEPT_BYTES),
        )
        if not untrained:
            return estimate
        memory = counts.asking_memory(
            self.model,
            self.inputs.experiment.model,
            frozen=self._frozen(stage, merged=len(stage.chain)),
            batch=estimate.batch or Batch(),
            generated=0,
        )
        return replace(estimate, trained_parameters=0, memory=memory)

    def _checks(self, checks: int, questions: int, held_out: Pool, decides: str) -> Asked:
        """Return what checks take: each asks so many questions, in every order if turned."""
        options = max(len(q.options) for p in self.inputs.people.values() for q in p.questions)
        count = min(questions * (options if decides == "rotated" else 1), held_out.count)
        return held_out.each.times(checks * count)

    def _remembered(self, extent: Extent, drawn: Sequence[tuple[Pool, int]]) -> int:
        """Return the bytes of what a reference says of examples that come again."""
        each = 4 * (self.model.text.vocab_size if extent == "distribution" else 1)
        return sum(pool.again(draws) * pool.largest.answer * each for pool, draws in drawn)

    def _training(
        self,
        stage: TrainingStage,
        steps: int,
        *,
        trained: Asked,
        asked: Asked,
        pools: Sequence[Pool],
        together: int = 1,
        reference: bool = False,
        references: int = 0,
    ) -> StageEstimate:
        """Finish a training stage's estimate; `together` batches are held until backward."""
        held, adapter = self.inputs.experiment.model, adapter_of(stage.settings)
        batch = _batch(pools, together * stage.settings.optimiser.micro_batch_size)
        merged = min(stage.reference_depth, len(stage.chain))
        memory = counts.training_memory(
            self.model,
            held,
            adapter=adapter,
            # A full update is trained in the weights, with all that is below it.
            frozen=0 if adapter.update == "full" else self._frozen(stage, merged=merged),
            batch=batch,
            reference=reference,
            kept=references,
        )
        return StageEstimate(
            stage.name,
            stage.kind,
            steps=steps,
            trained=trained,
            asked=asked,
            memory=memory,
            batch=batch,
            operations=counts.forward_operations(self.model, asked)
            + counts.training_operations(
                self.model, trained, adapter=adapter, checkpointing=held.gradient_checkpointing
            ),
            trained_parameters=counts.trained_parameters(self.model, adapter),
            number_bytes=adapter.number_bytes(held),
            references=references,
            updates=1 + len(stage.snapshots),
        )

    def _frozen(self, stage: Stage, *, merged: int) -> int:
        """Count parameters of adapters beside the weights; the first `merged` may be inside.

        So are all up to the last full update.
        """
        chain = [self._made_by(name) for name in stage.chain]
        full = [place + 1 for place, made in enumerate(chain) if made.update == "full"]
        how = self.inputs.experiment.model.frozen_adapters
        beside = chain[max([merged if how == "merged" else 0, *full]) :]
        if isinstance(stage, TrainingStage) and stage.start_from:
            beside += [self._made_by(stage.start_from)] * (stage.reference_depth > len(chain))
        if isinstance(stage, ScoreStage) and stage.served and self._routed(stage):
            beside += [self._made_by(name) for name in stage.served]
        own = self.inputs.experiment.model.adapters if how == "stacked" and not full else ()
        return sum(counts.trained_parameters(self.model, made) for made in beside) + sum(
            adapter_parameters(Path(folder)) for folder in own
        )

    def _made_by(self, name: str) -> Adapter:
        made = self.inputs.plan.stage(name)
        if not isinstance(made, TrainingStage):
            raise TypeError(f"{name} leaves no update")
        return adapter_of(made.settings)


def _batch(pools: Sequence[Pool], sequences: int) -> Batch:
    """Return what so many of the largest sequences of these pools take."""
    each = [pool.largest for pool in pools]
    names = ("longest", "answer", "pictures", "patches")
    return Batch(sequences, *(max(getattr(one, name) for one in each) for name in names))
