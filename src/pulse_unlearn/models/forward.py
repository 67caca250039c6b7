"""The forward pass behind training, stop rules and scoring: log-probs at answer positions only.

Two readers give the same numbers: `Plain`, one padded sequence an example, and `packed.Packed`,
which writes shared beginnings once. Whoever asks a model asks a reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pulse_unlearn.methods import AnswerView
from pulse_unlearn.models.encode import AnswerTokens, EncodedBatch, Encoder
from pulse_unlearn.records import Example


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model says to one prompt."""

    log_probs: Tensor
    """Natural log-probabilities of the first answer token, [V], on the CPU."""
    text: str
    """Greedy answer."""


class Reader(Protocol):
    """Examples in, log-probabilities out; holds the model as it is now, adapters and all."""

    @property
    def model(self) -> Any:
        """The model read from."""

    @property
    def encoder(self) -> Encoder:
        """What encodes for it."""

    def answers(self, examples: Sequence[Example], *, tokens: AnswerTokens) -> AnswerView:
        """Return the log-probabilities at the examples' answers, [B, A, V]."""

    def replies(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[Reply]:
        """Return greedy answers, without gradients."""


@dataclass(frozen=True, slots=True)
class Plain:
    """One sequence an example, padded on the left."""

    model: Any
    encoder: Encoder

    def answers(self, examples: Sequence[Example], *, tokens: AnswerTokens) -> AnswerView:
        """Return the log-probabilities at the examples' answers, [B, A, V]."""
        return answer_view(self.model, self.encoder.answers(examples, tokens=tokens))

    def replies(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[Reply]:
        """Generate greedily; the first token's log-probabilities come from the same pass."""
        inputs = self.encoder.prompts(examples)
        inputs.pop(
            "position_ids", None
        )  # generate derives the same positions from the attention mask
        tokenizer = self.encoder.tokenizer
        with torch.no_grad():
            output = self.model.generate(
                **to_device(inputs, self.model),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=self.encoder.end_ids,
                return_dict_in_generate=True,
                output_logits=True,
            )
        texts = self.encoder.decode(output.sequences[:, inputs["input_ids"].shape[1] :])
        first = torch.log_softmax(output.logits[0].float(), dim=-1).cpu()
        return [Reply(row, text) for row, text in zip(first, texts, strict=True)]


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
