"""Trains the embedded model from nothing: tower, then projector and language model, then export.

About ten minutes on two CPU cores. Whatever is finished in the work folder is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from pulse_unlearn.models.loading import quiet_libraries

from .corpus import Corpus, load_corpus
from .curriculum import Questions, Recipe
from .language import Learner, Shape, Weights, build_model
from .tokenizer import make_processor
from .vision import OnStep, tower_features, train_vision
from .vision import Recipe as VisionRecipe


class Optimisers:
    """Muon for the matrices, AdamW for embeddings, norms and biases."""

    def __init__(self, learner: Learner, recipe: Recipe) -> None:
        named = [(n, p) for n, p in learner.named_parameters() if p.requires_grad]
        matrix = {n for n, p in named if p.ndim == 2 and "embed" not in n and "head" not in n}
        self._recipe = recipe
        self._all = (
            torch.optim.Muon(
                [p for n, p in named if n in matrix], lr=recipe.matrix_rate, weight_decay=0.0
            ),
            torch.optim.AdamW(
                [p for n, p in named if n not in matrix],
                lr=recipe.other_rate,
                betas=(0.9, 0.98),
                weight_decay=0.0,
            ),
        )

    def step(self, at: int) -> None:
        """Take a step at the rate that belongs to step number `at`."""
        recipe = self._recipe
        done = at / recipe.steps
        factor = min(1.0, (at + 1) / recipe.warmup, (1 - done) / (1 - recipe.flat))
        for optimiser, rate in zip(self._all, (recipe.matrix_rate, recipe.other_rate), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * max(0.01, factor)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the whole state as flat tensors."""
        return {
            f"optimiser.{number}.{index}.{name}": torch.as_tensor(value).clone()
            for number, optimiser in enumerate(self._all)
            for index, state in optimiser.state_dict()["state"].items()
            for name, value in state.items()
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `tensors` gave."""
        states: tuple[dict[int, dict[str, torch.Tensor]], ...] = tuple({} for _ in self._all)
        for key, tensor in tensors.items():
            if key.startswith("optimiser."):
                _, number, index, name = key.split(".")
                states[int(number)].setdefault(int(index), {})[name] = tensor
        for optimiser, state in zip(self._all, states, strict=True):
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})


def picture_features(tower: CLIPVisionModel, corpus: Corpus, path: Path) -> torch.Tensor:
    """Return the tower's patch features of all pictures, (N, 16, width), cached at `path`."""
    if path.exists():
        return load_file(path)["features"]
    features = tower_features(tower, corpus.images).half()
    save_file({"features": features}, path)
    return features


def _save(path: Path, learner: Learner, optimisers: Optimisers, step: int) -> None:
    """Write beside and rename, so that a kill leaves a whole file."""
    state = {name: p.detach().clone() for name, p in learner.named_parameters() if p.requires_grad}
    beside = path.with_suffix(".tmp")
    save_file(state | optimisers.tensors() | {"step": torch.tensor(step)}, beside)
    os.replace(beside, path)


def _resume(path: Path, learner: Learner, optimisers: Optimisers) -> int:
    """Restore a checkpoint if there is one and return the number of finished steps."""
    if not path.exists():
        return 0
    tensors = load_file(path)
    own = dict(learner.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name in own:
                own[name].copy_(tensor)
    optimisers.restore(tensors)
    return int(tensors["step"])


def _auxiliary(step: int, recipe: Recipe) -> float:
    done = step / recipe.steps
    left = (recipe.fade_to - done) / (recipe.fade_to - recipe.fade_from)
    return min(1.0, max(0.0, left))


def fit(
    learner: Learner,
    questions: Questions,
    features: torch.Tensor,
    work: Path,
    *,
    recipe: Recipe,
    on_step: OnStep,
) -> None:
    """Train projector and language model, continuing from the work folder's checkpoint."""
    torch.set_num_threads(recipe.threads)
    optimisers = Optimisers(learner, recipe)
    checkpoint = work / "language.safetensors"
    first = _resume(checkpoint, learner, optimisers)
    spread = float(features[:1000].float().std())
    average: dict[str, float] = {}
    for step in range(first, recipe.steps):
        torch.manual_seed(step)
        sums: dict[str, torch.Tensor] = {}
        batches = questions(step)
        count = sum(len(batch.ids) for batch in batches)
        for batch in batches:
            noisy = features
            if batch.images is not None:
                picked = features[batch.images].float()
                noisy = picked + recipe.noise * spread * torch.randn_like(picked)
                batch = replace(batch, images=torch.arange(len(picked)))
            with torch.autocast("cpu", torch.bfloat16):
                terms = learner.losses(
                    batch, noisy, weights=Weights(), auxiliary=_auxiliary(step, recipe)
                )
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + value / count
        torch.stack(list(sums.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for p in learner.parameters() if p.requires_grad], 1.0)
        optimisers.step(step)
        for name, value in sums.items():
            average[name] = 0.95 * average.get(name, value.item()) + 0.05 * value.item()
        on_step("language model", step + 1, recipe.steps, average)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            _save(checkpoint, learner, optimisers, step + 1)


def export(model: LlavaForConditionalGeneration, out: Path, *, seed: int) -> None:
    """Write the ordinary model folder; half precision keeps the scores and halves the file."""
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    exported = LlavaForConditionalGeneration(model.config)
    nn.Module.to(exported, torch.float16)
    exported.load_state_dict(state)
    exported.generation_config.do_sample = False
    exported.save_pretrained(out)
    make_processor(seed).save_pretrained(out)


def train_world(
    out: Path, *, work: Path, seed: int, on_step: OnStep, recipe: Recipe | None = None
) -> None:
    """Train everything and write the model folder to `out`.

    `on_step` is told part, steps done, steps in all and losses. `work` keeps the drawn pictures,
    the tower and checkpoints; training continues from what it holds.
    """
    recipe, shape = recipe or Recipe(), Shape()
    work.mkdir(parents=True, exist_ok=True)
    data, tower_folder = work / "corpus", work / "vision"
    if not (tower_folder / "heldout.json").exists():
        train_vision(
            data,
            work / "vision_work",
            tower_folder,
            recipe=VisionRecipe(),
            seed=seed,
            on_step=on_step,
        )
    with quiet_libraries():
        tower = CLIPVisionModel.from_pretrained(tower_folder)
    tower.requires_grad_(False)
    tower.config._name_or_path = ""  # else the exported config would name the work folder
    corpus = load_corpus(data, seed=seed)
    features = picture_features(tower, corpus, work / "features.safetensors")
    questions = Questions(corpus, recipe=recipe, seed=seed)
    torch.manual_seed(seed)
    learner = Learner(build_model(tower, questions.vocabulary, shape=shape), shape=shape)
    fit(learner, questions, features, work, recipe=recipe, on_step=on_step)
    export(learner.model, out, seed=seed)
    report = {"steps": recipe.steps, "parameters": learner.model.num_parameters()}
    (work / "language.json").write_text(json.dumps(report) + "\n", "utf-8")
