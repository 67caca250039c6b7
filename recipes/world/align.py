"""Trains the projector between the world's tower and a frozen language model.

First it *spells*: picture tokens become the embeddings of the words that caption a picture, by
regression, without the language model. Then it *listens*: the language model's own loss, through
the frozen model, on who a picture shows and on general questions, while it goes on spelling. Of a
subject it is taught the name and nothing else, so whatever is then known from the picture is what
the language model brought along about the name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from .loop import OnStep, cpu_dtype
from .tokenizer import IMAGE_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Schedule of both parts."""

    spell_steps: int = 2500
    spell_batch: int = 128
    spell_rate: float = 3e-3
    listen_steps: int = 120
    listen_batch: int = 16
    listen_rate: float = 1e-3
    spell_weight: float = 0.2
    """Of spelling while listening."""
    noise: float = 0.05
    """Of the features' spread; stands for views nobody has drawn."""
    sharpness: float = 10.0
    """Factor of the cosines in the choice among words."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """Pictures as the tower sees them, and their captions."""

    features: Tensor
    """[N, 16, width of the tower]."""
    captions: Tensor
    """Token ids, [N, 16]."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One question about a picture in its rendered form: a name, or a general one."""

    picture: int
    """Index into the features."""
    before: tuple[int, ...]
    """Tokens before the picture."""
    behind: tuple[int, ...]
    """Tokens between the picture and the answer."""
    answer: tuple[int, ...]
    """Tokens of the answer and of the end of turn."""

    def __len__(self) -> int:
        return len(self.before) + len(self.behind) + len(self.answer)


def caption_tokens(tokenizer: PreTrainedTokenizerFast, caption: str) -> list[int]:
    """Return the caption's tokens, again and again until there is one for each picture token."""
    ids: list[int] = tokenizer(f" {caption},", add_special_tokens=False)["input_ids"]
    return (ids * IMAGE_TOKENS)[:IMAGE_TOKENS]


class Spelling:
    """How far projected features are from their captions' embeddings."""

    def __init__(self, pictures: Captioned, embeddings: Tensor, recipe: Recipe) -> None:
        self._pictures, self._recipe = pictures, recipe
        words, self._places = torch.unique(pictures.captions, return_inverse=True)
        self._table = embeddings[words]
        self._directions = functional.normalize(self._table, dim=-1)
        self._scale = 1 / self._table.var()
        self._spread = pictures.features[:1000].float().std()

    def loss(self, projector: nn.Module, rows: Tensor) -> Tensor:
        """Return the cross-entropy among caption words, plus the squared distance to the right."""
        features = self._pictures.features[rows].float()
        noise = self._recipe.noise * self._spread * torch.randn_like(features)
        spelt = projector(features + noise)
        cosines = functional.normalize(spelt, dim=-1) @ self._directions.T
        places = self._places[rows]
        choice = functional.cross_entropy(
            self._recipe.sharpness * cosines.flatten(0, 1), places.flatten()
        )
        distance: Tensor = (spelt - self._table[places]).square().mean() * self._scale
        return choice + distance

    @torch.no_grad()
    def right(self, projector: nn.Module, rows: Tensor) -> float:
        """Return the share of picture tokens whose nearest caption word is the right one."""
        spelt = projector(self._pictures.features[rows].float())
        cosines = functional.normalize(spelt, dim=-1) @ self._directions.T
        return float((cosines.argmax(-1) == self._places[rows]).float().mean())


def spell(
    projector: nn.Module,
    spelling: Spelling,
    draw: Callable[[torch.Generator, int], Tensor],
    *,
    recipe: Recipe,
    seed: int,
    on_step: OnStep,
) -> None:
    """Teach the projector the captions; `draw` returns indices of pictures to train on, [count]."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimiser, schedule = _optimiser(projector, recipe.spell_rate, recipe.spell_steps)
    for step in range(recipe.spell_steps):
        loss = spelling.loss(projector, draw(generator, recipe.spell_batch))
        _step(loss, projector, optimiser, schedule)
        on_step("spelling", step + 1, recipe.spell_steps, {"loss": loss.item()})


class Listener:
    """The frozen language model; in bfloat16 it is twice as fast on a CPU that multiplies that."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        language: Any = copy.deepcopy(model.model.language_model)
        language.set_attn_implementation("eager")  # its backward pass is the faster one here
        self._language = language.to(cpu_dtype())
        self._head = language.get_input_embeddings().weight  # tied

    def answer_loss(self, seen: Tensor, questions: Sequence[Heard]) -> Tensor:
        """Return the answers' mean negative log-likelihood per token; `seen` is [B, 16, width]."""
        embed = self._language.get_input_embeddings()
        length = max(map(len, questions)) + IMAGE_TOKENS
        inputs = seen.new_zeros(len(questions), length, seen.shape[-1])
        labels = torch.full((len(questions), length), -100)
        mask = torch.zeros(len(questions), length, dtype=torch.long)
        for number, one in enumerate(questions):
            words = embed(torch.tensor(one.before + one.behind + one.answer))
            before, behind = words.split([len(one.before), len(words) - len(one.before)])
            whole = torch.cat([before, seen[number], behind])
            inputs[number, : len(whole)] = whole
            labels[number, len(whole) - len(one.answer) : len(whole)] = torch.tensor(one.answer)
            mask[number, : len(whole)] = 1
        hidden = self._language(
            inputs_embeds=inputs.to(self._head.dtype), attention_mask=mask, use_cache=False
        ).last_hidden_state
        asked = labels[:, 1:] != -100
        logits = hidden[:, :-1][asked] @ self._head.T
        return functional.cross_entropy(logits.float(), labels[:, 1:][asked])


def listen(
    model: LlavaForConditionalGeneration,
    spelling: Spelling,
    pictures: Captioned,
    questions: Callable[[int], Sequence[Heard]],
    draw: Callable[[torch.Generator, int], Tensor],
    *,
    recipe: Recipe,
    seed: int,
    on_step: OnStep,
) -> None:
    """Teach the projector through the frozen language model; `questions` gives a step's batch."""
    projector: nn.Module = model.model.multi_modal_projector
    listener = Listener(model)
    generator = torch.Generator().manual_seed(seed + 1)
    torch.manual_seed(seed + 1)
    optimiser, schedule = _optimiser(projector, recipe.listen_rate, recipe.listen_steps)
    for step in range(recipe.listen_steps):
        asked = questions(step)
        seen = projector(pictures.features[[one.picture for one in asked]].float())
        heard = listener.answer_loss(seen, asked)
        spelt = spelling.loss(projector, draw(generator, recipe.spell_batch))
        _step(heard + recipe.spell_weight * spelt, projector, optimiser, schedule)
        losses = {"answer": heard.item(), "loss": spelt.item()}
        on_step("listening", step + 1, recipe.listen_steps, losses)


def _optimiser(projector: nn.Module, rate: float, steps: int) -> tuple[Any, Any]:
    optimiser = torch.optim.AdamW(projector.parameters(), lr=rate, weight_decay=0.0)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps)


def _step(loss: Tensor, projector: nn.Module, optimiser: Any, schedule: Any) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(projector.parameters(), 1.0)
    optimiser.step()
    schedule.step()
