"""The rules behind the report's words: lookup, seeds, statuses, findings, escaping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.report import paper
from pulse_unlearn.report.answer import status
from pulse_unlearn.report.assumptions import assumptions, flatten
from pulse_unlearn.report.estimates import Numbers, Place, combine
from pulse_unlearn.report.findings import ABSENT, LEANING, SEEN, UNTESTED, findings
from pulse_unlearn.report.load import Flag
from pulse_unlearn.report.printable import plain, printable, printable_block
from pulse_unlearn.report.svg import inline_svg
from pulse_unlearn.report.words import percent

GA = Place("finetuned", "GA", "projector+llm", 1)


def result(
    place: Place,
    name: str,
    measure: str,
    value: float | None,
    half: float | None = None,
    *,
    modality: str = "all",
    seed: int = 0,
) -> Result:
    low = high = None
    if value is not None and half is not None:
        low, high = value - half, value + half
    cell = Cell(place.scenario, place.method, place.scope, seed, place.request)
    return Result(cell, Measurement(name, modality, measure, value, low, high, 100, 20))


def forget(accuracy: float, half: float | None = 0.05, **others: float) -> Numbers:
    rows = [
        result(GA, "forget", "accuracy", accuracy, half),
        result(GA, "forget", "chance", 0.25),
    ]
    for measure, value in others.items():
        rows.append(result(GA, "forget", measure, value, 0.05))
    return Numbers(rows)


def test_seeds_come_together_as_mean_and_outer_interval() -> None:
    rows = [result(GA, "forget", "accuracy", v, 0.1, seed=s) for s, v in enumerate((0.2, 0.4, 0.6))]
    together = combine(rows)
    assert together.value == pytest.approx(0.4)
    assert (together.low, together.high) == pytest.approx((0.1, 0.7))
    assert together.seeds == ((0, 0.2), (1, 0.4), (2, 0.6))


def test_one_seed_without_interval_leaves_none() -> None:
    rows = [
        result(GA, "forget", "accuracy", 0.2, 0.1, seed=0),
        result(GA, "forget", "accuracy", None, seed=1),
    ]
    together = combine(rows)
    assert together.value == pytest.approx(0.2)
    assert together.low is None
    assert together.high is None


def test_before_unlearning_is_shared_by_all_methods() -> None:
    start = Place("finetuned", "", "", 0)
    numbers = Numbers(
        [result(start, "forget", "accuracy", 0.8), result(GA, "forget", "accuracy", 0.1)]
    )
    assert numbers.value(GA.at(0), "forget", "all", "accuracy") == 0.8
    assert numbers.value(GA.at(2), "forget", "all", "accuracy") is None
    other = Place("pretrained", "GA", "projector+llm", 0)
    assert numbers.get(other, "forget", "all", "accuracy") is None


def test_labels_stand_for_registered_methods() -> None:
    llm = Place("finetuned", "ga_llm", "llm", 1)
    both = Place("finetuned", "ga", "projector+llm", 1)
    rows = [result(place, "general", "kept_pct", v, 2) for place, v in ((llm, 60.0), (both, 90.0))]
    numbers = Numbers(rows, {"ga_llm": "ga", "ga": "ga"})
    assert numbers.paper(llm) == "GA"
    assert numbers.mains("finetuned") == [both]
    assert findings(numbers)[3].verdict == SEEN


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        (forget(0.1, unparsable=0.8), "broken"),
        (forget(0.1, unparsable=0.1, below_chance=1.0), "avoids"),
        (forget(0.5, unparsable=0.0), "remembered"),
        (forget(0.25, letter_accuracy=0.6), "suppressed"),
        (forget(0.25, letter_accuracy=0.27), "unrecovered"),
        (forget(0.25, None), "unknown"),
        (Numbers([]), "unknown"),
    ],
)
def test_status_tells_forgetting_from_what_looks_like_it(numbers: Numbers, kind: str) -> None:
    assert status(numbers, (), GA).kind == kind


def test_a_collapse_flag_outweighs_the_numbers() -> None:
    flag = Flag("finetuned", "GA", "projector+llm", "0", "1", "collapsed", "")
    assert status(forget(0.25), (flag,), GA).kind == "broken"
    elsewhere = Flag("finetuned", "GA", "llm", "0", "1", "collapsed", "")
    assert status(forget(0.25), (elsewhere,), GA).kind == "unrecovered"


@pytest.mark.parametrize(
    ("fine", "pretrained", "half", "verdict"),
    [(90, 20, 5, SEEN), (90, 85, 5, LEANING), (20, 90, 5, ABSENT), (90, 20, None, LEANING)],
)
def test_pretrained_costs_more_by_its_rule(
    fine: float, pretrained: float, half: float | None, verdict: str
) -> None:
    other = Place("pretrained", "GA", "projector+llm", 1)
    numbers = Numbers(
        [
            result(GA, "general", "kept_pct", fine, half),
            result(other, "general", "kept_pct", pretrained, half),
        ]
    )
    assert findings(numbers)[0].verdict == verdict


def test_findings_without_numbers_are_untested() -> None:
    assert {finding.verdict for finding in findings(Numbers([]))} == {UNTESTED}


def test_one_weak_cell_weakens_a_finding() -> None:
    rows = []
    for method, kept in (("GA", 5.0), ("NPO", 80.0)):
        place = Place("sustainability", method, "projector+llm", 5)
        rows.append(result(place, "general", "kept_pct", kept, 3))
    assert findings(Numbers(rows[:1]))[1].verdict == SEEN
    assert findings(Numbers(rows))[1].verdict == ABSENT


def test_the_papers_numbers_agree_with_each_other() -> None:
    # Figure 4 is Table 3 in ratios: 100 (1 - after / before) of the mean of both modalities.
    before, after = paper.TABLE3_BEFORE, paper.TABLE3_AFTER["projector+llm"]
    drawn = paper.FIGURE4["finetuned", "GA"]
    assert 100 * (1 - sum(after[:2]) / sum(before[:2])) == pytest.approx(drawn.forgotten, abs=1)
    assert 100 * sum(after[2:4]) / sum(before[2:4]) == pytest.approx(drawn.retain_kept, abs=1)
    assert 100 * after[4] / before[4] == pytest.approx(drawn.general_kept, abs=1)
    # Every people accuracy is a multiple of 1 / 250: 50 people, 5 questions.
    for row in (before, *paper.TABLE3_AFTER.values()):
        assert all((value * 2.5) == pytest.approx(round(value * 2.5)) for value in row[:4])


def test_the_papers_ratios_of_later_requests_come_from_figure_5() -> None:
    last = paper.relative("sustainability", "GA+KLR", 5)
    assert last is not None
    assert last.general_kept == pytest.approx(100 * 20.6 / 75.1, abs=0.1)
    assert paper.relative("sustainability", "GA", 6) is None
    assert paper.relative("finetuned", None, 1) is None


@given(st.text())
def test_printable_text_is_one_harmless_line(text: str) -> None:
    for shown in (printable(text), plain(text)):
        assert len(shown.splitlines()) <= 1
        assert not set(shown) & set("\x00\x1b\x7f\x9b\u202e\u2066\r\n")
        shown.encode("utf-8")
    printable_block(text).encode("utf-8")


@given(st.text(alphabet="abcABC 123.,-äé中🙂", max_size=300))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_long_text_is_cut_and_said() -> None:
    assert printable("x" * 500, 10) == "x" * 10 + " … (500 characters)"


@pytest.mark.parametrize(
    ("value", "measure", "text"),
    [
        (0.248, "accuracy", "24.8"),
        (71.04, "forgotten_pct", "71.0"),
        (-3.0, "kept_pct", "−3.0"),
        (-0.0001, "kept_pct", "0.0"),
        (None, "accuracy", "–"),
    ],
)
def test_percent(value: float | None, measure: str, text: str) -> None:
    assert percent(value, measure) == text


def test_inline_svg_is_named_and_escaped() -> None:
    source = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="1pt" height="2pt" viewBox="0 0 1 2">'
        '<metadata><x/></metadata><g id="a"><use xlink:href="#a" style="clip: url(#a)"/></g></svg>'
    )
    text = inline_svg(source, "fig", title="a < b", description='"quoted"')
    assert text.startswith("<svg")
    assert 'id="fig-a"' in text
    assert 'xlink:href="#fig-a"' in text
    assert "url(#fig-a)" in text
    assert "a &lt; b" in text
    assert "metadata" not in text
    assert 'width="' not in text


def test_assumptions_show_settings_once() -> None:
    experiment = {
        "unlearn": {"lora": {"rank": 16}},
        "methods": {
            "a": {"unlearn": {"lora": {"rank": 16}}},
            "b": {"unlearn": {"lora": {"rank": 8}}},
        },
    }
    used = assumptions(experiment)[0].used
    assert used == (("unlearn.lora.rank", "16"), ("methods.b.unlearn.lora.rank", "8"))


def test_flatten_keeps_order_and_lists() -> None:
    nested = {"b": {"x": None, "y": True}, "a": [1, 2], "c": [{"n": 1}], "d": {}}
    assert flatten(nested) == [
        ("b.x", "none"), ("b.y", "yes"), ("a", "1, 2"), ("c.0.n", "1"), ("d", "{}"),
    ]  # fmt: skip
