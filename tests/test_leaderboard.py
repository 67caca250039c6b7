"""The leaderboard: what an entry says, who ranks before whom, and which runs may be entered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

import synthetic_run
from pipeline_cases import in_own_process
from pulse_unlearn.errors import Corrupted, StoreError
from pulse_unlearn.leaderboard.board import EMPTY, Board, read_board, write_board
from pulse_unlearn.leaderboard.entries import Entry, SeedEntry, entries_of, verdict_of
from pulse_unlearn.leaderboard.page import render, write_all
from pulse_unlearn.leaderboard.ranking import ranked
from pulse_unlearn.leaderboard.text import markdown, sections
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.load import load_run

SEED = SeedEntry(
    seed=0,
    before=0.9,
    remembered=0.3,
    floor=0.25,
    kept={"retain": 0.8, "general": 1.1},
    attacks={},
    word="not recovered",
    broken=False,
    seconds=20.0,
    ga_seconds=10.0,
)


def entry(method, *seeds, **changes):
    made = Entry("finetuned", method, "llm", "run (0)", True, seeds or (SEED,))
    return replace(made, **changes)


def scored(method, *pairs):
    """An entry whose seeds forget and keep so much."""
    return entry(
        method,
        *(
            replace(SEED, seed=n, before=1.0, floor=0.0, remembered=1 - gone, kept={"retain": kept})
            for n, (gone, kept) in enumerate(pairs)
        ),
    )


# --- one entry


def test_what_is_forgotten_is_a_share_of_the_way_down_to_the_floor():
    assert SEED.forgotten == pytest.approx(0.6 / 0.65)
    assert replace(SEED, remembered=0.1).forgotten == 1.0
    assert replace(SEED, remembered=0.95).forgotten == 0.0
    assert replace(SEED, floor=0.9).forgotten == 0.0  # nothing was there to forget


def test_the_attack_that_brings_back_most_counts():
    attacked = replace(SEED, attacks={"int4": 0.65, "relearned": 0.2})
    assert attacked.forgotten == SEED.forgotten
    assert attacked.forgotten_for_good == 0.0
    mild = replace(SEED, attacks={"relearned": 0.2})
    assert mild.forgotten_for_good == pytest.approx((0.9 - 0.45) / 0.65)


def test_what_is_hidden_behind_a_guard_is_not_forgotten():
    assert replace(SEED, word="hidden").forgotten == SEED.forgotten
    assert replace(SEED, word="hidden").forgotten_for_good == 0.0


def test_kept_is_the_set_that_lost_most_and_never_more_than_all():
    assert SEED.kept_least == 0.8
    assert replace(SEED, kept={"general": 1.4}).kept_least == 1.0


def test_the_score_is_0_where_nothing_is_forgotten_or_nothing_kept():
    assert replace(SEED, remembered=0.9).score == 0.0
    assert replace(SEED, kept={"retain": 0.0}).score == 0.0
    gone = 0.6 / 0.65
    assert SEED.score == pytest.approx(2 * gone * 0.8 / (gone + 0.8))


def test_the_cost_is_against_ga_in_the_same_run():
    assert entry("npo").cost == 2.0
    assert entry("npo", replace(SEED, ga_seconds=None)).cost is None


@pytest.mark.parametrize(
    ("word", "broken", "attacks", "expected"),
    [
        ("remembered", False, {}, "remembered"),
        ("remembered", True, {}, "broken habit"),
        ("suppressed", True, {}, "broken habit"),
        ("one letter", False, {}, "broken habit"),
        ("avoids", False, {}, "broken habit"),
        ("output broken", False, {}, "output broken"),
        ("not recovered", False, {"relearned": 0.14}, "not recovered"),
        ("not recovered", False, {"relearned": 0.3}, "hidden"),
        ("like never known", False, {"int4": 0.3}, "hidden"),
        ("hidden", False, {}, "hidden"),
        ("like never known", False, {"int4": 0.0}, "like never known"),
        ("unknown", False, {}, "unknown"),
        ("", False, {}, "unknown"),
    ],
)
def test_one_word_for_a_seed(word, broken, attacks, expected):
    assert verdict_of(replace(SEED, word=word, broken=broken, attacks=attacks)) == expected


def test_a_method_has_the_worst_word_of_its_seeds():
    seeds = [replace(SEED, word="like never known"), replace(SEED, attacks={"int4": 0.5})]
    assert entry("npo", *seeds).verdict == "hidden"


# --- ranks


def test_sure_differences_narrow_the_ranks_and_others_do_not():
    good = scored("good", (0.9, 0.9), (0.91, 0.91), (0.92, 0.92))
    bad = scored("bad", (0.1, 0.1), (0.112, 0.112), (0.12, 0.12))
    vague = scored("vague", (0.9, 0.9), (0.2, 0.2), (0.5, 0.5))
    found = {one.entry.method: one for one in ranked([bad, vague, good])}
    assert [one.entry.method for one in ranked([bad, vague, good])] == ["good", "vague", "bad"]
    assert (found["good"].best, found["good"].worst) == (1, 2)
    assert (found["bad"].best, found["bad"].worst) == (2, 3)
    assert (found["vague"].best, found["vague"].worst) == (1, 3)
    assert found["vague"].told == "2 (1-3)"


def test_one_seed_gives_a_rank_and_no_range():
    found = ranked([scored("a", (0.9, 0.9)), scored("b", (0.5, 0.5))])
    assert [one.told for one in found] == ["1", "2"]
    assert [(one.best, one.worst) for one in found] == [(1, 2), (1, 2)]


def test_equal_scores_share_a_rank():
    found = ranked([scored("a", (0.0, 0.7)), scored("b", (0.0, 1.0)), scored("c", (0.5, 0.5))])
    assert [(one.entry.method, one.rank) for one in found] == [("c", 1), ("b", 2), ("a", 2)]


def test_the_front_is_whoever_nobody_beats_in_both():
    found = ranked([scored("a", (0.9, 0.2)), scored("b", (0.5, 0.5)), scored("c", (0.4, 0.5))])
    assert {one.entry.method for one in found if one.on_front} == {"a", "b"}


# --- from a run


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Those of a made-up run over three seeds with a retain model and the relearning attack."""
    run = tmp_path_factory.mktemp("board") / "run"
    synthetic_run.write_run(run, synthetic_run.Recipe(seeds=(0, 1, 2), conditions=True))
    (run / "logs").mkdir()
    lines = [
        {"stage": f"seed{seed}/finetuned/{method}/unlearn", "kind": "unlearn", "seconds": seconds}
        for seed in (0, 1, 2)
        for method, seconds in (("ga", 10.0), ("GA", 10.0), ("NPO", 30.0))
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "logs" / "times.jsonl").write_text(text, encoding="utf-8")
    record = load_run(run)
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    return record, numbers, entries_of(run, record, numbers, told="run (0)")


