"""Trained updates over a frozen model: LoRA by full module path, or whole tensors (`full`).

The reference inside NPO and KL is the same weights seen with fewer adapters, never a second model.
A full update writes over its own reference, so the tensors that changed since are kept beside it as
they were: their memory again, not the model's, and only for methods that need a reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from pulse_unlearn.config import LoraSettings, Scope
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.adapter_files import WRAPPED, does_not_fit, needs_merging
from pulse_unlearn.models.adapter_folder import attach_adapter, merge_adapter, require_finite
from pulse_unlearn.models.checkpoints import ADAPTER_CONFIG, ADAPTER_FILE, FULL_FILE
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.parts import inner_model, targets, tensor_names

AnyModel = PreTrainedModel | PeftModel

TRAINED = "trained"
"""Name of the adapter being trained; frozen ones are `frozen0`, `frozen1`, ..."""
PREVIOUS = "previous"
"""Name of the frozen copy of the adapter that training continues, when it is the reference."""
COMBINED = "combined"
"""Name of the adapter that several add up to."""


def load_adapters(
    model: AnyModel, folders: Sequence[Path], *, how: Literal["merged", "stacked"]
) -> AnyModel:
    """Put the updates of earlier stages on the model, frozen, first to last.

    `merged` adds each product BA into its weight; `stacked` keeps them beside the weights, which
    costs time but rounds nothing in half precision. Up to the last that is no low-rank product (a
    full update, DoRA, modules trained whole) all are merged.
    """
    merged = len(folders) if how == "merged" else _upto_last_merged(folders)
    for folder in folders[:merged]:
        if is_full(folder):
            _load_full(model, folder)
        else:
            model = merge_adapter(model, folder)
    held = model
    for number, folder in enumerate(folders[merged:]):
        held = attach_adapter(held, folder, name=f"frozen{number}")
    if isinstance(held, PeftModel):
        # Loading activates the first adapter only; without this the later ones count for nothing.
        activate(held, adapter_names(held))
    return held


def _upto_last_merged(folders: Sequence[Path]) -> int:
    """Return how many folders there are up to the last that can only be merged, with it."""
    held = (n for n, one in enumerate(folders, 1) if is_full(one) or needs_merging(one))
    return max(held, default=0)


def add_trainable(
    model: AnyModel, family: Family, scope: Scope, *, lora: LoraSettings, seed: int
) -> PeftModel:
    """Add a fresh adapter over every linear layer of the scope, initialised from the seed."""
    chosen = targets(inner_model(model), family, scope)
    if chosen.matrices and lora.dropout:
        problem = "PEFT adds no dropout to a matrix without a layer"
        where = ", ".join(chosen.matrices)
        raise ModelError(Problem(problem, where, f"{lora.dropout}", fix="set lora.dropout to 0"))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any positive number works
        lora_dropout=lora.dropout,
        target_modules=list(chosen.layers),
        target_parameters=list(chosen.matrices) or None,
        bias="none",
    )
    torch.manual_seed(seed)
    if not isinstance(model, PeftModel):
        return get_peft_model(model, config, adapter_name=TRAINED)
    model.add_adapter(TRAINED, config)
    return model


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
class TrainableModel:
    """A model ready to be trained, and what makes up which model."""

    model: AnyModel
    current: tuple[str, ...]
    """Adapters of the model being trained."""
    reference: tuple[str, ...]
    """Adapters of the frozen reference model."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors of the reference where the model's own have been written over since."""
    has_reference: bool = True


@dataclass(frozen=True, slots=True)
class AdapterStack:
    """Update folders of earlier stages, as one stage needs them."""

    chain: tuple[Path, ...] = ()
    """Below the trained update, first to last."""
    start_from: Path | None = None
    """Update to train further; None for a fresh one."""
    reference_depth: int = 0
    """How many of chain + start_from the reference carries."""
    keep_reference: bool = True
    """False where no reference will be asked; a full update then needs no copies."""


