"""A model's processor, read so that it works with Pillow alone.

Pictures are always processed by Pillow, whether or not torchvision is installed: the two differ in
the last digits, and a number must not depend on what else is in an environment. Videos need
torchvision and are never shown here, so the video part of a processor is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import Family


def load_processor(
    source: str, config: PretrainedConfig, family: Family | None, options: Mapping[str, Any]
) -> Any:
    """Read the processor in a folder or hub repository.

    Raises what transformers raises: OSError, ValueError, TypeError, AttributeError, ImportError.
    """
    kind = None if options.get("trust_remote_code") else _kind(config, family)
    if kind is None:
        auto: Any = AutoProcessor  # its stubs do not know all options
        found = auto.from_pretrained(source, **options)
        if not isinstance(found, ProcessorMixin):
            raise ValueError(f"{type(found).__name__} is no processor of pictures and text")
        return found
    values, _ = kind.get_processor_dict(source, **options)
    parts = [_part(name, source, options) for name in kind.get_attributes()]
    _require_own(kind, family, [values, *map(vars, filter(None, parts))], source)
    processor = without_videos(kind).from_args_and_dict(parts, values)
    # Some classes take no template and drop the one in the files (BLIP-2).
    processor.chat_template = processor.chat_template or values.get("chat_template")
    return processor if family is None else with_template(processor, family)


@cache
def without_videos(kind: type) -> Any:
    """Return the processor class, made to accept None for its video part if it has one."""
    if "video_processor" not in kind.get_attributes():  # type: ignore[attr-defined]
        return kind

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


def show_whole(processor: Any, settings: ModelSettings) -> None:
    """Make pictures square with borders of the mean colour, not by cropping, if settings ask.

    Raises ModelError for a processor that does not crop to a square.
    """
    if settings.image_aspect == "processor":
        return
    pictures = processor.image_processor
    if type(pictures).__name__ not in ("CLIPImageProcessorPil", "LlavaImageProcessorPil"):
        raise ModelError(
            Problem(
                "pictures of this model cannot be padded",
                "model.image_aspect",
                got=f"pad, with {type(pictures).__name__}",
                allowed="pad with the processor of LLaVA-1.5 (CLIP); processor with any",
                fix="--set model.image_aspect=processor",
            )
        )
    # Imported here: the one class of this module that older releases do not have.
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    values = {name: value for name, value in pictures.to_dict().items() if "_type" not in name}
    processor.image_processor = LlavaImageProcessorPil(**{**values, "do_pad": True})


def read_whole(processor: Any) -> str:
    """Switch off cutting and filling up that a tokenizer's file asks for; return what it asked.

    A processor would pass both on, and cut prompts or move their pictures without a word.
    """
    tokenizer, asked = processor.tokenizer, []
    # The tokenizer itself may have been used since, which switches off what it was made with.
    made = tokenizer.init_kwargs
    if made.get("truncation") or made.get("truncation_strategy"):
        asked.append(f"cutting at {made.get('max_length')} tokens")
    if made.get("padding") or "pad_to_multiple_of" in made:
        asked.append("filling up")
    for name in _CUTS:
        made.pop(name, None)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    return " and ".join(asked)


_CUTS = (
    "max_length",
    "padding",
    "pad_to_multiple_of",
    "stride",
    "truncation",
    "truncation_side",
    "truncation_strategy",
)
"""What a tokenizer was made with that a processor takes for the wish of whoever calls it."""


def _require_own(
    kind: Any, family: Family | None, files: Sequence[Mapping[str, Any]], where: str
) -> None:
    """Raise ModelError where the files were written for another processor than the family's.

    LLaVA's class around Pixtral's tower: its own processor ends every row of a picture with a token
    that LLaVA's would leave out, and no number of tokens would tell.
    """
    if family is not None and family.processor is not None:
        return
    named = {str(file.get("processor_class") or file.get("_processor_class")) for file in files}
    others = sorted(name for name in named - {kind.__name__} if hasattr(transformers, name))
    if others:
        raise ModelError(
            Problem(
                "the processor is another than its family's, so prompts would not be the model's",
                where,
                got=", ".join(others),
                allowed=kind.__name__,
                fix="use a model of the family that is published with its processor",
            )
        )


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
