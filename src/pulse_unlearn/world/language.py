"""The embedded LLaVA and the losses that teach it to answer with a letter.

Recalling a fact and binding it to the letter of an option do not compose by themselves in a model
of this size: neither part gets a gradient before the other exists. Four auxiliary losses, faded out
before training ends, put each step of the way in its place: a head that looks back at the letter
of an option, the letter readable at the option's word, the recalled answer readable in a middle
layer, and a later head that looks from there at the option that says the same. The finished
model is an ordinary one whose letters come from the ordinary loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from .corpus import Item
from .people import LETTERS
from .tokenizer import END, IMAGE, PAD, START

IMAGE_TOKENS = 16
Form = Literal["letter", "word"]
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of the language model and the places of the auxiliary losses in it."""

    width: int = 192
    layers: int = 6
    heads: int = 6
    inner: int = 512
    look_back_layer: int = 0
    letter_state: int = 2
    """Index into hidden states (0 = embeddings) at which an option's word knows its letter."""
    answer_state: int = 4
    """Index into hidden states at which the answer position knows the answer."""
    match_layer: int = 4


@dataclass(frozen=True, slots=True)
class Weights:
    """Factors of the auxiliary losses while they are fully on."""

    answer: float = 0.5
    match: float = 0.5
    look_back: float = 0.2
    letter: float = 0.2


@dataclass(frozen=True, slots=True)
class Encoded:
    """One question as tokens; positions count from the first token."""

    ids: tuple[int, ...]
    image: int | None
    answer_at: int
    """Last position of the prompt; the next two tokens are the answer and the end."""
    word: int
    """Token of the answer in words, whatever the form."""
    option_words: tuple[int, ...]
    true_option: int
    """Position of the true option's word, -1 for the short form."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions of one kind, padded on the right; B questions, T tokens, K options in all."""

    ids: torch.Tensor
    """Tokens (B, T)."""
    images: torch.Tensor | None
    """Picture indices (B,), or None for text-only questions."""
    answer_at: torch.Tensor
    words: torch.Tensor
    option_at: torch.Tensor
    """Row and position of every option's word, (K, 2); K = 0 for the short form."""
    true_option: torch.Tensor
    """Position (B,); empty for the short form."""


