"""How a question and its answer are written for one model, and which texts it would misread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from jinja2 import TemplateError

from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.models.families import Family
from pulse_unlearn.records import Example

KINDS = ("image", "video")
_ANSWER = "ANSWER"
TODAY = date(2024, 7, 26)
"""The day it is in every prompt whose template asks; a result must not depend on the calendar.
Llama's templates write this one where they are given no clock."""
_CLOCK = "strftime_now"
"""What transformers calls its clock in a template."""
_SIGNS = "aAbBdHIjmMpSUwWxXyYcFeDT"
"""What stands behind a per cent sign in a form of date and time."""
_FAILURES = (TemplateError, TypeError)
"""What a template raises; a TypeError where it adds a turn's parts to a string."""
_FIX = "give the family an entry in models/families.py with answer_prefix and answer_end"


class ChatTemplate:
    """Writes prompts; knows what stands between a prompt and an answer, and what ends the answer.

    Raises ModelError for a template that tells neither and a family that does not either.
    """

    def __init__(self, processor: Any, family: Family) -> None:
        self._processor = processor
        self._family = family
        prefix, end = family.answer_prefix, family.answer_end
        if prefix is None or end is None:
            told = self._told()
            prefix = told[0] if prefix is None else prefix
            end = told[1] if end is None else end
        self.prefix = prefix
        """Text between the generation prompt and an answer."""
        self.end = end
        """The special token behind an answer."""

    def prompt(self, text: str, *, pictured: bool, system: str = "") -> str:
        """Return the text up to where the answer, or its prefix, begins.

        Raises ModelError where there is a system turn and the chat template does not write it.
        """
        user = _turn("user", text, pictured=pictured)
        if not system:
            return self._write([user], add_generation_prompt=True)
        try:
            written = self._apply([_turn("system", system), user], add_generation_prompt=True)
        except _FAILURES as error:
            raise self._without_system(system, f"{type(error).__name__}: {error}") from error
        # A template that takes the turn for a string writes it as the list it is, in quotes.
        quoted = any(system + mark in written for mark in "\"'")
        if quoted or system not in written:
            raise self._without_system(system, repr(written))
        return written

    def end_ids(self) -> list[int]:
        """Return the tokens that end an answer when the model says them, its own end first."""
        tokenizer = self._processor.tokenizer
        own = tokenizer.convert_tokens_to_ids(self.end)
        return list(dict.fromkeys([own, tokenizer.eos_token_id]))

    def _write(self, turns: list[dict[str, Any]], **options: Any) -> str:
        try:
            return self._apply(turns, **options)
        except _FAILURES as error:
            raise ModelError(
                Problem(
                    "the chat template cannot be used",
                    self._family.model_type,
                    got=f"{type(error).__name__}: {error}",
                    fix="mend the processor's chat_template.jinja",
                )
            ) from error

    def _apply(self, turns: list[dict[str, Any]], **options: Any) -> str:
        written: str = self._processor.apply_chat_template(turns, tokenize=False, **options)
        return written

    def _without_system(self, system: str, got: str) -> ModelError:
        return ModelError(
            Problem(
                "the chat template does not write the prompt profile's system sentence",
                self._family.model_type,
                got=got,
                allowed=repr(system),
                fix="set data.people_prompt and data.general_prompt to profiles without one, "
                "such as mmbench_llava in place of mmbench_llava_vicuna",
            )
        )

    def _told(self) -> tuple[str, str]:
        """Read prefix and end from the template: what it writes around an answer that is there."""
        prompt = self.prompt("?", pictured=False)
        answer = _turn("assistant", _ANSWER)
        whole = self._write([_turn("user", "?"), answer])
        prefix, found, behind = whole.removeprefix(prompt).partition(_ANSWER)
        if not whole.startswith(prompt) or not found:
            raise ModelError(
                Problem(
                    "the chat template writes no answer behind its generation prompt",
                    self._family.model_type,
                    got=repr(whole[-60:]),
                    allowed=f"{prompt[-40:]!r}, then an answer",
                    fix=_FIX,
                )
            )
        return prefix, self._first_special(behind)

    def _first_special(self, text: str) -> str:
        """Return the special token that ends the answer; the end of the text if none does."""
        tokenizer = self._processor.tokenizer
        places = {
            token: text.find(token) for token in special_tokens(self._processor) if token in text
        }
        if places:
            # Of `<end>` and `<end>x` at one place, the longer is meant.
            return min(places, key=lambda token: (places[token], -len(token)))
        return str(tokenizer.eos_token)


def stop_clock(processor: Any) -> bool:
    """Make a chat template that asks for the date write `TODAY`; tell whether it asks.

    A macro of the clock's own name stands before it: transformers lets no function be passed in.
    """
    template = processor.chat_template
    if _CLOCK not in str(template):
        return False
    values = "".join(f"|replace('%{sign}','{TODAY.strftime(f'%{sign}')}')" for sign in _SIGNS)
    macro = f"{{% macro {_CLOCK}(format) %}}{{{{ format{values} }}}}{{% endmacro +%}}"
    processor.chat_template = (
        {name: macro + text for name, text in template.items()}
        if isinstance(template, dict)
        else macro + template
    )
    return True


def special_tokens(processor: Any) -> frozenset[str]:
    """Return every text that a tokenizer would not read as plain text, the placeholder included."""
    tokenizer = processor.tokenizer
    added = {entry.content for entry in tokenizer.added_tokens_decoder.values() if entry.special}
    # A text, or a token object with one.
    placeholders = {str(getattr(processor, f"{kind}_token", None) or "") for kind in KINDS}
    return frozenset({*tokenizer.all_special_tokens, *added, *placeholders} - {""})


def _turn(role: str, text: str, *, pictured: bool = False) -> dict[str, Any]:
    content: list[dict[str, str]] = [{"type": "image"}] if pictured else []
    return {"role": role, "content": [*content, {"type": "text", "text": text}]}


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
