"""Stages: found by fingerprint, published in one step, every change of a byte noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn import store
from pulse_unlearn.errors import Corrupted, StoreError
from pulse_unlearn.store.manifest import read_sealed, write_sealed
from store_cases import FILES, contents, fill, full_at, inputs, key, published


def test_publish_find_check_and_the_manifest(tmp_path):
    final = published(tmp_path)
    stage = key()
    assert final == tmp_path / "stages" / f"01-finetuned.ga-{stage.fingerprint[:8]}"
    assert store.Store(tmp_path).find(stage) == final
    store.Store(tmp_path).check(stage)
    manifest = store.read_manifest(final)
    assert (manifest.name, manifest.kind, manifest.fingerprint) == (
        "finetuned/ga",
        "finetune",
        stage.fingerprint,
    )
    assert (manifest.settings, manifest.parents) == ({"rate": 0.1}, ())
    assert {name: entry.size for name, entry in manifest.files.items()} == {
        name: len(data) for name, data in FILES.items()
    }
    assert list((tmp_path / "stages").iterdir()) == [final]


def test_a_stage_is_found_under_another_number_but_not_under_another_name_or_fingerprint(tmp_path):
    final = published(tmp_path)
    runs = store.Store(tmp_path)
    assert runs.find(key(number=112)) == final
    assert runs.find(key(name="finetuned/ga2")) is None
    assert runs.find(key(name="ga")) is None
    assert runs.find(key(rate=0.2)) is None
    assert store.Store(tmp_path / "absent").find(key()) is None


def test_the_partial_folder_keeps_its_content_and_is_not_found(tmp_path):
    runs = store.Store(tmp_path)
    fill(runs.partial(key()))
    assert contents(runs.partial(key(number=9))) == FILES
    assert runs.partial(key()).name == f".partial-finetuned.ga-{key().fingerprint[:8]}"
    assert runs.find(key()) is None
    with pytest.raises(StoreError, match="no such finished stage"):
        runs.check(key())


def test_checkpoints_and_scratch_are_not_published(tmp_path):
    partial = store.Store(tmp_path).partial(key())
    fill(partial, {"checkpoints/step-00000040/w": b"x", "adapter/.writing-1": b"torn"})
    final = published(tmp_path)
    assert set(contents(final)) == {*FILES, "manifest.json"}
    assert not (final / "checkpoints").exists()


def test_equal_work_gives_equal_bytes(tmp_path):
    one, two = published(tmp_path / "one"), published(tmp_path / "two")
    assert contents(one) == contents(two)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_every_changed_byte_and_every_truncation_is_noticed(tmp_path, name):
    final = published(tmp_path)
    path = final / name
    good = path.read_bytes()
    runs = store.Store(tmp_path)
    for at in {*range(0, len(good), max(1, len(good) // 100)), len(good) - 1}:
        for bad in (
            good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
            good[:at],
            good[: at + 1] + b" " + good[at + 1 :],
        ):
            path.write_bytes(bad)
            with pytest.raises(Corrupted) as caught:
                runs.check(key())
            assert {problem.where for problem in caught.value.problems} == {str(path)}
            assert all("--repair" in problem.fix for problem in caught.value.problems)
    path.write_bytes(good)
    runs.check(key())


def test_missing_added_and_linked_files_are_told_all_at_once(tmp_path):
    final = published(tmp_path)
    (final / "train.jsonl").unlink()
    (final / "adapter" / "new.bin").write_bytes(b"")
    outside = tmp_path / "outside"
    shutil.move(final / "adapter" / "weights.bin", outside)
    (final / "adapter" / "weights.bin").symlink_to(outside)
    (final / "linked").symlink_to(tmp_path)
    with pytest.raises(Corrupted) as caught:
        store.Store(tmp_path).check(key())
    told = {problem.where.removeprefix(f"{final}/"): problem for problem in caught.value.problems}
    assert set(told) == {"train.jsonl", "adapter/new.bin", "adapter/weights.bin", "linked"}
    assert "missing" in told["train.jsonl"].what
    assert "added" in told["adapter/new.bin"].what
    assert "plain file" in told["adapter/weights.bin"].what


def test_changed_content_names_both_hashes(tmp_path):
    final = published(tmp_path)
    (final / "train.jsonl").write_bytes(FILES["train.jsonl"].replace(b"1", b"2"))
    with pytest.raises(Corrupted) as caught:
        store.Store(tmp_path).check(key())
    (problem,) = caught.value.problems
    assert problem.got == f"sha256 {store.sha256_file(final / 'train.jsonl')}"
    assert problem.allowed == f"sha256 {hashlib.sha256(FILES['train.jsonl']).hexdigest()}"


def test_a_manifest_made_anew_for_other_settings_is_noticed(tmp_path):
    """Whoever edits the settings and seals again still contradicts the fingerprint."""
    path = published(tmp_path) / "manifest.json"
    content = read_sealed(path)
    write_sealed(path, {**content, "settings": {"rate": 0.3}})
    with pytest.raises(Corrupted, match="settings and fingerprint disagree"):
        store.Store(tmp_path).check(key())


def test_discard_sets_aside_and_deletes_nothing(tmp_path):
    runs = store.Store(tmp_path)
    assert runs.discard(key()) is None
    for turn in (1, 2):
        final = published(tmp_path)
        (final / "train.jsonl").write_bytes(b"bad")
        before = contents(final)
        aside = runs.discard(key())
        assert aside == tmp_path / "stages" / f".bad-{turn}-{final.name}"
        assert contents(aside) == before
        assert runs.find(key()) is None
    published(tmp_path)
    runs.check(key())


def test_a_stage_that_lost_its_manifest_is_computed_again_and_kept_aside(tmp_path):
    runs = store.Store(tmp_path)
    old = published(tmp_path)
    (old / "manifest.json").unlink()
    assert runs.find(key()) is None
    new = published(tmp_path, key(number=7))
    assert new.name.startswith("07-")
    assert not old.exists()
    assert contents(tmp_path / "stages" / f".bad-1-{old.name}") == FILES


def test_publish_refuses_other_inputs_a_second_time_and_nothing(tmp_path):
    runs = store.Store(tmp_path)
    fill(runs.partial(key()))
    with pytest.raises(StoreError, match="other inputs than it was planned with"):
        runs.publish(key(), **inputs(rate=0.2))
    assert runs.find(key()) is None
    final = runs.publish(key(), **inputs())
    before = contents(final)
    fill(runs.partial(key()), {"other": b""})
    with pytest.raises(StoreError, match="complete already"):
        runs.publish(key(), **inputs())
    assert contents(final) == before
    runs.partial(key(rate=0.2))
    with pytest.raises(StoreError, match="no files"):
        runs.publish(key(rate=0.2), **inputs(rate=0.2))


def test_publish_refuses_links(tmp_path):
    partial = store.Store(tmp_path).partial(key())
    fill(partial)
    (partial / "link").symlink_to(partial / "train.jsonl")
    with pytest.raises(StoreError, match="link: is not a plain file"):
        store.Store(tmp_path).publish(key(), **inputs())
    assert store.Store(tmp_path).find(key()) is None


def test_a_failing_disk_at_any_flush_loses_nothing(tmp_path, monkeypatch):
    """Row 5: a full disk while publishing; then there is space again and the work is complete."""
    for at in range(1, 50):
        run = tmp_path / str(at)
        run.mkdir()
        runs = store.Store(run)
        fill(runs.partial(key()), {**FILES, "checkpoints/step-00000040/w": b"x"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_at(at))
            try:
                runs.publish(key(), **inputs())
                break
            except StoreError as error:
                failure = error
        assert "No space left" in str(failure)
        assert str(run) in failure.problems[0].where
        if runs.find(key()) is None:
            assert (runs.partial(key()) / "checkpoints/step-00000040/w").exists()
            runs.publish(key(), **inputs())
        runs.check(key())
    assert at > 5


def test_a_vanished_run_folder_is_not_made_again(tmp_path):
    with pytest.raises(StoreError, match="cannot make the folder of a stage"):
        store.Store(tmp_path / "gone").partial(key())
    assert not (tmp_path / "gone").exists()


def test_files_are_flushed_before_the_manifest_and_that_before_the_rename(tmp_path, monkeypatch):
    runs = store.Store(tmp_path)
    fill(runs.partial(key()))
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")))
    for name in ("rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda a, b, real=real: (calls.append((a, b)), real(a, b)))
    final = runs.publish(key(), **inputs())
    partial = runs.partial(key())
    moved = calls.index((partial, final))
    sealed = next(i for i, c in enumerate(calls) if c[1] == partial / "manifest.json")
    for name in [*FILES, "adapter"]:
        assert calls.index(str(partial / name)) < sealed
    assert sealed < moved
    assert str(partial) in calls[sealed:moved]
    assert str(final.parent) in calls[moved:]


def test_odd_names_are_refused_or_made_safe(tmp_path):
    with pytest.raises(StoreError) as caught:
        store.StageKey(-1, "", "xyz")
    assert len(caught.value.problems) == 3
    odd = store.StageKey(3, "a/../b c\n=ü" + "x" * 500, key().fingerprint)
    fill(store.Store(tmp_path).partial(odd))
    final = store.Store(tmp_path).publish(odd, **inputs())
    assert final.parent == tmp_path / "stages"
    assert final.name.isascii()
    assert store.Store(tmp_path).find(odd) == final


@given(st.text(min_size=1, max_size=150))
def test_no_name_leaves_the_stages_folder_or_hides(name):
    folder = store.StageKey(0, name, "a" * 64).folder
    assert "/" not in folder
    assert folder.startswith("00-")
    assert folder.endswith("-aaaaaaaa")
    assert len(folder.encode()) < 200


def test_a_later_version_is_not_called_damage(tmp_path):
    path = published(tmp_path) / "manifest.json"
    write_sealed(path, {**read_sealed(path), "version": 2})
    with pytest.raises(StoreError, match="another version") as caught:
        store.Store(tmp_path).find(key())
    assert not isinstance(caught.value, Corrupted)


def test_notes_are_recorded_and_change_no_fingerprint(tmp_path):
    runs = store.Store(tmp_path)
    fill(runs.partial(key()))
    final = runs.publish(key(), **inputs(), notes={"torch": "2.13", "seconds": 3.5})
    assert store.read_manifest(final).notes == {"torch": "2.13", "seconds": 3.5}
    assert json.loads((final / "manifest.json").read_text())["fingerprint"] == key().fingerprint


def test_the_store_needs_no_torch():
    code = "import sys, pulse_unlearn.store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
