"""A look at a model's processor alone, as loading the model would look at it; no weight is read."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.models.families import known_family
from pulse_unlearn.models.loading import before_weights, quiet_libraries
from pulse_unlearn.models.source import model_source


def look_at_processor(settings: ModelSettings) -> str:
    """Return the fields that matter, such as `patch_size 14`, and what is done otherwise.

    Raises ModelError with all faults. Reads what lies on this machine; the hub is not asked.
    """
    with quiet_libraries(), model_source(settings) as source:
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        options |= {"revision": settings.revision} if settings.revision else {}
        files = before_weights(settings, source, options)
    config, processor, family = files.config, files.processor, files.family
    if known_family(config.model_type) is None:
        return f"{type(processor).__name__}; no entry for family {config.model_type!r} to check by"
    fields = [f"{name} {attrgetter(name)(processor)}" for name in family.processor_fields]
    tokenizer = processor.tokenizer
    fields += [
        f"pad {tokenizer.pad_token!r}",
        f"end {tokenizer.eos_token!r}",
        "chat template",
        *files.notes,
    ]
    return f"{type(processor).__name__}: {', '.join(fields)}"
