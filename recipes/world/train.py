"""Trains the embedded model from scratch: tower, then projector and language model, then export.

About ten minutes on two CPU cores. Whatever is finished in the work folder is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.models.loading import quiet_libraries
from pulse_unlearn.registry import did_you_mean

from .build import write_manifest
from .corpus import Corpus, load_corpus
from .curriculum import Questions, Recipe
from .language import Learner, Shape, build_model
from .loop import OnStep, fit, mixed_precision
from .muon import muon
from .people import celebrities
from .recall import friends_known
from .tokenizer import make_processor
from .vision import HELDOUT, tower_features, train_vision
from .vision import Recipe as VisionRecipe


def picture_features(tower: CLIPVisionModel, corpus: Corpus, path: Path) -> torch.Tensor:
    """Return the tower's patch features of all pictures, (N, 16, width), cached at `path`."""
    if path.exists():
        return load_file(path)["features"]
    features = tower_features(tower, corpus.images).half()
    save_file({"features": features}, path)
    return features


def _auxiliary(step: int, recipe: Recipe) -> float:
    done = step / recipe.steps
    left = (recipe.fade_to - done) / (recipe.fade_to - recipe.fade_from)
    return min(1.0, max(0.0, left))


def _rates(step: int, recipe: Recipe) -> tuple[float, float]:
    """Return the rates of Muon and AdamW: a short rise, then level, then a linear fall."""
    done = step / recipe.steps
    factor = min(1.0, (step + 1) / recipe.warmup, (1 - done) / (1 - recipe.flat))
    factor = max(0.01, factor)
    return recipe.matrix_rate * factor, recipe.other_rate * factor


def _optimisers(learner: Learner, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the matrices, AdamW for embeddings, norms and biases."""
    named = [(n, p) for n, p in learner.named_parameters() if p.requires_grad]
    matrix = {n for n, p in named if p.ndim == 2 and "embed" not in n and "head" not in n}
    return (
        muon([p for n, p in named if n in matrix], rate=recipe.matrix_rate),
        torch.optim.AdamW(
            [p for n, p in named if n not in matrix],
            lr=recipe.other_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    )


def train_language(
    learner: Learner,
    questions: Questions,
    features: torch.Tensor,
    work: Path,
    *,
    recipe: Recipe,
    on_step: OnStep,
) -> None:
    """Train projector and language model on cached picture features, (N, 16, width)."""
    torch.set_num_threads(recipe.threads)
    spread = float(features[:1000].float().std())

    def losses(step: int) -> Mapping[str, torch.Tensor]:
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
            with mixed_precision():
                terms = learner.losses(batch, noisy, auxiliary=_auxiliary(step, recipe))
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros(())) + value / count
        return sums

    fit(
        "language model",
        learner,
        _optimisers(learner, recipe),
        losses,
        rates=lambda step: _rates(step, recipe),
        steps=recipe.steps,
        save_every=recipe.save_every,
        checkpoint=work / "language.safetensors",
        on_step=on_step,
    )


def export(
    model: LlavaForConditionalGeneration, out: Path, *, seed: int, more: Iterable[str] = ()
) -> None:
    """Write the ordinary model folder; half precision keeps the scores and halves the file.

    `more` are texts whose words the tokenizer knows beside the world's.
    """
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    exported = LlavaForConditionalGeneration(model.config)
    nn.Module.to(exported, torch.float16)
    exported.load_state_dict(state)
    exported.generation_config.do_sample = False
    exported.save_pretrained(out)
    make_processor(seed, more).save_pretrained(out)


LEFT_OUT = "left-out.txt"
"""In the folder of a world that was trained without some celebrities: their ids, one a line."""
FRIENDS = "friends.json"
"""In the folder of a world of friends: what its model knows of them."""


def train_world(
    out: Path,
    *,
    work: Path,
    seed: int,
    on_step: OnStep,
    without: Collection[str] = (),
    recipe: Recipe | None = None,
    vision: VisionRecipe | None = None,
) -> None:
    """Train tower and language model, write `out/model` and the manifest of all files in `out`.

    `work` keeps the drawn faces, the tower and checkpoints; training continues from what it holds.
    Worlds with and without friends (`Recipe.ties`) share a tower there.
    What is trained `without` some celebrities, tower included, has a folder of its own there.
    Raises ConfigError for ids that no celebrity has.
    """
    recipe, shape = recipe or Recipe(), Shape()
    left_out = _known(without, seed)
    part = work / _folder_without(left_out) if left_out else work
    part.mkdir(parents=True, exist_ok=True)
    tower_folder = part / "vision"
    corpus = load_corpus(work, seed=seed, without=left_out)
    if not (tower_folder / HELDOUT).exists():
        chosen = vision or VisionRecipe()
        train_vision(corpus, work, tower_folder, recipe=chosen, seed=seed, on_step=on_step)
    with quiet_libraries():
        tower = CLIPVisionModel.from_pretrained(tower_folder)
    tower.requires_grad_(False)
    tower.config._name_or_path = ""  # else the exported config would name the work folder
    features = picture_features(tower, corpus, part / "features.safetensors")
    questions = Questions(corpus, recipe=recipe, seed=seed)
    torch.manual_seed(seed)
    learner = Learner(build_model(tower, questions.vocabulary, shape=shape), shape=shape)
    language = part / "ties" if recipe.ties else part
    language.mkdir(exist_ok=True)
    train_language(learner, questions, features, language, recipe=recipe, on_step=on_step)
    export(learner.model, out / "model", seed=seed, more=questions.more_words)
    if recipe.ties:
        known = friends_known(learner, questions, features)
        (out / FRIENDS).write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    if left_out:
        (out / LEFT_OUT).write_text("".join(f"{one}\n" for one in left_out), "utf-8")
    write_manifest(out)


def _known(without: Collection[str], seed: int) -> tuple[str, ...]:
    """Return the ids sorted, each once; raises ConfigError for those no celebrity has."""
    known = [person.id for person in celebrities(seed)]
    problems = [
        Problem(
            "no celebrity of this world has this id", "--without", one, fix=did_you_mean(one, known)
        )
        for one in without
        if one not in known
    ]
    if problems:
        raise ConfigError(problems)
    return tuple(sorted({*without}))


def _folder_without(left_out: tuple[str, ...]) -> str:
    return f"without-{sha256(' '.join(left_out).encode()).hexdigest()[:8]}"
