"""Folders that are not what they are taken for, told from their small files; no torch is needed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pulse_unlearn.errors import ModelError, Problem

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
LLAVA_TRAINED = "non_lora_trainables.bin"
"""What LLaVA's own trainer writes beside an adapter: the projector, pickled."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""Git LFS writes smaller files than this."""
_ORIGINAL = "mm_"
"""How the fields begin that LLaVA's own code writes into a config.json."""
_CONVERTED = {
    ("1.5", 4096): "llava-hf/llava-1.5-7b-hf",
    ("1.5", 5120): "llava-hf/llava-1.5-13b-hf",
    ("1.6", 4096): "llava-hf/llava-v1.6-vicuna-7b-hf",
    ("1.6", 5120): "llava-hf/llava-v1.6-vicuna-13b-hf",
    ("1.6", 7168): "llava-hf/llava-v1.6-34b-hf",
    ("1.6 mistral", 4096): "llava-hf/llava-v1.6-mistral-7b-hf",
}
"""Version and width of LLaVA's language model -> the same weights as transformers reads them."""


def folder_problems(folder: Path) -> list[Problem]:
    """Return why a folder cannot be read as a model whatever is in its other files."""
    return [*pointer_problems(folder), *_adapter_problems(folder)]


def pointer_problems(folder: Path) -> list[Problem]:
    """Return a problem if files of a folder are Git LFS's pointers to files never fetched."""
    pointers = sorted(path.name for path in folder.glob("*") if _is_pointer(path))
    if not pointers:
        return []
    return [
        Problem(
            "a pointer of Git LFS stands in place of the file",
            str(folder),
            got=", ".join(pointers),
            allowed="the files themselves",
            fix="git lfs install, then in the folder: git lfs pull",
        )
    ]


def unconverted(config: Mapping[str, Any], where: str) -> Problem | None:
    """Return a problem for a LLaVA config of its own code, which transformers takes for a 7B.

    Its sizes stand where transformers does not look for them.
    """
    kind = str(config.get("model_type", ""))
    parts = {"text_config", "vision_config"} & config.keys()
    written = [name for name in config if name.startswith(_ORIGINAL)]
    if not kind.startswith("llava") or parts or (kind != "llava" and not written):
        return None
    converted = _CONVERTED.get((_version(config), int(config.get("hidden_size") or 0)))
    convert = "convert it with transformers' convert_llava_weights_to_hf.py"
    return Problem(
        "the checkpoint is in the form of LLaVA's own code, whose sizes transformers would not "
        "see: it would take any for one of 7B",
        where,
        got=f"config.json with model_type {kind!r}, "
        + (f"{', '.join(written[:3])}, " if written else "")
        + "no text_config, no vision_config",
        allowed="a checkpoint converted for transformers; their names end in -hf",
        fix=f"use {converted}; if the weights are your own, {convert}" if converted else convert,
    )


def own_code(told: str, source: str) -> Problem | None:
    """Return a problem for a model that transformers would read with the model's own code only."""
    if "trust_remote_code" not in told:
        return None
    return Problem(
        "the model is read by Python code of its own, and PULSE runs no code of a model's folder "
        "unless that model is named",
        source,
        allowed="families that transformers has code for",
        fix="use a model of such a family; or, having read that code, "
        f"--set model.trust_remote_code=[{source}]",
    )


def adapter_parameters(folder: Path) -> int:
    """Return how many numbers an adapter has; raises ModelError if its file cannot be read."""
    try:
        with safe_open(folder / ADAPTER_FILE, framework="np") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            Problem("the adapter's file cannot be read", str(folder / ADAPTER_FILE), str(error))
        ) from error


def _version(config: Mapping[str, Any]) -> str:
    patches = str(config.get("mm_patch_merge_type", "flat"))
    if config.get("image_aspect_ratio") != "anyres" and not patches.startswith("spatial"):
        return "1.5"
    return "1.6 mistral" if "Mistral" in str(config.get("architectures")) else "1.6"


def _is_pointer(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size >= _POINTER_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _adapter_problems(folder: Path) -> list[Problem]:
    """Return a problem for an adapter's folder: transformers would load a base model of its own."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return []
    whole = (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()
    base = _base(path)
    return [
        Problem(
            "the folder holds a model and an adapter, and it does not say whether one is in the "
            "other"
            if whole
            else "the folder is an adapter, and no model",
            str(folder),
            got=f"{ADAPTER_CONFIG}{'' if whole else ' without a whole model'}",
            allowed="a model's folder; adapters are named in model.adapters",
            fix=f"move {ADAPTER_CONFIG} and the adapter's file into a folder of their own, and if "
            "the weights do not have it in them name that folder in model.adapters"
            if whole
            else f"--set model.source={base or '<its base model>'} --set model.adapters=[{folder}]",
        )
    ]


def _base(path: Path) -> str:
    """Return the base model an adapter's config names; empty if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(found.get("base_model_name_or_path") or "") if isinstance(found, dict) else ""
