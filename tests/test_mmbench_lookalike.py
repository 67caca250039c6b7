"""A full-size look-alike of MMBench's dev file: read, asked, and counted anew by other code."""

from __future__ import annotations

import csv
import json
import time
from collections import defaultdict

import pytest
from click.testing import CliRunner

import tiny_models as tiny
from mmbench_lookalike import COPY, SMALL, Counts, write
from pulse_unlearn.cli import pulse
from pulse_unlearn.data.examples import circular
from pulse_unlearn.data.leaks import left_out
from pulse_unlearn.data.mmbench import load_rows, load_scored
from pulse_unlearn.data.mmbench_table import read_answers
from pulse_unlearn.errors import DataError
from pulse_unlearn.evaluation.measures import MEASURES, estimate_mean
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.pipeline.foreign import judge
from pulse_unlearn.records import Individual

NAMES = [f"Mara{n} Bellweather{n}" for n in range(20)]
FULL = Counts()


def rows_of(path):
    csv.field_size_limit(10**7)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def people(names=NAMES):
    return [Individual(f"p{n}", name, "celebrity", (), (), ()) for n, name in enumerate(names)]


def recounted(rows, said):
    """Vanilla and circular by a loop over the file: a letter is right if its text is the true."""
    right = defaultdict(list)
    base = {}
    for row in rows:
        index = int(row["index"])
        letter = said[index]
        hit = bool(letter) and row[letter] == row[row["answer"]]
        right[index % COPY].append(hit)
        if index < COPY:
            base[index] = hit
    return sum(base.values()), sum(map(all, right.values())), len(base)


def test_the_full_size_file_is_checked_in_seconds(tmp_path):
    assert (FULL.questions, FULL.rows) == (1164, 4329)
    path = write(tmp_path / "lookalike.tsv", FULL, people=NAMES)
    begun = time.perf_counter()
    done = CliRunner().invoke(pulse, ["data", "check", str(path)])
    seconds = time.perf_counter() - begun
    assert done.exit_code == 0, done.output
    for told in (
        "1164 general questions: 60 of 2 options, 154 of 3 options, 950 of 4 options",
        "1164 questions asked in the orders of the file's own circular copies",
        "4 questions with equal options, taken as they are",
        "no fault found",
    ):
        assert told in done.output
    # Under 3 s with the machine to itself; a busy one gets room.
    assert seconds < 12, seconds


def test_questions_that_name_people_of_the_run_are_left_out_before_anything_is_asked(tmp_path):
    found = load_scored(write(tmp_path / "lookalike.tsv", FULL, people=NAMES, side=24))
    kept, notes = left_out(people(), found.general, allowed=())
    assert len(kept) == FULL.questions - FULL.named
    assert len(notes) == FULL.named
    assert all("is left out: it says a person's name" in note for note in notes)
    kept, notes = left_out(people(), found.general, allowed=("named",))
    assert (len(kept), len(notes)) == (FULL.questions, FULL.named)


def asked_and_counted(path, *, batch_size):
    """Ask a tiny model every order; return both counts, ours and those of the loop."""
    questions = load_scored(path).general
    backend = Packed(tiny.base(), tiny.encoder(), budget=64)
    answers = predict(
        backend,
        circular(questions, profile="mmbench_llava"),
        batch_size=batch_size,
        max_new_tokens=1,
        on_batch=lambda done, total: None,
    )
    scores = by_question(answers, score_all(answers, parser="likelihood"))
    ours = [estimate_mean(scores, MEASURES.get(n)) for n in ("accuracy", "circular_accuracy")]
    rows = rows_of(path)
    shown = {
        (int(row["index"]) % COPY, tuple(row[x] for x in "ABCD" if row[x])): int(row["index"])
        for row in rows
    }
    said = {
        shown[int(one.question_id), tuple(option.text for option in one.options)]: max(
            zip(one.option_log_probs, (option.letter for option in one.options), strict=True),
            key=lambda pair: pair[0],
        )[1]
        for one in answers
    }
    assert len(said) == len(rows)
    vanilla, whole, count = recounted(rows, said)
    return [one.value for one in ours], [vanilla / count, whole / count]


def test_a_run_counts_as_a_loop_over_the_file_does(tmp_path):
    path = write(tmp_path / "small.tsv", SMALL, people=NAMES, side=24)
    ours, theirs = asked_and_counted(path, batch_size=32)
    assert ours == pytest.approx(theirs)
    assert 0.05 < theirs[0] < 0.95


@pytest.mark.slow
def test_a_full_size_run_counts_as_a_loop_over_the_file_does(tmp_path):
    path = write(tmp_path / "full.tsv", FULL, people=NAMES, side=24)
    ours, theirs = asked_and_counted(path, batch_size=64)
    assert ours == pytest.approx(theirs)


# --- answers made elsewhere


def talk(letter, number):
    """The same letter, said in one of the ways that public files have."""
    ways = ("{}", "{}.", "({})", "The answer is {}.", "I would say so. The answer is {}.")
    return ways[number % len(ways)].format(letter)


