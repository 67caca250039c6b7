"""The exact text of every prompt profile: models are trained on it, so it must not drift."""

from __future__ import annotations

import pytest

from pulse_unlearn.data.prompts import PROFILES, option_texts, render, render_short_answer
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.records import Option

OPTIONS = (Option("A", "teacher"), Option("B", "judge"), Option("C", "tailor"))

EXPECTED = {
    "short": "What does she do?\nA. teacher\nB. judge\nC. tailor\nLetter?",
    "mllmu": "What does she do?\nA: teacher\nB: judge\nC: tailor\n"
    "Just give ONE letter representing the answer directly.",
    "mmbench_llava": "What does she do?\nA. teacher\nB. judge\nC. tailor\n"
    "Answer with the option's letter from the given choices directly.",
    "mmbench_llava_vicuna": "What does she do?\nA. teacher\nB. judge\nC. tailor\n"
    "Answer with the option's letter from the given choices directly.",
    "mmbench_llava_cn": "What does she do?\nA. teacher\nB. judge\nC. tailor\n请直接回答选项字母。",
    "mmbench_vlmevalkit": "Question: What does she do?\nOptions:\nA. teacher\nB. judge\n"
    "C. tailor\nPlease select the correct answer from the options above.",
    "statement": "What does she do?",
}
IN_WORDS = {
    "short": "What is her job?\nWord?",
    "mllmu": "What is her job?",
    "mmbench_llava": "What is her job?\nAnswer the question using a single word or phrase.",
    "mmbench_llava_vicuna": "What is her job?\nAnswer the question using a single word or phrase.",
    "mmbench_llava_cn": "What is her job?\n请直接回答问题。",
    "mmbench_vlmevalkit": "Question: What is her job?",
    "statement": "What is her job?",
}


@pytest.mark.parametrize("profile", PROFILES.names())
def test_texts_are_pinned(profile):
    assert render(profile, "What does she do?", options=OPTIONS) == EXPECTED[profile]
    assert render_short_answer(profile, "What is her job?") == IN_WORDS[profile]


@pytest.mark.parametrize("profile", PROFILES.names())
def test_only_vicuna_has_a_system_sentence(profile):
    sentence = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    )
    expected = sentence if profile == "mmbench_llava_vicuna" else ""
    assert PROFILES.get(profile).system == expected


@pytest.mark.parametrize("profile", PROFILES.names())
def test_a_hint_stands_first_with_its_line_breaks(profile):
    text = render(profile, "Why?", options=OPTIONS, hint="One.\nTwo.")
    plain = render(profile, "Why?", options=OPTIONS)
    told = "Hint: One.\nTwo.\n" if profile == "mmbench_vlmevalkit" else "One.\nTwo.\n"
    assert text == told + plain


@pytest.mark.parametrize("profile", PROFILES.names())
def test_no_profile_says_what_the_chat_template_says(profile):
    text = render(profile, "Why?", options=OPTIONS) + render_short_answer(profile, "Why?")
    assert not any(word in text for word in ("USER", "ASSISTANT", "<image>"))


@pytest.mark.parametrize("profile", PROFILES.names())
def test_only_statements_are_answered_in_words(profile):
    words = ("teacher", "judge", "tailor") if profile == "statement" else ()
    assert option_texts(profile, OPTIONS) == words


def test_braces_and_percent_signs_are_text():
    options = (Option("A", "{hint}"), Option("D", "100 %s"))
    assert render("short", "{0}?", options=options) == "{0}?\nA. {hint}\nD. 100 %s\nLetter?"


def test_an_unknown_profile_is_named_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'mllmu'"):
        render("mlmu", "Why?", options=OPTIONS)
