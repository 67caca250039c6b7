"""Trains the vision tower alone, by dense supervision; it plays the part CLIP plays in LLaVA.

Trained through the language loss from scratch, perception never took off, so the tower first learns
to say what every patch and every picture holds. The linear heads are thrown away afterwards. They
read the *patch* tokens of the layer LLaVA uses (CLS is dropped): the mean of the tokens must carry
everything, and so, with less weight, must single tokens that a language model may attend to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from .chance import stream
from .corpus import Corpus, Pixels
from .loop import OnStep, fit, mixed_precision
from .scenes import PATCH, SIZE
from .vision_labels import (
    IGNORE,
    PATCH_CLASSES,
    PICTURE_CLASSES,
    Supervised,
    heldout_pictures,
    training_pictures,
)

HELDOUT = "heldout.json"
"""The last file of a finished tower's folder."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Size and schedule of the tower's training."""

    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 512
    batch: int = 256
    steps: int = 1500
    warmup: int = 60
    rate: float = 2e-3
    decay: float = 0.05
    token_weight: float = 0.3
    save_every: int = 100
    threads: int = 1


def tower_config(recipe: Recipe) -> CLIPVisionConfig:
    """Describe the tower: 48 pixels, patches of 12, hence 16 patch tokens and one CLS."""
    return CLIPVisionConfig(
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        image_size=SIZE,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=recipe.width,
    )


class Supervisor(nn.Module):
    """The tower with one linear head per label, all heads of a family in one matrix."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(tower_config(recipe))
        # On CPUs the fused attention's backward pass takes five times the plain one's time.
        self.tower.set_attn_implementation("eager")
        self.norm = nn.LayerNorm(recipe.width)
        self.patch_heads = nn.Linear(recipe.width, sum(PATCH_CLASSES.values()))
        self.picture_heads = nn.Linear(recipe.width, sum(PICTURE_CLASSES.values()))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return patch logits (B, 16, P), picture logits (B, Q) and the same per token."""
        states = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        tokens = self.norm(states[-1][:, 1:])
        per_token = self.picture_heads(tokens)
        return self.patch_heads(tokens), per_token.mean(1), per_token


def normalise(images: Pixels) -> torch.Tensor:
    """Turn RGB bytes (B, 48, 48, 3) into what the processor yields: (B, 3, 48, 48) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


@torch.no_grad()
def tower_features(tower: CLIPVisionModel, images: Pixels) -> torch.Tensor:
    """Return the patch features of pictures as LLaVA takes them, [N, 16, width]."""
    parts = []
    for start in range(0, len(images), 512):
        pixels = normalise(images[start : start + 512])
        states = tower(pixel_values=pixels, output_hidden_states=True).hidden_states
        parts.append(states[-1][:, 1:])
    return torch.cat(parts)


def _parts(logits: torch.Tensor, classes: Mapping[str, int]) -> Iterator[tuple[str, torch.Tensor]]:
    parts = torch.split(logits, list(classes.values()), dim=-1)
    yield from zip(classes, parts, strict=True)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average over labelled entries; zero if a batch has none."""
    flat, target = logits.flatten(0, -2).float(), labels.flatten()
    total = functional.cross_entropy(flat, target, ignore_index=IGNORE, reduction="sum")
    return total / (target != IGNORE).sum().clamp(min=1)


def _loss(
    model: Supervisor, data: Supervised, rows: np.ndarray, *, token_weight: float
) -> torch.Tensor:
    patch, picture, per_token = model(normalise(data.images[rows]))
    loss = torch.zeros(())
    for name, logits in _parts(patch, PATCH_CLASSES):
        loss = loss + 2 * _cross_entropy(logits, torch.from_numpy(data.patch[name][rows]))
    token_parts = dict(_parts(per_token, PICTURE_CLASSES))
    for name, logits in _parts(picture, PICTURE_CLASSES):
        labels = torch.from_numpy(data.picture[name][rows])
        loss = loss + _cross_entropy(logits, labels)
        if name.startswith(("face_", "glyph", "count")):
            spread = labels[:, None].expand(-1, token_parts[name].shape[1])
            loss = loss + token_weight * _cross_entropy(token_parts[name], spread)
    return loss


def _optimiser(model: Supervisor, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))


def _rate(step: int, recipe: Recipe) -> float:
    """Warm up linearly, then follow a cosine to zero."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return float(recipe.rate * 0.5 * (1 + np.cos(np.pi * done)))


def _rows(step: int, total: int, recipe: Recipe, *, seed: int) -> np.ndarray:
    """Return the batch of one step from that epoch's order; a pure function, hence resumable."""
    per_epoch = total // recipe.batch
    order = stream(seed, "vision epoch", step // per_epoch).permutation(total)
    start = (step % per_epoch) * recipe.batch
    return np.sort(order[start : start + recipe.batch])


@torch.no_grad()
def accuracies(model: Supervisor, data: Supervised) -> dict[str, float]:
    """Return the share of right labels per field, patches that show nothing left out."""
    model.eval()
    right: dict[str, list[float]] = {}
    for start in range(0, len(data.images), 512):
        rows = slice(start, start + 512)
        patch, picture, _ = model(normalise(data.images[rows]))
        for name, logits in _parts(patch, PATCH_CLASSES):
            labels = torch.from_numpy(data.patch[name][rows])
            hit = (logits.argmax(-1) == labels)[labels > 0]
            right.setdefault(name, []).extend(hit.float().tolist())
        for name, logits in _parts(picture, PICTURE_CLASSES):
            labels = torch.from_numpy(data.picture[name][rows])
            hit = (logits.argmax(-1) == labels)[labels != IGNORE]
            right.setdefault(name, []).extend(hit.float().tolist())
    model.train()
    return {name: float(np.mean(hits)) for name, hits in right.items()}


def train_vision(
    corpus: Corpus, work: Path, out: Path, *, recipe: Recipe, seed: int, on_step: OnStep
) -> None:
    """Train, save the tower to `out` (`save_pretrained`) and its held-out accuracies there.

    Drawn pictures are kept in `work`, checkpoints beside `out`.
    """
    data = training_pictures(corpus, work, seed=seed)
    heldout = heldout_pictures(work, seed=seed)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    model = Supervisor(recipe)

    def losses(step: int) -> Mapping[str, torch.Tensor]:
        rows = _rows(step, len(data.images), recipe, seed=seed)
        with mixed_precision():
            return {"loss": _loss(model, data, rows, token_weight=recipe.token_weight)}

    fit(
        "vision tower",
        model,
        [_optimiser(model, recipe)],
        losses,
        rates=lambda step: [_rate(step, recipe)],
        steps=recipe.steps,
        save_every=recipe.save_every,
        checkpoint=out.with_suffix(".safetensors"),
        on_step=on_step,
    )
    model.tower.save_pretrained(out)
    text = json.dumps(accuracies(model, heldout), indent=1)
    (out / HELDOUT).write_text(text + "\n", "utf-8")
