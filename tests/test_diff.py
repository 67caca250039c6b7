"""Two runs side by side: what turned, what differs, and what cannot be compared."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import pulse_unlearn
from pipeline_cases import result_rows
from pulse_unlearn import store
from pulse_unlearn.cli import pulse
from pulse_unlearn.config import load_experiment
from pulse_unlearn.diff import as_json, compare_runs, render_page, text_lines
from pulse_unlearn.diff.answers import Shared
from pulse_unlearn.diff.numbers import gaps, over_seeds
from pulse_unlearn.diff.settings import ABSENT, Change, changes
from pulse_unlearn.evaluation.comparisons import gaps_between, mean_gap, pair_by_question
from pulse_unlearn.evaluation.metrics import people_measures
from pulse_unlearn.evaluation.table import read_predictions, write_predictions
from pulse_unlearn.pipeline.run import rescore
from pulse_unlearn.records import Cell, QuestionScore, Result
from pulse_unlearn.registries import schemas
from pulse_unlearn.store.manifest import write_manifest
from pulse_unlearn.store.sealed import describe_files

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e {{ 7*7 }} " + "long " * 60
STAGE = "seed0.finetuned.ga.score"
TURNED = 3


@pytest.fixture(scope="module")
def altered(bench, tmp_path_factory):
    """The finished run with three answers turned right, one hostile; scored by another parser."""
    run = bench.copied(tmp_path_factory.mktemp("altered"))
    (folder,) = run.glob(f"stages/*-{STAGE}-*")
    answers = list(read_predictions(folder / "predictions.parquet"))
    places = [n for n, one in enumerate(answers) if one.rotation == 0 and one.asked_as == "options"]
    wrong = [
        n for n in places if answers[n].text.strip() != answers[n].answer and answers[n].individual
    ]
    for n in wrong[:TURNED]:
        answers[n] = replace(answers[n], text=answers[n].answer)
    answers[wrong[TURNED]] = replace(answers[wrong[TURNED]], text=HOSTILE)
    write_predictions(folder / "predictions.parquet", answers)
    made = store.read_manifest(folder)
    write_manifest(folder, replace(made, files=describe_files(folder, made.files)))
    experiment = load_experiment(
        str(run / "experiment.yaml"),
        overrides=["scoring.parser=first_character"],
        schemas=schemas(),
    )
    rescore(experiment, run)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    environment["packages"]["torch"] = "9.9"
    store.write_json(run / "environment.json", environment)
    return run, [answers[n].question_id for n in wrong[:TURNED]]


@pytest.fixture(scope="module")
def diff(bench, altered):
    return compare_runs(pulse_unlearn.load_run(bench.finished), pulse_unlearn.load_run(altered[0]))


def test_a_run_is_the_same_as_itself(bench, tmp_path):
    copy = bench.copied(tmp_path)
    done = CliRunner().invoke(pulse, ["diff", str(bench.finished), str(copy), "--exit-code"])
    assert done.exit_code == 0, done.output
    assert "Flipped answers: 0 of" in done.output
    assert "Settings: the same" in done.output
    assert "Environment: the same" in done.output
    count = len(result_rows(copy))
    assert f"Numbers in both: {count}; {count} the same, 0 differ" in done.output


def test_flipped_answers_are_those_that_turned_with_both_texts(bench, altered, diff):
    _, turned = altered
    found = [flip for one in diff.flips for flip in one.flips]
    at = [flip for flip in found if flip.question_id in turned and flip.cell.method == "ga"]
    assert [flip.question_id for flip in at] == turned
    for flip in at:
        assert (flip.a.right, flip.b.right) == (False, True)
        assert flip.truth.startswith(flip.b.text)
        assert flip.a.text != flip.b.text
        assert diff.questions[flip.question_id].endswith("?")
    (of_ga,) = (one for one in diff.flips if one.cell.method == "ga" and one.cell.request == 1)
    assert of_ga.reworded == TURNED + 1
    assert of_ga.lost == 0
    # The model before is shared by two scenarios and stands there once.
    assert [(one.cell.scenario, one.cell.request) for one in diff.flips] == [
        ("finetuned", 0),
        ("finetuned", 1),
        ("pretrained", 0),
        ("pretrained", 1),
        ("sustainability", 1),
        ("sustainability", 2),
    ]


def test_settings_and_environment_that_differ_are_named(diff):
    assert ("scoring.parser", "strict", "first_character") in [
        (one.where, one.a, one.b) for one in diff.settings
    ]
    assert [one.where for one in diff.environment] == ["packages.torch"]
    assert diff.not_comparable == ()
    assert changes({"a": {"b": 1, "c": []}}, {"a": {"b": 2}, "d": None}) == (
        Change("a.b", 1, 2),
        Change("a.c", [], ABSENT),
        Change("d", ABSENT, None),
    )


def test_a_difference_is_that_of_the_two_rows(bench, altered, diff):
    def keyed(run):
        names = ("scenario", "method", "scope", "seed", "request", "condition", "set", "modality")
        return {tuple(row[n] for n in (*names, "measure")): row for row in result_rows(run)}

    before, after = keyed(bench.finished), keyed(altered[0])
    paired = [one for one in diff.gaps if one.difference is not None]
    assert len(diff.gaps) == len(before)
    # Letters that nobody said before: rows of their own.
    assert len(diff.only_b) == len(after) - len(before)
    assert {measure.partition(":")[0] for *_, measure in diff.only_b} == {"chosen"}
    for one in paired:
        cell = one.cell
        key = (cell.scenario, cell.method, cell.scope, str(cell.seed), str(cell.request))
        key += (cell.condition, one.set, one.modality, one.measure)
        gap = float(after[key]["value"]) - float(before[key]["value"])
        assert one.difference == pytest.approx(gap, abs=3e-6)
    forgotten = next(
        one
        for one in paired
        if (one.cell.method, one.cell.request) == ("ga", 1)
        and (one.set, one.modality, one.measure) == ("forget", "all", "accuracy")
    )
    assert forgotten.difference > 0
    assert not diff.is_same


def test_the_terminal_gets_flips_first_in_80_columns_of_harmless_ascii(diff):
    lines = text_lines(diff)
    assert max(map(len, lines)) <= 80
    assert all(line.isascii() and line.isprintable() for line in lines)
    heads = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    assert heads == [
        *heads[:2],
        "Flipped answers",
        "Settings",
        "Environment",
        "Comparable",
        "Numbers in both",
        "Rows only in A",
        "Rows only in B",
    ]


def test_page_and_json_hold_all_of_it_escaped(bench, altered, tmp_path):
    html, plain = tmp_path / "d.html", tmp_path / "d.json"
    command = ["diff", str(bench.finished), str(altered[0]), "--html", str(html)]
    done = CliRunner().invoke(pulse, [*command, "--json", str(plain), "--exit-code"])
    assert done.exit_code == 1
    page = html.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "\x1b" not in page
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", page)
    content = json.loads(plain.read_text(encoding="utf-8"))
    assert content["version"] == 1
    assert content["same"] is False
    flipped = [flip for one in content["flips"] for flip in one["flipped"]]
    assert set(altered[1]) <= {flip["question_id"] for flip in flipped}
    assert all(f"<code>{flip['question_id']}</code>" in page for flip in flipped)
    assert len(content["numbers"]) == len(result_rows(bench.finished))


def test_hostile_answers_are_escaped_where_they_are_shown(diff):
    one = next(found for found in diff.flips if found.flips)
    flip = replace(one.flips[0], b=replace(one.flips[0].b, text=HOSTILE), truth=HOSTILE)
    shown = replace(diff, flips=(replace(one, flips=(flip,)),))
    page = render_page(shown)
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7*7 }}" in page
    lines = text_lines(shown)
    assert max(map(len, lines)) <= 80
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_rows_that_one_run_has_alone_are_named(bench, diff, tmp_path):
    run = bench.copied(tmp_path)
    kept = [row for row in result_rows(run) if (row["method"], row["request"]) != ("ga", "1")]
    with (run / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, kept[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    found = compare_runs(diff.a, pulse_unlearn.load_run(run))
    gone = len(result_rows(bench.finished)) - len(kept)
    assert len(found.only_a) == gone > 0
    assert found.only_b == ()
    assert not found.is_same
    text = "\n".join(text_lines(found))
    assert f"Rows only in A: {gone}" in text
    assert f"finetuned ga projector+llm request 1 seed 0: {gone} rows" in text
    assert len(as_json(found)["only_a"]) == gone
    other_way = compare_runs(found.b, diff.a)
    assert len(other_way.only_b) == gone
    assert other_way.is_same


def test_other_data_and_a_stage_less_are_told(bench, diff, tmp_path):
    run = bench.copied(tmp_path)
    loaded = pulse_unlearn.load_run(run)
    loaded.__dict__["data"] = {**loaded.data, "general/mmbench_world.tsv": "0" * 64}
    sets = json.loads(json.dumps(loaded.sets))
    sets["finetuned/0"]["forget"] = ["f001"]
    loaded.__dict__["_results_json"] = {**loaded._results_json, "sets": sets}
    found = compare_runs(diff.a, loaded)
    told = " ".join(found.not_comparable)
    assert "general/mmbench_world.tsv is not the same file" in told
    assert "forget of finetuned/0 has" in told
    text = " ".join(" ".join(text_lines(found)).split())
    assert "Not comparable" in text
    shutil.rmtree(next(run.glob(f"stages/*-{STAGE}-*")))
    with pytest.raises(pulse_unlearn.errors.StoreError):
        pulse_unlearn.load_run(run)


# --- numbers against those of rooms below, on invented scores


def score(person, number, modality, right, *, words=None):
    verdict = "correct" if right else "wrong"
    names = "letter letter_probability rotated rotated_probability circular flipped mentions"
    names += " mentions_others words_per_token words_probability words_named"
    nothing = dict.fromkeys(names.split())
    return QuestionScore(
        question_id=f"{person}/{modality}/{number}",
        individual=person,
        modality=modality,
        category="",
        answer="A",
        chance=0.25,
        verdict=verdict,
        choice="A" if right else "B",
        turned=(("A", "A", verdict),),
        words=words,
        **nothing,
    )


PEOPLE = [f"p{n:02d}" for n in range(24)]


def scores_of(rule):
    kinds = ("multimodal", "text_only")
    return [
        score(person, number, kind, rule(index, number, kind))
        for index, person in enumerate(PEOPLE)
        for kind in kinds
        for number in range(4)
    ]


def stand_in(scores, people, cells):
    """As much of a loaded run as numbers are made of."""
    rows = [
        Result(cell, one)
        for cell in cells
        for one in people_measures(scores[cell], sets={"forget": frozenset(people)})
    ]
    return SimpleNamespace(rows=rows, people=lambda cell, name: frozenset(people))


def shared(cell, first, second):
    alike = frozenset({s.question_id for s in first} & {s.question_id for s in second})
    return Shared(cell, tuple(first), tuple(second), alike, frozenset())


CELLS = [Cell("finetuned", "ga", "llm", seed, 1) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def pair():
    a = {cell: scores_of(lambda p, n, kind: p > 20 or (p + n) % 3 == 0) for cell in CELLS}
    b = {
        cell: scores_of(lambda p, n, kind, s=cell.seed: (p * 5 + n + s) % 3 != 0 or p < 6)
        for cell in CELLS
    }
    return a, b


def test_a_paired_difference_has_the_interval_of_comparisons(pair):
    a, b = pair
    both = {cell: shared(cell, a[cell], b[cell]) for cell in CELLS}
    found = gaps(stand_in(a, PEOPLE, CELLS), stand_in(b, PEOPLE, CELLS), both)
    accuracy = [one for one in found if (one.measure, one.modality) == ("accuracy", "all")]
    assert len(accuracy) == 3
    for one in accuracy:
        pairing = pair_by_question(a[one.cell], b[one.cell])
        known = mean_gap(gaps_between(pairing, "accuracy"))
        assert (one.difference, one.low, one.high) == (known.value, known.low, known.high)
        assert one.difference == pytest.approx(one.b.value - one.a.value)
        assert one.shared == len(PEOPLE) * 8
        assert one.is_clear
    share = next(one for one in found if one.measure == "letter_share")
    assert share.low is None
    assert "no interval" in share.reason
    assert next(one for one in found if one.measure == "words_accuracy").difference is None

    (mean,) = (
        one for one in over_seeds(found) if (one.measure, one.modality) == ("accuracy", "all")
    )
    values = [one.difference for one in accuracy]
    assert mean.over.value == pytest.approx(sum(values) / 3)
    assert mean.over.count == 3
    assert mean.over.low < mean.over.value < mean.over.high


def test_people_of_one_run_alone_are_left_out_of_the_difference(pair):
    a, b = pair
    cell, some = CELLS[0], PEOPLE[:15]
    fewer = {cell: [one for one in b[cell] if one.individual in some]}
    both = {cell: shared(cell, a[cell], fewer[cell])}
    found = gaps(stand_in(a, PEOPLE, [cell]), stand_in(fewer, some, [cell]), both)
    accuracy = next(one for one in found if (one.measure, one.modality) == ("accuracy", "all"))
    assert accuracy.reason.endswith("over 120 shared of 192 questions")
    pairing = pair_by_question([s for s in a[cell] if s.individual in some], fewer[cell])
    known = mean_gap(gaps_between(pairing, "accuracy"))
    assert (accuracy.difference, accuracy.low) == (known.value, known.low)
    assert accuracy.difference != pytest.approx(accuracy.b.value - accuracy.a.value)
    share = next(one for one in found if one.measure == "letter_share")
    assert share.difference is None
    assert "60 shared of 96" in share.reason

    none = {cell: shared(cell, a[cell], [])}
    apart = gaps(stand_in(a, PEOPLE, [cell]), stand_in(fewer, some, [cell]), none)
    assert all(one.difference is None for one in apart)
    assert any("share no question" in one.reason for one in apart)
