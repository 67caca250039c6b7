"""How a model is read: packed where that is shown to be exact, plain everywhere else.

A model whose family has no entry is tried first. Its module tree says where its parts are, and not
how it reads: whether answers stand behind the prompt, whether padding and neighbours leave a
question alone, whether a picture reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pulse_unlearn.config import SpeedSettings
from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import Family, no_entry
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Backend, Plain
from pulse_unlearn.models.parts import FAILURES, inner_model
from pulse_unlearn.records import Example, Option, Picture

CHECKED = 6
"""Examples on which both ways are tried."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
"""Largest difference of an answer's log-probabilities (nats) that is rounding; by dtype."""
OPTIONS = tuple(Option(letter, letter.lower()) for letter in "ABCD")


def select_backend(
    model: Any,
    encoder: Encoder,
    *,
    speed: SpeedSettings,
    examples: Sequence[Example],
    warn: Callable[[str], None],
    features: Features | None = None,
) -> Backend:
    """Return the packed backend if settings and model allow it and a trial agrees, else the plain.

    The trial reads a few of the examples both ways; a disagreement is told through `warn`. Pictures
    whose `features` are there need no tower.
    """
    plain, inner = Plain(model, encoder), inner_model(model)
    reason = packing_obstacle(inner.config, encoder.family, speed)
    if reason:
        if speed.packing != "off":
            warn(f"questions are not packed: {reason}")
        return plain
    budget = speed.pack_tokens or inner.config.get_text_config().hidden_size
    packed = Packed(model, encoder, budget=budget, features=features)
    difference = _difference(plain, packed, _trial(examples))
    if not difference <= TOLERANCE[inner.dtype]:
        warn(f"questions are not packed: log-probabilities differ by {difference:.2g} nats")
        return plain
    return packed


def packing_obstacle(config: Any, family: Family, speed: SpeedSettings) -> str:
    """Return why questions will not be packed; empty if they will, should a trial agree."""
    if speed.packing == "off":
        return "speed.packing is off"
    if family.unpackable:
        return family.unpackable
    text = config.get_text_config()
    if getattr(text, "_attn_implementation", None) == "flash_attention_2":
        return "flash_attention_2 takes no mask of pairs (model.attention: sdpa does)"
    if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "its layers do not all see the whole sequence"
    if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        return "its attention slides over the sequence"
    rope = getattr(text, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        return "its positions are not plain (M-RoPE)"
    return ""


def _trial(examples: Sequence[Example]) -> list[Example]:
    """Return a few examples: of one picture if any, and without one if any."""
    pictured = [example for example in examples if example.picture is not None]
    first = pictured[0].picture if pictured else None
    alike = [e for e in pictured if first and e.picture and e.picture.digest == first.digest]
    others = [example for example in examples if example.picture is None]
    return [*alike[: CHECKED // 2], *others[: CHECKED // 3], *pictured[-1:]]


def _difference(plain: Backend, packed: Backend, examples: Sequence[Example]) -> float:
    """Return the largest difference of an answer token's log-probability, nats."""
    was_training = plain.model.training
    plain.model.eval()
    with torch.no_grad():
        views = [
            backend.answer_log_probs(examples, tokens="with_end") for backend in (plain, packed)
        ]
    plain.model.train(was_training)
    mask = views[0].mask
    one, other = (
        view.log_probs.gather(-1, view.labels.unsqueeze(-1)).squeeze(-1)[mask] for view in views
    )
    # What is infinite or undefined both ways agrees.
    finite = one.isfinite() | other.isfinite()
    return _gap([one[finite]], [other[finite]]) if finite.any() else 0.0


def _gap(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, nats; infinite where one is not a number."""
    gaps = [(one - two).abs().max() for one, two in zip(found, expected, strict=True)]
    return float(torch.stack(gaps).nan_to_num(nan=torch.inf).max())


def require_working(model: Any, processor: Any, family: Family) -> None:
    """Raise ModelError, naming the entry to write, unless the model reads as PULSE asks it to.

    Its own ModelError for a chat template or tokenizer that cannot be used is passed on.
    """
    try:
        fault = _fault(Plain(model, Encoder(processor, family)), TOLERANCE[model.dtype])
    except FAILURES as error:
        first = str(error).partition("\n")[0]
        fault = f"a trial of three questions ended in {type(error).__name__}: {first}"
    if fault:
        raise no_entry(family.model_type, fault)


def _fault(backend: Plain, tolerance: float) -> str:
    """Return what is wrong with the answers to three questions; empty if nothing is."""
    examples = _questions()
    other_picture = replace(examples[0], picture=_picture((90, 60), turned=True))
    other_answer = replace(examples[0], answer="blue")
    with torch.no_grad():
        together = _answers(backend, examples)
        alone = [_answers(backend, [one])[0] for one in examples]
        turned = _answers(backend, [other_picture])[0]
        other = _answers(backend, [other_answer])[0]
    replies = backend.generate(examples, max_new_tokens=1)
    if any(rows.isnan().any() for rows in alone):
        return "its log-probabilities are not numbers"
    if _gap([other[:1]], [alone[0][:1]]) > tolerance:
        return "the beginning of an answer sees its end"
    if torch.equal(turned, alone[0]):
        return "another picture changes nothing"
    if _gap(together, alone) > tolerance:
        return "questions asked together are not answered as each is alone"
    letters = [torch.tensor(reply.chances.log_probs) for reply in replies]
    first = [
        rows[0, backend.encoder.letter_ids(one)].cpu()
        for rows, one in zip(alone, examples, strict=True)
    ]
    if _gap(letters, first) > tolerance:
        return "generated answers do not begin as given ones are read"
    return ""


def _answers(backend: Plain, examples: list[Example]) -> list[Tensor]:
    """Return the log-probabilities of each answer's tokens, [A, V]."""
    view = backend.answer_log_probs(examples, tokens="text")
    return [rows[mask] for rows, mask in zip(view.log_probs, view.mask, strict=True)]


def _questions() -> list[Example]:
    """Two with pictures of different shapes around one without, of different lengths."""
    pictures = (_picture((90, 60)), None, _picture((60, 120)))
    return [
        Example(
            example_id=f"trial {number}",
            question_id=f"trial {number}",
            modality="multimodal" if picture else "text_only",
            prompt="Who is this?" + " Say one letter." * number,
            answer="red",
            options=OPTIONS,
            picture=picture,
        )
        for number, picture in enumerate(pictures)
    ]


def _picture(size: tuple[int, int], *, turned: bool = False) -> Picture:
    shades = Image.linear_gradient("L").resize(size)
    image = shades.transpose(Image.Transpose.ROTATE_180) if turned else shades
    file = BytesIO()
    image.save(file, "PNG")
    return picture_from_bytes(file.getvalue(), "trial")
