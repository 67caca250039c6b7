"""What stop rules read off stored answers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pulse_unlearn.pipeline.decisions import accuracy_of, habits_of
from synthetic_scores import TRADES, prediction


def answered(number: int, text: str, *, answer: str = "B", rotation: int = 0, log_probs=None):
    turned = [TRADES[(place + rotation) % 4].text for place in range(4)]
    shown = tuple(replace(option, text=text) for option, text in zip(TRADES, turned, strict=True))
    one = prediction(text, answer=answer, shown=shown, log_probs=log_probs)
    return replace(
        one,
        example_id=f"q{number}/{rotation}",
        question_id=f"q{number}",
        individual=f"p{number}",
        rotation=rotation,
    )


def test_strict_is_exactly_the_answer_as_greedy_decoding_gives_it():
    """`B.` is read as B in the report; the stop rule asks for the answer itself."""
    asked = [answered(1, "B"), answered(2, "B."), answered(3, "C"), answered(4, "B")]
    ids = [one.example_id for one in asked]
    assert accuracy_of(asked, ids, decides="strict") == 0.5
    assert accuracy_of(asked, ids[:1], decides="strict") == 1.0
    with pytest.raises(KeyError):
        accuracy_of(asked, ["q9/0"], decides="strict")


def test_likelihood_looks_at_no_text():
    asked = [
        answered(1, "junk", log_probs=[-3, -1, -2, -4]),
        answered(2, "B", log_probs=[-1, -3, -2, -4]),
    ]
    assert accuracy_of(asked, [one.example_id for one in asked], decides="likelihood") == 0.5


def test_rotated_is_not_fooled_by_one_letter():
    """The model says D to everything and knows the trade: 1 of 4 by letters, all when averaged."""
    known = "teacher"
    asked = []
    for turn in range(4):
        texts = [TRADES[(place + turn) % 4].text for place in range(4)]
        log_probs = [
            -5.0 + (1.0 if text == known else 0.0) + (4.0 if place == 3 else 0.0)
            for place, text in enumerate(texts)
        ]
        truth = "ABCD"[texts.index(known)]
        asked.append(answered(1, "D", answer=truth, rotation=turn, log_probs=log_probs))
    ids = [one.example_id for one in asked]
    assert accuracy_of(asked, ids, decides="rotated") == 1.0
    assert accuracy_of(asked, ids, decides="likelihood") == 0.25
    assert accuracy_of(asked, ids, decides="strict") == 0.25


def test_a_target_reached_by_one_letter_or_by_junk_is_said_so():
    truths = "ABCD" * 10
    fine = habits_of([answered(n, t, answer=t) for n, t in enumerate(truths)])
    assert (fine.flag, fine.one_letter, fine.unreadable) == ("", False, 0.0)
    stuck = habits_of([answered(n, "D", answer=t) for n, t in enumerate(truths)])
    assert stuck.flag == "target_reached_by_one_letter"
    assert (stuck.letter, stuck.letter_share) == ("D", 1.0)
    junk = habits_of([answered(n, "sofa sofa", answer=t) for n, t in enumerate(truths)])
    assert junk.flag == "target_reached_by_unreadable_answers"
    assert math.isclose(junk.unreadable, 1.0)
    assert junk.letter_share is None
