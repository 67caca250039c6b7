"""The state of a training in safetensors and JSON: adapter, AdamW moments, counters, log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from pulse_unlearn import store

_TENSORS = "state.safetensors"
_STATE = "state.json"


def save_state(
    folder: Path, model: PeftModel, optimiser: torch.optim.Optimizer, *, state: dict[str, Any]
) -> None:
    """Write all that a later process needs to continue bit for bit."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in _trained(model).items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adamw.{key}.{name}"] = value.detach().cpu().contiguous()
    store.write_bytes(folder / _TENSORS, serialise(tensors))
    store.write_json(folder / _STATE, state)


def load_state(folder: Path, model: PeftModel, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put weights and moments back and return the saved counters."""
    tensors = load_file(str(folder / _TENSORS))
    for name, parameter in _trained(model).items():
        with torch.no_grad():
            parameter.copy_(tensors[f"weight.{name}"])
        moments = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = tensors.get(f"adamw.{key}.{name}")
            if value is not None:
                moments[key] = value if key == "step" else value.to(parameter.device)
        if moments:
            optimiser.state[parameter] = moments
    state: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return state


def _trained(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
