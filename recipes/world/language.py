"""The embedded LLaVA and the losses that teach it to answer with a letter.

Recalling a fact and binding it to the letter of an option do not compose by themselves in a model
of this size: neither part gets a gradient before the other exists. Four auxiliary losses, faded out
before training ends, put each step of the way in its place: a head that looks back at the letter
of an option, the letter readable at the option's word, the recalled answer readable in a middle
layer, and a later head that looks from there at the option that says the same. The finished
model is an ordinary one whose letters come from the ordinary loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from .chance import LETTERS
from .curriculum import Batch
from .tokenizer import END, IMAGE, IMAGE_TOKENS, PAD, START

# Factors of the auxiliary losses while they are fully on.
RECALLED, MATCH, LOOK_BACK, LETTER = 0.5, 0.5, 0.2, 0.2


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


def build_model(
    tower: CLIPVisionModel, vocabulary: Mapping[str, int], *, shape: Shape
) -> LlavaForConditionalGeneration:
    """Build the embedded model on a trained tower."""
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
    model = assemble(tower, text, image_token=vocabulary[IMAGE])
    model.model.vision_tower.requires_grad_(False)
    # Attention is supervised, so its weights must exist; plain attention is also the faster here.
    model.set_attn_implementation("eager")
    return model


def assemble(
    tower: CLIPVisionModel, text: LlamaConfig, *, image_token: int
) -> LlavaForConditionalGeneration:
    """Put a trained tower before a fresh projector and a fresh language model."""
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=image_token,
        image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
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
        self, batch: Batch, features: torch.Tensor, *, auxiliary: float
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
            terms["recalled"] = auxiliary * RECALLED * recalled
        if with_attention:
            terms |= self._binding(batch, output, auxiliary=auxiliary)
        return terms

    def _binding(
        self, batch: Batch, output: object, *, auxiliary: float
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
            "match": -auxiliary * MATCH * _log(match).sum(),
            "look_back": -share * LOOK_BACK * _log(back).sum(),
            "letter": share * LETTER * letter,
        }


def _log(mass: torch.Tensor) -> torch.Tensor:
    return (mass.float() + 1e-6).log()
