"""A model's processor, read so that it works with Pillow alone.

Pictures are always processed by Pillow, whether or not torchvision is installed: the two differ in
the last digits, and a number must not depend on what else is in an environment. Videos need
torchvision and are never shown here, so the video part of a processor is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import transformers
from transformers import (
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from pulse_unlearn.models.families import Family


def load_processor(
    source: str, config: PretrainedConfig, family: Family | None, options: Mapping[str, Any]
) -> Any:
    """Read the processor in a folder or hub repository.

    Raises what transformers raises: OSError, ValueError, TypeError, AttributeError, ImportError.
    """
    auto: Any = AutoProcessor  # its stubs do not know all options
    if options.get("trust_remote_code"):
        return auto.from_pretrained(source, **options)
    kind = _kind(config, family)
    if kind is None:
        return auto.from_pretrained(source, **options)
    values, _ = kind.get_processor_dict(source, **options)
    parts = [_part(name, source, options) for name in kind.get_attributes()]
    processor = without_videos(kind).from_args_and_dict(parts, values)
    return processor if family is None else with_template(processor, family)


@cache
def without_videos(kind: type) -> Any:
    """Return the processor class made to accept None for its video part."""

    def check(self: Any, name: str, argument: Any) -> Any:
        if name == "video_processor" and argument is None:
            return None
        return kind.check_argument_for_proper_class(self, name, argument)  # type: ignore[attr-defined]

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def with_template(processor: Any, family: Family) -> Any:
    """Give the processor the family's template, if it has one and the processor has none."""
    if family.template is None or processor.chat_template:
        return processor
    kind = type(processor)
    processor.__class__ = type(kind.__name__, (kind,), _AS_WRITTEN)
    processor.chat_template = family.template
    return processor


_AS_WRITTEN = {
    name: getattr(ProcessorMixin, name)
    for name in ("__call__", "prepare_inputs_layout", "validate_inputs")
}
"""Methods of a processor that leave texts as they are, and pictures optional."""


def _kind(config: PretrainedConfig, family: Family | None) -> Any:
    if family is not None and family.processor is not None:
        return getattr(transformers, family.processor)
    found = PROCESSOR_MAPPING.get(type(config), None)
    return found if isinstance(found, type) and issubclass(found, ProcessorMixin) else None


def _part(name: str, source: str, options: Mapping[str, Any]) -> Any:
    if name == "video_processor":
        return None
    if name == "image_processor":
        pictures: Any = AutoImageProcessor
        return pictures.from_pretrained(source, backend="pil", **options)
    if name == "tokenizer":
        return AutoTokenizer.from_pretrained(source, **options)
    raise ValueError(f"the processor has a part that is neither for text nor for pictures: {name}")
