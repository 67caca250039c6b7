"""Which layers and tensors of a model an update scope means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from pulse_unlearn.config import Scope
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import SCOPE_PARTS, Family


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
        found = [
            path
            for path, module in _modules_of(model, family, part)
            if isinstance(module, nn.Linear)
        ]
        bare = _bare_matrices(model, family, part) if not found and part == "projector" else []
        layers += found
        matrices += bare
        if not found and not bare:
            where = getattr(family, part)
            problems.append(Problem(f"no linear layer in the {part}", where, f"scope {scope}"))
    if problems:
        raise ModelError(problems)
    return Targets(tuple(layers), tuple(matrices))


def linear_paths(model: nn.Module, family: Family, scope: Scope) -> list[str]:
    """Return the full paths of all linear layers in the scope; raises ModelError without any."""
    return list(targets(model, family, scope).layers)


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


def _bare_matrices(model: nn.Module, family: Family, part: str) -> list[str]:
    return list(
        dict.fromkeys(
            f"{path}.{name}"
            for path, module in _modules_of(model, family, part)
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.dim() == 2
        )
    )


def _nested(family: Family, part: str) -> list[str]:
    """Return the roots of other parts that lie inside this one (Qwen-VL's merger)."""
    own = getattr(family, part)
    others = {
        root
        for parts in SCOPE_PARTS.values()
        for other in parts
        if other != part
        for root in [getattr(family, other)]
    }
    return [root for root in others if _below(root, [own])]


def _below(name: str, roots: list[str]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)
