"""Reading a model through packs: each picture and each shared beginning is paid for once.

`packing` says how sequences become rows; here they meet a model: vision features from memory, the
head applied to the few positions that are asked about, greedy answers tried out in the same pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from pulse_unlearn.methods import AnswerView
from pulse_unlearn.models.encode import AnswerTokens, Encoder, Shown
from pulse_unlearn.models.fast.features import Features, TowerMemory
from pulse_unlearn.models.fast.packing import Image, Line, Pack, pack
from pulse_unlearn.models.fast.passes import greedy_decode, last_mlp_at
from pulse_unlearn.models.forward import Reply, layer_output, option_chances, to_device
from pulse_unlearn.models.parts import inner_model, language_layers
from pulse_unlearn.records import Example

PASS_TOKENS = 16384
"""Tokens that are read at once where keys and values are kept: 13 GB of them at 13B in half
precision. Training keeps more of each token; there micro-batches are halved where need be."""


@dataclass(slots=True)
class Packed:
    """Same numbers as `forward.Plain`, from rows of shared beginnings.

    Exact for causal language models with plain rotary positions; checked by `select_backend`.
    """

    model: Any
    encoder: Encoder
    budget: int
    """Tokens of a row, unless a group is larger."""
    features: InitVar[Features | None] = None
    """What earlier backends' towers saw; None for a store of its own."""
    memory: TowerMemory = field(init=False)

    def __post_init__(self, features: Features | None) -> None:
        inner = inner_model(self.model)
        tower = inner.get_submodule(self.encoder.family.vision_tower)
        layers = getattr(inner.config, "vision_feature_layer", None)
        chosen = () if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
        self.memory = TowerMemory(tower, layers=chosen, features=features)

    def answer_log_probs(
        self,
        examples: Sequence[Example],
        *,
        tokens: AnswerTokens,
        hidden_layer: int | None = None,
    ) -> AnswerView:
        """Return the log-probabilities at the examples' answers, [B, A, V]."""
        lines = self.encoder.lines(examples, tokens=tokens)
        longest = max(len(line.answer) for line in lines)
        labels = torch.zeros(len(lines), longest, dtype=torch.long)
        mask = torch.zeros(len(lines), longest, dtype=torch.bool)
        for number, line in enumerate(lines):
            labels[number, longest - len(line.answer) :] = torch.tensor(line.answer)
            mask[number, longest - len(line.answer) :] = True
        packed = self._pack(lines)
        # An answer's token is predicted one place before it stands.
        asked = [
            [0] * (longest - len(line.answer)) + list(path[len(line.prompt) - 1 : -1])
            for line, path in zip(lines, packed.paths, strict=True)
        ]
        rows = torch.tensor(packed.rows).unsqueeze(1).expand(-1, longest)
        places = torch.tensor(asked)
        layers = language_layers(self.model, self.encoder.family)
        with layer_output(layers, hidden_layer) as outputs:
            found, index = self._log_probs(packed, examples, rows, places)
        hidden = outputs[0][rows, places].to(found.device) if outputs else None
        return AnswerView(found[index], labels.to(found.device), mask.to(found.device), hidden)

    def generate(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[Reply]:
        """Answer greedily, most answers in the one pass that reads the prompts.

        Each option's letter or text is a branch behind its question, so the pass tells how likely
        it is, what the first token is, and whether the turn ends behind the option that it begins.
        Other answers go on from there.
        """
        prompts = self.encoder.lines(examples, tokens=None)
        tried = [self.encoder.option_token_ids(example) or [()] for example in examples]
        branches = zip(prompts, tried, strict=True)
        lines = [Line(one.prompt, answer) for one, answers in branches for answer in answers]
        packed = self._pack(lines)
        # Every branch of an example begins with its prompt; the first one will do.
        firsts = list(accumulate(map(len, tried[:-1]), initial=0))
        if packed.input_ids.numel() > PASS_TOKENS and len(packed.input_ids) > 1:
            return self._by_halves(examples, [packed.rows[at] for at in firsts], max_new_tokens)
        rows = torch.tensor(
            [row for row, line in zip(packed.rows, lines, strict=True) for _ in range(_asked(line))]
        )
        asked = [
            place
            for line, path in zip(lines, packed.paths, strict=True)
            for place in path[len(line.prompt) - 1 :]
        ]
        cache = DynamicCache()
        with torch.no_grad():
            found, index = self._log_probs(packed, examples, rows, torch.tensor(asked), cache=cache)
        # Two looks at the device a batch, and none a question.
        greedy = found.argmax(-1)[index].tolist()
        begins = list(accumulate(map(_asked, lines), initial=0))
        parts = iter(greedy[begin:end] for begin, end in pairwise(begins))
        letters = [self._letter([next(parts) for _ in one], one, max_new_tokens) for one in tried]
        left = [at for at, letter in zip(firsts, letters, strict=True) if letter is None]
        ends = [(packed.rows[at], packed.paths[at][len(lines[at].prompt) - 1]) for at in left]
        # The last token of a prompt sees the whole prompt and nothing else.
        starts = [(row, packed.sees[row, 0, place]) for row, place in ends]
        said = [greedy[begins[at]] for at in left]
        others = iter(self._continue(cache, starts, said, max_new_tokens))
        texts = [next(others) if letter is None else letter for letter in letters]
        chances = option_chances(examples, tried, found, index)
        return [Reply(one, *said) for one, said in zip(chances, texts, strict=True)]

    def prompt_states(self, examples: Sequence[Example], *, layer: int) -> Tensor:
        """Return the mean output of a layer over each prompt's picture, or its text, [B, D]."""
        lines = self.encoder.lines(examples, tokens=None)
        packed = self._pack(lines)
        inner = inner_model(self.model)
        layers = language_layers(self.model, self.encoder.family)
        with torch.no_grad(), layer_output(layers, layer) as outputs:
            self._hidden(inner, packed, examples, {**self._inputs(packed), "use_cache": False})
        token = self.encoder.image_token
        places = [
            _described(line, path, token) for line, path in zip(lines, packed.paths, strict=True)
        ]
        output = outputs[0].cpu()
        return torch.stack(
            [output[row, at].double().mean(0) for row, at in zip(packed.rows, places, strict=True)]
        )

    def _by_halves(
        self, examples: Sequence[Example], rows: Sequence[int], max_new_tokens: int
    ) -> list[Reply]:
        """Ask the examples of one half of the rows, then those of the other."""
        middle = (max(rows) + 1) // 2
        found: dict[int, Reply] = {}
        for first in (True, False):
            half = [index for index, row in enumerate(rows) if (row < middle) is first]
            asked = [examples[index] for index in half]
            found |= zip(half, self.generate(asked, max_new_tokens=max_new_tokens), strict=True)
        return [found[index] for index in range(len(examples))]

    def _letter(
        self, branches: list[list[int]], letters: list[tuple[int, ...]], max_new_tokens: int
    ) -> tuple[str, bool] | None:
        """Follow the greedy choice, behind the prompt and behind each answer; None if it leaves.

        Returned are the answer and whether it is cut off there.
        """
        ends = self.encoder.end_ids
        if branches[0][0] in ends:
            return "", False
        for greedy, letter in zip(branches, letters, strict=True):
            said = letter[:-1] if letter and letter[-1] in ends else letter
            if not 0 < len(said) <= max_new_tokens or tuple(greedy[: len(said)]) != said:
                continue
            if len(said) == max_new_tokens or greedy[len(said)] in ends:
                text = self.encoder.decode(torch.tensor([said]))[0]
                return text, len(said) == max_new_tokens
        return None

    def _continue(
        self,
        cache: DynamicCache,
        starts: Sequence[tuple[int, Tensor]],
        first: list[int],
        max_new_tokens: int,
    ) -> list[tuple[str, bool]]:
        """Return the answers that begin with these tokens, and whether they are cut off."""
        if not starts:
            return []
        inner, ends = inner_model(self.model), self.encoder.end_ids
        with torch.no_grad():
            said = greedy_decode(
                inner, cache, starts, first, max_new_tokens=max_new_tokens, ends=ends
            )
        texts = [
            self.encoder.decode(torch.tensor([tokens], dtype=torch.long))[0] for tokens in said
        ]
        return [
            (text, len(tokens) == max_new_tokens) for text, tokens in zip(texts, said, strict=True)
        ]

    def _pack(self, lines: Sequence[Line]) -> Pack:
        return pack(lines, budget=self.budget, pad=self.encoder.tokenizer.pad_token_id)

    def _log_probs(
        self,
        packed: Pack,
        examples: Sequence[Example],
        rows: Tensor,
        places: Tensor,
        *,
        cache: DynamicCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return float32 log-probabilities [U, V] of what follows these places in these rows.

        And which of them is each place's, in the shape of `places`: a prompt's end, asked by every
        answer behind it, is read once. A `cache` is filled with the rows' keys and values.
        """
        inner, inputs = inner_model(self.model), self._inputs(packed)
        every = torch.stack([rows.flatten(), places.flatten()])  # on the host: no device waits
        asked, index = torch.unique(every, dim=1, return_inverse=True)
        kept = {"use_cache": cache is not None, "past_key_values": cache}
        language_model = inner.get_submodule(self.encoder.family.language_model)
        with last_mlp_at(language_model, asked):
            hidden = self._hidden(inner, packed, examples, {**inputs, **kept})
        logits = inner.get_output_embeddings()(hidden[tuple(asked.to(hidden.device))])
        return torch.log_softmax(logits.float(), dim=-1), index.view(places.shape).to(logits.device)

    def _inputs(self, packed: Pack) -> dict[str, Tensor]:
        """Return tokens, positions and the mask of pairs as the model takes them."""
        inner = inner_model(self.model)
        parameter = next(inner.parameters())
        inputs = to_device(
            {"input_ids": packed.input_ids, "position_ids": packed.position_ids}, inner
        )
        sees = packed.sees.to(parameter.device)  # a byte a pair; as numbers it would be two or four
        mask = torch.zeros(sees.shape, dtype=parameter.dtype, device=sees.device)
        inputs["attention_mask"] = mask.masked_fill_(~sees, torch.finfo(parameter.dtype).min)
        return inputs

    def _hidden(
        self, inner: Any, packed: Pack, examples: Sequence[Example], inputs: dict[str, Any]
    ) -> Tensor:
        if not packed.digests:
            hidden: Tensor = inner.model(**inputs).last_hidden_state
            return hidden
        shown = {one.picture.digest: self.encoder.shown(one) for one in examples if one.picture}
        pictures = [shown[digest] for digest in packed.digests]
        if not self.memory.usable:
            pixels = to_device(_stacked(pictures), inner)
            hidden = inner.model(**inputs, **pixels).last_hidden_state
            return hidden
        self._learn(inner, shown, packed.digests)
        blank = to_device(_blank(pictures), inner)
        with self.memory.recalling(packed.digests):
            hidden = inner.model(**inputs, **blank).last_hidden_state
        return hidden

    def _learn(self, inner: Any, shown: dict[str, Shown], digests: Sequence[str]) -> None:
        """Run the tower on pictures it has not seen.

        Without dropout: the projector behind the tower would draw random numbers, and the step's
        own dropout would depend on which pictures were new. A resumed training would differ from
        an uninterrupted one.
        """
        new: dict[Hashable, list[str]] = {}
        for digest in self.memory.missing(digests):
            new.setdefault(shown[digest].shapes, []).append(digest)

        def see(chosen: Sequence[str]) -> None:
            with torch.no_grad():
                pixels = to_device(_stacked([shown[digest] for digest in chosen]), inner)
                inner.model.get_image_features(**pixels)

        was_training = inner.training
        inner.eval()
        try:
            for shape, alike in new.items():
                self.memory.learn(alike, see, shape=shape)
        finally:  # also where memory did not suffice and the step is tried again
            inner.train(was_training)


def _described(line: Line, path: Sequence[int], image_token: int) -> list[int]:
    """Return the places in its row of a prompt's picture or, without one, of all its tokens."""
    places = [
        last - len(symbol.tokens) + 1 + number
        for symbol, last in zip(line.prompt, path, strict=True)
        if isinstance(symbol, Image)
        for number, token in enumerate(symbol.tokens)
        if token == image_token
    ]
    return places or list(path)


def _asked(line: Line) -> int:
    """Return how many positions of a tried answer are read: its prompt's end and its own tokens."""
    return 1 + len(line.answer)


def _stacked(shown: Sequence[Shown]) -> dict[str, Tensor]:
    """Return the processor's picture inputs, one picture after the other.

    Where pictures come in pieces, those with fewer get empty ones, as processors give them.
    """
    return {key: _in_pieces([one.inputs[key] for one in shown]) for key in shown[0].inputs}


def _in_pieces(inputs: Sequence[Tensor]) -> Tensor:
    if len({one.shape[1:] for one in inputs}) > 1:
        most = max(one.shape[1] for one in inputs)
        inputs = [
            nn.functional.pad(one, (0, 0) * (one.ndim - 2) + (0, most - one.shape[1]))
            for one in inputs
        ]
    return torch.cat(list(inputs))


def _blank(shown: Sequence[Shown]) -> dict[str, Tensor]:
    """Return picture inputs of the right shapes without pixels, for a tower that is not run."""
    pixels = [each.inputs["pixel_values"].shape for each in shown]
    one = torch.ones(1)
    if len({shape[1:] for shape in pixels}) == 1:
        blank = one.expand(sum(shape[0] for shape in pixels), *pixels[0][1:])
    else:
        blank = _in_pieces([one.expand(shape) for shape in pixels])
    others = [
        Shown(each.image, {k: v for k, v in each.inputs.items() if k != "pixel_values"})
        for each in shown
    ]
    return {**_stacked(others), "pixel_values": blank}
