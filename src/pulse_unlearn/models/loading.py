"""A model folder or hub id to model, processor and family, checked before any weight is loaded.

Tried on a CPU: every data type, attention kernels that are installed, activation checkpointing,
folders, adapters, offline reading. Not tried, for want of devices: a `device_map` over several
devices, and loading in 8 or 4 bits, of which only the refusal without bitsandbytes is tested.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as progress_bars

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapters import load_adapters
from pulse_unlearn.models.backends import require_working
from pulse_unlearn.models.chat_template import TODAY, ChatTemplate, stop_clock
from pulse_unlearn.models.checkpoints import (
    TOKENIZER_FILES,
    cached_folder,
    embedded_or_named,
    fetch_command,
    folder_problems,
    is_offline,
    model_source,
    own_code,
    unconverted,
    unknown_source,
)
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import Family, known_family, no_entry
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.parts import FAILURES, family_for
from pulse_unlearn.models.processors import (
    load_processor,
    processor_problems,
    read_whole,
    show_whole,
)

ON_TRIAL = "no entry for family {!r}: three questions decide when it is loaded"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen base model on its device, in evaluation mode, with what encodes for it."""

    model: PreTrainedModel
    processor: Any
    family: Family
    device: torch.device
    """Where inputs go; with a device map, where the first layer lies."""
    beside: tuple[Path, ...] = ()
    """Adapters that belong to the model and are not in its weights: the first of every chain."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than the model's files say."""


@dataclass(slots=True)
class RunCache:
    """What the stages of one run share, which all load one model by one set of settings.

    Changes no bit of a result: pictures are processed, and seen by a tower, one at a time.
    """

    features: Features = field(default_factory=Features)
    _encoder: Encoder | None = None

    def encoder(self, loaded: LoadedModel) -> Encoder:
        """Return the run's encoder; the first model loaded brings it."""
        if self._encoder is None:
            self._encoder = Encoder(loaded.processor, loaded.family)
        return self._encoder


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model that is accepted, as far as the files beside its weights tell."""

    config: PretrainedConfig
    processor: Any
    family: Family
    notes: tuple[str, ...]
    """What is done otherwise than they say."""

    @property
    def said(self) -> str:
        """The fields that must agree, such as `patch_size 14`, and what is done otherwise."""
        kind, tokenizer = type(self.processor).__name__, self.processor.tokenizer
        if self.on_trial:
            return kind
        fields = [
            f"{name} {attrgetter(name)(self.processor)}" for name in self.family.processor_fields
        ]
        fields += [f"pad {tokenizer.pad_token!r}", f"end {tokenizer.eos_token!r}", "chat template"]
        return f"{kind}: {', '.join([*fields, *self.notes])}"

    @property
    def on_trial(self) -> str:
        """Why the weights still have to show that the model reads as it should; mostly empty."""
        if known_family(self.config.model_type) is not None:
            return ""
        return ON_TRIAL.format(self.config.model_type)


def load_model(settings: ModelSettings) -> LoadedModel:
    """Load the model an experiment names; raises ModelError before loading what cannot work."""
    device = _device(settings)
    _require_bitsandbytes(settings)
    with quiet_libraries(), model_source(settings) as source:
        source, options = _located(settings, source)
        files = accept(settings, source, options)
        config, processor, family = files.config, files.processor, files.family
        auto: Any = AutoModelForImageTextToText  # its stubs do not know output_loading_info
        try:
            loaded, report = auto.from_pretrained(
                source,
                config=config,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=settings.attention,
                use_safetensors=True,
                output_loading_info=True,
                **_placement(settings, family),
                **options,
            )
        # Torn files, tensors of another size and attention kernels that are not installed.
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise _cannot_load(settings, error) from error
    _require_all_weights(settings.source, report["missing_keys"])
    placed = settings.device_map != "none" or settings.quantise != "none"
    if not placed:
        loaded.to(device)
    own = tuple(Path(folder) for folder in settings.adapters)
    beside = () if settings.frozen_adapters == "merged" else own
    model: Any = loaded if beside else load_adapters(loaded, own, how="merged")
    model.requires_grad_(False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if placed:
        device = next(model.parameters()).device
    model.eval()
    if known_family(family.model_type) is None:
        require_working(model, processor, family)
    return LoadedModel(model, processor, family, device, beside, files.notes)


def look_at_model(settings: ModelSettings) -> ModelFiles | None:
    """Decide by the files beside a model's weights whether it is accepted, as loading it does.

    The hub is not asked: None for a model of the hub that is not whole in its cache, or of which no
    revision is named. Raises ModelError with all faults.
    """
    if unknown_source(settings):
        return None
    with quiet_libraries(), embedded_or_named(settings) as source:
        if not Path(source).is_dir():
            try:
                cached_folder(settings)
            except ModelError:
                return None
    with quiet_libraries(), model_source(settings) as source:
        options = {**read_options(settings), "local_files_only": True}
        options |= {"revision": settings.revision} if settings.revision else {}
        files = accept(settings, source, options)
        # Loading would find the same: a family without such an attention, say.
        build_on_meta(files.config, settings)
        return files


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep transformers' own progress bars out of ours while inside."""
    shown = progress_bars.is_progress_bar_enabled()
    progress_bars.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            progress_bars.enable_progress_bar()  # type: ignore[no-untyped-call]


def _located(settings: ModelSettings, source: str) -> tuple[str, dict[str, Any]]:
    """Return what to load from, and the options of each `from_pretrained`.

    Raises ModelError if the hub may not be asked and the cache lacks files.
    """
    options: dict[str, Any] = read_options(settings)
    if Path(source).is_dir():
        return source, options
    if is_offline(settings):
        folder = cached_folder(settings)
        problems = folder_problems(folder)
        if problems:
            raise ModelError(problems)
        return str(folder), options
    return source, {**options, "revision": settings.revision}


