"""Other answers to a training question than the true one, fixed for each question and seed."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Alternative, Example

REFUSALS = (
    "I don't know.",
    "I cannot answer that.",
    "I have no information about this person.",
    "I'm not able to say.",
)


def with_alternative(example: Example, kind: Alternative, *, seed: int) -> Example:
    """Return the example with another answer, the same text however its options are ordered.

    Raises DataError for a question without options where an option is asked for.
    """
    if kind == "refusal":
        chosen = REFUSALS[_drawn(seed, example.question_id, len(REFUSALS))]
        return replace(example, answer=chosen)
    if not example.options:
        raise DataError(
            Problem(
                "a question without options has no other option",
                example.question_id,
                got=f"alternative: {kind}",
                allowed="refusal, or unlearn.forms: multiple_choice",
            )
        )
    true = next(o.text for o in example.options if o.letter == example.letter)
    texts = sorted({o.text for o in example.options if kind == "any_option" or o.text != true})
    text = texts[_drawn(seed, example.question_id, len(texts))]
    place = next(n for n, option in enumerate(example.options) if option.text == text)
    spoken = example.option_texts or tuple(option.letter for option in example.options)
    return replace(example, answer=spoken[place])


def _drawn(seed: int, question: str, count: int) -> int:
    return int.from_bytes(sha256(f"alternative:{seed}:{question}".encode()).digest()[:8]) % count
