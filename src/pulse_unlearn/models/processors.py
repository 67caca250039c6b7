"""A model's processor, read so that it works with Pillow alone.

Pictures are processed by Pillow, whether or not torchvision is installed: the two differ in the
last digits, and a number must not depend on what else is in an environment. Only families that have
no class for Pillow (`families.NEEDS_TORCHVISION`) take torchvision, where it is. Videos need
torchvision and are never shown here, so the video part of a processor is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
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
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, VIDEO_PROCESSOR_NAME
from transformers.utils.hub import cached_file

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.files import plain_file
from pulse_unlearn.models.families import Family

_PROBE = "Who is this"
_AS_WRITTEN = {
    name: getattr(ProcessorMixin, name)
    for name in ("__call__", "prepare_inputs_layout", "validate_inputs")
}
"""Methods of a processor that leave texts as they are, and pictures optional."""
_BOUNDS = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
"""Bound on a picture's pixels (Qwen2-VL's class) -> its name in older files."""


def load_processor(
    source: str, config: PretrainedConfig, family: Family, options: Mapping[str, Any]
) -> Any:
    """Read the processor in a folder or hub repository.

    Raises what transformers raises: OSError, ValueError, TypeError, AttributeError, ImportError.
    """
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    if family.processor is not None:
        kind = getattr(transformers, family.processor)
    own = isinstance(kind, type) and issubclass(kind, ProcessorMixin)
    if not own or options.get("trust_remote_code"):
        auto: Any = AutoProcessor  # its stubs do not know all options
        found = auto.from_pretrained(source, **options)
        if not isinstance(found, ProcessorMixin):
            raise ValueError(f"{type(found).__name__} is no processor of pictures and text")
        return found
    values, _ = kind.get_processor_dict(source, **options)
    parts = [_part(name, source, options) for name in kind.get_attributes()]
    if family.processor is None:
        _require_own(kind, [values, *map(vars, filter(None, parts))], source)
    processor = without_videos(kind).from_args_and_dict(parts, values)
    # Some classes take no template and drop the one in the files (BLIP-2).
    processor.chat_template = processor.chat_template or values.get("chat_template")
    return with_template(processor, family)


def _part(name: str, source: str, options: Mapping[str, Any]) -> Any:
    if name == "video_processor":
        return None
    if name == "image_processor":
        pictures: Any = AutoImageProcessor
        return pictures.from_pretrained(source, backend="pil", **options)
    if name == "tokenizer":
        return AutoTokenizer.from_pretrained(source, **options)
    raise ValueError(f"the processor has a part that is neither for text nor for pictures: {name}")


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


def save_processor(processor: Any, folder: Path, source: str, revision: str | None) -> None:
    """Write a processor as it is used here; its video part, left out here, as its source has it.

    Raises OSError.
    """
    kind = type(processor)
    parts = [name for name in kind.get_attributes() if name != "video_processor"]
    whole = len(parts) == len(kind.get_attributes())
    if not whole:
        named = {"get_attributes": classmethod(lambda cls: parts)}
        processor.__class__ = type(kind.__name__, (kind,), named)
    try:
        processor.save_pretrained(folder)
    finally:
        processor.__class__ = kind
    if whole:
        return
    videos = _video_settings(source, revision)
    if videos:
        text = json.dumps(videos, indent=2) + "\n"
        (folder / VIDEO_PROCESSOR_NAME).write_text(text, encoding="utf-8")


def _video_settings(source: str, revision: str | None) -> dict[str, Any]:
    """Return how a model's files process videos, where transformers looks for it; {} for nowhere.

    Without a file of their own, videos are processed as the older file says of pictures.
    """
    for name in (VIDEO_PROCESSOR_NAME, PROCESSOR_NAME, IMAGE_PROCESSOR_NAME):
        path = cached_file(
            source,
            name,
            revision=revision,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
        )
        if path is None:
            continue
        found: dict[str, Any] = json.loads(plain_file(Path(path)).read_text(encoding="utf-8"))
        found = found.get("video_processor", {} if name == PROCESSOR_NAME else found)
        if found:
            return found
    return {}


def with_template(processor: Any, family: Family) -> Any:
    """Give the processor the family's template, if it has one and the processor has none."""
    if family.template is None or processor.chat_template:
        return processor
    kind = type(processor)
    processor.__class__ = type(kind.__name__, (kind,), _AS_WRITTEN)
    processor.chat_template = family.template
    return processor


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
"""Arguments of a tokenizer's making that a processor would pass on with every call."""


