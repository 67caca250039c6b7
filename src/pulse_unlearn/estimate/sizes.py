"""A model's sizes from the small files beside its weights, on torch's meta device.

The files are looked for in the package, a local folder and the hub's cache, and the config at last
among those the package knows; nothing is downloaded, and no weight takes memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files as packaged
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig

from pulse_unlearn.config import ModelSettings, Scope
from pulse_unlearn.errors import ModelError, Problem, SizesUnknown
from pulse_unlearn.models.checkpoints import embedded_or_named, folder_problems, no_hub_id
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.loading import (
    build_on_meta,
    quiet_libraries,
    read_config,
    read_options,
)
from pulse_unlearn.models.parts import FAILURES, family_for, targets, tensor_names

CHARACTERS_PER_TOKEN = 4.0
"""English prose in the tokenizers of today; used only where no tokenizer.json is there."""
TOKENIZER = "tokenizer.json"
_CONFIG = "config.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class PictureRule:
    """How many patches the tower sees of a picture, and how many tokens it becomes."""

    patch: int
    """Pixels along a patch's side."""
    merge: int = 1
    """Patches along the side of what becomes one token."""
    side: int = 0
    """Every picture (or tile) is brought to this many pixels square; 0 keeps its size."""
    extra: int = 0
    """Class tokens beside the patches."""
    keeps_extra: bool = False
    """Whether they become tokens too."""
    tiled_to: int = 0
    """Longer side in pixels before cutting into tiles; 0 for no tiles."""
    pixels: tuple[int, int] = (0, 0)
    """Bounds of a picture that keeps its size."""

    def patches(self, width: int, height: int) -> tuple[int, int]:
        """Return (pictures or tiles, patches of each), class tokens included."""
        wide, high, count = self._sides(width, height)
        return count, (wide // self.patch) * (high // self.patch) + self.extra

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens of the language model the picture takes."""
        wide, high, count = self._sides(width, height)
        unit = self.patch * self.merge
        inside = (wide // unit) * (high // unit) + self.extra * self.keeps_extra
        # A tile stands between two marks of its own.
        return count * (inside + (2 if self.tiled_to else 0))

    def _sides(self, width: int, height: int) -> tuple[int, int, int]:
        """Return (pixels wide, pixels high, how many such pictures or tiles)."""
        if not self.side:
            unit, (least, most) = self.patch * self.merge, self.pixels
            area = width * height
            scale = math.sqrt(min(max(area, least), most) / area)
            wide, high = (max(1, round(edge * scale / unit)) * unit for edge in (width, height))
            return wide, high, 1
        if not self.tiled_to:
            return self.side, self.side, 1
        longer = max(width, height) * self.side
        tiles = math.prod(-(-self.tiled_to * edge // longer) for edge in (width, height))
        return self.side, self.side, tiles + 1 if tiles > 1 else 1


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of a vision tower or a language model, all taken to be like the first."""

    layer: nn.Module
    count: int
    width: int


@dataclass(frozen=True, eq=False)
class SizedModel:
    """A model without numbers, and where its sizes are from."""

    name: str
    origin: str
    config: Any
    family: Family
    module: nn.Module
    """On the meta device, in the settings' dtype and attention."""
    files: Mapping[str, Path]
    """The small files that are here, by name."""

    def trained(self, scope: Scope, rank: int | None = None) -> int:
        """Count the parameters of a LoRA of that rank over the scope, or of its own tensors."""
        # An output layer that is the embedding, too, would be there under one name only.
        own = dict(self.module.named_parameters(remove_duplicate=False))
        if rank is None:
            return sum(own[name].numel() for name in tensor_names(self.module, self.family, scope))
        chosen = targets(self.module, self.family, scope)
        sizes = [own[f"{path}.weight"].shape for path in chosen.layers]
        sizes += [own[name].shape for name in chosen.matrices]
        return rank * sum(map(sum, sizes))

    @cached_property
    def parameters(self) -> int:
        """All parameters of the model."""
        return sum(tensor.numel() for tensor in self.module.parameters())

    @cached_property
    def quantised(self) -> int:
        """Weights of the language model's linear layers, which loading in fewer bits shrinks."""
        layers = targets(self.module, self.family, "llm").layers
        return sum(self.module.get_parameter(f"{path}.weight").numel() for path in layers)

    @property
    def counted_by(self) -> str:
        """Say how text is counted."""
        return TOKENIZER if TOKENIZER in self.files else f"{CHARACTERS_PER_TOKEN:g} characters each"

    @cached_property
    def pictures(self) -> PictureRule:
        """What becomes of a picture."""
        with _told_as_unlike_others(self.name):
            return _with_bounds(_picture_rule(self.config), self.files)

    @property
    def text(self) -> Any:
        """The language model's config."""
        return self.config.get_text_config()

    @cached_property
    def language(self) -> Stack:
        """The language model's layers."""
        with _told_as_unlike_others(self.name):
            return self._stack(self.family.language_model, self.text)

    @cached_property
    def tower(self) -> Stack:
        """The vision tower's layers."""
        with _told_as_unlike_others(self.name):
            return self._stack(self.family.vision_tower, self.config.vision_config)

    def _stack(self, path: str, config: Any) -> Stack:
        count = getattr(config, "num_hidden_layers", None) or getattr(config, "depth", 0)
        found = (m for m in self.module.get_submodule(path).modules() if type(m) is nn.ModuleList)
        layers = next(one for one in found if len(one) == count)
        width = getattr(config, "embed_dim", None) or config.hidden_size
        return Stack(layers[0], len(layers), int(width))


@contextmanager
def _told_as_unlike_others(name: str) -> Iterator[None]:
    """Raise SizesUnknown for a family whose config or modules are named as no other's are."""
    try:
        yield
    except (*FAILURES, StopIteration) as error:
        problem = "sizes of this family cannot be told"
        told = Problem(problem, name, got=f"{type(error).__name__}: {error}")
        raise SizesUnknown(told) from error


class TextCounter:
    """Counts the tokens of a text, with the model's tokenizer.json if it is there."""

    def __init__(self, tokenizer: Path | None) -> None:
        self._tokenizer: Any = None
        if tokenizer is not None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(tokenizer))
            # A file may say to cut and fill up to some length; a model's prompts never are.
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    def __call__(self, text: str) -> int:
        """Return how many tokens the text takes, without a template."""
        if self._tokenizer is None:
            return max(1, round(len(text) / CHARACTERS_PER_TOKEN))
        return len(self._tokenizer.encode(text, add_special_tokens=False))


