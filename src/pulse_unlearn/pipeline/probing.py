"""How a probe is carried out: hidden states of known people and of D_unlearn in, answers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.probe import LetterProbe
from pulse_unlearn.evaluation.table import write_predictions
from pulse_unlearn.models.adapters import load_adapters
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.models.parts import language_layers
from pulse_unlearn.models.sharding import shard_layers
from pulse_unlearn.models.states import last_states
from pulse_unlearn.pipeline.asked import PREDICTIONS, stage_examples
from pulse_unlearn.pipeline.stage_context import StageContext
from pulse_unlearn.records import Example, Prediction, key_of
from pulse_unlearn.scenarios import ProbeStage


def run_probe(context: StageContext[ProbeStage]) -> None:
    """Fit a probe to people the model knows, and store what it reads about the others.

    What it reads is stored as answers are, the likeliest letter as their text. Several ranks do the
    same work.
    """
    stage = context.stage
    asked, known = (_with_letters(context, one) for one in (stage, _learning(stage)))
    loaded = load_model(context.model)
    folders = [*loaded.beside, *(context.update_of(name) for name in stage.chain)]
    model = load_adapters(loaded.model, folders, how=context.model.frozen_adapters)
    if context.ranks.lockstep:
        shard_layers(model, loaded.family, context.ranks)
    model.eval()
    count = len(language_layers(model, loaded.family))

    found = last_states(
        model,
        context.cache.encoder(loaded),
        [*known, *asked],
        layers=[math.ceil(stage.depth * count) - 1],
        batch_size=context.inputs.experiment.scoring.batch_size,
        on_batch=context.on_batch,
    )
    states = found[:, 0].double().numpy()
    probe = LetterProbe.fit(states[: len(known)], [example.letter for example in known])
    write_predictions(
        context.folder / PREDICTIONS,
        [
            _prediction(example, probe.log_scores(one, [o.letter for o in example.options]))
            for example, one in zip(asked, states[len(known) :], strict=True)
        ],
    )


def _learning(stage: ProbeStage) -> ProbeStage:
    """Return the stage as if it asked about those whom the probe learns from."""
    return replace(stage, ask=stage.learn)


def _with_letters(context: StageContext[ProbeStage], stage: ProbeStage) -> list[Example]:
    """Return the questions that are answered by letter; raises DataError if there are none."""
    found = [
        example
        for example in stage_examples(context.inputs, stage, context.resolve)
        if example.asked_as == "options" and not example.option_texts
    ]
    if not found:
        what = "a probe reads letters, and nobody is asked a question with its options shown"
        raise DataError(Problem(what, stage.name, fix="leave evaluations.probing out"))
    return found


def _prediction(example: Example, log_probs: Sequence[float]) -> Prediction:
    likeliest = example.options[max(range(len(log_probs)), key=lambda place: log_probs[place])]
    return Prediction(
        **key_of(example),
        options=example.options,
        answer=example.letter,
        text=likeliest.letter,
        option_log_probs=tuple(log_probs),
    )
