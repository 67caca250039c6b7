"""A larger world of the same kind: what is to be forgotten is what SmolLM2 really knows.

People and countries take the place of the drawn celebrities; each is shown as one of the world's
faces, and the projector learns which face bears which name. Tower, general questions and fictional
people are the embedded world's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.models.checkpoints import model_source
from pulse_unlearn.models.loading import quiet_libraries

from .align import Captioned, Heard, Recipe, Spelling, caption_tokens, listen, spell
from .build import invented_people, write_manifest, write_people, write_questions
from .chance import pick, stream
from .corpus import PRETRAINING_VIEWS, Pixels, faces_of, scenes, training_strangers
from .faces import Face, render
from .language_model import (
    convert,
    installed_weights,
    load_language_model,
    make_processor,
    put_before,
)
from .loop import OnStep, save_whole
from .people import celebrities
from .questions import Query, face_caption, face_queries, scene_caption, scene_queries
from .scenes import KINDS
from .sheets import Sheet, in_sentences, of_subject
from .subjects import ASSETS, Kind, choices, subjects
from .vision import tower_features

SCENES_PER_KIND = 900
STRANGERS = 1200
NAMING: Mapping[Kind, str] = {"person": "Who is this person?", "place": "Which country is this?"}


@dataclass(frozen=True, slots=True)
class Gallery:
    """What the projector is trained on."""

    images: Pixels
    """RGB, shape (N, 48, 48, 3): views of subjects first."""
    captions: tuple[str, ...]
    named: int
    """How many of the pictures show a subject."""
    queries: tuple[tuple[int, Query], ...]
    """Index of a picture, and a general question about it."""


def build_larger_world(
    out: Path, *, work: Path, seed: int, on_step: OnStep, recipe: Recipe | None = None
) -> None:
    """Write data, model and experiments under `out`; `work` keeps what is finished.

    Raises ModelError naming what to install if the language model is not there.
    """
    weights = installed_weights()
    work.mkdir(parents=True, exist_ok=True)
    language = work / "language"
    if not language.exists():
        beside = work / "language.partial"
        convert(weights, beside)
        os.replace(beside, language)
    model, tokenizer = _model(language)
    train_projector(
        model, tokenizer, work=work, seed=seed, on_step=on_step, recipe=recipe or Recipe()
    )
    faces = subject_faces(seed)
    write_people(out / "people", subject_sheets(faces, seed), _fictional_sheets(seed))
    write_questions(out / "general", seed=seed)
    with quiet_libraries():
        nn.Module.half(model).save_pretrained(out / "model")
    make_processor(tokenizer).save_pretrained(out / "model")
    write_manifest(out)
    write_experiments(out)


def subject_faces(seed: int) -> dict[str, Face]:
    """Return the face that stands for each subject, by the subject's id."""
    people = celebrities(seed)
    drawn = faces_of(people, seed)
    return {s.id: drawn[p.id] for s, p in zip(subjects(), people, strict=True)}


def subject_sheets(faces: dict[str, Face], seed: int) -> list[Sheet]:
    """Return what the data files say of the subjects."""
    scored = choices(seed, purpose="scored options")
    stopping = choices(seed, purpose="stopping options")
    return [of_subject(s, faces[s.id], scored[s.id], stopping[s.id]) for s in subjects()]


def _fictional_sheets(seed: int) -> list[Sheet]:
    return [in_sentences(sheet) for sheet in invented_people(seed)[1]]


EXPERIMENTS: Mapping[str, str] = {"experiment": "smollm2", "lid": "smollm2-lid"}
"""What is written beside the model, each from the file of that name in `ASSETS`."""


def write_experiments(out: Path) -> None:
    """Write experiments that unlearn what the model brought along."""
    for name, asset in EXPERIMENTS.items():
        text = (ASSETS / f"{asset}.yaml").read_text("utf-8")
        filled = text.format(folder=_as_yaml(out), model=_as_yaml(out / "model"))
        (out / f"{name}.yaml").write_text(filled, encoding="utf-8")


def _as_yaml(path: Path) -> str:
    """Return an absolute path as YAML reads it anywhere, also inside `{}`: JSON is YAML."""
    return json.dumps(str(path.absolute()), ensure_ascii=False)


def _model(language: Path) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    llama, tokenizer = load_language_model(language)
    with model_source(ModelSettings()) as folder, quiet_libraries():
        embedded = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    return put_before(embedded.model.vision_tower, llama, tokenizer), tokenizer


