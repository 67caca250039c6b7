"""The rules behind the report's words: lookup, seeds, looks, escaping."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.report import estimates, paper
from pulse_unlearn.report.assumptions import assumptions, flatten
from pulse_unlearn.report.drawing import colour, inline_svg, marker
from pulse_unlearn.report.estimates import HowOften, Numbers, Place, combine
from pulse_unlearn.report.extras import OverSeeds
from pulse_unlearn.report.relearning import relearning_table
from pulse_unlearn.report.tables import Notes, figure4_table, shown
from pulse_unlearn.report.words import (
    percent,
    points,
    reading_phrase,
    with_reading_titles,
)
from pulse_unlearn.scenarios.relearning import RELEARNED
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL
from pulse_unlearn.texts import plain, printable, printable_block

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
    reason: str = "",
) -> Result:
    low = high = None
    if value is not None and half is not None:
        low, high = value - half, value + half
    cell = Cell(place.scenario, place.method, place.scope, seed, place.request, place.condition)
    return Result(cell, Measurement(name, modality, measure, value, low, high, 100, 20, reason))


def seeds_of(measure: str, *values: float | None, half: float | None = 0.1) -> list[Result]:
    return [result(GA, "forget", measure, v, half, seed=s) for s, v in enumerate(values)]


def test_several_seeds_take_the_interval_over_seeds_and_never_the_outer_one() -> None:
    rows = seeds_of("accuracy", 0.2, 0.4, 0.6)
    key = ("finetuned", "GA", "projector+llm", 1, "plain", "forget", "all", "accuracy")
    over = {key: OverSeeds(0.4, 0.15, 0.65, 0.2)}
    together = Numbers(rows, {}, over).get(GA, "forget", "all", "accuracy")
    assert together is not None
    assert together.value == pytest.approx(0.4)
    assert (together.low, together.high, together.spread) == (0.15, 0.65, 0.2)
    assert together.seeds == ((0, 0.2), (1, 0.4), (2, 0.6))
    assert shown(together, "accuracy", Notes(), seeds=3).beside == ("sd 20.0 over 3 seeds",)


def test_several_seeds_without_their_row_have_a_mean_and_no_interval() -> None:
    together = combine(seeds_of("accuracy", 0.2, 0.4))
    assert together.value == pytest.approx(0.3)
    assert (together.low, together.high, together.spread) == (None, None, None)


def test_one_seed_keeps_its_own_interval_whatever_stands_over_seeds() -> None:
    alone = combine(seeds_of("accuracy", 0.2), OverSeeds(0.2, None, None, None))
    assert (alone.low, alone.high) == pytest.approx((0.1, 0.3))
    assert alone.spread is None
    assert shown(alone, "accuracy", Notes(), seeds=3).beside == ("1 of 3 seeds",)


@pytest.mark.parametrize("measure", ["below_chance", "one_letter", "remembered"])
def test_truths_are_counted_and_never_averaged(measure: str) -> None:
    numbers = Numbers(seeds_of(measure, 1.0, 0.0, 1.0, None, half=None))
    assert numbers.how_often(GA, "forget", "all", measure) == HowOften(2, 3)
    assert numbers.how_often(GA, "retain", "all", measure) == HowOften(0, 0)
    with pytest.raises(ValueError, match=measure):
        numbers.get(GA, "forget", "all", measure)


def test_the_highest_reading_and_the_letter_are_read_from_their_remarks() -> None:
    readings = ("by rotated_accuracy; n/a (3 people)", "by words_accuracy", "by rotated_accuracy")
    rows = [
        result(GA, "forget", "latent_accuracy", 0.9, seed=seed, reason=reason)
        for seed, reason in enumerate(readings)
    ]
    rows.append(result(GA, "forget", "letter_share", 0.9, reason="letter D, true in 25%"))
    numbers = Numbers(rows)
    assert numbers.highest(GA, "forget") == ("rotated_accuracy", "words_accuracy")
    assert numbers.letters(GA, "forget") == ("D",)
    assert numbers.highest(GA, "retain") == ()


def test_a_method_looks_the_same_everywhere_and_no_two_look_alike() -> None:
    labels = ["GA", "NPO", "ga_llm", *(f"own{k}" for k in range(9))]
    scopes = {"ga_llm": "llm"}
    places = [
        Place(scenario, label, scopes.get(label, "projector+llm"), 1)
        for scenario in ("sustainability", "finetuned")
        for label in labels
        if (scenario, label) != ("sustainability", "GA")
    ]
    numbers = Numbers([result(place, "forget", "accuracy", 0.5) for place in places])
    looks = {label: numbers.look(label) for label in labels}
    assert looks["GA"] == 0
    assert looks["ga_llm"] == len(labels) - 1, "another scope only varies a method"
    drawn = {(colour(look), marker(look)) for look in looks.values()}
    assert len(drawn) == len(labels)


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


def test_the_papers_ratios_stand_beside_its_own_scope_alone() -> None:
    both, llm = GA, Place("finetuned", "ga_llm", "llm", 1)
    rows = [result(place, "forget", "forgotten_pct", 70.0, 2) for place in (both, llm)]
    table = figure4_table(Numbers(rows, {"ga_llm": "ga"}))
    assert table is not None
    papers = {row.heads[1]: row.cells[0].paper for row in table.rows}
    assert papers == {"GA": "71", "ga_llm": ""}


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
    for line in (printable(text), plain(text)):
        assert len(line.splitlines()) <= 1
        assert not set(line) & set("\x00\x1b\x7f\x9b\u202e\u2066\r\n")
        line.encode("utf-8")
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


@pytest.mark.parametrize(
    ("value", "text"), [(0.254, "+25.4"), (-0.003, "−0.3"), (0.0001, "0.0"), (None, "–")]
)
def test_points_have_their_sign(value: float | None, text: str) -> None:
    assert points(value) == text


def test_readings_have_names_for_people() -> None:
    remark = "rotated_accuracy 98%, accuracy 28%, words_per_token_accuracy 5%, words_named 1%"
    assert with_reading_titles("; a model that never knew: mentions 20%").startswith("; the retain")
    named = "rotated 98 %, strict 28 %, words per token 5 %, named in words 1 %"
    assert with_reading_titles(remark) == named
    assert reading_phrase(["words_accuracy", "words_named"]).startswith("asked in words")
    assert reading_phrase(["words_accuracy", "rotated_accuracy"]).startswith("by the reading")
    assert reading_phrase([]).startswith("by the reading")


def test_inline_svg_is_named_and_escaped() -> None:
    source = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="1pt" height="2pt" viewBox="0 0 1 2">'
        '<metadata><x/></metadata><g id="a"><use xlink:href="#a" style="clip: url(#a)"/></g></svg>'
    )
    text = inline_svg(source, "fig", title="a < b", description='"quoted"')
    assert text.startswith("<svg")
    assert '<g id="fig-0"><use href="#fig-0" style="clip: url(#fig-0)"/></g>' in text
    assert "a &lt; b" in text
    assert "metadata" not in text
    assert 'width="' not in text


def test_inline_svg_leaves_out_only_what_shows_nothing() -> None:
    """Texts keep every digit: rounding them too was tried, and the axis then read 0.12."""
    source = (
        '<svg viewBox="0 0 9 9">\n <g id="line2d_1"/>\n <g id="text_1">\n'
        '  <text style="font-size: 9px; font-family: \'DejaVu Sans\'" x="1.23456" y="2" '
        'transform="rotate(-0 1.23456 2)">0.12345 > 1</text>\n </g>\n'
        ' <path d="M 1.23456 2 \nL 3 4.5 \nz\n" style="fill: #1d232b"/>\n'
        ' <path d="M 0 0 \n" style="fill: #1d232b"/>\n</svg>'
    )
    text = inline_svg(source, "fig", title="t", description="d")
    assert text.partition("</desc>")[2] == (
        "<style>.fig-s0{fill: var(--ink)}</style>\n"
        ' <g><text style="font-size: 9px; font-family: var(--sans)" x="1.23" y="2">0.12345 > 1'
        '</text></g><path d="M1.23 2L3 4.5z" class="fig-s0"/><path d="M0 0" class="fig-s0"/></svg>'
    )


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


def test_conditions_are_called_what_the_plan_calls_them() -> None:
    assert (estimates.RETAIN_MODEL, estimates.RELEARNED) == (RETAIN_MODEL, RELEARNED)


def test_another_condition_is_no_part_of_the_protocol() -> None:
    target, retained = GA.at(0), replace(GA.at(0), condition=RETAIN_MODEL)
    rows = [
        result(target, "forget", "accuracy", 0.8),
        result(retained, "forget", "accuracy", 0.2, seed=1),
        result(GA, "forget", "accuracy", 0.3),
        result(GA.relearned(20), "forget", "accuracy", 0.6),
        result(GA.relearned(5), "forget", "accuracy", 0.5),
        result(GA.relearned(20, control=True), "forget", "accuracy", 0.25),
    ]
    numbers = Numbers(rows)
    assert numbers.models("finetuned") == [target, retained, GA]
    assert numbers.all_seeds() == (0,)
    assert numbers.value(retained, "forget", "all", "accuracy") == 0.2
    assert numbers.relearning_steps("finetuned") == [5, 20]
    assert numbers.retain_model("pretrained") is None
    table = relearning_table(numbers)
    assert table is not None
    assert [(row.heads[1], [cell.value for cell in row.cells]) for row in table.rows] == [
        ("retain model", ["–", "25.0"]), ("GA", ["50.0", "60.0"]),
    ]  # fmt: skip
