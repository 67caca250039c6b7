"""A chain of updates as one model folder or as one adapter, with all that loading needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from pulse_unlearn.config import EMBEDDED, ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapter_files import needs_merging
from pulse_unlearn.models.adapters import (
    adapter_names,
    combine_adapters,
    is_full,
    load_adapters,
    save_adapter,
)
from pulse_unlearn.models.checkpoints import embedded_or_named
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.loading import LoadedModel, load_model, quiet_libraries
from pulse_unlearn.models.processors import save_processor

BASE = "base"
"""Folder of the base model inside an adapter's, where it can be had from nowhere else."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and what whoever loads it must know."""

    encoder: Encoder
    base: str
    """What the adapter goes on, as its config names it; empty for a whole model."""


def write_merged(
    settings: ModelSettings, updates: Sequence[Path], folder: Path, *, dtype: str
) -> Written:
    """Write the model with all updates in its weights.

    Added as the run did: in its own precision if it merged them, in float32 if it kept them beside
    the weights. Only the sum is rounded to `dtype`.
    """
    loaded = _load(settings)
    model: Any = loaded.model
    if settings.frozen_adapters == "stacked":
        model = model.float()
    model = load_adapters(model, [*loaded.beside, *updates], how="merged")
    model = model.to(getattr(torch, dtype))
    encoder = Encoder(loaded.processor, loaded.family)
    model.generation_config = _greedy(loaded, encoder)
    with quiet_libraries():
        model.save_pretrained(folder)
    _save_processor(loaded, settings, folder)
    return Written(encoder, "")


def write_adapter(
    settings: ModelSettings, updates: Sequence[Path], folder: Path, *, final: Path
) -> Written:
    """Write all updates as one adapter over the model the run names; `final` is its later place.

    Low-rank updates add up exactly: their ranks are put side by side.
    """
    loaded = _load(settings.model_copy(update={"frozen_adapters": "stacked"}))
    folders = [*loaded.beside, *updates]
    model: Any = load_adapters(loaded.model, folders, how="stacked")
    names = adapter_names(model)
    name = names[0] if len(names) == 1 else combine_adapters(model, names)
    base = settings.source
    if base == EMBEDDED:
        base = str(final / BASE)
        with embedded_or_named(settings) as source:
            shutil.copytree(source, folder / BASE, copy_function=shutil.copyfile)
    elif Path(base).is_dir():
        base = str(Path(base).resolve())
    save_adapter(model, folder, name=name, base=base, revision=settings.revision)
    encoder = Encoder(loaded.processor, loaded.family)
    _greedy(loaded, encoder).save_pretrained(folder)
    _save_processor(loaded, settings, folder)
    return Written(encoder, base)


def require_exportable(settings: ModelSettings, updates: Sequence[Path], *, adapter: bool) -> None:
    """Raise ModelError for a model that cannot be exported in this form; loads nothing."""
    problems = []
    if settings.quantise != "none":
        what = "the run's model is quantised, and its answers are not those of whole weights"
        problems.append(Problem(what, "model.quantise", settings.quantise, allowed="none"))
    if settings.source in settings.trust_remote_code:
        what = "the model is read by code of its own, which an export does not carry"
        problems.append(Problem(what, "model.trust_remote_code", settings.source))
    folders = [*map(Path, settings.adapters), *updates]
    whole = [folder for folder in folders if is_full(folder) or needs_merging(folder)]
    if adapter and whole:
        problems += [
            Problem(
                "an update of whole tensors, or one that scales them (DoRA), adds up to no adapter",
                str(folder),
                fix="use --merged",
            )
            for folder in whole
        ]
    if problems:
        raise ModelError(problems)


def _load(settings: ModelSettings) -> LoadedModel:
    """Load the run's model; raises ModelError if others could not ask it as the run did."""
    loaded = load_model(settings.model_copy(update={"device": "cpu", "device_map": "none"}))
    if loaded.family.template is not None:
        raise ModelError(
            Problem(
                "this family's processor has no chat template, so transformers alone would write "
                "other prompts than the run",
                loaded.family.model_type,
            )
        )
    return loaded


def _save_processor(loaded: LoadedModel, settings: ModelSettings, folder: Path) -> None:
    with embedded_or_named(settings) as source:
        save_processor(loaded.processor, folder, source, settings.revision)


def _greedy(loaded: LoadedModel, encoder: Encoder) -> GenerationConfig:
    """Return the model's generation settings, made to answer as the run asked."""
    found: Any = deepcopy(loaded.model.generation_config)
    found.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=encoder.end_ids,
        pad_token_id=encoder.tokenizer.pad_token_id,
    )
    return found  # type: ignore[no-any-return]
