"""Named requests over two months, killed between and during: one ledger, the same numbers."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from pipeline_cases import CELEBRITIES, Bench, computed, make_experiment, settings
from pulse_unlearn import store

PEOPLE = tuple(f"f{number:03d}" for number in range(1, 15))
SIZES = (3, 2, 1, 5, 1)
DATES = ("2026-10-02", "2026-10-09", "2026-10-20", "2026-11-03", "2026-11-17")
OCTOBER = 3
"""Requests of the first month."""
MOMENTS = (
    ("request1.unlearn", 6),  # between two steps of a training
    ("request2.score", 2),  # while answers are written
    ("ledger", 1),
)


def request_lines(upto: int | None = None) -> str:
    people = iter(PEOPLE)
    lines = [
        {"who": [next(people) for _ in range(size)], "when": when, "why": "Art. 17"}
        for size, when in zip(SIZES, DATES, strict=True)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines[:upto])


def months(root):
    chosen = settings(root)
    chosen["name"] = "months"
    chosen["scoring"] |= {"people": "vanilla", "words": "none"}  # for time's sake
    chosen["methods"] = {"npo": {"settings": {"beta": 1.0}}}
    chosen["scenarios"] = {
        "requests": {"file": str(root / "requests.jsonl"), "people": "fictional"}
    }
    return chosen


@pytest.fixture(scope="module")
def bench(server, tmp_path_factory):
    root = tmp_path_factory.mktemp("months")
    experiment = make_experiment(root, months, "months", PEOPLE + CELEBRITIES)
    (root / "requests.jsonl").write_text(request_lines(), encoding="utf-8")
    bench = Bench(server, experiment, root / "runs" / "months")
    ended = bench.run(bench.finished.parent)
    assert ended.code == 0, ended.output
    return bench


def ledger(run):
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


def numbers(run):
    """What must not depend on when requests came in, or on how often a run was killed."""
    kept = {name: (run / name).read_bytes() for name in ("results.csv", "ledger.jsonl")}
    for stage in (run / "stages").iterdir():
        name = stage.name.split("-", 1)[1]  # stages of later months are numbered otherwise
        for path in (*stage.glob("adapter/*.safetensors"), *stage.glob("predictions.parquet")):
            kept[f"{name}/{path.name}"] = path.read_bytes()
    return kept


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_two_months_killed_between_and_during_end_as_one_undisturbed_run(bench, tmp_path):
    file, run = bench.experiment.parent / "requests.jsonl", tmp_path / "months"
    file.write_text(request_lines(OCTOBER), encoding="utf-8")
    for mark, events in MOMENTS:
        ended = bench.run(tmp_path, mark=mark, events=events)
        assert ended.code == -signal.SIGKILL, f"{mark}: {ended.output}"
    assert bench.run(tmp_path).code == 0
    october = ledger(run)
    assert [len(line["who"]) for line in october] == [3, 2, 1]
    file.write_text(request_lines(), encoding="utf-8")
    ended = bench.run(tmp_path, mark="request5", events=3)
    assert ended.code == -signal.SIGKILL, ended.output
    again = bench.run(tmp_path)
    assert again.code == 0, again.output
    for name in computed(ended) + computed(again):
        assert "request4" in name or "request5" in name, name
    assert ledger(run)[:OCTOBER] == october
    assert numbers(run) == numbers(bench.finished)
    assert store.verify(run) == []


def test_the_ledger_says_for_whom_to_which_weights_and_with_which_verdict(bench):
    lines = ledger(bench.finished)
    assert [(line["name"], line["when"], line["why"]) for line in lines] == [
        (f"line {number}", when, "Art. 17") for number, when in enumerate(DATES, start=1)
    ]
    for line, before in zip(lines[1:], lines, strict=False):
        assert line["before"] == before["after"]
        assert len(line["after"]) == len(before["after"]) + 1
        assert line["verdict"]["word"]
    last = lines[-1]["after"][-1]
    stage = next((bench.finished / "stages").glob("*request5.unlearn*"))
    digest = store.sha256_file(stage / "adapter" / "adapter_model.safetensors")
    assert last["files"] == {"adapter/adapter_model.safetensors": digest}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (request_lines(1), "nothing at this place"),
        (request_lines().replace("Art. 17", "a mistake"), "says otherwise"),
        (request_lines().replace("f004", "f014", 1), "f014"),
    ],
)
def test_what_was_carried_out_cannot_be_taken_back(bench, now, told):
    file, before = bench.experiment.parent / "requests.jsonl", numbers(bench.finished)
    file.write_text(now, encoding="utf-8")
    try:
        ended = bench.run(bench.finished.parent)
    finally:
        file.write_text(request_lines(), encoding="utf-8")
    assert ended.code == 1, ended.output
    assert told in ended.output
    assert "add new requests below" in ended.output
    assert numbers(bench.finished) == before


def test_answers_read_otherwise_add_lines_that_name_what_they_replace(bench, tmp_path):
    run = tmp_path / "months"
    shutil.copytree(bench.finished, run)
    ended = bench.server.pulse("score", str(run), "--parser", "first_character")
    assert ended.code == 0, ended.output
    lines = ledger(run)
    assert lines[:5] == ledger(bench.finished)
    assert [line["replaces"] for line in lines[5:]] == [1, 2, 3, 4, 5]
    assert {line["verdict"]["read_by"] for line in lines[5:]} == {"first_character"}


def test_a_ledger_that_was_edited_is_refused(bench, tmp_path):
    run = tmp_path / "months"
    shutil.copytree(bench.finished, run)
    text = (run / "ledger.jsonl").read_text().replace("2026-10-02", "2026-10-01", 1)
    (run / "ledger.jsonl").write_text(text)
    ended = bench.run(tmp_path)
    assert "the line before was changed" in ended.output
    assert any("ledger.jsonl" in problem.where for problem in store.verify(run))