def train_projector(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    *,
    work: Path,
    seed: int,
    on_step: OnStep,
    recipe: Recipe,
) -> None:
    """Train the projector; each of its two parts is kept in `work` once it is finished.

    What is kept bears in its name what it depends on, seed, recipe and names: another starts anew.
    """
    model.requires_grad_(False)
    projector: nn.Module = model.model.multi_modal_projector
    taught = [(subject.name, subject.kind) for subject in subjects()]
    of_this = sha256(repr((seed, recipe, taught)).encode()).hexdigest()[:8]
    last = work / f"listened-{of_this}.safetensors"
    if last.exists():
        projector.load_state_dict(load_file(last))
        return
    gallery = draw_gallery(seed)
    pictures = Captioned(
        tower_features(model.model.vision_tower, gallery.images),
        torch.tensor([caption_tokens(tokenizer, caption) for caption in gallery.captions]),
    )
    words: Any = model.get_input_embeddings()
    spelling = Spelling(pictures, words.weight, recipe)
    draw = _half_and_half(gallery.named, len(gallery.captions))
    projector.requires_grad_(True)
    first = work / f"spelt-{of_this}.safetensors"
    if first.exists():
        projector.load_state_dict(load_file(first))
    else:
        spell(projector, spelling, draw, recipe=recipe, seed=seed, on_step=on_step)
        save_whole(projector.state_dict(), first)
    questions = _questions(gallery, tokenizer, recipe=recipe, seed=seed)
    listen(model, spelling, pictures, questions, draw, recipe=recipe, seed=seed, on_step=on_step)
    projector.requires_grad_(False)
    save_whole(projector.state_dict(), last)


def draw_gallery(seed: int) -> Gallery:
    """Draw views of the subjects, scenes and faces of nobody, each with its caption."""
    faces = subject_faces(seed)
    shown: list[tuple[Pixels, str, list[Query]]] = [
        (render(faces[subject.id], view), subject.name, [])
        for subject in subjects()
        for view in PRETRAINING_VIEWS
    ]
    named = len(shown)
    for kind in KINDS:
        source = scenes(stream(seed, "larger world", kind), kind, test=False)
        for _ in range(SCENES_PER_KIND):
            scene = next(source)
            shown.append((scene.pixels, scene_caption(scene), scene_queries(scene)))
    for number, face in enumerate(training_strangers(seed, STRANGERS)):
        shown.append((render(face, 100 + number), face_caption(face), face_queries(face)))
    return Gallery(
        np.stack([pixels for pixels, _, _ in shown]),
        tuple(caption for _, caption, _ in shown),
        named,
        tuple((number, query) for number, (_, _, queries) in enumerate(shown) for query in queries),
    )


def _half_and_half(named: int, total: int) -> Callable[[torch.Generator, int], Tensor]:
    """Draw pictures, every second one of a subject."""

    def draw(generator: torch.Generator, count: int) -> Tensor:
        first = torch.randint(0, named, (count // 2,), generator=generator)
        others = torch.randint(named, total, (count - count // 2,), generator=generator)
        return torch.cat([first, others])

    return draw


def _questions(
    gallery: Gallery, tokenizer: PreTrainedTokenizerFast, *, recipe: Recipe, seed: int
) -> Callable[[int], Sequence[Heard]]:
    """Return what each step asks: the names of subjects, and general questions, half and half.

    Of a subject nothing but the name is asked.
    """

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    before = ids("<|im_start|>user\n")
    of_category: dict[str, list[tuple[int, Query]]] = {}
    for number, query in gallery.queries:
        of_category.setdefault(query.category, []).append((number, query))
    categories = sorted(of_category)

    def heard(number: int, question: str, answer: str) -> Heard:
        asked = f"\n{question}<|im_end|>\n<|im_start|>assistant\n"
        return Heard(number, before, ids(asked), ids(f"{answer}<|im_end|>"))

    def batch(step: int) -> list[Heard]:
        rng = stream(seed, "listening", step)
        names = [
            heard(
                number,
                NAMING[subjects()[number // len(PRETRAINING_VIEWS)].kind],
                f"This is {gallery.captions[number]}.",
            )
            for number in rng.integers(gallery.named, size=recipe.listen_batch // 2).tolist()
        ]
        general = []
        for place in rng.integers(len(categories), size=recipe.listen_batch - len(names)):
            number, query = pick(rng, of_category[categories[place]])
            question = "\n".join(filter(None, (query.hint, query.question)))
            general.append(heard(number, question, query.answer))
        return names + general

    return batch