def accept(settings: ModelSettings, source: str, options: Mapping[str, Any]) -> ModelFiles:
    """Read config and processor, and raise ModelError for whatever would not work with them.

    This decides whether a model is accepted: loading it, `pulse plan` and `pulse doctor` ask here.
    """
    where = settings.source
    config = read_config(settings, source, options)
    family = family_for(config, where, **read_options(settings))
    _require_vocabulary(source)
    try:
        processor = load_processor(source, config, family, options)
    # A tokenizer without the family's special tokens is an attribute or a key that is not there.
    except (OSError, *FAILURES) as error:
        if known_family(config.model_type) is None and not isinstance(error, OSError):
            why = f"its processor cannot be used: {type(error).__name__}: {str(error).strip()}"
            raise no_entry(config.model_type, why) from error
        raise _cannot_load(settings, error) from error
    asked = read_whole(processor)
    problems = processor_problems(processor, family, config, where)
    if problems and not Path(where).is_dir():
        copy = f"in a copy ({fetch_command(settings)} --local-dir FOLDER): "
        problems = [replace(problem, fix=copy + problem.fix) for problem in problems]
    if problems:
        raise ModelError(problems)
    dated = stop_clock(processor)
    ChatTemplate(processor, family)
    show_whole(processor, settings)
    notes = [f"the tokenizer's file asks for {asked}: switched off"] if asked else []
    if dated:
        notes.append(f"the chat template writes the date: always {TODAY}")
    return ModelFiles(config, processor, family, tuple(notes))


def build_on_meta(config: Any, settings: ModelSettings) -> nn.Module:
    """Return the model of a config without weights; raises ModelError if there is none."""
    # `flash_attention_2` cannot be built where it is not installed, and has the same sizes.
    attention = "eager" if settings.attention == "eager" else "sdpa"
    auto: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model: nn.Module = auto.from_config(
                config,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=attention,
                **read_options(settings),
            )
    except FAILURES as error:
        raise _cannot_load(settings, error) from error
    return model.requires_grad_(False)


def read_options(settings: ModelSettings) -> dict[str, Any]:
    """Return the option that lets a model's own code run, where the settings name the model."""
    return {"trust_remote_code": settings.source in settings.trust_remote_code}


def read_config(
    settings: ModelSettings, source: str, options: Mapping[str, Any]
) -> PretrainedConfig:
    """Read a model's config alone; raises ModelError for one that transformers would misread."""
    try:
        written, _ = PretrainedConfig.get_config_dict(source, **options)
        problem = unconverted(written, settings.source)
        if problem:
            raise ModelError(problem)
        config: PretrainedConfig = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise _cannot_load(settings, error) from error
    return config


_VOCABULARY = (*TOKENIZER_FILES, "spiece.model", "tekken.json")


def _require_vocabulary(source: str) -> None:
    """Raise ModelError for a folder without one: transformers may make a tokenizer of nothing."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).is_file() for name in _VOCABULARY):
        raise ModelError(
            Problem(
                "the tokenizer's vocabulary is missing",
                source,
                allowed=" or ".join(_VOCABULARY),
                fix="copy the tokenizer's files from the model this one was made from",
            )
        )


def _placement(settings: ModelSettings, family: Family) -> dict[str, Any]:
    """Return where and in how many bits transformers is to put the weights."""
    placement: dict[str, Any] = {}
    if settings.device_map != "none":
        placement["device_map"] = settings.device_map
    if settings.quantise != "none":
        whole = [family.vision_tower, family.projector, family.head]
        placement["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=settings.quantise == "8bit",
            load_in_4bit=settings.quantise == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, settings.dtype),
            llm_int8_skip_modules=[path.rpartition(".")[2] for path in whole],
        )
    return placement


def _require_bitsandbytes(settings: ModelSettings) -> None:
    if settings.quantise != "none" and find_spec("bitsandbytes") is None:
        raise ModelError(
            Problem(
                "bitsandbytes is not installed",
                "model.quantise",
                got=settings.quantise,
                allowed="none, without it",
                fix="pip install 'pulse-unlearn[quant]'",
            )
        )


def _require_all_weights(where: str, missing: Collection[str]) -> None:
    """Raise ModelError for absent tensors: transformers would draw them at random and go on."""
    if missing:
        raise ModelError(
            Problem(
                "the model's files lack weights",
                where,
                got=f"{len(missing)} missing: {', '.join(sorted(missing)[:3])}",
                fix="fetch the model again",
            )
        )


def _device(settings: ModelSettings) -> torch.device:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            Problem("no CUDA device is available", "model.device", "cuda", "auto, cpu")
        )
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def _cannot_load(settings: ModelSettings, error: Exception) -> ModelError:
    told = f"{type(error).__name__}: {error}"
    code = own_code(told, settings.source)
    if code:
        return ModelError(code)
    if "recognize this architecture" in told:
        told = told.partition(".")[0]
        fix = "use a model of a family that transformers has; a later release may have this one"
    elif "size must have" in told:
        fix = 'mend "size" in preprocessor_config.json'
    elif any(word in told for word in ("attn_implementation", "FlashAttention")):
        fix = "--set model.attention=sdpa, or eager, which every model has"
    elif Path(settings.source).is_dir():
        fix = "complete the folder: it needs config, tokenizer, processor and *.safetensors"
    else:
        fix = fetch_command(settings)
    return ModelError(Problem("the model cannot be loaded", settings.source, got=told, fix=fix))
