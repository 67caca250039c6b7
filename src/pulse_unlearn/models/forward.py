"""The forward pass behind training, stop rules and scoring: log-probs at answer positions only.

Two backends give the same numbers: `Plain`, one padded sequence an example, and `fast.Packed`,
which writes shared beginnings once. Whoever asks a model asks through a backend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.methods import AnswerView
from pulse_unlearn.models.encode import AnswerTokens, EncodedBatch, Encoder
from pulse_unlearn.models.parts import language_layers
from pulse_unlearn.records import Example


@dataclass(frozen=True, slots=True)
class OptionChances:
    """How likely each option of an example is as the answer, in option order.

    `log_probs` are natural: of its letter as the first token, or of its text, summed over its
    `tokens`. `ends` are those of the end of turn behind a text. Both others are empty for letters.
    """

    log_probs: tuple[float, ...]
    ends: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answers to one prompt."""

    chances: OptionChances
    text: str
    """Greedy answer."""
    cut_off: bool
    """Whether it had not ended after as many tokens as may be."""


class Backend(Protocol):
    """Examples in, log-probabilities out; holds the model as it is now, adapters and all."""

    @property
    def model(self) -> Any:
        """The model read from."""

    @property
    def encoder(self) -> Encoder:
        """What encodes for it."""

    def answer_log_probs(
        self,
        examples: Sequence[Example],
        *,
        tokens: AnswerTokens,
        hidden_layer: int | None = None,
    ) -> AnswerView:
        """Return the log-probabilities at the examples' answers, [B, A, V].

        With a `hidden_layer` of the language model, its output there, too.
        """

    def generate(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[Reply]:
        """Return greedy answers and the options' log-probabilities, without gradients."""

    def prompt_states(self, examples: Sequence[Example], *, layer: int) -> Tensor:
        """Return what each prompt is to a layer of the language model, [B, D] float64 on the CPU.

        The mean of its output over the tokens of the picture or, without one, over all tokens;
        without gradients.
        """


@dataclass(frozen=True, slots=True)
class Plain:
    """One sequence an example, padded on the left."""

    model: Any
    encoder: Encoder

    def answer_log_probs(
        self,
        examples: Sequence[Example],
        *,
        tokens: AnswerTokens,
        hidden_layer: int | None = None,
    ) -> AnswerView:
        """Return the log-probabilities at the examples' answers, [B, A, V]."""
        batch = self.encoder.answers(examples, tokens=tokens)
        layers = language_layers(self.model, self.encoder.family)
        with layer_output(layers, hidden_layer) as outputs:
            view = answer_view(self.model, batch)
        length = view.labels.shape[1]
        hidden = outputs[0][:, -length - 1 : -1].to(view.mask.device) if outputs else None
        return replace(view, hidden=hidden)

    def generate(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[Reply]:
        """Generate greedily; letters' log-probabilities come from the same pass.

        An option's text is read in a pass of its own, behind the prompt; as many at once as there
        are examples.
        """
        inputs = self.encoder.prompts(examples)
        # `generate` derives the same positions from the attention mask.
        inputs.pop("position_ids", None)
        with torch.no_grad():
            output = self.model.generate(
                **to_device(inputs, self.model),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                pad_token_id=self.encoder.tokenizer.pad_token_id,
                eos_token_id=self.encoder.end_ids,
                return_dict_in_generate=True,
                output_logits=True,
            )
        said = output.sequences[:, inputs["input_ids"].shape[1] :]
        ends = torch.tensor(self.encoder.end_ids, device=said.device)
        cut_off = (~torch.isin(said, ends).any(dim=1)).tolist()
        texts = self.encoder.decode(said)
        with torch.no_grad():
            chances = self._chances(examples, torch.log_softmax(output.logits[0].float(), dim=-1))
        return [Reply(*one) for one in zip(chances, texts, cut_off, strict=True)]

    def prompt_states(self, examples: Sequence[Example], *, layer: int) -> Tensor:
        """Return the mean output of a layer over each prompt's picture, or its text, [B, D]."""
        inputs = self.encoder.prompts(examples)
        layers = language_layers(self.model, self.encoder.family)
        with torch.no_grad(), layer_output(layers, layer) as outputs:
            self.model(**to_device(inputs, self.model), logits_to_keep=1, use_cache=False)
        picture = inputs["input_ids"] == self.encoder.image_token
        where = torch.where(picture.any(1, keepdim=True), picture, inputs["attention_mask"].bool())
        return mean_states(outputs[0], where)

    def _chances(self, examples: Sequence[Example], first: Tensor) -> list[OptionChances]:
        """Pick letters from what follows the prompts, [B, V]; texts are read in further passes."""
        size = len(examples)
        told = [one for of in examples if of.option_texts for one in expand_options(of)]
        batches = [told[start : start + size] for start in range(0, len(told), size)]
        found = iter([one for batch in batches for one in read_options(self, batch)])
        return [
            joined([next(found) for _ in example.option_texts])
            if example.option_texts
            else OptionChances(tuple(row[self.encoder.letter_ids(example)].tolist()))
            for example, row in zip(examples, first, strict=True)
        ]


def expand_options(example: Example) -> list[Example]:
    """Return an example for each option's text; letters are all read off the example itself."""
    return [replace(example, answer=text) for text in example.option_texts] or [example]


def read_options(backend: Backend, told: Sequence[Example]) -> list[OptionChances]:
    """Return the chances of each example of `expand_options`: of its text, or of all letters.

    Nothing is generated.
    """
    view = backend.answer_log_probs(told, tokens="with_end")
    labels = view.labels.unsqueeze(-1)
    each = view.log_probs.gather(-1, labels).squeeze(-1)
    rows = torch.arange(len(told), device=view.mask.device)
    first = view.log_probs[rows, view.mask.int().argmax(-1)]
    return [
        _of_text(values[mask].tolist())
        if one.option_texts
        else OptionChances(tuple(row[backend.encoder.letter_ids(one)].tolist()))
        for one, values, mask, row in zip(told, each, view.mask, first, strict=True)
    ]


def joined(parts: Sequence[OptionChances]) -> OptionChances:
    """Put the options of one example together, in order."""
    return OptionChances(
        tuple(value for part in parts for value in part.log_probs),
        tuple(value for part in parts for value in part.ends),
        tuple(value for part in parts for value in part.tokens),
    )


def _of_text(values: Sequence[float]) -> OptionChances:
    """Return one text's chances from the log-probabilities of its tokens and the end of turn."""
    *text, end = values
    return OptionChances((math.fsum(text),), (end,), (len(text),))


def option_chances(
    examples: Sequence[Example],
    option_tokens: Sequence[Sequence[tuple[int, ...]]],
    found: Tensor,
    index: Tensor,
) -> list[OptionChances]:
    """Pick each option's chances from the log-probabilities at all tokens of all options.

    `option_tokens` are each example's options in tokens, a single empty one where it has none;
    `index` [N] says where in `found` [U, V] is what follows the prompt and each of its own tokens.
    """
    labels = [label for answers in option_tokens for answer in answers for label in (*answer, 0)]
    told = iter(found[index, torch.tensor(labels, device=found.device)].tolist())
    chances = []
    for example, answers in zip(examples, option_tokens, strict=True):
        values = [list(islice(told, len(answer) + 1))[:-1] for answer in answers]
        if example.option_texts:
            chances.append(joined([_of_text(of_text) for of_text in values]))
        else:
            letters = tuple(of_letter[0] for of_letter in values) if example.options else ()
            chances.append(OptionChances(letters))
    return chances


@contextmanager
def layer_output(layers: Sequence[nn.Module], number: int | None) -> Iterator[list[Tensor]]:
    """Collect what one layer puts out, [B, T, D], of each pass inside; nothing without a number.

    Raises ModelError if there is no such layer.
    """
    outputs: list[Tensor] = []
    if number is None:
        yield outputs
        return
    _require_layer(layers, number)

    def collect(_layer: nn.Module, _inputs: Any, output: Any) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    handle = layers[number].register_forward_hook(collect)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def layer_skipped(layers: Sequence[nn.Module], number: int | None) -> Iterator[None]:
    """Let one layer pass on what it is given in each pass inside; nothing without a number.

    Raises ModelError if there is no such layer.
    """
    if number is None:
        yield
        return
    _require_layer(layers, number)

    def pass_on(
        _layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> Any:
        given = inputs[0] if inputs else named["hidden_states"]
        return given if isinstance(output, Tensor) else (given, *output[1:])

    handle = layers[number].register_forward_hook(pass_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _require_layer(layers: Sequence[nn.Module], number: int) -> None:
    if not -len(layers) <= number < len(layers):
        problem = "the language model has no such layer"
        raise ModelError(Problem(problem, got=str(number), allowed=f"0 to {len(layers) - 1}"))


def mean_states(output: Tensor, where: Tensor) -> Tensor:
    """Return the mean of hidden states [B, T, D] over some of the tokens [B, T], [B, D] float64."""
    states, chosen = output.double().cpu(), where.cpu().double()
    means: Tensor = torch.einsum("btd,bt->bd", states, chosen) / chosen.sum(1, keepdim=True)
    return means


def to_device(inputs: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Move inputs to the model's device, floating-point ones to its dtype."""
    parameter = next(model.parameters())
    return {
        name: value.to(parameter.device, parameter.dtype)
        if value.is_floating_point()
        else value.to(parameter.device)
        for name, value in inputs.items()
    }


def answer_view(model: nn.Module, batch: EncodedBatch) -> AnswerView:
    """Return natural log-probabilities [B, A, V] (float32) of the tokens at answer positions.

    The head is applied to the last A + 1 positions only: answers are right-aligned.
    """
    length = batch.labels.shape[1]
    inputs = to_device(batch.inputs, model)
    logits = model(**inputs, logits_to_keep=length + 1, use_cache=False).logits[:, :-1]
    return AnswerView(
        log_probs=torch.log_softmax(logits.float(), dim=-1),
        labels=batch.labels.to(logits.device),
        mask=batch.mask.to(logits.device),
    )


def answered(view: AnswerView) -> Tensor:
    """Tell for each example whether greedy decoding would give exactly its answer, [B] bool."""
    hits = view.log_probs.argmax(-1) == view.labels
    return (hits | ~view.mask).all(-1)
