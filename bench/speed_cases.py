"""Models and questions that `speed.py` times both paths on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from pulse_unlearn.config import LoraSettings, ModelSettings, load_experiment
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.models.adapters import (
    AdapterStack,
    AnyModel,
    TrainableModel,
    add_trainable,
    prepare,
)
from pulse_unlearn.models.checkpoints import model_source
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.records import Example, Individual, Option, Question
from pulse_unlearn.registries import schemas

SIDE, PATCH = 336, 14
PEOPLE, QUESTIONS = 8, 5
SMALL_LORA = LoraSettings(rank=16, alpha=32)
JOBS = ("baker", "judge", "pilot", "nurse")


@dataclass(frozen=True, slots=True)
class Case:
    """A model under a LoRA adapter, and what it is asked; lists are by person or question."""

    made: TrainableModel
    encoder: Encoder
    budget: int
    shown: list[list[Example]]
    """Five questions on one picture each."""
    named: list[list[Example]]
    """Five text-only questions each."""
    turned: list[list[Example]]
    """Every rotation of one general question each."""
    people: Sequence[Individual] = ()
    """Whom examples are about, one of each list a person."""
    talks_on: bool = False
    """Whether nobody has taught the model to end its turn."""

    @property
    def mixed(self) -> list[list[Example]]:
        """Five of one kind and five of the other each."""
        return [[*one, *other] for one, other in zip(self.shown, self.named, strict=True)]


Adapt = Callable[[AnyModel, Family], TrainableModel]
"""A plain model made ready to be trained."""


def embedded(adapt: Adapt | None = None) -> Case:
    """The embedded world: 16 image tokens, width 192."""
    experiment = load_experiment("demo", schemas=schemas())
    inputs = read_inputs(experiment)
    loaded = load_model(experiment.model)
    people = [person for person in inputs.people.values() if person.group == "fictional"][:8]
    asked = [
        make.scored(person.questions, profile=experiment.data.people_prompt) for person in people
    ]
    return Case(
        (adapt or _adapted)(loaded.model, loaded.family),
        Encoder(loaded.processor, loaded.family),
        loaded.model.config.text_config.hidden_size,
        [[one for one in examples if one.picture] for examples in asked],
        [[one for one in examples if not one.picture] for examples in asked],
        [
            make.circular([question], profile=experiment.data.general_prompt)
            for question in inputs.general[:8]
        ],
        people,
    )


@dataclass(frozen=True, slots=True)
class Size:
    """Of a LLaVA; pictures are LLaVA-1.5's, 336 pixels and 576 tokens, whatever the size."""

    width: int
    inner: int
    layers: int
    heads: int
    tower_width: int = 1024
    tower_inner: int = 4096
    tower_layers: int = 24
    tower_heads: int = 16
    vocabulary: int = 32064


SMALL = Size(256, 688, 4, 4, tower_width=96, tower_inner=384, tower_layers=3, tower_heads=4)
SIZES = {
    "small": SMALL,
    "wide": replace(SMALL, width=640, inner=1728, layers=4, heads=8, vocabulary=2048),
    "7b": Size(4096, 11008, 32, 32),
    "13b": Size(5120, 13824, 40, 40),
}


def llava_like(vocabulary: int = 32064) -> Case:
    """A random LLaVA with LLaVA-1.5's 576 image tokens and vocabulary, width 256, four layers.

    At this width the head over 32,064 tokens is most of a plain pass (at 7B it is 2 % of it); with
    a vocabulary of 2,048 it has about its share in LLaVA-1.5.
    """
    return random_llava(replace(SMALL, vocabulary=vocabulary))