def made(rows):
    """What somebody said to every row: mostly the truth, unreadable now and then."""
    said = {}
    for number, row in enumerate(sorted(rows, key=lambda row: int(row["index"]))):
        letters = [letter for letter in "ABCD" if row[letter]]
        truth = letters.index(row["answer"])
        said[int(row["index"])] = letters[(truth + (number % 5 == 0)) % len(letters)]
        if number % 17 == 0:
            said[int(row["index"])] = ""
    return said


def test_llavas_lines_are_judged_as_a_loop_judges_them(tmp_path):
    path = write(tmp_path / "dev.tsv", SMALL, people=NAMES, side=24)
    rows = rows_of(path)
    said = made(rows)
    lines = [
        {"question_id": index, "round_id": 0, "text": talk(letter, n) if letter else "of of of"}
        for n, (index, letter) in enumerate(said.items())
    ]
    answers = tmp_path / "llava.jsonl"
    answers.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    vanilla, whole, count = recounted(rows, said)
    for parser in ("strict", "declared"):
        found = judge(load_rows(path), read_answers(answers), parser=parser)
        assert (found.vanilla.right, found.vanilla.questions) == (vanilla, count)
        assert (found.circular.right, found.circular.questions) == (whole, count)
        assert sum(one.questions for one in found.by_l2_category.values()) == count
        assert sum(one.right for one in found.by_category.values()) == vanilla
    out = tmp_path / "judged.json"
    done = CliRunner().invoke(
        pulse, ["score", "--answers", str(answers), "--general", str(path), "--json", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert f"{100 * vanilla / count:.2f}" in done.output
    tables = [line for line in done.output.splitlines() if "/" not in line]
    assert max(map(len, tables)) <= 80
    told = json.loads(out.read_text())["parsers"]
    assert told["strict"]["circular"] == {"right": whole, "questions": count}


def test_vlmevalkits_table_is_read_as_csv_and_tsv(tmp_path):
    path = write(tmp_path / "dev.tsv", SMALL, people=NAMES, side=24)
    said = made(rows_of(path))
    found = []
    for name, delimiter in (("table.csv", ","), ("table.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter=delimiter)
            table.writerow(("index", "question", "prediction"))
            table.writerows((f"{index}.0", "?", text or "Because") for index, text in said.items())
        found.append(judge(load_rows(path), read_answers(tmp_path / name), parser="strict"))
    assert found[0] == found[1]
    assert found[0].vanilla.right == recounted(rows_of(path), said)[0]


def test_llavas_rounds_turn_the_options(tmp_path):
    """A file without copies, asked in rounds: the texts move up, the letters stay."""
    path = tmp_path / "base.tsv"
    write(path, Counts(two=0, three=0, four=2, stays=0, equal=0, celebrity=0, named=0, hints=0),
          people=NAMES, side=24)  # fmt: skip
    rows = [row for row in rows_of(path) if int(row["index"]) < COPY]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    lines = []
    for number, row in enumerate(rows):
        texts = [row[letter] for letter in "ABCD"]
        for turn in range(4):
            moved = texts[turn:] + texts[:turn]
            letter = "ABCD"[moved.index(row[row["answer"]])]
            lines.append({"question_id": row["index"], "round_id": turn,
                          "text": "A" if number and turn == 3 else letter})  # fmt: skip
    (tmp_path / "rounds.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = judge(load_rows(path), read_answers(tmp_path / "rounds.jsonl"), parser="strict")
    assert (found.vanilla.right, found.circular.questions) == (2, 2)
    last = lines[-1]["text"] == "A" and "ABCD".index(rows[1]["answer"]) == 3
    assert found.circular.right == (2 if last else 1)


def test_answers_that_do_not_fit_are_all_told(tmp_path):
    path = write(tmp_path / "dev.tsv", SMALL, people=NAMES, side=24)
    base = sorted(int(row["index"]) for row in rows_of(path) if int(row["index"]) < COPY)
    lines = [{"question_id": index, "text": "A"} for index in base[1:]]
    lines += [{"question_id": 7, "text": "A"}, {"question_id": base[1], "text": "B"}]
    answers = tmp_path / "a.jsonl"
    answers.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        judge(load_rows(path), read_answers(answers), parser="strict")
    assert {problem.what for problem in caught.value.problems} == {
        "an answer to a question that is not there",
        "a second answer to a question",
        "a question without an answer",
    }


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.jsonl", '{"question_id": 1}', "not an answer"),
        ("a.jsonl", "[1, 2", "not a line of JSON"),
        ("a.jsonl", "", "not a readable file of answers"),
        ("a.csv", "index,answer\n1,A\n", "not a readable file of answers"),
        ("a.csv", "index,prediction\nx,A\n", "the index is not a number"),
        ("a.xlsx", "PK", "export an .xlsx as UTF-8 .csv"),
    ],
)
def test_files_that_are_no_answers(tmp_path, name, text, told):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_answers(tmp_path / name)
    assert told in "\n".join(map(str, caught.value.problems))


def test_score_takes_a_run_or_answers():
    runner = CliRunner()
    assert runner.invoke(pulse, ["score"]).exit_code == 2
    assert runner.invoke(pulse, ["score", "--answers", "a.jsonl"]).exit_code == 2
    assert runner.invoke(pulse, ["score", "run", "--answers", "a", "--general", "b"]).exit_code == 2
