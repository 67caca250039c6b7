"""The text of the user turn, as named profiles; the chat template and image come elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_unlearn.records import Option
from pulse_unlearn.registry import Registry


@dataclass(frozen=True, slots=True)
class PromptProfile:
    """How a question is put."""

    description: str
    mark: str
    """Between an option's letter and its text."""
    instruction: str
    """Last line of a multiple-choice question."""
    short_instruction: str
    """Last line of a question answered in words."""


PROMPTS: Registry[PromptProfile] = Registry("prompt profile", group="pulse_unlearn.prompts")
PROMPTS.add(
    "short",
    PromptProfile(
        "the embedded model's prompt: few tokens",
        mark=".",
        instruction="Letter?",
        short_instruction="Word?",
    ),
)
PROMPTS.add(
    "mllmu",
    PromptProfile(
        "MLLMU-Bench's multiple-choice prompt",
        mark=":",
        instruction="Just give ONE letter representing the answer directly.",
        short_instruction="",
    ),
)
PROMPTS.add(
    "mmbench_llava",
    PromptProfile(
        "LLaVA-1.5's MMBench prompt",
        mark=".",
        instruction="Answer with the option's letter from the given choices directly.",
        short_instruction="Answer the question using a single word or phrase.",
    ),
)


def render(profile: str, question: str, *, hint: str, options: Sequence[Option]) -> str:
    """Return the user's text for a multiple-choice question: hint, question, options, instruction.

    Raises ConfigError for an unknown profile.
    """
    style = PROMPTS.get(profile)
    lines = [hint, question]
    lines += [f"{option.letter}{style.mark} {option.text}" for option in options]
    return "\n".join(line for line in [*lines, style.instruction] if line)


def render_short_answer(profile: str, question: str) -> str:
    """Return the user's text for a question that is answered in words."""
    style = PROMPTS.get(profile)
    return "\n".join(line for line in (question, style.short_instruction) if line)
