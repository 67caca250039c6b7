"""Prompt profiles: how a question becomes the text of a user turn.

The chat template and the image placeholder are the model family's business (`models.families`);
nothing here says `USER:` or `<image>`, or what stands between a system turn and the question.
Answers are bare: a letter, or words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pulse_unlearn.records import Option
from pulse_unlearn.registry import Registry


@dataclass(frozen=True, slots=True)
class PromptProfile:
    """A wording; lines are hint, question, heading of the options, options, instruction.

    A line without content is left out, its prefix with it.
    """

    description: str
    after_letter: str = ""
    """What stands between an option's letter and its text, e.g. `. `."""
    instruction: str = ""
    """Last line of a multiple-choice question."""
    short_instruction: str = ""
    """Last line of a question answered in words."""
    before_hint: str = ""
    before_question: str = ""
    above_options: str = ""
    """A line of its own."""
    options_shown: bool = True
    """Whether the options, and the line above them, stand in the question."""
    answers: Literal["letter", "text"] = "letter"
    """What the assistant says for an option of a multiple-choice question."""
    system: str = ""
    """Text of a system turn before the question; empty for none."""
    source: str = ""
    """Where the words stand: file and name in the project that they are from."""


_LLAVA = PromptProfile(
    "LLaVA-1.5 on MMBench and on short-answer questions (arXiv 2310.03744)",
    after_letter=". ",
    instruction="Answer with the option's letter from the given choices directly.",
    short_instruction="Answer the question using a single word or phrase.",
    source="LLaVA, llava/eval/model_vqa_mmbench.py and docs/Evaluation.md",
)
_PROFILES = {
    "short": PromptProfile(
        "the fewest words; the text the embedded model was trained on",
        after_letter=". ",
        instruction="Letter?",
        short_instruction="Word?",
    ),
    "mllmu": PromptProfile(
        "MLLMU-Bench's own evaluation (arXiv 2410.22108), without its `USER:` and `ASSISTANT:`",
        after_letter=": ",
        instruction="Just give ONE letter representing the answer directly.",
        source="MLLMU-Bench, eval.py (multiple choice)",
    ),
    "mmbench_llava": _LLAVA,
    "mmbench_llava_vicuna": replace(
        _LLAVA,
        description="`mmbench_llava` with the system sentence of LLaVA-1.5's `vicuna_v1`",
        system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        source="LLaVA, llava/conversation.py, `conv_vicuna_v1`; `conv_llava_v1`, the older one, "
        "says human for user",
    ),
    "mmbench_llava_cn": PromptProfile(
        "LLaVA-1.5 on MMBench-CN: the same with its last line in Chinese",
        after_letter=". ",
        instruction="请直接回答选项字母。",
        short_instruction="请直接回答问题。",
        source="LLaVA, llava/eval/model_vqa_mmbench.py (--lang cn); the short instruction is ours",
    ),
    "mmbench_vlmevalkit": PromptProfile(
        "VLMEvalKit's general prompt for MMBench and the like; its trailing white space left out",
        after_letter=". ",
        instruction="Please select the correct answer from the options above.",
        before_hint="Hint: ",
        before_question="Question: ",
        above_options="Options:",
        source="VLMEvalKit, vlmeval/dataset/image_mcq.py, `build_prompt`",
    ),
    "statement": PromptProfile(
        "the bare question, options unseen and answered in words; read it by `likelihood`",
        options_shown=False,
        answers="text",
    ),
}

PROFILES: Registry[PromptProfile] = Registry("prompt profile", group="pulse_unlearn.prompts")
for _name, _profile in _PROFILES.items():
    PROFILES.add(_name, _profile)


def render(profile: str, question: str, *, options: Sequence[Option], hint: str = "") -> str:
    """Return the user turn of a multiple-choice question; raises ConfigError for no such profile.

    Options, where the profile shows them, stand in the order given, under the letters they carry.
    """
    wording = PROFILES.get(profile)
    shown = [f"{option.letter}{wording.after_letter}{option.text}" for option in options]
    listed = (wording.above_options, *shown) if wording.options_shown else ()
    return _lines(wording, hint, question, *listed, wording.instruction)


def option_texts(profile: str, options: Sequence[Option]) -> tuple[str, ...]:
    """Return the answer text of each option; empty for letters. Raises as `render`."""
    in_words = PROFILES.get(profile).answers == "text"
    return tuple(option.text for option in options) if in_words else ()


def render_short_answer(profile: str, question: str, *, hint: str = "") -> str:
    """Return the user turn of a question answered in words; raises ConfigError likewise."""
    wording = PROFILES.get(profile)
    return _lines(wording, hint, question, wording.short_instruction)


def _lines(wording: PromptProfile, hint: str, question: str, *more: str) -> str:
    told = wording.before_hint + hint if hint else ""
    return "\n".join(filter(None, (told, wording.before_question + question, *more)))
