"""Which layers of a model an adapter's tensors belong to, whatever its config says of them.

A config's `target_modules` may be a pattern written for the names of another release, and may match
layers that were never trained. The tensors' own names say which were.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from pulse_unlearn.models.full import WRAPPED

Sizes = Mapping[str, tuple[int, ...]]
"""Name of a tensor in the adapter's file -> its shape."""

LAYER = re.compile(r"^.+?(?=(?:\.base_layer)*\.lora_[AB]\.weight$)")
"""The path of a layer, in the name of one of its tensors without what PEFT writes before it."""
_SHOWN = 3


def no_layers(names: Collection[str]) -> list[str]:
    """Return the tensors that are no halves of a linear layer's low-rank update."""
    return sorted(
        name
        for name in names
        if not (name.startswith(WRAPPED) and LAYER.match(name.removeprefix(WRAPPED)))
    )


@dataclass(frozen=True, slots=True)
class Placed:
    """An adapter's layers in a model; `faults` is empty if every one has its place there."""

    paths: Mapping[str, str]
    """Path in the file -> path in the model."""
    ranks: Mapping[str, int]
    """Path in the file -> rank of its tensors."""
    matrices: frozenset[str]
    """Paths in the file whose update is of a matrix without a layer (`target_parameters`)."""
    faults: tuple[str, ...]
    """What does not fit, a line for each kind."""


def place(model: PreTrainedModel, sizes: Sizes, config: Any) -> Placed:
    """Find each layer of the file in the model, by its name there or the one it had before.

    `model` is without PEFT's wrapping; `config` is PEFT's.
    """
    modules = dict(model.named_modules())
    renamed = _Renamed(model, modules)
    paths, absent, matrices = {}, [], set()
    for name in dict.fromkeys(map(_path, sizes)):
        found = renamed(name)
        if found is None:
            absent.append(name)
            continue
        paths[name] = found
        if _has_matrix(modules[found], found, config.target_parameters or ()):
            matrices.add(name)
    ranks = {_path(name): size[0] for name, size in sizes.items() if ".lora_A." in name}
    linear = {name: path for name, path in paths.items() if name not in matrices}
    faults = (
        *_absences(absent, modules),
        *_untrained(config, paths, renamed),
        *_tied(model, paths.values(), modules),
        *_widths(sizes, linear, modules),
        *_other_ranks(ranks, linear, config),
    )
    return Placed(paths, ranks, frozenset(matrices), faults)


def settle(config: Any, placed: Placed) -> None:
    """Make PEFT's config name exactly these layers, with the rank and scale each had in training.

    Patterns of ranks and scales were written for the names in the file, and are read by these.
    """
    linear = {name: path for name, path in placed.paths.items() if name not in placed.matrices}
    alphas = {name: declared(config.alpha_pattern, name, config.lora_alpha) for name in linear}
    config.target_modules = set(linear.values())
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern = {
        _exactly(path): placed.ranks[name]
        for name, path in linear.items()
        if placed.ranks[name] != config.r
    }
    config.alpha_pattern = {
        _exactly(path): alphas[name]
        for name, path in linear.items()
        if alphas[name] != config.lora_alpha
    }


def declared(patterns: Mapping[str, Any] | None, name: str, usual: Any) -> Any:
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
        return [path for path, module in self._modules.items() if _is_linear(module)]


def _is_linear(module: Any) -> bool:
    return isinstance(_bare(module), nn.Linear)


def _bare(module: Any) -> nn.Module:
    """Return the layer itself below adapters that are on it."""
    bare: nn.Module = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    return bare


def _path(tensor: str) -> str:
    found = LAYER.match(tensor.removeprefix(WRAPPED))
    assert found is not None  # `no_layers` refused the others
    return found[0]


def _exactly(path: str) -> str:
    """Return a pattern of PEFT's that matches this path alone."""
    return f"^{re.escape(path)}"


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
        yield f"{_some(names, 'layer')} {why}"


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
        yield f"{_some(lacking, 'layer')} without tensors in the file"


def _tied(model: Any, paths: Collection[str], modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield a line about an output layer that is the embedding too: merging would change both."""
    given, said = model.get_input_embeddings(), model.get_output_embeddings()
    if said is None or _bare(said).weight is not _bare(given).weight:
        return
    held = [path for path in paths if modules[path] is said]
    if held:
        yield f"{_some(held, 'layer')} sharing its weight with the embedding"


def _any_number(path: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", path)


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
        yield f"{_some(everywhere, 'layer')} of another width ({names[0]}: {first})"


def _other_ranks(ranks: Mapping[str, int], linear: Mapping[str, str], config: Any) -> Iterator[str]:
    """Yield a line about ranks that the config does not say: the scale rests on them."""
    said = {name: declared(config.rank_pattern, name, config.r) for name in linear}
    wrong = [name for name in linear if name in ranks and ranks[name] != said[name]]
    if wrong:
        first = wrong[0]
        yield (
            f"{_some(wrong, 'layer')} of another rank than adapter_config.json says "
            f"({ranks[first]}, not {said[first]})"
        )


def _some(names: Collection[str], what: str) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    more = ", ..." if len(names) > _SHOWN else ""
    return f"{len(names)} {what}{'s' * (len(names) > 1)} ({shown}{more})"
