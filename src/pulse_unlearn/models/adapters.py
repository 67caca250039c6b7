"""LoRA by full module path, frozen adapters below the trained one, and the reference view.

The reference inside NPO and KL is the same weights seen with fewer adapters, never a second model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from pulse_unlearn.config import LoraSettings, Scope
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import SCOPE_PARTS, Family

AnyModel = PreTrainedModel | PeftModel

ADAPTER_FILE = "adapter_model.safetensors"
TRAINED = "trained"
"""Name of the adapter being trained; frozen ones are `frozen0`, `frozen1`, ..."""
PREVIOUS = "previous"
"""Name of the frozen copy of the adapter that training continues, when it is the reference."""


def linear_paths(model: nn.Module, family: Family, scope: Scope) -> list[str]:
    """Return the full paths of all linear layers in the scope; raises ModelError if there is none.

    Full paths, because a leaf name such as `q_proj` also matches the vision tower's layers.
    """
    roots = [getattr(family, part) for part in SCOPE_PARTS[scope]]
    found = []
    for root in roots:
        for name, module in model.get_submodule(root).named_modules(prefix=root):
            # Below a frozen adapter the layer itself is called base_layer.
            plain, _, inside = name.partition(".lora_")
            if isinstance(module, nn.Linear) and not inside:
                found.append(plain.removesuffix(".base_layer"))
    if not found:
        raise ModelError(Problem("no linear layer in this scope", got=scope, where=str(roots)))
    return found


def hold_frozen(
    model: AnyModel, folders: Sequence[Path], *, how: Literal["merged", "stacked"]
) -> AnyModel:
    """Put the adapters of earlier stages on the model, frozen, first to last.

    `merged` adds each product BA into its weight; `stacked` keeps them beside the weights, which
    costs time but rounds nothing in half precision.
    """
    if how == "merged":
        for folder in folders:
            merged: Any = _load(model, folder, "frozen")
            model = merged.merge_and_unload(safe_merge=True)
        return model
    held = model
    for number, folder in enumerate(folders):
        held = _load(held, folder, f"frozen{number}")
    if isinstance(held, PeftModel):
        # Loading activates the first adapter only; without this the later ones count for nothing.
        activate(held, adapter_names(held))
    return held


def add_trainable(
    model: AnyModel,
    family: Family,
    scope: Scope,
    *,
    lora: LoraSettings,
    seed: int,
) -> PeftModel:
    """Add a fresh adapter over every linear layer of the scope, initialised from the seed."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any positive number works
        lora_dropout=lora.dropout,
        target_modules=linear_paths(_unwrapped(model), family, scope),
        bias="none",
    )
    torch.manual_seed(seed)
    if isinstance(model, PeftModel):
        model.add_adapter(TRAINED, config)
        wrapped = model
    else:
        wrapped = get_peft_model(model, config, adapter_name=TRAINED)
    return wrapped


def adapter_names(model: PeftModel) -> list[str]:
    """Return the adapters on the model, first to last."""
    return list(model.peft_config)


def activate(model: PeftModel, names: Sequence[str]) -> None:
    """Make exactly these adapters count, and only the trained one trainable."""
    tuner: Any = model.base_model  # PeftModel's own set_adapter takes a single name
    if names:
        tuner.set_adapter(list(names))
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.enable_adapters(bool(names))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{TRAINED}." in name and TRAINED in names)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to be trained, and which of its adapters make up which model."""

    model: PeftModel
    current: tuple[str, ...]
    """Adapters of the model being trained."""
    reference: tuple[str, ...]
    """Adapters of the frozen reference model."""


@dataclass(frozen=True, slots=True)
class Below:
    """Adapter folders of earlier stages, as one stage needs them."""

    chain: tuple[Path, ...] = ()
    """Below the trained adapter, first to last."""
    start_from: Path | None = None
    """Adapter to train further; None for a fresh one."""
    reference_depth: int = 0
    """How many of chain + start_from the reference carries."""