@cache
def known_configs() -> dict[str, dict[str, Any]]:
    """Return hub id -> what its config.json says of sizes, for models of shipped experiments."""
    path = packaged("pulse_unlearn").joinpath("estimate/known_configs.json")
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def describe(settings: ModelSettings) -> SizedModel:
    """Return the sizes of the model an experiment names.

    Raises SizesUnknown if they cannot be told, and ModelError if its config says that no run could
    use the model.
    """
    known = known_configs()
    with embedded_or_named(settings) as name, quiet_libraries():
        found = _small_files(name, settings)
        if _CONFIG in found:
            path = found[_CONFIG]
            _read(path)  # transformers has no words for a file that is no JSON object
            config = read_config(settings, str(path.parent), read_options(settings))
            origin = f"its config.json ({_where(settings, path)})"
        elif name in known:
            config = AutoConfig.for_model(**known[name])
            origin = "sizes known to the package; the model is not here yet"
        else:
            raise SizesUnknown(
                Problem(
                    "the model's sizes are not known: its config.json is not here",
                    name,
                    allowed=f"a local folder, the hub's cache, or one of {', '.join(known)}",
                    fix=f"hf download {name} config.json",
                )
            )
        family = family_for(config, settings.source, **read_options(settings))
        module = build_on_meta(config, settings)
        config._attn_implementation = settings.attention
    return SizedModel(settings.source, origin, config, family, module, found)


def _picture_rule(config: Any) -> PictureRule:
    """Return what a family's processor does with a picture, as far as its config tells."""
    eyes = config.vision_config
    patch, side = _edge(getattr(eyes, "patch_size", 14)), _edge(getattr(eyes, "image_size", 0))
    if hasattr(eyes, "spatial_merge_size") and not side:
        # Bounds of Qwen2-VL's processor; a preprocessor_config.json may hold others.
        return PictureRule(patch, eyes.spatial_merge_size, pixels=(56 * 56, 28 * 28 * 16384))
    side = side or 448
    if hasattr(config, "scale_factor"):
        return PictureRule(patch, config.scale_factor, side=side, tiled_to=4 * side)
    merge = getattr(eyes, "hidden_stride", 0) or round(1 / getattr(config, "downsample_ratio", 1))
    if hasattr(config, "mm_tokens_per_image"):
        merge = round(side // patch / math.sqrt(config.mm_tokens_per_image))
    return PictureRule(
        patch,
        merge,
        side=side,
        extra=int(eyes.model_type == "clip_vision_model"),
        keeps_extra=getattr(config, "vision_feature_select_strategy", "") == "full",
    )


def _edge(size: Any) -> int:
    """Return the longer of two sides, where a config has two."""
    return int(max(size) if isinstance(size, list | tuple) else size or 0)


def _with_bounds(rule: PictureRule, found: Mapping[str, Path]) -> PictureRule:
    """Return the rule with the bounds the processor's files set."""
    name = next((name for name in _PROCESSORS if name in found), "")
    if not name:
        return rule
    read = _read(found[name])
    read = read.get("image_processor", read)
    size = read.get("size") or {}
    if rule.tiled_to:
        tiled = read.get("do_image_splitting", True)
        return replace(rule, tiled_to=int(size.get("longest_edge") or rule.tiled_to) * bool(tiled))
    if not rule.side:
        least = read.get("min_pixels") or size.get("shortest_edge") or rule.pixels[0]
        most = read.get("max_pixels") or size.get("longest_edge") or rule.pixels[1]
        return replace(rule, pixels=(int(least), int(most)))
    return rule


def _small_files(name: str, settings: ModelSettings) -> dict[str, Path]:
    """Return the files beside the weights that are here, by name."""
    names, folder = (_CONFIG, TOKENIZER, *_PROCESSORS), Path(name)
    if folder.is_dir():
        problems = folder_problems(folder)
        if problems:
            raise ModelError(problems)
        return {file: folder / file for file in names if (folder / file).is_file()}
    if problem := no_hub_id(name):
        raise ModelError(problem)
    from huggingface_hub import try_to_load_from_cache

    found = {file: try_to_load_from_cache(name, file, revision=settings.revision) for file in names}
    return {file: Path(path) for file, path in found.items() if isinstance(path, str)}


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(Problem("the file cannot be read", str(path), str(error))) from error
    if not isinstance(read, dict):
        raise ModelError(Problem("the file is no JSON object", str(path)))
    return read


def _where(settings: ModelSettings, path: Path) -> str:
    if Path(settings.source).is_dir():
        return str(path)
    return "the hub's cache" if "/" in settings.source else "in the package"