def random_llava(
    size: Size,
    *,
    lora: LoraSettings = SMALL_LORA,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    people: int = PEOPLE,
    adapt: Adapt | None = None,
) -> Case:
    """Build a LLaVA of that size with random weights where it is to run.

    It speaks in words its tokenizer knows, so that answers can be compared.
    """
    with model_source(ModelSettings()) as folder:
        processor: Any = AutoProcessor.from_pretrained(folder)
    processor.patch_size = PATCH
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    config = _config(size, processor.tokenizer)
    torch.manual_seed(0)
    family = FAMILIES.get("llava")
    with torch.device(device):
        model = LlavaForConditionalGeneration._from_config(config, dtype=dtype)
    with torch.no_grad():
        model.lm_head.weight[len(processor.tokenizer) :] = 0
        silent = {*processor.tokenizer.all_special_ids} - {processor.tokenizer.eos_token_id}
        model.lm_head.weight[sorted(silent)] = 0
    return Case(
        adapt(model, family) if adapt else _adapted(model, family, lora),
        Encoder(processor, family),
        size.width,
        [_questions(person, shown=True) for person in range(people)],
        [_questions(person, shown=False) for person in range(people)],
        [_rotations(person) for person in range(people)],
        [_individual(person) for person in range(people)],
        talks_on=True,
    )


def _config(size: Size, tokenizer: Any) -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.tower_width,
            intermediate_size=size.tower_inner,
            num_hidden_layers=size.tower_layers,
            num_attention_heads=size.tower_heads,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _adapted(model: AnyModel, family: Family, lora: LoraSettings = SMALL_LORA) -> TrainableModel:
    return prepare(
        model.requires_grad_(False).eval(),
        AdapterStack(),
        how="merged",
        fresh=lambda held: add_trainable(held, family, "projector+llm", lora=lora, seed=0),
    )


def _questions(person: int, *, shown: bool) -> list[Example]:
    """Return a person's questions, of about forty tokens each."""
    noise = np.random.default_rng(person).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    face = picture_from_bytes(file.getvalue(), f"face {person}")
    letters = "\n".join(f"{letter}. {job}" for letter, job in zip("ABCD", JOBS, strict=True))
    return [
        Example(
            example_id=f"{person}-{number}-{shown}",
            question_id=f"{person}-{number}-{shown}",
            modality="multimodal" if shown else "text_only",
            prompt=f"What does the {JOBS[number % 4]} {'do ' * (12 + number)}?\n{letters}\nLetter?",
            answer="ABCD"[number % 4],
            options=tuple(Option(*pair) for pair in zip("ABCD", JOBS, strict=True)),
            picture=face if shown else None,
            individual=str(person),
        )
        for number in range(QUESTIONS)
    ]


def _individual(person: int) -> Individual:
    """Return the person of both kinds of questions, for methods that ask them in other forms."""
    examples = [*_questions(person, shown=True), *_questions(person, shown=False)]
    questions = [
        Question(
            id=one.question_id,
            modality=one.modality,
            question=one.prompt.split("\n", maxsplit=1)[0],
            options=one.options,
            answer=one.answer,
            individual=str(person),
            picture=one.picture,
        )
        for one in examples
    ]
    faces = tuple(one.picture for one in examples if one.picture is not None)[:1]
    return Individual(str(person), f"Person {person}", "fictional", tuple(questions), faces, ())


def _rotations(person: int) -> list[Example]:
    """Return one question in its four rotations."""
    first = _questions(person, shown=True)[0]
    found = []
    for turn in range(4):
        jobs = JOBS[turn:] + JOBS[:turn]
        letters = "\n".join(f"{letter}. {job}" for letter, job in zip("ABCD", jobs, strict=True))
        stem = first.prompt.split("\n", maxsplit=1)[0]
        found.append(
            Example(
                example_id=f"r{person}-{turn}",
                question_id=first.question_id,
                modality="multimodal",
                prompt=f"{stem}\n{letters}\nLetter?",
                answer="ABCD"[-turn % 4],
                options=tuple(Option(*pair) for pair in zip("ABCD", jobs, strict=True)),
                picture=first.picture,
            )
        )
    return found
