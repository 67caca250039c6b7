"""A look at a model's processor alone, as loading the model would look at it; no weight is read."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from transformers import AutoConfig

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.describe import entry_of
from pulse_unlearn.models.loading import quiet_libraries
from pulse_unlearn.models.parts import FAILURES
from pulse_unlearn.models.processors import load_processor, processor_problems
from pulse_unlearn.models.source import model_source


def look_at_processor(settings: ModelSettings) -> str:
    """Return the fields that matter, such as `patch_size 14`; raises ModelError with all faults."""
    with quiet_libraries(), model_source(settings) as source:
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        options |= {"revision": settings.revision} if settings.revision else {}
        try:
            config = AutoConfig.from_pretrained(source, **options)
            family = entry_of(config.model_type)
            processor = load_processor(str(source), config, family, options)
        # Besides missing files: a processor whose parts are not installed, or do not fit.
        except (OSError, *FAILURES) as error:
            raise ModelError(
                Problem(
                    "the processor cannot be read",
                    settings.source,
                    got=f"{type(error).__name__}: {error}",
                    fix=f"name a complete folder, or fetch it first: hf download {settings.source}",
                )
            ) from error
    if family is None:
        return f"{type(processor).__name__}; no entry for family {config.model_type!r} to check by"
    problems = processor_problems(processor, family, config, settings.source)
    if problems:
        raise ModelError(problems)
    fields = [f"{name} {attrgetter(name)(processor)}" for name in family.processor_fields]
    tokenizer = processor.tokenizer
    fields += [f"pad {tokenizer.pad_token!r}", f"end {tokenizer.eos_token!r}", "chat template"]
    return f"{type(processor).__name__}: {', '.join(fields)}"
