"""The fast path against a plain loop, as ratios in one run: `python bench/speed.py`.

The plain loop does what published code does: one sequence a question, logits of the whole
vocabulary at every position, the vision tower in every forward pass, a second copy of the model as
reference, and scoring with greedy generation. Both run on a random LLaVA with 576 image tokens and
a language model of width 256 and 4 layers, taught for a moment to answer with a letter. Run it with
nothing else on the machine; it writes `ratios` into bench/latest.json.
"""

from __future__ import annotations

import copy
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from pulse_unlearn.config import LoraSettings
from pulse_unlearn.data.images import decode, picture_from_bytes
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.methods import AnswerView, build_method, losses
from pulse_unlearn.models.adapters import Below, Prepared, add_trainable, prepare
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.packed import Packed
from pulse_unlearn.records import Example, Option
from pulse_unlearn.training.objectives import Learning, Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData
from pulse_unlearn.world.tokenizer import IMAGE, make_processor

LATEST = Path(__file__).with_name("latest.json")
SIDE, PATCH, WIDTH, LAYERS, VOCABULARY = 336, 14, 256, 4, 2048
PEOPLE, QUESTIONS, EPOCHS = 4, 5, 3
JOBS = ("baker", "judge", "pilot", "nurse")


def build() -> tuple[Prepared, Encoder]:
    """Return a random LLaVA-like model under a LoRA adapter, and its encoder."""
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
            vocab_size=VOCABULARY,
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
    model = LlavaForConditionalGeneration(config).requires_grad_(False).eval()
    family = FAMILIES.get("llava")
    lora = LoraSettings(rank=16, alpha=32)
    made = prepare(
        model,
        Below(),
        how="merged",
        fresh=lambda held: add_trainable(held, family, "projector+llm", lora=lora, seed=0),
    )
    return made, Encoder(processor, family)


def questions(person: int, *, shown: bool) -> list[Example]:
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


def rotations(person: int) -> list[Example]:
    """Return one question in its four rotations."""
    first = questions(person, shown=True)[0]
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


class PlainLoop:
    """What published code does, with our losses, so that both sides minimise the same."""

    def __init__(self, model: Any, encoder: Encoder, reference: Any) -> None:
        self.model, self.encoder, self.reference = model, encoder, reference

    def step(self, examples: Sequence[Example], method: str) -> None:
        """One step over one person's questions."""
        view = self._view(self.model, examples)
        if method == "ga":
            loss = losses.gradient_ascent(view).mean()
        else:
            with torch.no_grad():
                frozen = self._view(self.reference, examples)
            loss = losses.npo(view, frozen, beta=0.1).mean()
        loss.backward()

    def _view(self, model: Any, examples: Sequence[Example]) -> AnswerView:
        batch = self.encoder.answers(examples, tokens="with_end")
        logits = model(**batch.inputs, use_cache=False).logits
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        length = batch.labels.shape[1]
        return AnswerView(log_probs[:, -length - 1 : -1], batch.labels, batch.mask)

    def ask(self, examples: Sequence[Example], batch_size: int) -> None:
        """Generate up to 50 tokens greedily."""
        for start in range(0, len(examples), batch_size):
            chunk = examples[start : start + batch_size]
            texts = [self.encoder.prompt(example) for example in chunk]
            images = [decode(example.picture) for example in chunk if example.picture]
            inputs = self.encoder.processor(
                text=texts, images=images or None, padding=True, return_tensors="pt"
            )
            with torch.no_grad():
                self.model.generate(**inputs, max_new_tokens=50, do_sample=False)