def test_entries_are_the_runs_own_numbers_after_the_last_request(entries):
    record, _, found = entries
    one = next(e for e in found if (e.scenario, e.method) == ("sustainability", "NPO"))
    assert [seed.seed for seed in one.seeds] == [0, 1, 2]

    def value(seed, request, condition, name, measure):
        (number,) = [
            r.measurement.value
            for r in record.results
            if (r.cell.scenario, r.cell.seed, r.cell.request) == ("sustainability", seed, request)
            and r.cell.condition == condition
            and (r.measurement.set, r.measurement.modality) == (name, "all")
            and r.measurement.measure == measure
            and (request == 0 or r.cell.method == "NPO")
        ][:1]
        return number

    seed = one.seeds[1]
    assert seed.remembered == value(1, 5, "plain", "forget", "latent_accuracy")
    assert seed.before == value(1, 0, "plain", "forget", "latent_accuracy")
    assert seed.floor == value(1, 0, "retain_model", "forget", "latent_accuracy")
    kept = value(1, 5, "plain", "retain", "accuracy") / value(1, 0, "plain", "retain", "accuracy")
    assert seed.kept["retain"] == pytest.approx(kept)
    assert one.has_retain_model


def test_of_a_relearning_curve_the_last_step_counts_beyond_its_control(entries):
    _, numbers, found = entries
    one = next(e for e in found if (e.scenario, e.method) == ("finetuned", "NPO"))
    place = next(p for p in numbers.finals("finetuned") if p.method == "NPO")
    last = max(numbers.relearning_steps("finetuned"))

    def highest(at):
        for measure in ("latent_accuracy", "accuracy"):
            got = numbers.get(at, "forget", "all", measure)
            if got:
                return dict(got.seeds)[2]
        raise AssertionError(at)

    back = highest(place.relearned(last)) - highest(place.relearned(last, control=True))
    assert one.seeds[2].attacks == {"relearned": pytest.approx(back)}
    assert one.cost == 3.0


