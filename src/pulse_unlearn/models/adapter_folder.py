"""PEFT folders: what in them can be held, and that all of it arrives on the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.full import ADAPTER_FILE, does_not_fit

CONFIG_FILE = "adapter_config.json"
_NOTHING_MORE = {"peft_type": "LORA", "bias": "none", "modules_to_save": None, "use_dora": False}
"""Field of the folder's config -> the value of an adapter that is low-rank layers and no more."""
_LINES = 4
"""How much is told of an error that has a line for each of a thousand layers."""

_MOVED = {
    r"^language_model\.model\.": "model.language_model.",
    r"^(vision_tower|multi_modal_projector)\.": r"model.\1.",
}
"""Where LLaVA's layers were in earlier releases of transformers -> where they are now."""


def load_adapter(model: PreTrainedModel | PeftModel, folder: Path, *, name: str) -> PeftModel:
    """Put a folder's adapter on the model; raises ModelError unless every tensor finds its place.

    Names that layers had in earlier releases of transformers are understood.
    """
    _require_low_rank(folder)
    try:
        if not isinstance(model, PeftModel):
            model = PeftModel(model, _config(folder), adapter_name=name)
        else:
            model.add_adapter(name, _config(folder))
        result: Any = model.load_adapter(str(folder), adapter_name=name, key_mapping=_MOVED)
    except (RuntimeError, ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        # Tensors of another size, modules that are not there, fields nobody knows.
        first = "\n".join(str(error).splitlines()[:_LINES])
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {first}") from error
    missing, extra = sorted(result.missing_keys), sorted(result.unexpected_keys)
    if missing or extra:
        raise does_not_fit(
            "adapter",
            folder,
            f"{len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(extra)} unknown ({', '.join(extra[:3])})",
        )
    return model


def _config(folder: Path) -> Any:
    """Return the folder's config, with the layers it names where they are now."""
    config: Any = LoraConfig.from_pretrained(str(folder), inference_mode=True)
    if not isinstance(config.target_modules, str):
        config.target_modules = {_moved(layer) for layer in config.target_modules or ()}
    return config


def _moved(layer: str) -> str:
    for old, new in _MOVED.items():
        layer = re.sub(old, new, layer)
    return layer


def _require_low_rank(folder: Path) -> None:
    """Raise ModelError for a folder without an adapter, a pickled one, or one of another kind.

    PEFT would unpickle where there are no safetensors, and look on the hub where there is nothing.
    """
    try:
        found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise does_not_fit("adapter", folder, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise does_not_fit("adapter", folder, f"{CONFIG_FILE} is no JSON object")
    if not (folder / ADAPTER_FILE).is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise ModelError(
            Problem(
                "pickled adapters are never read" if pickled else "the adapter's file is missing",
                str(folder),
                got=", ".join(pickled),
                allowed=ADAPTER_FILE,
                fix="save it anew with PEFT's save_pretrained on a machine that trusts it"
                if pickled
                else "fetch the adapter again",
            )
        )
    more = {
        field: found.get(field)
        for field, usual in _NOTHING_MORE.items()
        if (found.get(field) or usual) != usual
    }
    if more:
        raise ModelError(
            Problem(
                "the adapter is more than low-rank layers",
                str(folder / CONFIG_FILE),
                got=", ".join(f"{field} {value!r}" for field, value in more.items()),
                allowed="LoRA without these",
                fix="merge it beforehand (PEFT's merge_and_unload) and name the merged model",
            )
        )