def prepare(
    model: PreTrainedModel,
    below: Below,
    *,
    how: Literal["merged", "stacked"],
    fresh: Callable[[AnyModel], PeftModel],
) -> Prepared:
    """Hold earlier adapters frozen, add the trained one, and name the two views.

    What both the trained and the reference model carry may be merged into the weights; the rest
    stays beside them, so that each can be seen without the other and no second model is needed.
    """
    common = min(below.reference_depth, len(below.chain)) if how == "merged" else 0
    held = hold_frozen(model, below.chain[:common], how="merged")
    held = hold_frozen(held, below.chain[common:], how="stacked")
    frozen = adapter_names(held) if isinstance(held, PeftModel) else []
    reference = frozen[: max(below.reference_depth - common, 0)]
    if below.start_from is None:
        trained = fresh(held)
    else:
        if below.reference_depth > len(below.chain):
            held = _load(held, below.start_from, PREVIOUS)
            reference = [*reference, PREVIOUS]
        trained = _load(held, below.start_from, TRAINED)
    prepared = Prepared(trained, (*frozen, TRAINED), tuple(reference))
    activate(trained, prepared.current)
    return prepared


@contextmanager
def reference_view(prepared: Prepared) -> Iterator[None]:
    """Show the model as its reference, without gradients and without dropout."""
    model = prepared.model
    was_training = model.training
    activate(model, prepared.reference)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        activate(model, prepared.current)
        model.train(was_training)


def trainable_names(model: nn.Module) -> list[str]:
    """Return the names of all trainable tensors, sorted: what the run records."""
    return sorted(name for name, tensor in model.named_parameters() if tensor.requires_grad)


def save_adapter(model: PeftModel, folder: Path, *, base: str) -> None:
    """Write the trained adapter as an ordinary PEFT folder, the same bytes for the same weights."""
    config = model.peft_config[TRAINED]
    config.base_model_name_or_path = base
    model.save_pretrained(
        str(folder),
        selected_adapters=[TRAINED],
        safe_serialization=True,
        # Embeddings are never adapted; by default PEFT asks the hub whether they were resized.
        save_embedding_layers=False,
    )
    nested = folder / TRAINED
    for name in (ADAPTER_FILE, "adapter_config.json"):
        (nested / name).rename(folder / name)
    for leftover in (*nested.iterdir(), folder / "README.md"):
        leftover.unlink(missing_ok=True)
    nested.rmdir()
    path = folder / "adapter_config.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load(model: AnyModel, folder: Path, name: str) -> PeftModel:
    try:
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
            loaded = model
        else:
            loaded = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    except (RuntimeError, ValueError, OSError, SafetensorError) as error:
        # Tensors of another size, modules that are not there, no adapter in the folder.
        raise _does_not_fit(folder, f"{type(error).__name__}: {error}") from error
    _check_keys(loaded, folder, name)
    return loaded


def _check_keys(model: PeftModel, folder: Path, name: str) -> None:
    """Raise ModelError unless the file's tensors are exactly the adapter's tensors."""
    with safe_open(folder / ADAPTER_FILE, framework="pt") as file:
        stored = set(file.keys())
    expected = {
        key.replace(f".{name}.", ".") for key, _ in model.named_parameters() if f".{name}." in key
    }
    if stored != expected:
        missing, extra = sorted(expected - stored), sorted(stored - expected)
        raise _does_not_fit(
            folder,
            f"{len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(extra)} unknown ({', '.join(extra[:3])})",
        )


def _does_not_fit(folder: Path, got: str) -> ModelError:
    return ModelError(
        Problem(
            "the adapter does not fit the model",
            str(folder),
            got=got,
            fix="use the base model the adapter was trained on",
        )
    )


def _unwrapped(model: AnyModel) -> nn.Module:
    return model.get_base_model() if isinstance(model, PeftModel) else model