def test_steps_on_the_way_of_an_operation_are_no_attack(entries):
    record, numbers, _ = entries
    place = next(p for p in numbers.finals("finetuned") if p.method == "NPO")
    more = [
        replace(one, cell=replace(one.cell, condition="step:8"))
        for one in record.results
        if (one.cell.scenario, one.cell.method) == ("finetuned", "NPO")
        and (one.cell.request, one.cell.condition) == (place.request, "plain")
    ]
    assert more
    with_steps = Numbers([*record.results, *more], record.labels, record.extras.over_seeds)
    found = entries_of(record.path, record, with_steps, told="run (0)")
    one = next(e for e in found if (e.scenario, e.method) == ("finetuned", "NPO"))
    assert set(one.seeds[0].attacks) == {"relearned"}


def test_the_page_shows_every_method_and_breaks_on_no_name(entries, tmp_path):
    found = entries[2]
    hostile = replace(found[0], method="<b>|`x`", run="<script> (1)")
    board = Board({}, (*found, hostile))
    text, page = markdown(board), render(board)
    for one in found:
        assert one.verdict in text
    assert "<script>" not in page
    assert "<b>" not in page
    assert "\\|`x`" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert page.count("<svg") == len(sections(board)) == 3
    assert [path.exists() for path in write_all(tmp_path, board)] == [True] * 3


def test_a_board_is_read_as_it_was_written_and_what_is_none_is_told(entries, tmp_path):
    board = Board({"base/score": "0"}, tuple(entries[2]))
    write_board(tmp_path / "b.json", board)
    assert read_board(tmp_path / "b.json") == board
    assert read_board(tmp_path / "missing.json") == EMPTY
    content = json.loads((tmp_path / "b.json").read_text())
    del content["entries"][0]["seeds"][0]["floor"]
    for text in ("{", "[]", json.dumps({"version": 2}), json.dumps(content)):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(StoreError, match="is no leaderboard"):
            read_board(tmp_path / "b.json")


# --- which runs may be entered


def test_a_finished_run_is_entered_and_entered_again_takes_its_place(bench, tmp_path):
    out = tmp_path / "board"
    for _ in range(2):
        done = in_own_process("leaderboard", "add", str(bench.finished), "--out", str(out))
        assert done.returncode == 0, done.stderr
    board = read_board(out / "leaderboard.json")
    keys = [(one.scenario, one.method, one.scope) for one in board.entries]
    assert len(set(keys)) == len(keys) > 0
    # Nothing that a method's own settings decide: another run of the method may be entered.
    methods = {one.method for one in board.entries}
    assert not any(set(name.split("/")) & methods for name in board.protocol)
    assert any(name.endswith("target/score") for name in board.protocol)
    assert "written:" in done.stdout


def test_a_changed_file_another_protocol_and_a_taken_label_are_refused(bench, tmp_path):
    board = EMPTY.with_run(bench.finished)
    name = next(iter(sorted(board.protocol)))
    other = replace(board, protocol={**board.protocol, name: "0" * 64})
    with pytest.raises(StoreError, match="another protocol") as told:
        other.with_run(bench.finished)
    assert name in str(told.value)
    stranger = replace(board.entries[0], run="theirs (1)")
    with pytest.raises(StoreError, match="another run has entered this method"):
        replace(board, entries=(stranger,)).with_run(bench.finished)
    run = tmp_path / "tiny"
    shutil.copytree(bench.finished, run)
    with (run / "results.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(Corrupted):
        EMPTY.with_run(run)