def _require_own(kind: Any, files: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise ModelError where the files were written for another processor than the family's.

    LLaVA's class around Pixtral's tower: its own processor ends every row of a picture with a token
    that LLaVA's would leave out, and no number of tokens would tell.
    """
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


def processor_problems(
    processor: Any, family: Family, config: PretrainedConfig, where: str
) -> list[Problem]:
    """Return what is wrong with a processor that would only fail, or mislead, much later."""
    problems = [
        problem
        for name, implied in family.processor_fields.items()
        if (problem := _disagreement(processor, name, implied(config), where))
    ]
    tokenizer, found = processor.tokenizer, getattr(processor, "image_token_id", None)
    # A prompt's token for a picture is its own, or the one that its tokens begin with.
    ids = ("image_token_id", "image_token_index", "boi_token_index")
    meant = {number for name in ids if isinstance(number := getattr(config, name, None), int)}
    if found is not None and meant and found not in meant:
        problems.append(
            Problem(
                "the tokenizer has another number for a picture's token than the model's config",
                where,
                got=str(found),
                allowed=" or ".join(map(str, sorted(meant))),
                fix="take config.json and the tokenizer's files from one revision",
            )
        )
    problems += _tokenizer_problems(tokenizer, config, where)
    problems += _unbounded(processor.image_processor, where)
    # A template that only the tokenizer holds is never applied by the processor.
    if not getattr(processor, "chat_template", None):
        problems.append(
            Problem(
                "the processor has no chat template",
                where,
                fix="write the tokenizer's, from tokenizer_config.json, into chat_template.jinja"
                if getattr(tokenizer, "chat_template", None)
                else "add chat_template.jinja, from a later revision of the repository if there is "
                "one: the form of a prompt as the model card gives it",
            )
        )
    return problems


def _tokenizer_problems(tokenizer: Any, config: PretrainedConfig, where: str) -> list[Problem]:
    problems = []
    written = tokenizer.decode(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    if " " not in written.strip():
        problems.append(
            Problem(
                "the tokenizer loses the spaces between words",
                where,
                got=f"{_PROBE!r} comes back as {written!r} from {type(tokenizer).__name__}",
                allowed=repr(_PROBE),
                fix='if tokenizer.json is a byte-level one, write "tokenizer_class": '
                '"TokenizersBackend" into tokenizer_config.json',
            )
        )
    if tokenizer.pad_token_id is None:
        problems.append(
            Problem(
                "the tokenizer has no pad token",
                where,
                fix=f'write "pad_token": "{_pad_token(tokenizer, config)}" '
                "into tokenizer_config.json",
            )
        )
    if tokenizer.eos_token_id is None:
        problems.append(
            Problem(
                "the tokenizer has no end-of-turn token",
                where,
                fix='write "eos_token" into tokenizer_config.json',
            )
        )
    return problems


def _unbounded(pictures: Any, where: str) -> list[Problem]:
    """Return a problem for a processor of pictures of any size that lacks one of their bounds."""
    wanted = getattr(type(pictures), "size", None)
    if not isinstance(wanted, Mapping) or set(wanted) != set(_BOUNDS):
        return []
    size = {name: value for name, value in dict(pictures.size).items() if value}
    absent = [name for name in _BOUNDS if name not in size]
    if not absent:
        return []
    meant = {name: size.get(name) or size.get(old) or wanted[name] for name, old in _BOUNDS.items()}
    return [
        Problem(
            f"the size of pictures has no {' and no '.join(absent)}, and none could be shown",
            where,
            got=json.dumps(size),
            allowed="least and most pixels of a picture, as shortest_edge and longest_edge",
            fix=f'write "size": {json.dumps(meant)} into preprocessor_config.json',
        )
    ]


def _disagreement(processor: Any, name: str, implied: Any, where: str) -> Problem | None:
    """Return a problem unless the processor's attribute is what the model's config implies."""
    found = processor
    for part in name.split("."):
        found = getattr(found, part, None)
    # Sizes are written as a number, or as that number twice.
    implied = implied[0] if isinstance(implied, list | tuple) else implied
    if found is None:
        fault = f"the processor has no {name}"
    elif implied is not None and found != implied:
        fault = f"the processor's {name} is not what the model's config implies"
    else:
        return None
    leaf = name.rpartition(".")[2]
    file = "preprocessor_config.json" if "." in name else "processor_config.json"
    value = "the vision tower's value" if implied is None else json.dumps(implied)
    return Problem(
        f"{fault}, so image tokens and image features cannot match",
        where,
        got=repr(found),
        allowed=value,
        fix=f'write "{leaf}": {value} into {file}',
    )


def _pad_token(tokenizer: Any, config: PretrainedConfig) -> str:
    """Return the token the config pads with, if the tokenizer has it, or else the one that ends."""
    number = getattr(config, "pad_token_id", None)
    known = number is not None and 0 <= number < len(tokenizer)
    return str(tokenizer.convert_ids_to_tokens(number) if known else tokenizer.eos_token)
