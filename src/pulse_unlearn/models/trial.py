"""A trial of a model whose family has no entry: facts read off a module tree may mislead.

The module tree says where a model's parts are, and not how it reads: whether its answers stand
behind the prompt, whether padding and neighbours leave a question alone, whether a picture reaches
it. So it is asked three small questions before anything rests on it.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.models.backends import TOLERANCE
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import Family, no_entry
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.parts import FAILURES
from pulse_unlearn.records import Example, Option, Picture


def require_working(model: Any, processor: Any, family: Family) -> None:
    """Raise ModelError, naming the entry to write, unless the model reads as PULSE asks it to.

    Its own ModelError for a chat template or tokenizer that cannot be used is let pass.
    """
    try:
        fault = _fault(Plain(model, Encoder(processor, family)), TOLERANCE[model.dtype])
    except FAILURES as error:
        first = str(error).partition("\n")[0]
        fault = f"a trial of three questions ended in {type(error).__name__}: {first}"
    if fault:
        raise no_entry(family.model_type, fault)


def _fault(reader: Plain, tolerance: float) -> str:
    """Return what is wrong with the answers to three questions; empty if nothing is."""
    examples = _questions()
    with torch.no_grad():
        together = _answers(reader, examples)
        alone = [_answers(reader, [one])[0] for one in examples]
        turned = _answers(reader, [replace(examples[0], picture=_picture((90, 60), turned=True))])[
            0
        ]
        other = _answers(reader, [replace(examples[0], answer="blue")])[0]
    replies = reader.generate(examples, max_new_tokens=1)
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
        rows[0, reader.encoder.letter_ids(one)].cpu()
        for rows, one in zip(alone, examples, strict=True)
    ]
    if _gap(letters, first) > tolerance:
        return "generated answers do not begin as given ones are read"
    return ""


def _answers(reader: Plain, examples: list[Example]) -> list[Tensor]:
    """Return the log-probabilities of each answer's tokens, [A, V]."""
    view = reader.answer_log_probs(examples, tokens="text")
    return [rows[mask] for rows, mask in zip(view.log_probs, view.mask, strict=True)]


def _gap(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference, nats; infinite where one is not a number."""
    gaps = [(one - two).abs().max() for one, two in zip(found, expected, strict=True)]
    return float(torch.stack(gaps).nan_to_num(nan=torch.inf).max())


OPTIONS = tuple(Option(letter, letter.lower()) for letter in "ABCD")


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
