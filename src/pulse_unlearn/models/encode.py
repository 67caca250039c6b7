"""Examples to tensors: chat template, image placeholder, answer mask.

Sequences are padded on the left, so that answers end at the last position of every row and a
model's head need only be applied to the last few positions. The answer mask marks exactly the
tokens of the assistant's answer (and of the end of turn, if asked for), never the prompt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.chat_template import ChatTemplate, Reserved
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.fast.packing import Image, Line, Symbol
from pulse_unlearn.records import Example, Picture

AnswerTokens = Literal["with_end", "text"]

KEPT_TEXTS = 20_000
"""Examples whose tokens are kept: every stage of a run asks the same questions again."""
_SEQUENCE_INPUTS = frozenset({"input_ids", "attention_mask"})
"""What a processor returns about the text; all else is about the picture."""
KEPT_BYTES = 1 << 30
"""Of processed pictures: decoded and processed once, not once per question."""


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """A batch as the model takes it: the processor's whole output, and the answers beside it."""

    inputs: dict[str, Tensor]
    """Everything the processor returned; `position_ids` [B, T] where the family's are plain."""
    labels: Tensor
    """Answer tokens, right-aligned, [B, A]; A is the longest answer of the batch."""
    mask: Tensor
    """True at answer tokens, [B, A]."""
    example_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One processed picture."""

    image: Image
    """The tokens its placeholder stands for."""
    inputs: dict[str, Tensor]
    """`pixel_values` and whatever else the processor returns for it, first dimension 1."""

    @property
    def shapes(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Shapes of the inputs by name."""
        return frozenset((name, tuple(tensor.shape)) for name, tensor in self.inputs.items())

    @property
    def size(self) -> int:
        """Bytes of the inputs."""
        return sum(tensor.nbytes for tensor in self.inputs.values())


