"""The audit beside the package: it agrees with right files, and finds what was changed in them."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pulse_unlearn.evaluation.metrics import (
    general_measures,
    people_measures,
    request_measures,
)
from pulse_unlearn.evaluation.relative import relative_measures
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.evaluation.table import read_predictions, write_predictions, write_scores
from pulse_unlearn.records import (
    MODALITIES,
    RESULT_COLUMNS,
    Measurement,
    Option,
    Prediction,
    QuestionScore,
)

SCRIPT = Path(__file__).parents[1] / "bench" / "recount.py"
STAGES = ("before", "after1", "after2")
EVERYONE = {"forget": ["p1", "p2"], "retain": ["p3"]}
PARTS: tuple[dict[str, list[str]], ...] = (
    {"not_yet_requested": ["p1", "p2"]},
    {"just_requested": ["p1"], "not_yet_requested": ["p2"]},
    {"forgotten_earlier": ["p1"], "just_requested": ["p2"]},
)
TEXTS = ("baker", "pilot", "red fox", "fox", "nurse", "singer")
SAID = (
    *("{letter}",) * 6,
    "({letter}).",
    "{letter}. {text}",
    "{text}",
    "It is the {text}.",
    "The answer is {letter}",
    "{text} or {other_text}",
    "{letter} or {other}",
    "Sorry, I can't say.",
    "pebble",
    "",
)


def answers_to(question: str, person: str, stage: int, number: int) -> Iterator[Prediction]:
    """Answers in all orders and in words; what a question asks is the same in every stage."""
    asks, says = np.random.default_rng(number), np.random.default_rng([number, stage])
    count = 4 if person else int(asks.integers(2, 5))
    texts = [str(text) for text in asks.permutation(TEXTS)[:count]]
    truth = texts[asks.integers(count)]
    for turn in range(count + 1):
        in_words = turn == count
        shown = texts[turn:] + texts[:turn] if not in_words else texts
        options = [Option("ABCD"[place], text) for place, text in enumerate(shown)]
        named, other = (options[place] for place in says.permutation(count)[:2])
        if says.random() < 0.4:
            named = options[shown.index(truth)]
        form = "a {text}" if in_words else SAID[says.integers(len(SAID))]
        yield Prediction(
            example_id=f"{question}/{turn}",
            question_id=question,
            individual=person,
            modality="text_only" if "text_only" in question else "multimodal",
            category="" if person else f"topic {number % 2}",
            rotation=0 if in_words else turn,
            options=tuple(options),
            answer=options[shown.index(truth)].letter,
            text=form.format(
                letter=named.letter, text=named.text, other=other.letter, other_text=other.text
            ),
            option_log_probs=tuple(np.log(says.dirichlet(np.ones(count))).tolist()),
            asked_as="words" if in_words else "options",
            end_log_probs=(-0.1,) * count if in_words else (),
            option_tokens=tuple(len(text) for text in shown) if in_words else (),
        )


def stage_answers(stage: int, *, first: int = 0) -> list[Prediction]:
    """Three people with three questions in each modality, and six general questions."""
    asked = [
        (f"{person}/{modality}/{number}", person)
        for person in ("p1", "p2", "p3")
        for modality in MODALITIES
        for number in range(3)
    ]
    asked += [(f"g{number}", "") for number in range(6)]
    return [
        answer
        for number, (question, person) in enumerate(asked, start=first)
        for answer in answers_to(question, person, stage, number)
    ]


def cell(request: int) -> dict[str, str | int]:
    return {
        "scenario": "sustainability",
        "method": "ga",
        "scope": "llm",
        "seed": 0,
        "request": request,
        "condition": "plain",
    }


def rows_of(request: int, found: Iterable[Measurement]) -> Iterator[dict[str, object]]:
    for one in found:
        row = {name: getattr(one, name) for name in RESULT_COLUMNS[6:]}
        yield cell(request) | row | {"value": "" if one.value is None else round(one.value, 6)}


def all_rows(scores: Sequence[Sequence[QuestionScore]]) -> Iterator[dict[str, object]]:
    """Rows as the package counts them, before and after each of two requests."""
    for request, some in enumerate(scores):
        told = EVERYONE | PARTS[request]
        sets = {name: frozenset(people) for name, people in told.items()}
        people = [one for one in some if one.individual]
        yield from rows_of(request, people_measures(people, sets=sets))
        yield from rows_of(
            request, request_measures(people, {"request:1": {"p1"}, "request:2": {"p2"}})
        )
        if general := [one for one in some if not one.individual]:
            yield from rows_of(request, general_measures(general))
        if request:
            yield from rows_of(request, relative_measures(scores[0], some, sets=sets))


def write_run(folder: Path, stages: Sequence[Sequence[Prediction]]) -> Path:
    """A run folder with all that the audit looks at."""
    scores = []
    for name, answers in zip(STAGES, stages, strict=True):
        judged = score_all(answers)
        (folder / "stages" / name).mkdir(parents=True)
        (folder / "scores").mkdir(exist_ok=True)
        write_predictions(folder / "stages" / name / "predictions.parquet", answers)
        write_scores(folder / "scores" / f"{name}.parquet", judged)
        scores.append(by_question(answers, judged))
    plan = {
        "stages": [{"name": name, "folder": name, "kind": "score"} for name in STAGES],
        "evaluations": [
            {
                **cell(request),
                "scores": STAGES[request],
                "compared_to": STAGES[0] if request else "",
                "only": STAGES[1] if not request else "",
            }
            for request in (0, 1, 2)
        ],
    }
    sets = {"sustainability/0": EVERYONE | {"requests": [["p1"], ["p2"]]}}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (folder / "results.json").write_text(json.dumps({"sets": sets}), encoding="utf-8")
    (folder / "experiment.yaml").write_text("scoring: {parser: strict}\n", encoding="utf-8")
    write_rows(folder, list(all_rows(scores)))
    return folder


def write_rows(run: Path, rows: Iterable[Mapping[str, object]]) -> None:
    with (run / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, RESULT_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def recount(run: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the audit."""
    command = [sys.executable, str(SCRIPT), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path, [stage_answers(stage) for stage in range(3)])


