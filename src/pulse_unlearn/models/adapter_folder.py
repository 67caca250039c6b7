"""PEFT folders: what in them can be held, and that all of it arrives on the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapter_layers import LAYER, Placed, Sizes, no_layers, place, settle
from pulse_unlearn.models.checkpoints import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    LLAVA_TRAINED,
    pointer_problems,
)
from pulse_unlearn.models.full import does_not_fit

_PLAIN: tuple[Any, ...] = (None, False, [], {}, "")
_USUAL: dict[str, tuple[Any, ...]] = {
    "peft_type": (*_PLAIN, "LORA"),
    "bias": (*_PLAIN, "none"),
    # Others, such as PiSSA, take what the adapter begins with out of the base model's weights.
    "init_lora_weights": (*_PLAIN, True, "gaussian", "orthogonal", "eva"),
    **dict.fromkeys(
        (
            "modules_to_save",
            "use_dora",
            "use_qalora",
            "use_bdlora",
            "lora_bias",
            "layer_replication",
            "trainable_token_indices",
            "alora_invocation_tokens",
            "arrow_config",
            "kasa_config",
            "velora_config",
            "monteclora_config",
        ),
        _PLAIN,
    ),
}
"""Field of the folder's config -> its values in an adapter that is low-rank layers and no more."""
_MERGE = "merge it beforehand (PEFT's merge_and_unload) and name the merged model"
_LINES = 4
"""How much is told of an error that has a line for each of a thousand layers."""
_SHOWN = 3


def load_adapter(model: PreTrainedModel | PeftModel, folder: Path, *, name: str) -> PeftModel:
    """Put a folder's adapter on the model; raises ModelError unless every tensor finds its place.

    Layers are those the tensors are named for, under the names they had in earlier releases of
    transformers too; the config's own pattern of layers is not asked.
    """
    found = _require_low_rank(folder)
    sizes = _sizes(folder)
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    try:
        config: Any = LoraConfig.from_pretrained(str(folder), inference_mode=True)
        placed = place(base, sizes, config)
    except (ValueError, TypeError, KeyError, re.error) as error:
        raise _unfit(folder, found, f"{type(error).__name__}: {error}") from error
    if placed.faults:
        raise _unfit(folder, found, "\n".join(placed.faults))
    settle(config, placed)
    try:
        if not isinstance(model, PeftModel):
            model = PeftModel(model, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        # PEFT hands the mapping to re.subn, which takes a function for the replacement.
        mapping: Any = {LAYER.pattern: _now(placed)}
        result: Any = model.load_adapter(str(folder), adapter_name=name, key_mapping=mapping)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        # Tensors of another size, modules PEFT knows no low-rank layer for.
        raise _unfit(folder, found, f"{type(error).__name__}: {error}") from error
    missing, extra = sorted(result.missing_keys), sorted(result.unexpected_keys)
    if missing or extra:
        told = (
            f"{len(missing)} tensors missing ({', '.join(missing[:_SHOWN])}), "
            f"{len(extra)} unknown ({', '.join(extra[:_SHOWN])})"
        )
        raise _unfit(folder, found, told)
    return model


def _now(placed: Placed) -> Any:
    return lambda match: placed.paths[match[0]]


def _unfit(folder: Path, found: Mapping[str, Any], told: str) -> ModelError:
    first = "\n".join(told.splitlines()[:_LINES])
    base = str(found.get("base_model_name_or_path") or "")
    return does_not_fit("adapter", folder, first, base=base)


def _sizes(folder: Path) -> Sizes:
    """Return the sizes of the file's tensors; raises ModelError if some are no low-rank layers."""
    try:
        with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
            names = list(file.keys())
            sizes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {error}") from error
    others = no_layers(names)
    if others or not names:
        shown = ", ".join(others[:_SHOWN])
        raise ModelError(
            Problem(
                "the adapter's file holds tensors that are no low-rank layers, and these would "
                "not be loaded"
                if others
                else "the adapter's file is empty",
                str(folder / ADAPTER_FILE),
                got=f"{len(others)} of {len(names)} ({shown}{', ...' * (len(others) > _SHOWN)})",
                allowed="lora_A.weight and lora_B.weight of layers, as PEFT's save_pretrained "
                "writes them; embed_tokens and lm_head stand there if the vocabulary was changed",
                fix=_MERGE,
            )
        )
    return sizes


def _require_low_rank(folder: Path) -> dict[str, Any]:
    """Return the folder's config; raises ModelError unless the folder is of low-rank layers.

    PEFT would unpickle where there are no safetensors, and look on the hub where there is nothing.
    """
    pointers = pointer_problems(folder)
    if pointers:
        raise ModelError(pointers)
    found = _config(folder)
    problems = [*_files(folder), *_more(folder, found)]
    if problems:
        raise ModelError(problems)
    return found


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise does_not_fit("adapter", folder, f"{ADAPTER_CONFIG} is no JSON object")
    return found


def _files(folder: Path) -> list[Problem]:
    """Return what is wrong with the folder's files; none of them is opened."""
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if LLAVA_TRAINED in pickled:
        return [
            Problem(
                "the folder is one of LLaVA's own trainer: the projector is in a pickle, and "
                "pickles are never read",
                str(folder),
                got=", ".join(pickled),
                allowed=ADAPTER_FILE,
                fix="on a machine that trusts it, merge it with LLaVA's "
                "scripts/merge_lora_weights.py, convert the result with transformers' "
                "convert_llava_weights_to_hf.py, and name that model",
            )
        ]
    if (folder / ADAPTER_FILE).is_file():
        return []
    return [
        Problem(
            "pickled adapters are never read" if pickled else "the adapter's file is missing",
            str(folder),
            got=", ".join(pickled),
            allowed=ADAPTER_FILE,
            fix="save it anew with PEFT's save_pretrained on a machine that trusts it"
            if pickled
            else "fetch the adapter again",
        )
    ]


def _more(folder: Path, found: Mapping[str, Any]) -> list[Problem]:
    """Return what the config says beyond low-rank layers."""
    more = {
        field: found[field]
        for field, usual in _USUAL.items()
        if field in found and found[field] not in usual
    }
    if not more:
        return []
    return [
        Problem(
            "the adapter is more than low-rank layers",
            str(folder / ADAPTER_CONFIG),
            got=", ".join(f"{field} {value!r}" for field, value in more.items()),
            allowed="LoRA without these",
            fix=_MERGE,
        )
    ]
