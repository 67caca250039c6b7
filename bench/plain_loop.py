"""What published code does, with our losses: the plain side of `speed.py`.

One sequence a question, logits of the whole vocabulary at every position, the vision tower in every
forward pass, a second copy of the model as reference, greedy generation of up to 50 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pulse_unlearn.data.images import decode
from pulse_unlearn.methods import AnswerView, losses
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.records import Example


class PlainLoop:
    """Unlearning steps and answers; both sides minimise the same."""

    def __init__(self, model: Any, encoder: Encoder, reference: Any) -> None:
        self.model, self.encoder, self.reference = model, encoder, reference

    def step(self, examples: Sequence[Example], method: str) -> None:
        """One step over one person's questions."""
        view = self._view(self.model, examples)
        if method == "ga":
            loss = losses.gradient_ascent(view).mean()
        else:
            with torch.no_grad():
                frozen = self._view(self.reference, examples)
            loss = losses.npo(view, frozen, beta=0.1).mean()
        loss.backward()

    def _view(self, model: Any, examples: Sequence[Example]) -> AnswerView:
        batch = self.encoder.answers(examples, tokens="with_end")
        logits = model(**batch.inputs, use_cache=False).logits
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        length = batch.labels.shape[1]
        return AnswerView(log_probs[:, -length - 1 : -1], batch.labels, batch.mask)

    def ask(self, examples: Sequence[Example], batch_size: int) -> None:
        """Generate up to 50 tokens greedily."""
        for start in range(0, len(examples), batch_size):
            chunk = examples[start : start + batch_size]
            texts = [self.encoder.prompt(example) for example in chunk]
            images = [decode(example.picture) for example in chunk if example.picture]
            inputs = self.encoder.processor(
                text=texts, images=images or None, padding=True, return_tensors="pt"
            )
            with torch.no_grad():
                self.model.generate(**inputs, max_new_tokens=50, do_sample=False)
