"""Checkpoints: the newest good one is found, whatever happened to the others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pulse_unlearn import store
from pulse_unlearn.errors import StoreError
from pulse_unlearn.store.checkpoints import RECORD
from store_cases import contents, fill, full_at


def state(step: int) -> dict[str, bytes]:
    return {"weights.bin": bytes([step]) * 300, "optimiser/state.bin": bytes([step + 1]) * 200}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return store.save(folder, step, lambda place: fill(place, state(step)), keep=keep)


def newest(folder: Path) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    found = store.latest(folder, warn=warnings.append)
    return (found.step if found else None), warnings


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    assert newest(tmp_path / "absent") == (None, [])
    for step in (0, 40, 80, 120):
        place = save(tmp_path, step)
        assert newest(tmp_path) == (step, [])
    assert place == tmp_path / "step-00000120"
    assert {p.name for p in tmp_path.iterdir()} == {"step-00000080", "step-00000120"}
    assert {n: d for n, d in contents(place).items() if n != RECORD} == state(120)


@pytest.mark.parametrize("name", ["weights.bin", "optimiser/state.bin", RECORD])
def test_a_torn_or_flipped_one_is_skipped_with_its_name_and_never_deleted(tmp_path, name):
    save(tmp_path, 40)
    path = save(tmp_path, 80) / name
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        flipped = good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]
        for bad in (flipped, good[:at], None):
            path.unlink(missing_ok=True)
            if bad is not None:
                path.write_bytes(bad)
            step, warnings = newest(tmp_path)
            assert step == 40
            assert len(warnings) == 1
            assert "step-00000080" in warnings[0]
            assert str(path) in warnings[0]
    assert path.parent.exists()
    path.write_bytes(good)
    assert newest(tmp_path) == (80, [])


def test_without_a_good_one_there_is_none_and_each_is_named(tmp_path):
    for step in (40, 80):
        (save(tmp_path, step) / "weights.bin").unlink()
    step, warnings = newest(tmp_path)
    assert step is None
    assert ["step-00000080" in warnings[0], "step-00000040" in warnings[1]] == [True, True]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path):
    save(tmp_path, 40)
    (save(tmp_path, 80) / "weights.bin").write_bytes(b"torn")
    save(tmp_path, 80)
    assert newest(tmp_path) == (80, [])
    assert {p.name for p in tmp_path.iterdir()} == {"step-00000040", "step-00000080"}


def test_an_intact_one_of_the_same_step_is_kept(tmp_path):
    before = contents(save(tmp_path, 40))
    place = store.save(tmp_path, 40, lambda place: fill(place, {"other": b""}))
    assert contents(place) == before


def test_later_steps_belong_to_an_abandoned_continuation(tmp_path):
    save(tmp_path, 40)
    save(tmp_path, 80)
    save(tmp_path, 60)
    assert newest(tmp_path) == (60, [])
    assert {p.name for p in tmp_path.iterdir()} == {"step-00000040", "step-00000060"}


def test_what_a_kill_left_is_ignored_and_removed(tmp_path):
    save(tmp_path, 40)
    fill(tmp_path / ".writing-77", state(80))
    assert newest(tmp_path) == (40, [])
    save(tmp_path, 80)
    assert not (tmp_path / ".writing-77").exists()


@pytest.mark.parametrize("keep", [1, 2])
def test_a_failing_disk_at_any_flush_keeps_the_good_ones(tmp_path, monkeypatch, keep):
    for at in range(1, 50):
        folder = tmp_path / str(at)
        save(folder, 40)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full_at(at))
            try:
                save(folder, 80, keep)
                break
            except StoreError as error:
                failure = error
        assert "No space left" in str(failure)
        step, warnings = newest(folder)
        assert step in {40, 80}
        assert warnings == []
        save(folder, 80, keep)  # space was made
        assert newest(folder) == (80, [])
    assert at > 5


def test_what_the_writer_raises_comes_through_and_leaves_no_trace(tmp_path):
    save(tmp_path, 40)

    def fails(place: Path) -> None:
        fill(place, state(80))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path, 80, fails)

    def full(place: Path) -> None:
        (place / "weights.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match="step-00000080: cannot save the checkpoint: No space"):
        store.save(tmp_path, 80, full)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000040"]


def test_a_copy_under_another_step_is_not_believed(tmp_path):
    save(tmp_path, 40).rename(tmp_path / "step-00000099")
    step, warnings = newest(tmp_path)
    assert step is None
    assert "belongs to another" in warnings[0]


def test_misuse_is_refused(tmp_path):
    for step, keep in ((-1, 2), (1, 0)):
        with pytest.raises(StoreError, match="out of range"):
            store.save(tmp_path, step, lambda _: None, keep=keep)
    with pytest.raises(StoreError, match="nothing was written"):
        store.save(tmp_path, 1, lambda _: None)
    with pytest.raises(StoreError, match="own file"):
        store.save(tmp_path, 1, lambda place: fill(place, {RECORD: b"{}"}))
    with pytest.raises(StoreError, match="moved or deleted"):
        store.save(tmp_path / "gone" / "checkpoints", 1, lambda place: fill(place, state(1)))
    assert list(tmp_path.iterdir()) == []
