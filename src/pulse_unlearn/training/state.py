"""The state of a training in safetensors and JSON: adapter, AdamW moments, references, counters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pulse_unlearn import store
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.models.sharding import local, part_like, whole

Weights = Mapping[str, Tensor]
"""Name of a tensor -> its values."""

_TENSORS = "state.safetensors"
_STATE = "state.json"


def state_tensors(
    model: nn.Module, optimiser: torch.optim.Optimizer, *, good: Weights, kept: Weights
) -> dict[str, Tensor]:
    """Return all that a later process needs to continue bit for bit, whole and on the CPU.

    Of a model that is held in parts all ranks must ask for it.
    """
    tensors = {f"good.{name}": whole(value).cpu() for name, value in good.items()}
    tensors |= {f"kept.{name}": value.cpu().contiguous() for name, value in kept.items()}
    for name, parameter in trained(model).items():
        tensors[f"weight.{name}"] = whole(parameter.detach()).cpu().contiguous()
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adamw.{key}.{name}"] = whole(value.detach()).cpu().contiguous()
    return tensors


def save_state(folder: Path, tensors: Weights, state: dict[str, Any]) -> None:
    """Write a training's tensors and counters."""
    store.write_bytes(folder / _TENSORS, serialise(dict(tensors)))
    store.write_json(folder / _STATE, state)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a checkpoint holds beyond the weights and moments that were put back."""

    good: Weights
    kept: Weights
    """What the objective uses again."""
    state: dict[str, Any]


def load_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> Saved:
    """Put weights and moments back and return the rest."""
    tensors = load_file(str(folder / _TENSORS))
    parameters = trained(model)
    put_back(model, {name: tensors[f"weight.{name}"] for name in parameters})
    for name, parameter in parameters.items():
        moments = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"adamw.{key}.{name}")
            if value is not None:
                moments[key] = value if key == "step" else part_like(value, parameter)
        if moments:
            optimiser.state[parameter] = moments
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    good = {name: part_like(tensors[f"good.{name}"], own) for name, own in parameters.items()}
    device = next(iter(parameters.values())).device
    kept = {
        name.removeprefix("kept."): value.to(device)
        for name, value in tensors.items()
        if name.startswith("kept.")
    }
    return Saved(good, kept, state)


def copy_weights(model: nn.Module) -> Weights:
    """Return a copy of the trained tensors."""
    return {name: tensor.detach().clone() for name, tensor in trained(model).items()}


def put_back(model: nn.Module, weights: Weights) -> None:
    """Give the trained tensors these values."""
    with torch.no_grad():
        for name, parameter in trained(model).items():
            parameter.copy_(part_like(weights[name], parameter))


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable tensors by name."""
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of every trained tensor, zeros where there was none."""
    found = {}
    for name, tensor in trained(model).items():
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        found[name] = tensor.grad
    return found


def marks_of_untrained(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return two sums over the bits of each tensor that is not trained: to see it was not touched.

    Takes one pass over the weights and no copy of them.
    """
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    found = {}
    for name, tensor in model.named_parameters():
        if not tensor.requires_grad:
            bits = local(tensor.detach()).contiguous().view(kinds[tensor.element_size()])
            found[name] = (int(bits.sum()), int((bits >> 3).sum()))
    return found


def require_untouched(model: nn.Module, before: Mapping[str, tuple[int, int]]) -> None:
    """Raise MethodError if tensors that are not trained are not what they were."""
    after = marks_of_untrained(model)
    changed = sorted(name for name in before if before[name] != after.get(name))
    if changed:
        got = f"{len(changed)} of {len(before)} tensors ({', '.join(changed[:3])})"
        fix = "change tensors with session.edit, which keeps to the update scope"
        raise MethodError(Problem("changed what is not trained", got=got, fix=fix))
