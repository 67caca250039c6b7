"""What an adapter's folder says of itself, read without a model; what cannot be used is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.files import plain_file
from pulse_unlearn.models.checkpoints import ADAPTER_CONFIG, ADAPTER_FILE, pointer_problems

WRAPPED = "base_model.model."
"""What PEFT writes before the path of a layer."""
_HALF = r"(?:\.base_layer)*\.lora_[AB]\.weight$"
_MAGNITUDE = r"(?:\.base_layer)*\.lora_magnitude_vector(?:\.weight)?$"
LAYER = re.compile(rf"^.+?(?={_HALF})")
"""The path of a layer, in the name of one of its tensors without what PEFT writes before it."""
SCALED = re.compile(rf"^.+?(?={_MAGNITUDE})")
"""Likewise, of a layer whose length is trained apart (DoRA)."""
_LLAVA_TRAINED = "non_lora_trainables.bin"
"""What LLaVA's own trainer writes beside an adapter: the projector, pickled."""
_PLAIN: tuple[Any, ...] = (None, False, [], {}, "")
_USUAL: dict[str, tuple[Any, ...]] = {
    "peft_type": (*_PLAIN, "LORA"),
    "bias": (*_PLAIN, "none"),
    # Others, such as PiSSA, take what the adapter begins with out of the base model's weights.
    "init_lora_weights": (*_PLAIN, True, "gaussian", "orthogonal", "eva"),
    **dict.fromkeys(
        (
            "use_qalora",
            "use_bdlora",
            "lora_bias",
            "layer_replication",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "arrow_config",
            "kasa_config",
            "velora_config",
            "megatron_config",  # PEFT would import megatron for it
            "monteclora_config",
        ),
        _PLAIN,
    ),
}
"""Field of the folder's config -> its values in an adapter that can be used."""
_MERGED_ONLY = ("use_dora", "modules_to_save")
"""Fields of adapters that add no product to the weights beneath them, and so are merged."""
_MERGE = "merge it beforehand (PEFT's merge_and_unload) and name the merged model"
SHOWN = 3

Sizes = Mapping[str, tuple[int, ...]]
"""Name of a tensor in the adapter's file -> its shape."""


def needs_merging(folder: Path) -> bool:
    """Tell whether a folder's adapter is merged wherever others may stay beside the weights.

    DoRA scales the weights beneath it, and whole modules (`modules_to_save`) take their place:
    what such an adapter does depends on what it lies on. A folder without a config needs nothing.
    """
    try:
        found = json.loads(plain_file(folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # told when it is attached
        return False
    return isinstance(found, dict) and any(found.get(one) for one in _MERGED_ONLY)


def does_not_fit(what: str, folder: Path, got: str, *, base: str = "") -> ModelError:
    """Return the error for an adapter or update that was made for another model: `base`."""
    return ModelError(
        Problem(
            f"the {what} does not fit the model",
            str(folder),
            got=got,
            fix=f"use the base model the {what} was trained on{base and f' ({base})'}",
        )
    )


def adapter_sizes(folder: Path, found: Mapping[str, Any]) -> Sizes:
    """Return the sizes of the file's tensors by name, without what PEFT writes before it.

    Raises ModelError if some are neither low-rank layers nor what the config, `found`, names.
    """
    try:
        with safe_open(plain_file(folder / ADAPTER_FILE), framework="pt") as file:
            names = list(file.keys())
            sizes = {
                name.removeprefix(WRAPPED): tuple(file.get_slice(name).get_shape())
                for name in names
            }
    except (OSError, SafetensorError) as error:
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {error}") from error
    patterns = [LAYER, *([SCALED] if found.get("use_dora") else [])]
    saved = found.get("modules_to_save") or ()

    def used(name: str) -> bool:
        return any(one.match(name) for one in patterns) or bool(module_of(name, saved))

    others = sorted(
        name
        for name in names
        if not (name.startswith(WRAPPED) and used(name.removeprefix(WRAPPED)))
    )
    if others or not names:
        shown = ", ".join(others[:SHOWN])
        raise ModelError(
            Problem(
                "the adapter's file holds tensors that are no low-rank layers, and these would "
                "not be loaded"
                if others
                else "the adapter's file is empty",
                str(folder / ADAPTER_FILE),
                got=f"{len(others)} of {len(names)} ({shown}{', ...' * (len(others) > SHOWN)})",
                allowed="lora_A.weight and lora_B.weight of layers, as PEFT's save_pretrained "
                "writes them; embed_tokens and lm_head stand there if the vocabulary was changed",
                fix=_MERGE,
            )
        )
    return sizes


def adapter_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config; raises ModelError unless the folder is of low-rank layers.

    PEFT would unpickle where there are no safetensors, and look on the hub where there is nothing.
    """
    pointers = pointer_problems(folder)
    if pointers:
        raise ModelError(pointers)
    try:
        found = json.loads(plain_file(folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise does_not_fit("adapter", folder, f"{ADAPTER_CONFIG} is no JSON object")
    problems = [*_file_problems(folder), *_config_problems(folder, found)]
    if problems:
        raise ModelError(problems)
    return found


def _file_problems(folder: Path) -> list[Problem]:
    """Return what is wrong with the folder's files; none of them is opened."""
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if _LLAVA_TRAINED in pickled:
        what = "the folder is one of LLaVA's own trainer: the projector is in a pickle, and "
        what += "pickles are never read"
        fix = (
            "on a machine that trusts it, `python convert.py FOLDER OUT` (examples/llava-lora of "
            "the repository) makes an adapter for the converted model of it; or merge it with "
            "LLaVA's scripts/merge_lora_weights.py and convert that with transformers' "
            "convert_llava_weights_to_hf.py"
        )
    elif (folder / ADAPTER_FILE).is_file():
        return []
    elif pickled:
        what = "pickled adapters are never read"
        fix = "save it anew with PEFT's save_pretrained on a machine that trusts it"
    else:
        what, fix = "the adapter's file is missing", "fetch the adapter again"
    return [Problem(what, str(folder), got=", ".join(pickled), allowed=ADAPTER_FILE, fix=fix)]


def _config_problems(folder: Path, found: Mapping[str, Any]) -> list[Problem]:
    """Return what the config says beyond low-rank layers."""
    more = [
        f"{field} {found[field]!r}"
        for field, usual in _USUAL.items()
        if field in found and found[field] not in usual
    ]
    if not more:
        return []
    return [
        Problem(
            "the adapter is more than low-rank layers",
            str(folder / ADAPTER_CONFIG),
            got=", ".join(more),
            allowed="LoRA without these",
            fix=_MERGE,
        )
    ]


def module_of(tensor: str, named: Collection[str]) -> str:
    """Return the path of the module that a tensor belongs to, of those named; empty for none."""
    for entry in named:
        found = re.match(rf"(?:.+\.)?{re.escape(entry)}(?=\.)", tensor)
        if found:
            return found[0]
    return ""
