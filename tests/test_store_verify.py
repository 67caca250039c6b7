"""`verify` names the file of every change in a run folder."""

from __future__ import annotations

import json
import shutil

import pytest

from pulse_unlearn import store
from pulse_unlearn.errors import Corrupted, StoreError
from store_cases import contents, fill, finished_run, key, published


def test_a_finished_run_and_a_half_finished_one_are_well(tmp_path):
    assert store.verify(finished_run(tmp_path / "done")) == []
    published(tmp_path / "half")
    fill(store.Store(tmp_path / "half").partial(key(3, "next", 0.3)))
    assert store.verify(tmp_path / "half") == []


def test_what_is_no_run_is_said_to_be_none(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        (problem,) = store.verify(folder)
        assert "not a run folder" in problem.what


def test_every_file_flipped_cut_and_removed_in_turn_is_named(tmp_path):
    run = finished_run(tmp_path / "run")
    for name, good in contents(run).items():
        path = run / name
        middle = len(good) // 2
        flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
        for bad in (flipped, good[:middle], b"", None):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            problems = store.verify(run)
            assert any(problem.where.startswith(str(path)) for problem in problems), (name, bad)
        path.write_bytes(good)
    assert store.verify(run) == []


def test_a_whole_stage_exchanged_removed_or_without_manifest(tmp_path):
    run = finished_run(tmp_path / "run")
    stage = store.Store(run).find(key())
    shutil.copytree(stage, tmp_path / "copy")
    fill(stage, {"train.jsonl": b"other\n"})
    (stage / "manifest.json").unlink()
    assert ["manifest is missing" in p.what for p in store.verify(run)] == [True]
    # The same stage, soundly published with other content: only the index can tell.
    shutil.rmtree(stage)
    published(run)
    assert store.verify(run) == []
    shutil.rmtree(stage)
    fill(store.Store(run).partial(key()), {"train.jsonl": b"other\n"})
    store.Store(run).publish(
        key(), kind="finetune", settings={"rate": 0.1}, data={"people": "ab" * 32}, parents=()
    )
    (problem,) = store.verify(run)
    assert problem.what == "is not the manifest that run.json names"
    shutil.rmtree(stage)
    (problem,) = store.verify(run)
    assert (problem.what, problem.where) == ("the stage is missing", str(stage))


def test_stages_newer_than_the_index_are_well_and_the_users_own_notes_too(tmp_path):
    run = finished_run(tmp_path / "run")
    published(run, key(3, "later", 0.3), rate=0.3)
    (run / "notes.txt").write_text("mine")
    assert store.verify(run) == []


def test_results_without_an_index_are_told_but_stages_alone_are_not(tmp_path):
    run = finished_run(tmp_path / "run")
    (run / "run.json").unlink()
    (problem,) = store.verify(run)
    assert problem.where == str(run / "run.json")
    assert problem.got == "report.html, results.csv, results.json without it"
    for name in ("report.html", "results.csv", "results.json"):
        (run / name).unlink()
    assert store.verify(run) == []


def test_an_added_product_is_named(tmp_path):
    run = finished_run(tmp_path / "run")
    (run / "figures" / "two.svg").write_text("<svg/>")
    (run / "samples.json").write_text("[]")
    assert {p.where for p in store.verify(run)} == {
        str(run / "figures" / "two.svg"),
        str(run / "samples.json"),
    }


def test_a_new_report_does_not_vouch_for_edited_results(tmp_path):
    run = finished_run(tmp_path / "run")
    edited = [run / "results.csv", run / "results.json"]
    for path in edited:  # alike, so that only the hashes can tell
        path.write_text(path.read_text().replace("0.25", "0.05"))
    store.write_text(run / "report.html", "<p>5.0 %")
    (run / "figures" / "one.svg").unlink()
    store.write_text(run / "figures" / "two.svg", "<svg/>")
    store.write_index(run, changed=["report.html", "figures"])
    assert [p.where for p in store.verify(run)] == [str(path) for path in edited]


def test_an_index_can_be_updated_only_if_it_is_sound(tmp_path):
    run = finished_run(tmp_path / "run")
    (run / "run.json").write_text((run / "run.json").read_text().replace("report", "repork"))
    with pytest.raises(Corrupted, match="was changed since it was written"):
        store.write_index(run, changed=["report.html"])
    (run / "run.json").unlink()
    with pytest.raises(StoreError, match="cannot read"):
        store.write_index(run, changed=["report.html"])


def test_equal_runs_have_equal_indexes(tmp_path):
    one, two = finished_run(tmp_path / "one"), finished_run(tmp_path / "two")
    assert (one / "run.json").read_bytes() == (two / "run.json").read_bytes()
    assert set(json.loads((one / "run.json").read_text())["files"]) == {
        "figures/one.svg",
        "report.html",
        "results.csv",
        "results.json",
    }
