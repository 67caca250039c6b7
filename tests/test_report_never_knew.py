"""The report's table of models against one that never knew, and gold where requests have theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pulse_unlearn.report.build import render
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.figures import figure5
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.never_knew import never_knew_table
from pulse_unlearn.report.page import make_page
from pulse_unlearn.report.tables import figure5_table
from synthetic_run import Recipe, write_run

ONE = Recipe(scenarios=("finetuned", "pretrained", "sustainability"), conditions=True, samples=0)


def numbers_of(run: Path) -> Numbers:
    record = load_run(run)
    return Numbers(record.results, record.labels, record.extras.over_seeds)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("one") / "run", ONE)


def test_every_last_model_has_its_differences_its_distance_and_a_word(run):
    numbers = numbers_of(run)
    table = never_knew_table(numbers)
    assert {row.heads[0] for row in table.rows} == {"Fine-tuned knowledge", "Sustainability"}
    columns = dict(enumerate(table.columns))
    assert [*columns.values()] == [
        *("strict", "rotated", "words", "KS, rotated", "KS, words", "equivalent")
    ]
    for row, place in zip(
        table.rows,
        [p for name in ("finetuned", "sustainability") for p in numbers.finals(name)],
        strict=True,
    ):
        _, rotated, words, distance, in_words, alike = row.cells
        gap = 100 * numbers.value(place, "forget", "all", "rotated_accuracy_from_never_knew")
        assert rotated.value == f"{gap:+.1f}".replace("-", "−")
        assert rotated.interval.count("–") == 1
        assert (words.value, in_words.value) == ("–", "–")  # nobody asked
        (told,) = alike.beside
        if alike.value == "yes":
            assert (told, distance.beside) == ("within 10%", ("p = 0.400",))
        else:
            assert told.startswith("not within 10%: ")
            assert "_accuracy" not in told
            assert distance.beside == ("p < 0.001",)
    assert "no" in {row.cells[-1].value for row in table.rows}


def test_over_seeds_an_equivalence_is_counted_and_never_averaged(tmp_path):
    several = Recipe(("finetuned",), ("GA",), seeds=(0, 1, 2), conditions=True, samples=0)
    table = never_knew_table(numbers_of(write_run(tmp_path / "run", several)))
    assert all(re.fullmatch(r"[0-3] of 3 seeds", row.cells[-1].value) for row in table.rows)


def test_a_run_without_such_a_model_has_no_such_table(tmp_path):
    only = Recipe(("finetuned",), ("GA",), samples=0)
    assert never_knew_table(numbers_of(write_run(tmp_path / "run", only))) is None


def test_requests_with_retain_models_of_their_own_are_gold_at_their_place(tmp_path):
    kept = {"scenarios": ("sustainability",), "methods": ("GA",), "conditions": True, "samples": 0}
    one, own = (
        numbers_of(write_run(tmp_path / str(each), Recipe(**kept, each_request=each)))
        for each in (False, True)
    )
    for numbers, levels in ((one, ["–"] * 4), (own, ["69.4", "58.8", "48.2", "37.6"])):
        (row,) = [
            row for row in figure5_table(numbers).rows if row.heads == ("D_unlearn", "retain model")
        ]
        assert [cell.value for cell in row.cells[1:5]] == levels
    gold = [figure5(numbers).svg.count("#e8a800") for numbers in (one, own)]
    assert gold[1] > gold[0]


@pytest.mark.slow  # draws every figure of a page
def test_the_page_prints_it(run):
    html = render(make_page(load_run(run), digests=()))
    section = html.split('id="never-knew-section"')[1].split("</section>")[0]
    assert "Kolmogorov" not in section  # words a reader of the report needs no book for
    assert "not within 10%: strict" in section
    assert '<a href="#never-knew-section">' in html
