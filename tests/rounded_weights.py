"""Writes `rounded_weights.json`: what torchao makes of small matrices; needs `pip install torchao`.

Made with torchao 0.18.0 and torch 2.13.0 on a CPU: `python tests/rounded_weights.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

CASES = ((8, None), (4, 32), (4, 16), (3, 16), (2, 8))
SHAPE = (6, 64)


def weights() -> torch.Tensor:
    """A matrix with a row of zeros and one whose largest value is negative."""
    made = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    made[1] = 0.0
    made[2, 3] = -5.0
    return made


def main() -> None:
    """Round the matrix in every way and write what it stands for."""
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    found = {}
    for bits, group in CASES:
        model = torch.nn.Sequential(torch.nn.Linear(SHAPE[1], SHAPE[0], bias=False))
        model[0].weight = torch.nn.Parameter(weights())
        dtype = getattr(torch, f"int{bits}")
        if group is None:
            quantize_(model, Int8WeightOnlyConfig())
        else:
            quantize_(model, IntxWeightOnlyConfig(dtype, granularity=PerGroup(group)))
        found[f"{bits}/{group}"] = model[0].weight.dequantize().tolist()
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