def test_a_right_run_differs_nowhere(run):
    code, lines = recount(run)
    assert code == 0, lines
    assert lines[0].endswith(" values recounted, 0 differ")
    assert int(lines[0].split()[0]) > 900
    assert "below_chance" in lines[1]


def without(
    answers: Iterable[Prediction], left_out: Callable[[Prediction], bool]
) -> list[Prediction]:
    return [one for one in answers if not left_out(one)]


PARTIAL = {
    "people asked in the file's order alone": lambda one: one.individual and one.rotation,
    "no bare questions": lambda one: one.asked_as == "words",
    "bare questions about people alone": lambda one: one.asked_as == "words" and not one.individual,
    "no general questions": lambda one: not one.individual,
}


@pytest.mark.parametrize("left_out", PARTIAL.values(), ids=PARTIAL.keys())
def test_what_was_not_asked_has_no_value(tmp_path, left_out):
    stages = [without(stage_answers(stage), left_out) for stage in range(3)]
    code, lines = recount(write_run(tmp_path, stages))
    assert code == 0, lines


def test_a_changed_value_is_found(run):
    rows = read_rows(run)
    row = next(row for row in rows if row["measure"] == "rotated_accuracy")
    row["value"] = str(float(row["value"]) + 0.01)
    write_rows(run, rows)
    code, lines = recount(run)
    assert code == 1
    assert lines[0].endswith(" 1 differ")
    assert "rotated_accuracy: file" in lines[1]


def test_a_changed_count_is_found(run):
    rows = read_rows(run)
    row = next(row for row in rows if row["measure"] == "kept_pct")
    row["questions"] = "1"
    write_rows(run, rows)
    assert recount(run)[0] == 1


def test_rows_missing_twice_or_unknown_are_found(run):
    rows = read_rows(run)
    write_rows(run, [*rows[1:], rows[-1], rows[-1] | {"measure": "charm"}])
    code, lines = recount(run)
    assert code == 1
    assert lines[0].endswith(" 3 differ")
    assert [line.rsplit(": ", 1)[1] for line in lines[1:4]] == [
        "there twice",
        "not known here",
        "missing in the file",
    ]


def test_a_changed_answer_is_found(run):
    path = run / "stages" / "after1" / "predictions.parquet"
    answers = list(read_predictions(path))
    place = next(
        at
        for at, one in enumerate(answers)
        if one.text == one.answer and one.example_id.endswith("/0")
    )
    answers[place] = replace(answers[place], text="pebble")
    write_predictions(path, answers)
    code, lines = recount(run)
    assert code == 1
    assert "1 answers read differently" in lines
    assert any(" unparsable: file" in line for line in lines)
    assert any(" accuracy: file" in line for line in lines)


def test_it_stands_apart_from_the_package():
    assert "pulse_unlearn" not in SCRIPT.read_text(encoding="utf-8")
