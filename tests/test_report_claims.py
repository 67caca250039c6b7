"""What the report says in words: verdicts over seeds, claims, findings, and who was chosen."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.report.claims import Claim, claims
from pulse_unlearn.report.estimates import Numbers, Place
from pulse_unlearn.report.extras import (
    Comparison,
    Contrast,
    Extras,
    Flag,
    OverSeeds,
    PaperFinding,
    SeedGap,
    Selection,
    Verdict,
    read_extras,
)
from pulse_unlearn.report.findings import compared, findings, how_chosen
from pulse_unlearn.report.scoreboard import Verdicts, scoreboard

START = Place("pretrained", "GA", "projector+llm", 0)
GA = START.at(1)
HALF = 0.02


def verdict(word: str, *, seed: int = 0, place: Place = GA, remembered: bool = True) -> Verdict:
    return Verdict(
        scenario=place.scenario,
        method=place.method,
        scope=place.scope,
        seed=seed,
        request=place.request,
        word=word,
        why=f"why: rotated_accuracy 98% in seed {seed}",
        remembered=remembered,
        readings=(),
    )


def results(place: Place, *, seeds: int = 1, **sets: tuple[float, float | None]) -> list[Result]:
    """Rows of strict and rotated accuracy by set, and of chance."""
    rows = []
    for seed in range(seeds):
        cell = Cell(place.scenario, place.method, place.scope, seed, place.request)
        for name, (strict, rotated) in sets.items():
            values = {"accuracy": strict, "rotated_accuracy": rotated, "unreadable": 0.0}
            highest = max(strict, rotated or 0.0)
            by = "rotated_accuracy" if rotated and rotated > strict else "accuracy"
            for measure, value in [*values.items(), ("latent_accuracy", highest)]:
                told = f"by {by}" if measure == "latent_accuracy" else ""
                rows.append(row(cell, name, measure, value, told))
            rows.append(row(cell, name, "chance", 0.25))
    return rows


def row(cell: Cell, name: str, measure: str, value: float | None, told: str = "") -> Result:
    ends = (None, None) if value is None else (value - HALF, value + HALF)
    return Result(cell, Measurement(name, "all", measure, value, *ends, 100, 20, told))


def said(
    rows: list[Result],
    verdicts: list[Verdict],
    flags: tuple[Flag, ...] = (),
    parser: str = "strict",
) -> Claim:
    numbers = Numbers(rows)
    board = scoreboard(numbers, Verdicts(verdicts))
    return claims(numbers, board, flags, parser=parser)[0]


def one_letter_cell(**after: tuple[float, float | None]) -> list[Result]:
    before = results(START, forget=(1.0, 1.0), general=(0.87, 0.87), unseen=(0.75, 0.76))
    rows = before + results(GA, **after)
    cell = Cell(GA.scenario, GA.method, GA.scope, 0, 1)
    return [*rows, row(cell, "forget", "letter_share", 1.0, "letter D, true in 25%")]


def test_one_letter_that_knows_98_percent_is_a_broken_habit() -> None:
    rows = one_letter_cell(forget=(0.28, 0.98), general=(0.2, 0.87), unseen=(0.26, 0.75))
    claim = said(rows, [verdict("one letter")])
    assert claim.headline == (
        "In this one run, read as the paper does, 28 % of the answers about D_unlearn were right "
        "after GA (100 % before); asked in every order of the options, 98 % were (100 % before). "
        "D_unlearn is still known after GA."
    )
    text = " ".join(claim.sentences)
    assert "says D to 100 % of the questions; asked in every order of the options, 98 %" in text
    assert "what broke is how it answers" in text
    assert "General ability: 20 % usable (87 % before), 87 % latent (87 % before)" in text
    assert text.count("a broken habit of answering") == 2, "of general ability and unseen people"
    assert "loss" not in text
    for word in ("deleted", "forgotten", "erased"):
        assert word not in claim.headline
        assert word not in text.replace("neither to be forgotten", "")


def test_what_also_fell_by_the_highest_reading_is_not_put_down_to_habit_alone() -> None:
    rows = one_letter_cell(forget=(0.2, 0.5), general=(0.4, 0.45), unseen=(0.3, 0.5))
    text = " ".join(said(rows, [verdict("one letter")]).sentences)
    assert "50 % are right (100 % before): how it answers broke, and less is found" in text
    assert "what broke is how it answers" not in text
    assert text.count("loss by every reading") == 2
    assert "a broken habit" not in text


def test_a_small_loss_that_no_reading_tells_apart_is_not_called_a_habit() -> None:
    rows = one_letter_cell(forget=(0.28, 0.98), general=(0.82, 0.84))
    text = " ".join(said(rows, [verdict("one letter")]).sentences)
    assert "82 % usable (87 % before), 84 % latent (87 % before)." in text
    assert "a broken habit" not in text
    assert "loss" not in text


def test_broken_answers_at_chance_in_every_reading_claim_nothing() -> None:
    rows = one_letter_cell(forget=(0.01, 0.26), general=(0.87, 0.87))
    claim = said(rows, [verdict("output broken", remembered=False)])
    assert "these answers cannot tell what the model knows" in claim.sentences[0]
    assert "still known" not in claim.headline


def test_a_run_of_the_papers_reading_alone_says_that_it_cannot_tell() -> None:
    rows = results(START, forget=(1.0, None)) + results(GA, forget=(0.28, None))
    claim = said(rows, [verdict("suppressed")])
    assert "every order" not in claim.headline
    assert "by the reading that finds most" not in claim.headline
    assert any("cannot tell a broken habit" in text for text in claim.sentences)
    numbers = Numbers(rows)
    assert scoreboard(numbers, Verdicts([]))[1].forget.latent is None


def test_another_parser_is_not_called_the_papers() -> None:
    rows = results(START, forget=(1.0, 1.0)) + results(GA, forget=(0.28, 0.9))
    claim = said(rows, [verdict("suppressed")], parser="likelihood")
    assert "read with the parser likelihood" in claim.headline


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("avoids", "whoever avoids the answer knows it"),
        ("suppressed", "no better than their letters alone"),
        ("remembered", "28 % of the answers are right as given, and 98 % asked in every order"),
        ("like never known", "no reading differs from the retain model, which never knew"),
        ("not recovered", "none of the readings of this run stands above chance"),
        ("unknown", "too few people"),
        ("a new word", "GA: a new word."),
    ],
)
def test_every_word_has_its_sentence(word: str, expected: str) -> None:
    rows = one_letter_cell(forget=(0.28, 0.98))
    assert expected in said(rows, [verdict(word)]).sentences[0]


def test_seeds_that_agree_have_one_word_and_others_are_counted() -> None:
    words = ("suppressed", "one letter", "suppressed")
    mixed = Verdicts([verdict(word, seed=seed) for seed, word in enumerate(words)]).at(GA)
    assert mixed.text == "suppressed (2 of 3), one letter (1 of 3)"
    assert mixed.only == ""
    assert mixed.whys[0] == "seed 0: why: rotated 98 % in seed 0"
    same = Verdicts([verdict("avoids", seed=seed, remembered=seed < 2) for seed in range(3)])
    assert same.at(GA).text == "avoids"
    assert (same.at(GA).remembered.true, same.at(GA).remembered.seeds) == (2, 3)
    assert same.at(START).text == "no verdict"


def test_a_rule_explains_its_word_without_anybodys_numbers() -> None:
    (word,) = Verdicts([verdict("output broken")]).at(GA).words
    assert "98" not in word.rule
    assert "cannot be read" in word.rule


def test_targets_reached_by_broken_answers_are_told_with_their_runs() -> None:
    rows = results(START, seeds=3, forget=(1.0, 1.0)) + results(GA, seeds=3, forget=(0.3, 0.9))
    flags = tuple(
        Flag(GA.scenario, GA.method, GA.scope, seed, "1", "target_reached_by_one_letter", "")
        for seed in ("0", "2")
    )
    elsewhere = Flag("finetuned", "GA", GA.scope, "1", "1", "target_reached_by_one_letter", "")
    verdicts = [verdict("suppressed", seed=seed) for seed in range(3)]
    claim = said(rows, verdicts, (*flags, elsewhere))
    assert claim.headline.startswith("On average over 3 runs")
    assert "by one letter to everything with GA (2 of 3 runs)." in claim.sentences[-1]


def contrast(label: str, settled: str, *gaps: float) -> Contrast:
    by_seed = tuple(
        SeedGap(seed, gap, gap - 0.1, gap + 0.1, 0.0004) for seed, gap in enumerate(gaps)
    )
    over = OverSeeds(sum(gaps) / max(len(gaps), 1), 0.01, 0.5, 0.041 if len(gaps) > 1 else None)
    return Contrast(over, by_seed, label, settled)


def extras(**parts: Any) -> Extras:
    empty: dict[str, Any] = {
        "over_seeds": {}, "verdicts": (), "findings": (), "comparisons": (), "selections": (),
    }  # fmt: skip
    return Extras(**(empty | parts))


def test_a_finding_is_told_in_both_readings_side_by_side() -> None:
    strict = contrast("ga_klr", "seen", 0.25, 0.3, 0.2)
    rotated = contrast("ga_klr", "not settled", 0.01, -0.02, 0.01)
    found = findings(
        extras(
            findings=(
                PaperFinding("pretrained_costs", "accuracy", "seen", (strict,)),
                PaperFinding("pretrained_costs", "rotated_accuracy", "not settled", (rotated,)),
            )
        )
    )
    first = found[0]
    assert [(word, kind) for _, word, kind in first.verdicts] == [
        ("seen", "seen"), ("not settled", "leaning"),
    ]  # fmt: skip
    (line,) = first.lines
    assert line.label == "GA+KLR"
    assert (line.gaps[0].points, line.gaps[0].interval) == ("+25.0", "+1.0 – +50.0")
    assert line.gaps[0].spread == "sd 4.1"
    assert line.gaps[1].seeds[1] == "seed 1: −2.0, p < 0.001"
    assert {word for _, word, _ in found[1].verdicts} == {"not tested"}


@pytest.mark.parametrize(("gaps", "word"), [((0.3,), "one run"), ((0.3, 0.3), "2 runs")])
def test_fewer_than_three_runs_give_no_finding(gaps: tuple[float, ...], word: str) -> None:
    one = PaperFinding(
        "llm_hurts", "accuracy", "too few runs", (contrast("ga", "too few runs", *gaps),)
    )
    finding = findings(extras(findings=(one,)))[3]
    assert finding.verdicts[0][1] == f"{word}: no finding"
    gap = finding.lines[0].gaps[0]
    assert gap.interval == ("+20.0 – +40.0" if len(gaps) == 1 else "+1.0 – +50.0")
    assert finding.lines[0].gaps[1].word == "not tested"


def test_without_findings_nothing_is_tested() -> None:
    found = findings(extras())
    assert len(found) == 4
    assert {word for finding in found for _, word, _ in finding.verdicts} == {"not tested"}
    assert compared(extras()) == []


def test_numbers_that_are_none_are_left_out() -> None:
    gaps = [{"seed": 0, "value": math.nan}, {"seed": 1, "value": 0.2, "low": math.inf}]
    one = {"name": "llm_hurts", "reading": "accuracy", "settled": "seen"}
    content = {"paper_findings": [{**one, "contrasts": [{"label": "ga", "by_seed": gaps}]}]}
    problems: list[Problem] = []
    (finding,) = read_extras(content, problems).findings
    assert finding.contrasts[0].by_seed == (SeedGap(1, 0.2, None, None, None),)
    assert "over_seeds" in problems[0].got


def test_comparisons_stand_by_scenario_and_set() -> None:
    ones = tuple(
        Comparison("finetuned", of_set, reading, contrast("ga - npo", "too few runs", -0.1))
        for of_set in ("forget", "general")
        for reading in ("accuracy", "rotated_accuracy")
    )
    (table,) = compared(extras(comparisons=ones))
    assert [title for title, _, _ in table.groups] == ["D_unlearn", "General ability"]
    (line,) = table.groups[0][1]
    assert line.label == "GA − NPO"
    assert [gap.points for gap in line.gaps] == ["−10.0", "−10.0"]


@pytest.mark.parametrize(("settled", "told"), [((48, 49), "none"), (range(48), "3")])
def test_of_many_pairs_the_settled_ones_are_shown_and_the_others_counted(settled, told) -> None:
    """Mutation: the first pairs, as they come; then pairs 48 and 49 are not on the page."""
    ones = tuple(
        Comparison(
            "finetuned",
            "forget",
            "accuracy",
            contrast(f"m{n:02d} - ga", "seen" if n in settled else "not settled", 0.1, 0.1, 0.1),
        )
        for n in range(50)
    )
    ((_, lines, left),) = compared(extras(comparisons=ones))[0].groups
    assert left == f"And 5 more pairs, {told} of them settled"
    labels = [line.label for line in lines]
    assert labels == sorted(labels)
    assert {f"m{n:02d} − GA" for n in list(settled)[:45]} <= set(labels)


def test_how_people_were_chosen_says_what_decided() -> None:
    by_probability = Selection("seed0/select", 153, 20, 25, 54, 73, 1.0)
    by_accuracy = Selection("seed1/select", 153, 20, 25, 0, 30, 0.8)
    first, second = how_chosen([by_probability, by_accuracy])
    assert first.startswith("seed0: 73 of 153 candidates had every answer right; among them the")
    assert "the next 54 of the ranking were set aside as unseen" in first
    assert "then accuracy decided" in second
    assert "The lowest accuracy among the chosen is 80.0 %" in second
    assert "unseen" not in second
    assert not how_chosen([by_probability])[0].startswith("seed0")
    assert how_chosen([]) == ()
