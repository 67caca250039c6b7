"""Texts that would not be read as text: placeholders and special tokens inside a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.chat_template import special_tokens
from pulse_unlearn.records import Example


class Reserved:
    """Refuses examples that contain what the model's tokenizer gives a meaning of its own.

    `<image>` in a question would stand for a picture that is not there, `</s>` would end it.
    """

    def __init__(self, processor: Any) -> None:
        longest_first = sorted(special_tokens(processor), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def refuse(self, examples: Sequence[Example]) -> None:
        """Raise ModelError with a problem for each question or answer that cannot be asked."""
        problems = [
            problem
            for example in examples
            for part, text in (
                ("system sentence", example.system),
                ("question", example.prompt),
                *(("answer", answer) for answer in example.option_texts or (example.answer,)),
            )
            if (problem := self._problem(example, part, text))
        ]
        if problems:
            raise ModelError(problems)

    def _problem(self, example: Example, part: str, text: str) -> Problem | None:
        found = list(dict.fromkeys(self._pattern.findall(text)))
        if not found:
            return None
        return Problem(
            f"the {part} contains what is no text to this model",
            f"example {example.example_id}",
            got=", ".join(found),
            allowed="plain text",
            fix="take it out of the data, or write it in another way",
        )
