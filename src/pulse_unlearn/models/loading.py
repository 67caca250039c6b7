"""A model folder or hub id to model, processor and family, checked before any weight is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.utils import logging as progress_bars

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import Family, family_of
from pulse_unlearn.models.source import model_source


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen base model on its device, in evaluation mode, with what encodes for it."""

    model: PreTrainedModel
    processor: Any
    family: Family
    device: torch.device


def load_model(settings: ModelSettings) -> LoadedModel:
    """Load the model an experiment names; raises ModelError before loading what cannot work."""
    device = _device(settings)
    with quiet_libraries(), model_source(settings) as source:
        where = settings.source
        options: dict[str, Any] = {"trust_remote_code": False}
        if not Path(source).is_dir():
            options["revision"] = settings.revision
        try:
            config = AutoConfig.from_pretrained(source, **options)
            processor = AutoProcessor.from_pretrained(source, **options)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise _cannot_load(where, error) from error
        family = family_of(config.model_type)
        problems = processor_problems(processor, family, where)
        if problems:
            raise ModelError(problems)
        auto: Any = AutoModelForImageTextToText  # its stubs do not know output_loading_info
        try:
            model, report = auto.from_pretrained(
                source,
                config=config,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=settings.attention,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        # Torn files, tensors of another size and attention kernels that are not installed.
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise _cannot_load(where, error) from error
    _require_all_weights(where, report["missing_keys"])
    model.requires_grad_(False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.to(device)
    return LoadedModel(model.eval(), processor, family, device)


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


def processor_problems(processor: Any, family: Family, where: str) -> list[Problem]:
    """Return what is missing in a processor that would only fail, or mislead, much later."""
    problems = [
        Problem(
            f"the processor has no {name}, so image tokens and image features cannot match",
            where,
            fix=f"set {name} in processor_config.json to the vision tower's value",
        )
        for name in family.processor_fields
        if getattr(processor, name, None) is None
    ]
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:
        problems.append(
            Problem("the tokenizer has no pad token", where, fix="set pad_token in its config")
        )
    if tokenizer.eos_token_id is None:
        problems.append(Problem("the tokenizer has no end-of-turn token", where))
    # A template that only the tokenizer holds is never applied by the processor.
    if not getattr(processor, "chat_template", None):
        problems.append(
            Problem("the processor has no chat template", where, fix="add chat_template.jinja")
        )
    return problems


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


def _cannot_load(where: str, error: Exception) -> ModelError:
    return ModelError(
        Problem(
            "the model cannot be loaded",
            where,
            got=f"{type(error).__name__}: {error}",
            fix=f"name a complete local folder, or fetch the model first: hf download {where}",
        )
    )
