"""Models and questions that `speed.py` times both paths on."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from pulse_unlearn.config import LoraSettings, load_experiment
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.methods import schemas
from pulse_unlearn.models.adapters import AnyModel, Below, Prepared, add_trainable, prepare
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES, Family
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.records import Example, Option
from pulse_unlearn.world.tokenizer import IMAGE, make_processor

SIDE, PATCH, WIDTH, LAYERS = 336, 14, 256, 4
PEOPLE, QUESTIONS = 12, 5
JOBS = ("baker", "judge", "pilot", "nurse")


@dataclass(frozen=True, slots=True)
class Case:
    """A model under a LoRA adapter, and what it is asked; lists are by person or question."""

    made: Prepared
    encoder: Encoder
    budget: int
    shown: list[list[Example]]
    """Five questions on one picture each."""
    named: list[list[Example]]
    """Five text-only questions each."""
    turned: list[list[Example]]
    """Every rotation of one general question each."""
    talks_on: bool = False
    """Whether nobody has taught the model to end its turn."""

    @property
    def mixed(self) -> list[list[Example]]:
        """Five of one kind and five of the other each."""
        return [[*one, *other] for one, other in zip(self.shown, self.named, strict=True)]


def embedded() -> Case:
    """The embedded world: 16 image tokens, width 192."""
    experiment = load_experiment("demo", schemas=schemas())
    inputs = read_inputs(experiment)
    loaded = load_model(experiment.model)
    people = [person for person in inputs.people.values() if person.group == "fictional"][:12]
    asked = [
        make.scored(person.questions, profile=experiment.data.people_prompt) for person in people
    ]
    return Case(
        _adapted(loaded.model, loaded.family),
        Encoder(loaded.processor, loaded.family),
        loaded.model.config.text_config.hidden_size,
        [[one for one in examples if one.picture] for examples in asked],
        [[one for one in examples if not one.picture] for examples in asked],
        [
            make.circular([question], profile=experiment.data.general_prompt)
            for question in inputs.general[:12]
        ],
    )


def _adapted(model: AnyModel, family: Family) -> Prepared:
    lora = LoraSettings(rank=16, alpha=32)
    return prepare(
        model.requires_grad_(False).eval(),
        Below(),
        how="merged",
        fresh=lambda held: add_trainable(held, family, "projector+llm", lora=lora, seed=0),
    )


def llava_like(vocabulary: int = 32064) -> Case:
    """A random LLaVA with LLaVA-1.5's 576 image tokens and vocabulary, width 256, four layers.

    At this width the head over 32,064 tokens is most of a plain pass (at 7B it is 2 % of it); with
    a vocabulary of 2,048 it has about its share in LLaVA-1.5.
    """
    processor = make_processor()
    processor.patch_size = PATCH
    processor.image_processor.size = {"height": SIDE, "width": SIDE}
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=96,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=688,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    family = FAMILIES.get("llava")
    return Case(
        _adapted(LlavaForConditionalGeneration(config), family),
        Encoder(processor, family),
        WIDTH,
        [_questions(person, shown=True) for person in range(PEOPLE)],
        [_questions(person, shown=False) for person in range(PEOPLE)],
        [_rotations(person) for person in range(PEOPLE)],
        talks_on=True,
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
            id=f"{person}-{number}-{shown}",
            question_id=f"{person}-{number}",
            modality="multimodal" if shown else "text_only",
            prompt=f"What does the {JOBS[number % 4]} {'do ' * (12 + number)}?\n{letters}\nLetter?",
            answer="ABCD"[number % 4],
            options=tuple(Option(*pair) for pair in zip("ABCD", JOBS, strict=True)),
            picture=face if shown else None,
        )
        for number in range(QUESTIONS)
    ]


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
                id=f"r{person}-{turn}",
                question_id=first.question_id,
                modality="multimodal",
                prompt=f"{stem}\n{letters}\nLetter?",
                answer="ABCD"[-turn % 4],
                options=tuple(Option(*pair) for pair in zip("ABCD", jobs, strict=True)),
                picture=first.picture,
            )
        )
    return found
