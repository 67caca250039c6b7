"""PEFT folders: what in them can be used, and that all of it arrives on the model.

Which layers are adapted is told by the tensors' names. A config's `target_modules` may be a pattern
written for the names of another release, and may match layers that were never trained.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapter_files import (
    LAYER,
    SCALED,
    SHOWN,
    Sizes,
    adapter_config,
    adapter_sizes,
    does_not_fit,
    module_of,
)
from pulse_unlearn.models.checkpoints import ADAPTER_FILE
from pulse_unlearn.models.parts import inner_model

_ODD = (ValueError, TypeError, KeyError, AttributeError, re.error)
"""What PEFT raises of a config's values, wherever it comes to use them: a `bias` of null."""
_LINES = 4
"""Lines shown of an error that may have one for each of a thousand layers."""


def attach_adapter(model: PreTrainedModel | PeftModel, folder: Path, *, name: str) -> PeftModel:
    """Put a folder's adapter on the model; raises ModelError unless every tensor finds its place.

    Layers are those the tensors are named for, under the names they had in earlier releases of
    transformers too.
    """
    found = adapter_config(folder)
    sizes = adapter_sizes(folder, found)
    try:
        config: Any = LoraConfig.from_pretrained(str(folder), inference_mode=True)
        placed = _place(inner_model(model), sizes, config)
        if not placed.faults:
            _settle(config, placed)
    except _ODD as error:
        raise _unfit(folder, found, f"{type(error).__name__}: {error}") from error
    if placed.faults:
        raise _unfit(folder, found, "\n".join(placed.faults))
    require_finite(folder / ADAPTER_FILE, "adapter")
    try:
        if not isinstance(model, PeftModel):
            model = PeftModel(model, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        # PEFT hands the mapping to re.subn, which takes a function for the replacement.
        mapping: Any = {
            **dict.fromkeys((LAYER.pattern, SCALED.pattern), lambda match: placed.paths[match[0]]),
            **{f"^{re.escape(old)}$": new for old, new in placed.saved.items()},
        }
        result: Any = model.load_adapter(str(folder), adapter_name=name, key_mapping=mapping)
    except (*_ODD, RuntimeError, OSError, SafetensorError) as error:
        # Tensors of another size, modules PEFT knows no low-rank layer for.
        raise _unfit(folder, found, f"{type(error).__name__}: {error}") from error
    missing, extra = sorted(result.missing_keys), sorted(result.unexpected_keys)
    if missing or extra:
        told = (
            f"{len(missing)} tensors missing ({', '.join(missing[:SHOWN])}), "
            f"{len(extra)} unknown ({', '.join(extra[:SHOWN])})"
        )
        raise _unfit(folder, found, told)
    return model


def merge_adapter(model: PreTrainedModel | PeftModel, folder: Path) -> PreTrainedModel:
    """Add a folder's adapter into the model's weights; as `attach_adapter`."""
    adapted: Any = attach_adapter(model, folder, name="frozen")
    try:
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        what = "merged, the adapter makes weights that are no finite numbers"
        fix = "take an earlier checkpoint of it, or a wider dtype"
        raise ModelError(Problem(what, str(folder), str(error), fix=fix)) from error
    return merged


def require_finite(file: Path, what: str) -> None:
    """Raise ModelError if a file of tensors holds values that are no finite numbers."""
    with safe_open(file, framework="pt") as held:
        names = sorted(held.keys())
        wrong = [name for name in names if not bool(held.get_tensor(name).isfinite().all())]
    if wrong:
        raise ModelError(
            Problem(
                f"the {what} has values that are no finite numbers (NaN or infinite)",
                str(file),
                got=f"{len(wrong)} of {len(names)} tensors ({', '.join(wrong[:SHOWN])})",
                fix="train it again, or fetch it again: it makes every answer worthless",
            )
        )


def _unfit(folder: Path, found: Mapping[str, Any], told: str) -> ModelError:
    first = "\n".join(told.splitlines()[:_LINES])
    base = str(found.get("base_model_name_or_path") or "")
    return does_not_fit("adapter", folder, first, base=base)


@dataclass(frozen=True, slots=True)
class _Placed:
    """An adapter's layers in a model; `faults` is empty if every one has its place there."""

    paths: Mapping[str, str]
    """Path in the file -> path in the model."""
    ranks: Mapping[str, int]
    """Path in the file -> rank of its tensors."""
    linear: Mapping[str, str]
    """`paths` without those whose update is of a bare matrix (`target_parameters`)."""
    saved: Mapping[str, str]
    """Tensor of a module that was trained whole, in the file -> in the model."""
    faults: tuple[str, ...]
    """What does not fit, a line for each kind."""


def _place(model: PreTrainedModel, sizes: Sizes, config: Any) -> _Placed:
    """Find each layer of the file in the model, by its name there or the one it had before.

    `config` is PEFT's.
    """
    modules = dict(model.named_modules())
    renamed = _Renamed(model, modules)
    whole = [name for name in sizes if not LAYER.match(name) and not SCALED.match(name)]
    sizes = {name: size for name, size in sizes.items() if LAYER.match(name)}
    found = {name: renamed(name) for name in dict.fromkeys(map(_path, sizes))}
    saved = _saved(whole, renamed)
    paths = {name: path for name, path in found.items() if path is not None}
    parameters = config.target_parameters or ()
    linear = {
        name: path
        for name, path in paths.items()
        if not _has_matrix(modules[path], path, parameters)
    }
    ranks = {_path(name): size[0] for name, size in sizes.items() if ".lora_A." in name}
    faults = (
        *_absences([name for name in found if name not in paths], modules),
        *_absences([name for name in whole if name not in saved], modules),
        *_untrained(config, paths, renamed),
        *_tied(model, [*paths.values(), *_modules_of(saved.values(), config)], modules),
        *_widths(sizes, linear, modules),
        *_other_ranks(ranks, linear, config),
    )
    return _Placed(paths, ranks, linear, saved, faults)


def _settle(config: Any, placed: _Placed) -> None:
    """Make PEFT's config name exactly these layers, with the rank and scale each had in training.

    Its patterns of ranks and scales were written for the names in the file.
    """
    alphas = {
        name: _declared(config.alpha_pattern, name, config.lora_alpha) for name in placed.linear
    }
    config.target_modules = set(placed.linear.values())
    config.modules_to_save = _modules_of(placed.saved.values(), config) or None
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern = _exceptions(placed.linear, placed.ranks, config.r)
    config.alpha_pattern = _exceptions(placed.linear, alphas, config.lora_alpha)


def _saved(names: Collection[str], renamed: _Renamed) -> dict[str, str]:
    """Return the tensors of modules that were trained whole, by their names in the model."""
    places = {name: renamed(name.rpartition(".")[0]) for name in names}
    return {name: f"{at}.{name.rpartition('.')[2]}" for name, at in places.items() if at}


def _modules_of(tensors: Collection[str], config: Any) -> list[str]:
    """Return the modules that tensors belong to, of those a config says were trained whole."""
    return sorted({module_of(name, config.modules_to_save or ()) for name in tensors})


def _exceptions(linear: Mapping[str, str], values: Mapping[str, Any], usual: Any) -> dict[str, Any]:
    """Return a PEFT pattern that matches one path alone -> its value, where it is not the usual."""
    return {
        f"^{re.escape(path)}": values[name]
        for name, path in linear.items()
        if values[name] != usual
    }


def _declared(patterns: Mapping[str, Any] | None, name: str, usual: Any) -> Any:
    """Return what a config's patterns say of a layer; `usual` where none of them matches."""
    found = patterns or {}
    return found.get(get_pattern_key(list(found), name), usual)


class _Renamed:
    """Finds a layer by its present name or, as the model's own weights are, by an earlier one."""

    def __init__(self, model: Any, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._weights = {f"{path}.weight": True for path in modules}
        self._prefix = model.base_model_prefix
        changes: list[Any] = get_model_conversion_mapping(model, add_legacy=False)
        self._changes = [change for change in changes if isinstance(change, WeightRenaming)]

    def __call__(self, name: str) -> str | None:
        """Return the layer's path in the model; None if it has none."""
        if name in self._modules:
            return name
        new, _ = rename_source_key(f"{name}.weight", self._changes, [], self._prefix, self._weights)
        found = new.removesuffix(".weight")
        return found if found in self._modules else None

    def linear(self) -> list[str]:
        """Return the paths of the model's linear layers, also below other adapters."""
        return [
            path for path, module in self._modules.items() if isinstance(_bare(module), nn.Linear)
        ]


def _bare(module: Any) -> Any:
    """Return the layer itself below adapters that are on it."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _path(tensor: str) -> str:
    found = LAYER.match(tensor)
    assert found is not None  # `adapter_sizes` refused the others
    return found[0]


def _has_matrix(module: nn.Module, path: str, parameters: Collection[str]) -> bool:
    own = [f".{path}.{name}" for name, _ in _bare(module).named_parameters(recurse=False)]
    return any(name.endswith(f".{parameter}") for name in own for parameter in parameters)


def _absences(absent: Collection[str], modules: Collection[str]) -> Iterator[str]:
    """Yield why layers of the file are not in the model, the layers of one reason together."""
    numbered = {_any_number(path) for path in modules}
    reasons: dict[str, list[str]] = {}
    for name in absent:
        tail = "." + ".".join(name.split(".")[-2:])
        alike = next((path for path in modules if path.endswith(tail)), None)
        if _any_number(name) in numbered:
            why = "beyond the model's last layer"
        elif name.endswith("custom_text_proj"):
            why = "of a retrieval model's own head (ColPali, ColQwen)"
        elif alike:
            why = f"named in another layout; here it is {_any_number(alike)}"
        else:
            why = "that the model does not have"
        reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield f"{_layers(names)} {why}"


def _any_number(path: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", path)


def _untrained(config: Any, paths: Mapping[str, str], renamed: _Renamed) -> Iterator[str]:
    """Yield a line about layers that the config names one by one, and the file has nothing for.

    Patterns, and lists with exceptions, may match what was never trained.
    """
    listed = config.target_modules
    excepted = (config.exclude_modules, config.layers_to_transform, config.layers_pattern)
    if not listed or isinstance(listed, str) or any(one is not None for one in excepted):
        return
    ends = tuple(f".{end}" for entry in listed for end in {entry, renamed(entry) or entry})
    named = [path for path in renamed.linear() if f".{path}".endswith(ends)]
    if not named:
        yield "target_modules names no layer of the model"
    lacking = sorted(set(named) - set(paths.values()))
    if lacking:
        yield f"{_layers(lacking)} without tensors in the file"


def _tied(model: Any, paths: Collection[str], modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield a line about an output layer that is the embedding too: merging would change both."""
    given, said = model.get_input_embeddings(), model.get_output_embeddings()
    if said is None or _bare(said).weight is not _bare(given).weight:
        return
    held = [path for path in paths if modules[path] in (said, given)]
    if held:
        yield f"{_layers(held)} sharing its weight with the embedding"


def _widths(
    sizes: Sizes, linear: Mapping[str, str], modules: Mapping[str, nn.Module]
) -> Iterator[str]:
    """Yield a line about layers that take or give another number of values than the model's."""
    wrong: dict[str, list[str]] = {}
    for tensor, size in sizes.items():
        name = _path(tensor)
        field, side = ("in_features", -1) if ".lora_A." in tensor else ("out_features", 0)
        width = getattr(modules[linear[name]], field, None) if name in linear else None
        if width is not None and size[side] != width:
            wrong.setdefault(f"{field} {size[side]}, here {width}", []).append(name)
    if wrong:
        first, names = next(iter(wrong.items()))
        everywhere = list(dict.fromkeys(name for found in wrong.values() for name in found))
        yield f"{_layers(everywhere)} of another width ({names[0]}: {first})"


def _other_ranks(ranks: Mapping[str, int], linear: Mapping[str, str], config: Any) -> Iterator[str]:
    """Yield a line about ranks that the config does not say: the scale rests on them."""
    said = {name: _declared(config.rank_pattern, name, config.r) for name in linear}
    wrong = [name for name in linear if name in ranks and ranks[name] != said[name]]
    if wrong:
        first = wrong[0]
        yield (
            f"{_layers(wrong)} of another rank than adapter_config.json says "
            f"({ranks[first]}, not {said[first]})"
        )


def _layers(names: Collection[str]) -> str:
    """Count layers and name the first few."""
    shown = ", ".join(list(names)[:SHOWN])
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} layer{'s' * (len(names) > 1)} ({shown}{more})"
