"""Weights rounded to few bits, as whoever shrinks a model does: to the nearest of evenly spaced values.

The symmetric scheme of torchao's weight-only configurations: each run of weights in an output row
has a scale of its own, largest magnitude / ((2^bits - 1) / 2). Computed with here is what the
rounded weights stand for, so it runs on any device, and takes no less memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.parts import inner_model


def round_weights(model: nn.Module, family: Family, *, bits: int, group: int | None) -> None:
    """Round the weights of the language model's linear layers, in place; not its embeddings or head.

    `group` weights of an output row share a scale, all of it if None. Raises ModelError for a model
    with adapters beside its weights: they have to be merged before.
    """
    if hasattr(model, "peft_config"):
        fix = "merge them: model.frozen_adapters: merged"
        raise ModelError(
            Problem("adapters beside the weights cannot be rounded with them", fix=fix)
        )
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
    steps = 2**bits - 1
    scale = runs.abs().amax(-1, keepdim=True) / (steps / 2)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    levels = torch.round(runs * (1 / scale)).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (levels * scale).reshape(rows, columns).to(weight.dtype)
