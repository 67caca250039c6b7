"""A random LLaVA of a few thousand weights, its processor and examples; nothing is downloaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from data_cases import encoded, noise
from method_cases import variants_of
from pulse_unlearn.config import LoraSettings, ModelSettings
from pulse_unlearn.data.images import decode, picture_from_bytes
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.methods import Loss
from pulse_unlearn.models.adapters import (
    AdapterStack,
    AnyModel,
    TrainableModel,
    add_trainable,
    prepare,
    save_trained,
)
from pulse_unlearn.models.checkpoints import model_source
from pulse_unlearn.models.encode import AnswerTokens, Encoder
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.records import Example, Option, Picture
from pulse_unlearn.training.objectives import Learning, Unlearning
from pulse_unlearn.training.references import References

torch.set_num_threads(1)

LLAVA = FAMILIES.get("llava")
LORA = LoraSettings(rank=2, alpha=4.0)
PATCHES = 16
"""48 px / 12 px, squared; the class token is not used."""
LETTERS = "ABCD"
END = "</s>"
JOBS = ("baker", "judge", "pilot", "nurse")


@cache
def _processor() -> Any:
    with model_source(ModelSettings()) as folder:
        return AutoProcessor.from_pretrained(folder)


def processor() -> Any:
    """A processor of one's own, so that a test may break it."""
    return copy.deepcopy(_processor())


def config() -> LlavaConfig:
    tokenizer = _processor().tokenizer
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=48,
            patch_size=12,
            projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=tokenizer.pad_token_id,
    )


def base(seed: int = 0) -> LlavaForConditionalGeneration:
    """The frozen base model; its weights are large enough for every layer to change the output."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model.requires_grad_(False).eval()


def encoder() -> Encoder:
    return Encoder(processor(), LLAVA)


def face(seed: int) -> Picture:
    return picture_from_bytes(encoded(noise(seed, size=(48, 48))), f"face {seed}")


def example(
    number: int = 0, *, answer: str = "B", words: int = 0, shown: bool = False, options: int = 4
) -> Example:
    """One question; `words` makes its prompt longer."""
    filler = " ".join(["the"] * words)
    letters = "\n".join(f"{letter}. {job}" for letter, job in zip(LETTERS, JOBS, strict=True))
    return Example(
        example_id=f"e{number}",
        question_id=f"q{number}",
        modality="multimodal" if shown else "text_only",
        prompt=f"What does {filler} {JOBS[number % 4]} do?\n{letters}\nLetter?",
        answer=answer,
        options=tuple(
            Option(letter, job) for letter, job in zip(LETTERS[:options], JOBS, strict=False)
        ),
        individual=f"p{number}",
        picture=face(number) if shown else None,
    )


def in_words(
    number: int, texts: Sequence[str], *, true: int = 0, words: int = 0, shown: bool = False
) -> Example:
    """One question without its options, answered with the text of one of them."""
    filler = " ".join(["the"] * words)
    return Example(
        example_id=f"w{number}",
        question_id=f"q{number}",
        modality="multimodal" if shown else "text_only",
        prompt=f"What does {filler} {JOBS[number % 4]} do?",
        answer=texts[true],
        options=tuple(
            Option(letter, text) for letter, text in zip("ABCDEFGH", texts, strict=False)
        ),
        option_texts=tuple(texts),
        individual=f"p{number}",
        picture=face(number) if shown else None,
    )


def mixed() -> list[Example]:
    """With and without picture, prompts of several lengths, answers of one to three tokens."""
    return [
        example(0, shown=True),
        example(1, answer="black hair", words=7),
        example(2, answer="C", words=3, shown=True),
        example(3, answer="A"),
        example(4, answer="Lara Hayes .", words=12, shown=True),
    ]


def letters(count: int, *, first: int = 0, shown: bool = True) -> list[Example]:
    """Examples with one-letter answers, every other one with a picture."""
    return [
        example(first + k, answer=LETTERS[(first + k) % 4], words=k % 3, shown=shown and k % 2 == 0)
        for k in range(count)
    ]


def randomise(model: torch.nn.Module, *, seed: int, name: str = "trained") -> None:
    """Give an adapter weights as training would: a fresh one has B = 0 and changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f".{name}." in key:
                parameter.copy_(0.15 * torch.randn(parameter.shape, generator=generator))


def fresh(scope: str = "projector+llm", *, seed: int = 0, lora: LoraSettings = LORA):
    """What `prepare` calls to add the trained adapter."""

    def add(model: AnyModel) -> PeftModel:
        return add_trainable(model, LLAVA, scope, lora=lora, seed=seed)

    return add


def prepared(
    scope: str = "projector+llm", *, seed: int = 0, lora: LoraSettings = LORA
) -> TrainableModel:
    """A fresh adapter over the base model."""
    return prepare(base(), AdapterStack(), how="merged", fresh=fresh(scope, seed=seed, lora=lora))


def adapter_folder(folder: Path, *, seed: int, scope: str = "projector+llm") -> Path:
    """Write an adapter with random weights, as an earlier stage would have left it."""
    made = prepared(scope)
    randomise(made.model, seed=seed)
    folder.mkdir(parents=True)
    save_trained(made.model, folder, base="tiny")
    return folder


def learning(made: TrainableModel, encode: Encoder) -> Learning:
    """Fine-tuning, read plainly."""
    return Learning(Plain(made.model, encode))


def unlearning(
    made: TrainableModel, encode: Encoder, method: Loss, tokens: AnswerTokens = "with_end"
) -> Unlearning:
    """A method's objective, read plainly."""
    backend = Plain(made.model, encode)
    return Unlearning(
        backend, method, tokens, References(made, backend), seed=0, variants=variants()
    )


@cache
def variants() -> Variants:
    """Other forms of the questions of `letters` and `mixed`."""
    every = (*letters(20), *letters(20, first=100), *letters(20, first=200))
    return variants_of(every)


def log_probs(model: torch.nn.Module, examples: Sequence[Example], *, tokens="with_end"):
    """Log-probs [A, V] at the answer of each example, by a plain full forward, one by one."""
    encode = encoder()
    found = []
    with torch.no_grad():
        for one in examples:
            text = encode.prompt(one) + " " + one.answer
            text += END if tokens == "with_end" else ""
            inputs, length = full_inputs(encode, one, text)
            logits = model(**inputs, use_cache=False).logits[0].float()
            found.append(torch.log_softmax(logits, -1)[-length - 1 : -1])
    return found


def full_inputs(encode: Encoder, one: Example, text: str) -> tuple[dict[str, Any], int]:
    """Encode one text without the code under test; return inputs and the answer's length."""
    images = [decode(one.picture)] if one.picture else None
    tokens = encode.processor(text=[text], images=images, return_tensors="pt")
    prompt = encode.processor(text=[encode.prompt(one)], images=images, return_tensors="pt")
    return dict(tokens), tokens["input_ids"].shape[1] - prompt["input_ids"].shape[1]


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@contextmanager
def forbidden(thing: Any, name: str) -> Iterator[None]:
    """Make any use of an attribute fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{name} was called")

    kept = getattr(thing, name)
    setattr(thing, name, refuse)
    try:
        yield
    finally:
        setattr(thing, name, kept)
