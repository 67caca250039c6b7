"""What a model is, from the small files beside its weights: sizes, question lengths, packing.

Looks in the package, a local folder, the hub's cache, and at last among the models whose sizes the
package knows; nothing is downloaded and, unless a family has no formula, no torch is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulse_unlearn.config import ModelSettings, SpeedSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.checkpoints import embedded_or_named, folder_problems, unconverted
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.formulas import Config, UnknownShape, shape_of, text_config
from pulse_unlearn.models.known_configs import known_configs
from pulse_unlearn.models.shapes import PictureRule, Shape

CHARACTERS_PER_TOKEN = 4.0
"""English prose in the tokenizers of today; used only where no tokenizer.json is there."""
TEMPLATE_TOKENS = 16
"""Beginning, roles and end of a turn; templates of the known families take 8 to 20."""


@dataclass(frozen=True, slots=True)
class Described:
    """A model's sizes and where they are from."""

    name: str
    config: Config
    shape: Shape
    origin: str
    """Which file, or why none."""
    tokenizer: Path | None = None

    def counted(self) -> str:
        """Say how text is counted."""
        return (
            self.tokenizer.name if self.tokenizer else f"{CHARACTERS_PER_TOKEN:g} characters each"
        )


def describe(settings: ModelSettings) -> Described:
    """Describe the model an experiment names; raises ModelError if nothing is known of it."""
    known = known_configs()
    with embedded_or_named(settings) as name:
        files = _files(name, settings)
        if "config.json" in files:
            config = _read(files["config.json"])
            problem = unconverted(config, name)
            if problem:
                raise ModelError(problem)
            origin = f"its config.json ({_where(settings, files['config.json'])})"
        elif name in known:
            config, origin = known[name], "sizes known to the package; the model is not here yet"
        else:
            raise ModelError(
                Problem(
                    "the model's sizes are not known: its config.json is not here",
                    name,
                    allowed=f"a local folder, the hub's cache, or one of {', '.join(known)}",
                    fix=f"hf download {name} config.json",
                )
            )
        shape, how = _shape(config, files.get("config.json"))
        rule = _picture_rule(shape.pictures, files)
        return Described(
            settings.source,
            config,
            replace(shape, pictures=rule),
            origin + how,
            files.get("tokenizer.json"),
        )


def packing_obstacle(config: Config, speed: SpeedSettings, *, attention: str = "sdpa") -> str:
    """Say why questions will not be packed, as far as a config.json tells; empty if they will.

    The same conditions as `backends.obstacle`, which sees the model itself and has the last word.
    """
    if speed.packing == "off":
        return "speed.packing is off"
    family = entry_of(str(config.get("model_type")))
    if family is None:
        return "its family has no entry"
    if family.unpackable:
        return family.unpackable
    if attention == "flash_attention_2":
        return "flash_attention_2 takes no mask of pairs (model.attention: sdpa does)"
    text = text_config(config)
    if set(text.get("layer_types") or ["full_attention"]) != {"full_attention"}:
        return "its layers do not all see the whole sequence"
    # Qwen2's files hold a window that is switched off; for others one that is there is used.
    switched_on = text.get("use_sliding_window", "qwen2" not in str(text.get("model_type")))
    if text.get("sliding_window") and switched_on:
        return "its attention slides over the sequence"
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if "mrope_section" in rope:
        return "its positions are not plain (M-RoPE)"
    return ""


def entry_of(model_type: str) -> Family | None:
    """Return the family's entry; None if there is none."""
    return next((entry for _, entry in FAMILIES if entry.model_type == model_type), None)


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


_SMALL_FILES = (
    "config.json",
    "tokenizer.json",
    "processor_config.json",
    "preprocessor_config.json",
)


def _files(name: str, settings: ModelSettings) -> dict[str, Path]:
    folder = Path(name)
    if folder.is_dir():
        problems = folder_problems(folder)
        if problems:
            raise ModelError(problems)
        return {file: folder / file for file in _SMALL_FILES if (folder / file).is_file()}
    # Here, because importing it takes time that a local model need not spend.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = {
            file: try_to_load_from_cache(name, file, revision=settings.revision)
            for file in _SMALL_FILES
        }
    except HFValidationError as error:
        raise ModelError(
            Problem(
                "neither a folder nor a hub id",
                "model.source",
                got=name,
                allowed="world, an existing folder, or owner/name",
            )
        ) from error
    return {file: Path(path) for file, path in found.items() if isinstance(path, str)}


def _read(path: Path) -> Config:
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


def _shape(config: Config, path: Path | None) -> tuple[Shape, str]:
    try:
        return shape_of(config), ""
    except UnknownShape as why:
        if path is None:
            raise ModelError(Problem(str(why))) from why
        from pulse_unlearn.models.meta import shape_on_meta

        return shape_on_meta(path.parent), f"; {why}, so it was counted on the meta device"


def _picture_rule(rule: PictureRule, files: Mapping[str, Path]) -> PictureRule:
    """Return the rule with the bounds the processor's files set."""
    name = next(
        (n for n in ("preprocessor_config.json", "processor_config.json") if n in files), ""
    )
    if not name:
        return rule
    found = _read(files[name])
    found = found.get("image_processor", found)
    size = found.get("size") or {}
    if rule.tiled_to:
        if found.get("do_image_splitting", True) is False:
            return replace(rule, tiled_to=0)
        return replace(rule, tiled_to=int(size.get("longest_edge") or rule.tiled_to))
    if not rule.side:
        least = found.get("min_pixels") or size.get("shortest_edge") or rule.pixels[0]
        most = found.get("max_pixels") or size.get("longest_edge") or rule.pixels[1]
        return replace(rule, pixels=(int(least), int(most)))
    return rule
