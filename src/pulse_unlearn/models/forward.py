"""The one forward pass behind training and stop rules: log-probs at answer positions only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pulse_unlearn.methods import AnswerView
from pulse_unlearn.models.encode import EncodedBatch


def to_device(inputs: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Move inputs to the model's device, floating-point ones to its dtype."""
    parameter = next(model.parameters())
    return {
        name: value.to(parameter.device, parameter.dtype)
        if value.is_floating_point()
        else value.to(parameter.device)
        for name, value in inputs.items()
    }


def answer_view(model: nn.Module, batch: EncodedBatch) -> AnswerView:
    """Return natural log-probabilities [B, A, V] (float32) of the tokens at answer positions.

    The head is applied to the last A + 1 positions only: answers are right-aligned.
    """
    length = batch.labels.shape[1]
    inputs = to_device(batch.inputs, model)
    logits = model(**inputs, logits_to_keep=length + 1, use_cache=False).logits[:, :-1]
    return AnswerView(
        log_probs=torch.log_softmax(logits.float(), dim=-1),
        labels=batch.labels.to(logits.device),
        mask=batch.mask.to(logits.device),
    )


def answered(view: AnswerView) -> Tensor:
    """Tell for each example whether greedy decoding would give exactly its answer, [B] bool."""
    hits = view.log_probs.argmax(-1) == view.labels
    return (hits | ~view.mask).all(-1)
