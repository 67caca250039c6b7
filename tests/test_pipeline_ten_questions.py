"""How a model answers is told from ten answers: letters, talk, answers cut off, and noise."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pulse_unlearn.cli import pulse
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.pipeline.ten_questions import ROOM, Said, ask, manner_of, questions


def said(make, *, tokens, ended=True):
    """Ten answers; `make` gets the true option."""
    return [
        Said(make(one.options[0]), one.options, tokens, ended) for one in questions("mmbench_llava")
    ]


@pytest.mark.parametrize(
    ("answers", "habit", "fix"),
    [
        (said(lambda o: o.letter, tokens=1), "letter", ""),
        (said(lambda o: f"({o.letter})", tokens=3), "letter", ""),
        (
            said(lambda o: f"Well, it looks like {o.text}. The answer is {o.letter}.", tokens=14),
            "talks",
            "scoring.parser: declared, scoring.max_new_tokens: 28",
        ),
        (said(lambda o: f"I would call it {o.text}.", tokens=7), "talks", "declared"),
        (
            said(lambda o: "Looking at the picture, one sees", tokens=ROOM, ended=False),
            "cut off",
            f"above {ROOM}",
        ),
        (said(lambda o: "of of of", tokens=3), "unreadable", "likelihood"),
    ],
)
def test_manners(answers, habit, fix):
    found = manner_of(answers)
    assert found.habit == habit
    assert fix in found.fix


def test_the_questions_show_five_pictures_and_have_options():
    asked = questions("short")
    assert [one.picture is not None for one in asked] == [True] * 5 + [False] * 5
    assert all(len(one.options) == 4 for one in asked)


def test_the_embedded_model_answers_with_a_letter():
    found = ask(ModelSettings(), profile="short")
    assert found.habit == "letter", found


def test_doctor_asks_unless_told_not_to(tmp_path):
    command = ["doctor", "--model", "world", "--prompt", "short", "--runs", str(tmp_path)]
    asked = CliRunner().invoke(pulse, command).output
    assert "answers with a letter: " in asked
    assert "answers with a letter" not in CliRunner().invoke(pulse, [*command, "--no-ask"]).output
