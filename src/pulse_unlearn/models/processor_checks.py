"""What is wrong with a model's processor, told before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from pulse_unlearn.errors import Problem
from pulse_unlearn.models.families import Family

_PROBE = "Who is this"
_BOUNDS = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
"""Bound on a picture's pixels (Qwen2-VL's class) -> its name in older files."""


def processor_problems(
    processor: Any, family: Family, config: PretrainedConfig, where: str
) -> list[Problem]:
    """Return what is wrong with a processor that would only fail, or mislead, much later."""
    problems = [
        problem
        for name, implied in family.processor_fields.items()
        if (problem := _disagreement(processor, name, implied(config), where))
    ]
    tokenizer = processor.tokenizer
    found, meant = getattr(processor, "image_token_id", None), _placeholders(config)
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


def _placeholders(config: PretrainedConfig) -> set[int]:
    """Return the tokens a prompt may have for a picture: its own, or the one it begins with."""
    names = ("image_token_id", "image_token_index", "boi_token_index")
    return {value for name in names if isinstance(value := getattr(config, name, None), int)}


def _pad_token(tokenizer: Any, config: PretrainedConfig) -> str:
    """Return the token the config pads with, if the tokenizer has it, or else the one that ends."""
    number = getattr(config, "pad_token_id", None)
    known = number is not None and 0 <= number < len(tokenizer)
    return str(tokenizer.convert_ids_to_tokens(number) if known else tokenizer.eos_token)
