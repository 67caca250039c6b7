"""Muon in the gradients' own precision, for CPUs that do not multiply bfloat16 themselves.

PyTorch's Muon orthogonalises in bfloat16 whatever the parameters are. Emulated, that takes longer
than the rest of a step; in float32 it is a fifth of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .loop import cpu_dtype


class Muon(torch.optim.Muon):
    """The same steps and state as PyTorch's, but for rounding."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient; a closure is not supported."""
        if closure is not None:
            raise ValueError("no closure is called")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state: dict[str, Tensor] = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                momentum = state["momentum_buffer"]
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(momentum, group["momentum"])
                moved = orthogonal(ahead if group["nesterov"] else momentum, group)
                rows, columns = weight.shape
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(moved, alpha=-rate)


def orthogonal(matrix: Tensor, group: dict[str, Any]) -> Tensor:
    """Bring all singular values near 1 by Newton and Schulz's iteration, odd polynomials of X.

    With X of norm 1: X <- a X + b (X X') X + c (X X')^2 X (Jordan et al. 2024, "Muon").
    """
    a, b, c = group["ns_coefficients"]
    wide = matrix.shape[0] <= matrix.shape[1]
    found: Tensor = matrix if wide else matrix.T
    found = found / found.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        square = found @ found.T
        found = a * found + (b * square + c * square @ square) @ found
    return found if wide else found.T


def muon(weights: list[torch.nn.Parameter], *, rate: float) -> torch.optim.Muon:
    """Return the Muon that is fast on this CPU, without weight decay."""
    made = Muon if cpu_dtype() == torch.float32 else torch.optim.Muon
    return made(weights, lr=rate, weight_decay=0.0)