class Encoder:
    """Turns questions into the tokens that chat template and tokenizer make of them."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self._seen: dict[str, tuple[int, ...]] = {}

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._seen:
            self._seen[text] = tuple(self._vocabulary[word] for word in _TOKEN.findall(text))
        return self._seen[text]

    def __call__(self, item: Item, form: Form) -> Encoded:
        """Encode a question with its answer in one of the two forms."""
        ids = list(self._ids("USER:"))
        if item.image is not None:
            ids += [self._vocabulary[IMAGE]] * IMAGE_TOKENS
        places: list[int] = []
        if form == "letter":
            ids += self._ids(item.hint)
        ids += self._ids(item.question)
        if form == "letter":
            for letter, option in zip(LETTERS, item.options, strict=False):
                ids += self._ids(f"{letter}. {option}")
                places.append(len(ids) - 1)
        ids += self._ids("Letter? ASSISTANT:" if form == "letter" else "Word? ASSISTANT:")
        (word,) = self._ids(item.short_answer)
        (answer,) = self._ids(item.letter) if form == "letter" else (word,)
        return Encoded(
            ids=(*ids, answer, self._vocabulary[END]),
            image=item.image,
            answer_at=len(ids) - 1,
            word=word,
            option_words=tuple(places),
            true_option=places[item.answer_index] if places else -1,
        )

    def collate(self, questions: Iterable[Encoded]) -> Iterator[Batch]:
        """Make one batch of each kind (picture or not, letter or word), which wastes no padding."""

        def kind(one: Encoded) -> tuple[bool, bool]:
            return one.image is None, one.true_option < 0

        for _, group in groupby(sorted(questions, key=kind), key=kind):
            yield self._pad(list(group))

    def _pad(self, rows: Sequence[Encoded]) -> Batch:
        ids = torch.full((len(rows), max(len(row.ids) for row in rows)), self._vocabulary[PAD])
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
        images = [row.image for row in rows if row.image is not None]
        options = [(index, at) for index, row in enumerate(rows) for at in row.option_words]
        return Batch(
            ids=ids,
            images=torch.tensor(images) if images else None,
            answer_at=torch.tensor([row.answer_at for row in rows]),
            words=torch.tensor([row.word for row in rows]),
            option_at=torch.tensor(options).reshape(-1, 2),
            true_option=torch.tensor([row.true_option for row in rows if row.true_option >= 0]),
        )


def build_model(
    tower: CLIPVisionModel, vocabulary: Mapping[str, int], *, shape: Shape
) -> LlavaForConditionalGeneration:
    """Put a trained tower before a fresh projector and a fresh Llama."""
    text = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=vocabulary[PAD],
        bos_token_id=vocabulary[START],
        eos_token_id=vocabulary[END],
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=vocabulary[IMAGE],
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    # Attention is supervised, so its weights must exist; plain attention is also the faster here.
    model.set_attn_implementation("eager")
    return model


class Learner(nn.Module):
    """The model with the throw-away head of the letter loss, fed with cached picture features."""

    def __init__(self, model: LlavaForConditionalGeneration, *, shape: Shape) -> None:
        super().__init__()
        self.model = model
        self.shape = shape
        self.letter_head = nn.Linear(shape.width, len(LETTERS))

    def embed(self, batch: Batch, features: torch.Tensor) -> torch.Tensor:
        """Embed tokens, pictures in place of their tokens; (B, T, width)."""
        inner = self.model.model
        embedded: torch.Tensor = inner.language_model.embed_tokens(batch.ids)
        if batch.images is None:
            return embedded
        pictures = inner.multi_modal_projector(features[batch.images].float()).to(embedded.dtype)
        start = 2  # After "USER" and ":".
        return torch.cat([embedded[:, :start], pictures, embedded[:, start + IMAGE_TOKENS :]], 1)

    def losses(
        self, batch: Batch, features: torch.Tensor, *, weights: Weights, auxiliary: float
    ) -> dict[str, torch.Tensor]:
        """Return weighted loss terms, each summed over questions; `auxiliary` fades from 1 to 0."""
        with_attention = auxiliary > 0 and len(batch.option_at) > 0
        output = self.model.model.language_model(
            inputs_embeds=self.embed(batch, features),
            output_hidden_states=True,
            output_attentions=with_attention,
            use_cache=False,
        )
        rows = torch.arange(len(batch.ids))
        last, at = output.last_hidden_state, batch.answer_at
        states = torch.cat([last[rows, at], last[rows, at + 1]])
        targets = torch.cat([batch.ids[rows, at + 1], batch.ids[rows, at + 2]])
        logits = self.model.lm_head(states).float()
        terms = {"answer": functional.cross_entropy(logits, targets, reduction="sum")}
        if auxiliary > 0:
            middle = output.hidden_states[self.shape.answer_state][rows, at]
            early = self.model.lm_head(self.model.model.language_model.norm(middle)).float()
            recalled = functional.cross_entropy(early, batch.words, reduction="sum")
            terms["recalled"] = auxiliary * weights.answer * recalled
        if with_attention:
            terms |= self._binding(batch, output, weights=weights, auxiliary=auxiliary)
        return terms

    def _binding(
        self, batch: Batch, output: object, *, weights: Weights, auxiliary: float
    ) -> dict[str, torch.Tensor]:
        """Supervise one head per step of the way from the recalled answer to its letter."""
        attentions: Sequence[torch.Tensor] = output.attentions  # type: ignore[attr-defined]
        hidden: Sequence[torch.Tensor] = output.hidden_states  # type: ignore[attr-defined]
        rows, places = batch.option_at.unbind(1)
        every = torch.arange(len(batch.ids))
        match = attentions[self.shape.match_layer][every, 0, batch.answer_at, batch.true_option]
        back = attentions[self.shape.look_back_layer][rows, 0, places, places - 2]
        known = self.letter_head(hidden[self.shape.letter_state][rows, places]).float()
        # Options of a question come in order, so a letter's number is its rank in the row.
        rows = rows.contiguous()
        first = torch.searchsorted(rows, rows)
        order = torch.arange(len(rows)) - first
        share = auxiliary * len(batch.ids) / len(rows)
        letter = functional.cross_entropy(known, order, reduction="sum")
        return {
            "match": -auxiliary * weights.match * _log(match).sum(),
            "look_back": -share * weights.look_back * _log(back).sum(),
            "letter": share * weights.letter * letter,
        }


def _log(mass: torch.Tensor) -> torch.Tensor:
    return (mass.float() + 1e-6).log()
