"""Hidden states where a model is about to answer: what a probe reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import layer_output, to_device
from pulse_unlearn.models.parts import language_layers
from pulse_unlearn.records import Example


def last_states(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    layers: Sequence[int],
    batch_size: int,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return what layers of the language model put out at each prompt's last token, [B, L, D].

    float32 on the CPU, in the order of the examples; without gradients. Raises ModelError if there
    is no such layer.
    """
    blocks = language_layers(model, encoder.family)
    order = sorted(range(len(examples)), key=lambda index: examples[index].likeness)
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = encoder.prompts([examples[index] for index in chosen])
        with torch.no_grad(), ExitStack() as stack:
            outputs = [stack.enter_context(layer_output(blocks, number)) for number in layers]
            model(**to_device(inputs, model), logits_to_keep=1, use_cache=False)
            # Prompts are padded on the left.
            states = torch.stack([one[0][:, -1].float().cpu() for one in outputs], dim=1)
        found |= zip(chosen, states, strict=True)
        on_batch(len(found), len(order))
    return torch.stack([found[index] for index in range(len(examples))])
