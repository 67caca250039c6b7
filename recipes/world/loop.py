"""The training loop of the embedded model's two parts, continued from its checkpoint if stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

OnStep = Callable[[str, int, int, Mapping[str, float]], None]
"""Told after each step: part of the training, steps done, steps in all, losses."""
Optimisers = Sequence[torch.optim.Optimizer]


def cpu_dtype() -> torch.dtype:
    """Return bfloat16 where this CPU multiplies it itself, else float32: emulated, it is slower.

    By a factor of ten and more, on a CPU with AVX2 alone. Models differ by rounding.
    """
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able["avx512_bf16"] or able["amx_bf16"] else torch.float32


def mixed_precision() -> torch.autocast:
    """Return a context of `cpu_dtype`: products in bfloat16 if that is faster."""
    dtype = cpu_dtype()
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16)


def fit(
    part: str,
    model: nn.Module,
    optimisers: Optimisers,
    losses: Callable[[int], Mapping[str, Tensor]],
    *,
    rates: Callable[[int], Sequence[float]],
    steps: int,
    save_every: int,
    checkpoint: Path,
    on_step: OnStep,
) -> None:
    """Train `model` for `steps`, continuing from `checkpoint` if that file is there.

    Args:
        losses: gives the loss terms of a step, which are summed; a pure function of the step.
        rates: gives the learning rate of each optimiser at a step.
    """
    for step in range(_resume(checkpoint, model, optimisers), steps):
        for optimiser, rate in zip(optimisers, rates(step), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
        terms = losses(step)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(_trained(model).values(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        on_step(part, step + 1, steps, {name: value.item() for name, value in terms.items()})
        if (step + 1) % save_every == 0 or step + 1 == steps:
            _save(checkpoint, model, optimisers, step + 1)


def save_whole(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write beside and rename, so that a kill leaves a whole file."""
    beside = path.with_suffix(".partial")
    save_file(dict(tensors), beside)
    os.replace(beside, path)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _save(path: Path, model: nn.Module, optimisers: Optimisers, step: int) -> None:
    tensors = {f"model.{name}": p.detach().clone() for name, p in _trained(model).items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimiser.{number}.{index}.{name}"] = torch.as_tensor(value).clone()
    save_whole(tensors | {"step": torch.tensor(step)}, path)


def _resume(path: Path, model: nn.Module, optimisers: Optimisers) -> int:
    """Restore a checkpoint if there is one and return the number of finished steps."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in _trained(model).items():
            parameter.copy_(tensors[f"model.{name}"])
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimisers]
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, index, name = key.split(".")
            states[int(number)].setdefault(int(index), {})[name] = tensor
    for optimiser, state in zip(optimisers, states, strict=True):
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    return int(tensors["step"])