class _Pictures:
    """Processed pictures by digest; the oldest go when they take more than a gibibyte."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._kept: OrderedDict[str, Shown] = OrderedDict()
        self._bytes = 0

    def __call__(self, picture: Picture, *, prompt: str) -> Shown:
        """Return the picture processed; `prompt` is any text with its placeholder in it."""
        if picture.digest in self._kept:
            self._kept.move_to_end(picture.digest)
            return self._kept[picture.digest]
        shown = self._process(picture, prompt)
        self._kept[picture.digest] = shown
        self._bytes += shown.size
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].size
        return shown

    def _process(self, picture: Picture, prompt: str) -> Shown:
        made = dict(self._processor(text=[prompt], images=[decode(picture)], return_tensors="pt"))
        plain = self._processor.tokenizer(prompt)["input_ids"]
        whole = made["input_ids"][0].tolist()
        place = plain.index(self._processor.image_token_id)
        behind = len(plain) - place - 1
        run = whole[place : len(whole) - behind]
        if whole[:place] + whole[len(whole) - behind :] != plain[:place] + plain[place + 1 :]:
            raise ModelError(
                Problem(
                    "the picture changes the text around it, so questions cannot be packed",
                    type(self._processor).__name__,
                    fix="--set speed.packing=off",
                )
            )
        # Copied into torch's own aligned memory: the last bits of a matrix product depend on where
        # its input lies, and arrays of the processor lie anywhere.
        inputs = {key: value.clone() for key, value in made.items() if key not in _SEQUENCE_INPUTS}
        return Shown(Image(picture.digest, tuple(run)), inputs)


class Encoder:
    """Encodes examples for one model; keeps the tokens of what it was asked last."""

    def __init__(self, processor: Any, family: Family) -> None:
        self.processor = processor
        self.family = family
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.image_token: int = getattr(processor, "image_token_id", None) or -1
        """What a picture is in tokens, -1 if the processor does not say."""
        self.chat_template = ChatTemplate(processor, family)
        self.end_ids = self.chat_template.end_ids()
        """Tokens at which a generated answer is over."""
        self.pictures = _Pictures(processor)
        self._reserved = Reserved(processor)
        self._letters: dict[str, dict[str, tuple[int, ...]]] = {}
        self._lines: dict[Hashable, Line] = {}
        self._option_tokens: dict[Hashable, list[tuple[int, ...]]] = {}

    def prompt(self, example: Example) -> str:
        """Return the text up to where the answer begins, with the image placeholder if any."""
        pictured = example.picture is not None
        asked = self.chat_template.prompt(example.prompt, pictured=pictured, system=example.system)
        return asked + self.chat_template.prefix + example.begun if example.begun else asked

    def prompts(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Encode prompts only, for scoring; [B, T] tensors and pixel values."""
        self._reserved.refuse(examples)
        return self._inputs(examples, [self.prompt(example) for example in examples])

    def answers(self, examples: Sequence[Example], *, tokens: AnswerTokens) -> EncodedBatch:
        """Encode prompts followed by their answers, for losses.

        Raises ModelError if the tokenizer merges the answer's first characters into the prompt, as
        then no mask could separate the two.
        """
        self._reserved.refuse(examples)
        prompts = [self.prompt(example) for example in examples]
        answers = [self._led(example, example.answer) for example in examples]
        full = self._answered(prompts, answers, tokens)
        tails = self._tails(self._ids(prompts), full)
        inputs = self._inputs(examples, full)
        longest = max(len(tail) for tail in tails)
        lengths = torch.tensor([len(tail) for tail in tails])
        mask = torch.arange(longest).unsqueeze(0) >= longest - lengths.unsqueeze(1)
        if self.family.attention == "prefix":
            # Marks what is predicted: the rest of the sequence sees itself whole, and not this.
            inputs["token_type_ids"][:, -longest:] = mask.long()
        return EncodedBatch(
            inputs,
            labels=inputs["input_ids"][:, -longest:],
            mask=mask,
            example_ids=tuple(example.example_id for example in examples),
        )

    def lines(self, examples: Sequence[Example], *, tokens: AnswerTokens | None) -> list[Line]:
        """Return each example as symbols for packing; without an answer if `tokens` is None.

        Raises ModelError as `answers` does, and where a picture cannot be told from its text.
        """
        keys = [(*_asked(one), tokens, one.answer if tokens else "") for one in examples]
        new = {key: one for key, one in zip(keys, examples, strict=True) if key not in self._lines}
        if len(self._lines) + len(new) > KEPT_TEXTS:
            self._lines.clear()
            new = dict(zip(keys, examples, strict=True))
        if new:
            self._lines.update(zip(new, self._read(list(new.values()), tokens), strict=True))
        return [self._lines[key] for key in keys]

    def _read(self, examples: Sequence[Example], tokens: AnswerTokens | None) -> list[Line]:
        self._reserved.refuse(examples)
        prompts = [self.prompt(example) for example in examples]
        heads = self._ids(prompts)
        tails: list[tuple[int, ...]] = [()] * len(examples)
        if tokens is not None:
            answers = [self._led(example, example.answer) for example in examples]
            tails = self._tails(heads, self._answered(prompts, answers, tokens))
        return [
            Line(self._symbols(head, example, prompt), tail)
            for head, tail, example, prompt in zip(heads, tails, examples, prompts, strict=True)
        ]

    def shown(self, example: Example) -> Shown:
        """Return the example's picture processed; raises ValueError if it has none."""
        if example.picture is None:
            raise ValueError(f"{example.example_id} has no picture")
        return self.pictures(example.picture, prompt=self.prompt(example))

    def letters(self, example: Example) -> list[tuple[int, ...]]:
        """Return the answer tokens of each option's letter.

        Looked up once for each letter: what stands before an answer is the same in every prompt,
        unless the answer has begun. Raises ModelError where letters begin with the same token, and
        so cannot be told apart.
        """
        known = self._letters.setdefault(example.begun, {})
        new = [option.letter for option in example.options if option.letter not in known]
        if new:
            known.update(zip(new, self._behind(example, new, "text"), strict=True))
            self._require_different(known)
        return [known[option.letter] for option in example.options]

    def letter_ids(self, example: Example) -> list[int]:
        """Return the first answer token of each option's letter."""
        return [letter[0] for letter in self.letters(example)]

    def option_token_ids(self, example: Example) -> list[tuple[int, ...]]:
        """Return the answer tokens of each option: its letter, or its text and the end of turn.

        A text may begin as another one does, or be its whole beginning: the end tells them apart.
        """
        if not example.option_texts:
            return self.letters(example)
        key = (*_asked(example), example.option_texts)
        if key not in self._option_tokens:
            if len(self._option_tokens) >= KEPT_TEXTS:
                self._option_tokens.clear()
            self._option_tokens[key] = self._behind(example, example.option_texts, "with_end")
        return self._option_tokens[key]

    def decode(self, tokens: Tensor) -> list[str]:
        """Return generated token ids [B, N] as texts without special tokens."""
        texts: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _symbols(self, ids: list[int], example: Example, prompt: str) -> tuple[Symbol, ...]:
        if example.picture is None:
            return tuple(ids)
        image = self.pictures(example.picture, prompt=prompt).image
        placeholder = self.processor.image_token_id
        return tuple(image if token == placeholder else token for token in ids)

    def _answered(
        self, prompts: Sequence[str], answers: Sequence[str], tokens: AnswerTokens
    ) -> list[str]:
        """Return each prompt with its answer, as `_led` gives it, behind it."""
        end = self.chat_template.end
        return [
            prompt + answer + (end if tokens == "with_end" else "")
            for prompt, answer in zip(prompts, answers, strict=True)
        ]

    def _led(self, example: Example, answer: str) -> str:
        """Return an answer with what stands between it and its prompt."""
        return (" " if example.begun else self.chat_template.prefix) + answer

    def _tails(self, heads: Sequence[Sequence[int]], full: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of `full` behind those of its prompt; placeholders stay unexpanded."""
        wholes = self._ids(full)
        tails = []
        for head, whole, text in zip(heads, wholes, full, strict=True):
            if whole[: len(head)] != head or len(whole) == len(head):
                raise ModelError(
                    Problem(
                        "the tokenizer does not keep prompt and answer apart",
                        self.family.model_type,
                        got=repr(text[-40:]),
                        fix="give the family an answer_prefix at which its tokenizer splits",
                    )
                )
            tails.append(tuple(whole[len(head) :]))
        return tails

    def _behind(
        self, example: Example, answers: Sequence[str], tokens: AnswerTokens
    ) -> list[tuple[int, ...]]:
        """Return the tokens of each of these answers to one example."""
        prompts = [self.prompt(example)] * len(answers)
        led = [self._led(example, answer) for answer in answers]
        return self._tails(self._ids(prompts), self._answered(prompts, led, tokens))

    def _inputs(self, examples: Sequence[Example], texts: list[str]) -> dict[str, Tensor]:
        # A list for each text: some processors cannot tell otherwise which text a picture is in.
        pictures = [[decode(e.picture)] if e.picture else [] for e in examples]
        inputs = dict(
            self.processor(
                text=texts,
                images=pictures if any(pictures) else None,
                padding=True,
                return_tensors="pt",
                add_special_tokens=self._adds_start(texts),
            )
        )
        mask = inputs["attention_mask"]
        if self.family.positions == "plain":
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        if self.family.attention == "prefix":
            inputs["token_type_ids"] = torch.zeros_like(mask)
        return inputs

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=self._adds_start(texts)
        )["input_ids"]
        return found

    def _adds_start(self, texts: Sequence[str]) -> bool:
        """Tell whether the tokenizer is to add its start token: not where the template wrote it."""
        start = self.tokenizer.bos_token
        return not (start and start in texts[0])

    def _require_different(self, letters: Mapping[str, tuple[int, ...]]) -> None:
        first = [tokens[0] for tokens in letters.values()]
        if len(set(first)) < len(first):
            raise ModelError(
                Problem(
                    "option letters begin with the same token, so they cannot be told apart",
                    self.family.model_type,
                    got=repr(self.tokenizer.convert_ids_to_tokens(first)),
                    fix="give the family an answer_prefix behind which a letter is one token",
                )
            )


def _asked(example: Example) -> tuple[Hashable, ...]:
    """Return what an example's prompt is made of."""
    digest = example.picture.digest if example.picture else ""
    return example.prompt, example.system, example.begun, digest
