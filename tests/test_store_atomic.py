"""Files are whole or absent, and disk errors are told with path, cause and way out."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_unlearn import store
from pulse_unlearn.errors import StoreError
from pulse_unlearn.store import atomic
from store_cases import contents, killed_at


def test_round_trip_and_bytes(tmp_path):
    store.write_text(tmp_path / "a.txt", "ä\nb\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa4\nb\r\n"
    store.write_json(tmp_path / "b.json", {"b": 1, "a": [0.1, None, "ä"]})
    assert json.loads((tmp_path / "b.json").read_text("utf-8")) == {"b": 1, "a": [0.1, None, "ä"]}
    assert (tmp_path / "b.json").read_text("utf-8").index('"b"') < 5
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    store.write_bytes(tmp_path / "c", b"abc")
    assert store.sha256_file(tmp_path / "c") == digest
    assert len(contents(tmp_path)) == 3


def test_the_mode_follows_the_umask(tmp_path):
    store.write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_never_reach_json(tmp_path, value):
    store.write_json(tmp_path / "a.json", {"kept": 1})
    with pytest.raises(StoreError) as caught:
        store.write_json(tmp_path / "a.json", {"rows": [{"value": 0.5}, {"value": value}]})
    assert caught.value.problems[0].where == "a.json.rows[1].value"
    assert json.loads((tmp_path / "a.json").read_text()) == {"kept": 1}


def test_killed_at_any_moment_the_file_is_the_old_or_the_new(tmp_path):
    path = tmp_path / "a"
    seen = set()
    for step in range(1, 50):
        path.write_bytes(b"old")
        killed = killed_at(step, lambda: store.write_bytes(path, b"new content"))
        seen.add(path.read_bytes())
        if not killed:
            break
    assert seen == {b"old", b"new content"}
    assert step > 3


def test_content_is_flushed_before_the_rename_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(os.readlink(f"/proc/self/fd/{fd}")))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("rename"), real(*a)))
    store.write_bytes(tmp_path / "a", b"x")
    assert Path(calls[0]).name.startswith(atomic.SCRATCH)
    assert calls[1:] == ["rename", str(tmp_path)]


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "writable"),
        (errno.EDQUOT, "quota"),
    ],
)
@pytest.mark.parametrize("at", [1, 2])
def test_a_failing_disk_is_a_typed_error_and_leaves_the_old_file(
    tmp_path, monkeypatch, code, hint, at
):
    path = tmp_path / "a"
    store.write_bytes(path, b"old")
    calls = 0

    def fail(_):
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) as caught:
        store.write_bytes(path, b"new")
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert os.strerror(code) in problem.what
    assert hint in problem.fix
    # The second flush is that of the folder, after the rename: then the new file is there.
    assert contents(tmp_path) == {"a": b"old" if at == 1 else b"new"}


FULL = """
import resource, sys
from pathlib import Path
from pulse_unlearn import store
from pulse_unlearn.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    store.write_bytes(Path(sys.argv[1]), bytes(100_000))
except StoreError as error:
    print(error)
    sys.exit(7)
"""


def test_a_real_limit_of_the_system_is_a_typed_error(tmp_path):
    store.write_bytes(tmp_path / "a", b"old")
    command = [sys.executable, "-c", FULL, str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert f"{tmp_path / 'a'}: cannot write: File too large" in done.stdout
    assert contents(tmp_path) == {"a": b"old"}


def test_the_device_that_is_always_full():
    full = Path("/dev/full")
    told = pytest.raises(StoreError, match="/dev/full: cannot write: No space left")
    with told, store.file_errors(full, "write"), full.open("wb") as file:
        file.write(b"x")


SMALL_DISK = """
set -e
mount -t tmpfs -o size=64k tmpfs "$1"
exec "$2" -c '
import subprocess, sys
from pathlib import Path
from pulse_unlearn import store
from pulse_unlearn.errors import StoreError
folder = Path(sys.argv[1])
store.write_bytes(folder / "a", bytes(20_000))
try:
    store.write_bytes(folder / "a", bytes(60_000))
except StoreError as error:
    print(error)
assert (folder / "a").stat().st_size == 20_000
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
try:
    store.write_bytes(folder / "a", b"x")
except StoreError as error:
    print(error)
assert [p.name for p in folder.iterdir()] == ["a"]
' "$1"
"""


def test_a_real_full_disk_and_a_real_read_only_one_keep_the_old_file(tmp_path):
    probe = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs '{tmp_path}'"],
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    command = ["unshare", "-m", "sh", "-c", SMALL_DISK, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot write: No space left on device" in done.stdout
    assert "free space" in done.stdout
    assert "cannot write: Read-only file system" in done.stdout


def test_a_vanished_folder_is_not_made_again(tmp_path):
    with pytest.raises(StoreError, match="moved or deleted"):
        store.write_text(tmp_path / "gone" / "a.txt", "x")
    assert not (tmp_path / "gone").exists()


def test_a_read_only_folder_is_a_typed_error(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("the superuser writes everywhere")
        with pytest.raises(StoreError, match="writable"):
            store.write_text(tmp_path / "a.txt", "x")
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_a_library_fills_is_whole_or_as_it_was(tmp_path):
    """Mutation: `write_folder` lets `write` work in the folder itself."""
    folder = tmp_path / "adapter"
    store.write_folder(folder, lambda scratch: (scratch / "a").write_bytes(b"old"))

    def torn(scratch):
        (scratch / "a").write_bytes(b"ne")
        (scratch / ".tmp1").write_bytes(b"")
        raise OSError(errno.ENOSPC, "full", str(scratch / "a"))

    with pytest.raises(StoreError, match=r"adapter: cannot save it: full"):
        store.write_folder(folder, torn, action="save it")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (folder / "a").read_bytes() == b"old"
    store.write_folder(folder, lambda scratch: (scratch / "b").write_bytes(b"new"))
    assert [path.name for path in folder.iterdir()] == ["b"]