def prepare(
    model: PreTrainedModel,
    stack: AdapterStack,
    *,
    how: Literal["merged", "stacked"],
    fresh: Callable[[AnyModel], PeftModel],
) -> TrainableModel:
    """Hold earlier updates frozen, add the trained adapter, and name the two views.

    What both the trained and the reference model carry may be merged into the weights; the rest
    stays beside them, so that each can be seen without the other and no second model is needed.
    """
    common = min(stack.reference_depth, len(stack.chain)) if how == "merged" else 0
    merged = max(common, _upto_last_merged(stack.chain))
    base, kept = _merge(model, stack, upto=merged, trained=())
    held = load_adapters(base, stack.chain[merged:], how="stacked")
    frozen = adapter_names(held) if isinstance(held, PeftModel) else []
    reference = frozen[: max(stack.reference_depth - merged, 0)]
    if stack.start_from is None:
        trained = fresh(held)
    else:
        if stack.reference_depth > len(stack.chain):
            held = attach_adapter(held, stack.start_from, name=PREVIOUS)
            reference = [*reference, PREVIOUS]
        trained = attach_adapter(held, stack.start_from, name=TRAINED)
    prepared = TrainableModel(trained, (*frozen, TRAINED), tuple(reference), kept)
    activate(trained, prepared.current)
    return prepared


def prepare_full(
    model: PreTrainedModel, stack: AdapterStack, *, family: Family, scope: Scope
) -> TrainableModel:
    """Add earlier updates into the weights and make every tensor of the scope trainable.

    Keeps copies of what the reference has and the model will not have.
    """
    names = tensor_names(model, family, scope)
    start = () if stack.start_from is None else (stack.start_from,)
    order = replace(stack, chain=(*stack.chain, *start))
    base, kept = _merge(model, order, upto=len(order.chain), trained=names)
    wanted = set(names)
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(name in wanted)
    return TrainableModel(base, (), (), kept, has_reference=stack.keep_reference)


def _merge(
    model: PreTrainedModel, stack: AdapterStack, *, upto: int, trained: Sequence[str]
) -> tuple[AnyModel, dict[str, Tensor]]:
    """Add the first updates into the weights; return frozen copies of what the reference lacks.

    These are the tensors changed by updates beyond the reference's depth, and by this training.
    """
    depth = min(stack.reference_depth, upto)
    base = load_adapters(model, stack.chain[:depth], how="merged")
    later = stack.chain[depth:upto]
    kept: dict[str, Tensor] = {}
    if stack.keep_reference:
        changed = {name for folder in later for name in _touched(folder)} | set(trained)
        parameters = dict(base.named_parameters())
        kept = {name: parameters[name].detach().clone() for name in sorted(changed)}
    return load_adapters(base, later, how="merged"), kept


@contextmanager
def reference_view(prepared: TrainableModel) -> Iterator[None]:
    """Show the model as its reference, without gradients and without dropout.

    Raises ValueError if the model was prepared without one.
    """
    if not prepared.has_reference:
        raise ValueError("no reference was kept for this training")
    model = prepared.model
    was_training = model.training
    if isinstance(model, PeftModel):
        activate(model, prepared.reference)
    model.eval()
    try:
        with torch.no_grad(), _swapped(model, prepared.kept):
            yield
    finally:
        if isinstance(model, PeftModel):
            activate(model, prepared.current)
        model.train(was_training)


def trainable_names(model: nn.Module) -> list[str]:
    """Return the names of all trainable tensors, sorted: what the run records."""
    return sorted(name for name, tensor in model.named_parameters() if tensor.requires_grad)


def save_trained(
    model: AnyModel, folder: Path, *, base: str, trained: Mapping[str, Tensor] | None = None
) -> None:
    """Write what was trained: an ordinary PEFT folder, or the tensors of a full update.

    The same weights give the same bytes; `base` is the model's name for PEFT. `trained` are the
    tensors of a full update of which the model holds a part only.
    """
    if not isinstance(model, PeftModel):
        folder.mkdir(parents=True, exist_ok=True)
        trained = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in sorted((trained or dict(model.named_parameters())).items())
            if trained or tensor.requires_grad
        }
        save_file(trained, folder / FULL_FILE, metadata={"format": "pt"})
        return
    save_adapter(model, folder, name=TRAINED, base=base)


