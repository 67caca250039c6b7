"""Adapters and folders as public files have them, made small over random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import tiny_families as families

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n"

SWIFT = r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*"
SWIFT_LEAVES = r"^(model(?=\.).*\.(k_proj|up_proj|v_proj|down_proj|gate_proj|o_proj|q_proj))$"
FACTORY = r"^(?!.*visual).*(?:o_proj|up_proj|v_proj|down_proj|k_proj|q_proj|gate_proj).*"
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp).*?\.(?:q_proj|v_proj|o_proj))|"
    r"(?:\bmodel\.layers\.[\d]{1,}(?!.*\.experts\.\d)\..*?(?:self_attn|mlp).*?"
    r"\.(?:(?:q_proj|v_proj|o_proj)))"
)
"""What trainers write for `target_modules` of Qwen2-VL, by the names its layers had."""


def qwen_layers() -> list[str]:
    """Return the linear layers of a tiny Qwen2-VL's language model by their names today."""
    model = families.model("qwen2_vl")
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("model.language_model.")
    ]


def before(name: str) -> str:
    """Return the name a layer of Qwen2-VL had before it was moved."""
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def update(name: str, layers: list[str], *, rank: int = 2, seed: int = 1) -> dict[str, Tensor]:
    """Return random halves for layers of a tiny model, by today's names without a prefix."""
    model = families.model(name)
    generator = torch.Generator().manual_seed(seed)
    halves = {}
    for path in layers:
        layer: Any = model.get_submodule(path)
        sizes = {"A": (rank, layer.in_features), "B": (layer.out_features, rank)}
        for side, size in sizes.items():
            halves[f"{path}.lora_{side}.weight"] = torch.randn(size, generator=generator)
    return halves


def write(folder: Path, tensors: dict[str, Tensor], **config: Any) -> Path:
    """Write an adapter's folder as PEFT does; `tensors` are named without PEFT's prefix."""
    folder.mkdir(parents=True)
    said = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "Some/Base-VL"}
    (folder / CONFIG).write_text(json.dumps(said | config), encoding="utf-8")
    named = {f"base_model.model.{name}": value for name, value in tensors.items()}
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file; None takes a field out."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")
