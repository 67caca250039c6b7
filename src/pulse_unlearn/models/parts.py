"""The parts of a loaded model: where they are, and which of their tensors an update scope means.

A family without an entry has its parts inferred from the names in its module tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForImageTextToText, PretrainedConfig

from pulse_unlearn.config import Scope
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import (
    NEEDS_TORCHVISION,
    SCOPE_PARTS,
    UNREADABLE,
    Family,
    known_family,
    no_entry,
)

NAMES: dict[str, tuple[str, ...]] = {
    "vision_tower": ("vision_tower", "visual", "vision_model", "vision_encoder"),
    "projector": (
        "multi_modal_projector",
        "connector",
        "merger",
        "aligner",
        "projector",
        "vision_projection",
        "language_projection",
        "mm_projector",
        "visual_embeddings_table",
    ),
    "language_model": ("language_model", "text_model"),
}
"""What transformers calls each part, the usual name first."""
FAILURES = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    ImportError,
)
"""What transformers raises where a model or processor is given what it does not take."""


def inner_model(model: nn.Module) -> Any:
    """Return the transformers model inside a PEFT wrapper; adapters act in it all the same."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def language_layers(model: nn.Module, family: Family) -> Sequence[nn.Module]:
    """Return the layers of the language model, first to last."""
    language_model = inner_model(model).get_submodule(family.language_model)
    return getattr(language_model, "layers", ())


def family_for(config: PretrainedConfig, where: str, *, trust_remote_code: bool = False) -> Family:
    """Return the family's entry, or one inferred from the model; no weight is loaded.

    `trust_remote_code` lets the model's own code build it. Raises ModelError for a model that is no
    image-text-to-text model of transformers, or whose parts have other names.
    """
    both = (config, config.get_text_config())
    if any(getattr(one, "is_encoder_decoder", False) for one in both):
        raise ModelError(
            Problem(
                "an encoder reads the question, so the answer does not stand behind it",
                where,
                got=repr(config.model_type),
                allowed="models that read question and answer as one sequence",
                fix="use a model of another family",
            )
        )
    family = known_family(config.model_type)
    if family is not None:
        return family
    if config.model_type in UNREADABLE:
        raise no_entry(config.model_type, UNREADABLE[config.model_type])
    if config.model_type in NEEDS_TORCHVISION and find_spec("torchvision") is None:
        raise ModelError(
            Problem(
                "its pictures are processed by torchvision, which is not installed",
                where,
                got=repr(config.model_type),
                allowed="families whose pictures Pillow can process",
                fix="install the torchvision that fits your torch "
                "(https://pytorch.org/get-started/locally); three questions then decide, when the "
                "model is loaded, whether it is accepted",
            )
        )
    auto: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            model = auto.from_config(config, trust_remote_code=trust_remote_code)
    except FAILURES as error:
        raise no_entry(config.model_type, f"{where} cannot be built: {error}") from error
    return infer_family(model, config.model_type)


def infer_family(model: nn.Module, model_type: str) -> Family:
    """Find the parts in the module tree; raises ModelError naming those that are not there."""
    found: dict[str, Any] = {part: _shallowest(model, names) for part, names in NAMES.items()}
    absent = [
        f"no {part} was found (looked for {', '.join(NAMES[part])})"
        for part, path in found.items()
        if path is None
    ]
    if absent:
        raise no_entry(model_type, "; ".join(absent))
    return Family(model_type=model_type, unpackable="its family has no entry", **found)


def _shallowest(model: nn.Module, names: tuple[str, ...]) -> str | None:
    """Return the path nearest the root that ends in one of the names, an earlier name first."""
    paths = {path: path.rpartition(".")[2] for path, _ in model.named_modules()}
    return min(
        (path for path, name in paths.items() if name in names),
        key=lambda path: (path.count("."), names.index(paths[path])),
        default=None,
    )


@dataclass(frozen=True, slots=True)
class Targets:
    """What low-rank updates are added to, by full path."""

    layers: tuple[str, ...]
    """Linear layers."""
    matrices: tuple[str, ...]
    """Parameters a projector multiplies by without a layer of their own (Gemma 3)."""


def targets(model: nn.Module, family: Family, scope: Scope) -> Targets:
    """Return what a low-rank update of the scope is added to.

    Full paths, because a leaf name such as `q_proj` also matches the vision tower's layers. Raises
    ModelError if any part of the scope has nothing to add to.
    """
    layers: list[str] = []
    matrices: list[str] = []
    problems = []
    for part in SCOPE_PARTS[scope]:
        modules = list(_modules_of(model, family, part))
        found = [path for path, module in modules if isinstance(module, nn.Linear)]
        bare = []
        if not found and part == "projector":
            bare = [
                f"{path}.{name}"
                for path, module in modules
                for name, parameter in module.named_parameters(recurse=False)
                if parameter.dim() == 2
            ]
        layers += found
        matrices += dict.fromkeys(bare)
        if not found and not bare:
            where = getattr(family, part)
            problems.append(Problem(f"no linear layer in the {part}", where, f"scope {scope}"))
    if problems:
        raise ModelError(problems)
    return Targets(tuple(layers), tuple(matrices))


def tensor_names(model: nn.Module, family: Family, scope: Scope) -> list[str]:
    """Return the names of all tensors a full update of the scope trains, sorted.

    The output layer belongs to the language model. Scope `all` is every tensor, those between the
    parts included (LLaVA-NeXT's new line). Raises ModelError if a part has none.
    """
    every = [name for name, _ in model.named_parameters()]
    if scope == "all":
        return sorted(every)
    chosen: set[str] = set()
    for part in SCOPE_PARTS[scope]:
        roots = [getattr(family, part)]
        if part == "language_model":
            roots.append(family.head)
        nested = _nested(family, part)
        found = {name for name in every if _below(name, roots) and not _below(name, nested)}
        if not found:
            raise ModelError(Problem(f"no tensor in the {part}", str(roots), f"scope {scope}"))
        chosen |= found
    return sorted(chosen)


def parameters_of(model: nn.Module, family: Family, part: str) -> list[nn.Parameter]:
    """Return the parameters of one part, those of adapters on it included.

    The output layer belongs to the language model; of a part inside another it is the inner one.
    """
    inner = inner_model(model)
    roots = [getattr(family, part)]
    if part == "language_model":
        roots.append(family.head)
    within = _nested(family, part)
    apart = {id(p) for root in within for p in inner.get_submodule(root).parameters()}
    every = [p for root in roots for p in inner.get_submodule(root).parameters()]
    return [parameter for parameter in every if id(parameter) not in apart]


def _modules_of(model: nn.Module, family: Family, part: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module below a part, those of another part inside it left out."""
    root = getattr(family, part)
    nested = _nested(family, part)
    for name, module in model.get_submodule(root).named_modules(prefix=root):
        # Below a frozen adapter the layer itself is called base_layer.
        plain, _, inside = name.partition(".lora_")
        plain = plain.removesuffix(".base_layer")
        if not inside and not _below(plain, nested):
            yield plain, module


def _nested(family: Family, part: str) -> list[str]:
    """Return the roots of other parts that lie inside this one (Qwen-VL's merger)."""
    others = {getattr(family, other) for other in NAMES if other != part}
    return [root for root in others if _below(root, [getattr(family, part)])]


def _below(name: str, roots: list[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)