def save_adapter(
    model: PeftModel, folder: Path, *, name: str, base: str, revision: str | None = None
) -> None:
    """Write one of the model's adapters as an ordinary PEFT folder; the same weights, same bytes.

    `base` and `revision` name the model it goes on.
    """
    model.peft_config[name].base_model_name_or_path = base
    model.peft_config[name].revision = revision
    model.save_pretrained(
        str(folder),
        selected_adapters=[name],
        safe_serialization=True,
        # Embeddings are never adapted; by default PEFT asks the hub whether they were resized.
        save_embedding_layers=False,
    )
    nested = folder / name
    for file in (ADAPTER_FILE, ADAPTER_CONFIG):
        (nested / file).rename(folder / file)
    for leftover in (*nested.iterdir(), folder / "README.md"):
        leftover.unlink(missing_ok=True)
    nested.rmdir()
    path = folder / ADAPTER_CONFIG
    written = json.loads(path.read_text(encoding="utf-8"))
    written["target_modules"] = sorted(written["target_modules"])
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def combine_adapters(model: PeftModel, names: Sequence[str]) -> str:
    """Add one adapter that does exactly what the named ones do together; return its name.

    Ranks are put side by side: A = [s1 A1; s2 A2], B = [B1, B2]. Raises ModelError for updates of
    bare matrices, which PEFT does not combine.
    """
    tuner: Any = model.base_model
    configs: dict[str, Any] = model.peft_config
    bare = sorted({one for name in names for one in configs[name].target_parameters or ()})
    if bare:
        raise ModelError(
            Problem(
                "updates of matrices without a layer are not combined into one adapter",
                got=", ".join(bare),
                fix="export the merged model",
            )
        )
    # The new adapter takes over the first one's config; its scale is 1 by the plain rule alone.
    configs[names[0]].use_rslora = False
    tuner.add_weighted_adapter(list(names), [1.0] * len(names), COMBINED, combination_type="cat")
    return COMBINED


def is_full(folder: Path) -> bool:
    """Tell whether a stage left whole tensors and not an adapter."""
    return (folder / FULL_FILE).is_file()


def _load_full(model: nn.Module, folder: Path) -> None:
    """Write a stage's tensors over the model's; raises ModelError if they do not fit it."""
    parameters = dict(model.named_parameters())
    try:
        with safe_open(folder / FULL_FILE, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise does_not_fit("update", folder, f"{type(error).__name__}: {error}") from error
    wrong = [
        name
        for name, tensor in sorted(found.items())
        if name not in parameters or parameters[name].shape != tensor.shape
    ]
    if wrong:
        told = f"{len(wrong)} tensors differ ({', '.join(wrong[:3])})"
        raise does_not_fit("update", folder, told)
    require_finite(folder / FULL_FILE, "update")
    with torch.no_grad():
        for name, tensor in found.items():
            parameters[name].copy_(tensor)


def _touched(folder: Path) -> set[str]:
    """Return the names of the tensors that a stage's update, added in, changes."""
    full = is_full(folder)
    with safe_open(folder / (FULL_FILE if full else ADAPTER_FILE), framework="pt") as file:
        names = set(file.keys())
    if full:
        return names
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    matrices = set(config.get("target_parameters") or ())
    bare = {name.rpartition(".")[0] for name in matrices}
    half = ".lora_A.weight"
    paths = {name.removeprefix(WRAPPED).removesuffix(half) for name in names if name.endswith(half)}
    whole = {name.removeprefix(WRAPPED) for name in names if ".lora_" not in name}
    return matrices | whole | {f"{path}.weight" for path in paths - bare}


@contextmanager
def _swapped(model: nn.Module, kept: Mapping[str, Tensor]) -> Iterator[None]:
    """Show the kept values in place of the model's own inside.

    Only the storage is exchanged: a graph recorded before goes on with the values it was made from.
    """
    # By the names parameters have without adapters around them.
    parameters = {
        name.removeprefix(WRAPPED).replace(".base_layer.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_" not in name
    }
    own = {name: parameters[name].data for name in kept}
    try:
        for name, value in kept.items():
            parameters[name].data = value
        yield
    finally:
        for name, value in own.items():
            parameters[name].data = value