def seconds(work: Callable[[], None], *, repeats: int = 3) -> float:
    """Return the median of several runs."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[repeats // 2]


def optimised(model: Any, work: Callable[[], None]) -> None:
    """Run work that leaves gradients, then an optimiser step."""
    work()
    for tensor in trainable(model):
        with torch.no_grad():
            tensor.add_(tensor.grad, alpha=-1e-8)
        tensor.grad = None


def trainable(model: Any) -> list[Tensor]:
    """Return the trained tensors."""
    return [tensor for tensor in model.parameters() if tensor.requires_grad]


def teach(made: Prepared, reader: Packed, examples: Sequence[Example]) -> None:
    """Make the model answer with a letter and end there, as an instructed model does."""
    optimiser = torch.optim.AdamW(trainable(made.model), lr=1e-2)
    objective, data = Learning(reader), StepData((), tuple(examples))
    for _ in range(25):
        weighted_sum(objective.terms(data), data).backward()
        optimiser.step()
        optimiser.zero_grad()


def unlearning(made: Prepared, reader: Packed, people: list[list[Example]], method: str) -> float:
    """Return seconds of an operation of a few epochs, the reference's share included."""
    references = References(made, reader)
    objective = Unlearning(reader, build_method(method, {}), "with_end", references)

    def epoch() -> None:
        for examples in people:
            data = StepData(tuple(examples), ())
            optimised(made.model, lambda d=data: weighted_sum(objective.terms(d), d).backward())

    return seconds(lambda: [epoch() for _ in range(EPOCHS)] and None, repeats=1)


def main() -> None:
    """Print the table and write the ratios."""
    made, encoder = build()
    reader = Packed(made.model, encoder, budget=WIDTH)
    shown = [questions(person, shown=True) for person in range(PEOPLE)]
    mixed = [[*face, *questions(k, shown=False)] for k, face in enumerate(shown)]
    asked = [example for examples in shown for example in examples]
    teach(made, reader, [*asked[:QUESTIONS], *mixed[0][QUESTIONS:]])
    reference = copy.deepcopy(made.model)
    loop = PlainLoop(made.model, encoder, reference)
    ratios, table = {}, {}

    def compare(name: str, plain: float, fast: float) -> None:
        ratios[name] = round(plain / fast, 2)
        table[name] = {"plain_s": round(plain, 3), "fast_s": round(fast, 3)}
        print(f"{name:26s} {plain:8.3f} s {fast:8.3f} s   {plain / fast:5.2f} x", flush=True)

    def plain_epochs(people: list[list[Example]], method: str) -> float:
        def epochs() -> None:
            for examples in people * EPOCHS:
                optimised(made.model, lambda e=examples: loop.step(e, method))

        return seconds(epochs, repeats=1)

    loop.step(shown[0], "ga")  # the first pass of each kind pays for memory
    for name, people, method in (
        ("unlearn_multimodal", shown, "ga"),
        ("unlearn_multimodal_npo", shown, "npo"),
        ("unlearn_mix", mixed, "ga"),
    ):
        # A fresh memory, so that the tower's one run a picture is paid inside.
        fresh = Packed(made.model, encoder, budget=WIDTH)
        compare(name, plain_epochs(people, method), unlearning(made, fresh, people, method))
    made.model.eval()

    def fast(examples: Sequence[Example]) -> None:
        new = Packed(made.model, encoder, budget=WIDTH)
        predict(new, examples, batch_size=32, max_new_tokens=50, on_batch=lambda a, b: None)

    fast_ask = seconds(lambda: fast(asked))
    compare("score_batch1", seconds(lambda: loop.ask(asked, 1)), fast_ask)
    best = min(seconds(lambda s=size: loop.ask(asked, s), repeats=1) for size in (4, 10, 20))
    compare("score_best_batch", best, fast_ask)
    turned = [example for person in range(PEOPLE) for example in rotations(person)]
    best = min(seconds(lambda s=size: loop.ask(turned, s), repeats=1) for size in (4, 8, 16))
    compare("circular", best, seconds(lambda: fast(turned)))
    plain = predict(
        Plain(made.model, encoder),
        asked,
        batch_size=8,
        max_new_tokens=50,
        on_batch=lambda a, b: None,
    )
    packed = predict(reader, asked, batch_size=32, max_new_tokens=50, on_batch=lambda a, b: None)
    same = [one.text for one in plain] == [one.text for one in packed]
    print("same answers:", same, sorted({one.text for one in packed}))
    found = json.loads(LATEST.read_text(encoding="utf-8")) if LATEST.exists() else {}
    found |= {"ratios": ratios, "speed": table, "same_answers": same}
    LATEST.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
