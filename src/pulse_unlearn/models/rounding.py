"""Weights rounded to few bits, as whoever shrinks a model does: to the nearest even step.

The symmetric scheme of torchao's weight-only configurations: each run of weights in an output row
has a scale of its own, largest magnitude / ((2^bits - 1) / 2). Computed with here is what the
rounded weights stand for, so it runs on any device, and takes no less memory.
"""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import Tensor, nn

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.parts import inner_model


def round_weights(model: nn.Module, family: Family, *, bits: int, group: int | None) -> None:
    """Round the weights of the language model's linear layers in place, not its embeddings or head.

    `group` weights of an output row share a scale, all of it if None. Raises ModelError for a model
    with adapters beside its weights: they have to be merged before.
    """
    if isinstance(model, PeftModel):
        what = "adapters beside the weights are not rounded with them"
        raise ModelError(Problem(what, fix="merge them: model.frozen_adapters: merged"))
    language_model = inner_model(model).get_submodule(family.language_model)
    with torch.no_grad():
        for module in language_model.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(rounded(module.weight, bits=bits, group=group))


def rounded(weight: Tensor, *, bits: int, group: int | None) -> Tensor:
    """Return the nearest values to a weight matrix [out, in] of so many bits each.

    A row that does not divide into whole groups has one scale.
    """
    rows, columns = weight.shape
    size = group if group and columns % group == 0 else columns
    runs = weight.float().reshape(rows, -1, size)
    scale = runs.abs().amax(-1, keepdim=True) / ((2**bits - 1) / 2)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    levels = torch.round(runs * (1 / scale)).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (levels * scale).reshape(rows, columns).to(weight.dtype)
