"""`pulse doctor`: what would stop a run is said, with the mend, and nothing crashes on the way."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import pulse_unlearn
from pulse_unlearn.cli import pulse
from pulse_unlearn.pipeline import doctor
from pulse_unlearn.pipeline.doctor import examine

WORLD = Path(pulse_unlearn.__file__).parent / "assets" / "world" / "model"
NOWHERE = "http://127.0.0.1:9"
"""The port of `discard`, where nothing listens."""


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def findings(tmp_path, *, model=None):
    return {finding.name: finding for finding in examine(tmp_path / "runs", model=model)}


def ask(*argv):
    return CliRunner().invoke(pulse, ["doctor", *argv])


def in_own_process(*argv, before="", path=""):
    """Run the command with some Python before it and a folder in front of the packages."""
    code = f"{before}\nfrom pulse_unlearn.cli import main\nmain()"
    environment = dict(os.environ, HF_ENDPOINT=NOWHERE, HF_HUB_OFFLINE="0")
    environment["PYTHONPATH"] = os.pathsep.join(
        part for part in (path, environment.get("PYTHONPATH", "")) if part
    )
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *argv],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def copied(tmp_path, *, without=()):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in WORLD.iterdir():
        if file.name not in without:
            shutil.copy(file, folder / file.name)
    return folder


def test_a_machine_that_can_run_is_told_so(tmp_path):
    ended = ask("--runs", str(tmp_path))
    assert ended.exit_code == 0, ended.output
    assert "nothing here would stop a run" in ended.output
    assert max(len(line) for line in ended.output.splitlines() if "/" not in line) <= 80
    for name in ("python", "transformers", "peft", "torch", "torchvision", "memory", "disk", "hub"):
        assert any(line.split()[1:2] == [name] for line in ended.output.splitlines()), name


def test_being_offline_is_no_error(tmp_path):
    hub = findings(tmp_path)["hub"]
    assert hub.state == "note"
    assert NOWHERE in hub.said
    assert "hf download" in hub.fix


def test_a_switched_off_hub_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in findings(tmp_path)["hub"].said


@contextmanager
def hub_that_answers(code):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("code", [200, 403])
def test_a_hub_that_answers_is_there_whatever_it_says(tmp_path, monkeypatch, code):
    with hub_that_answers(code) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert findings(tmp_path)["hub"].state == "ok"


@pytest.mark.parametrize("before", ["import sys; sys.modules['torch'] = None"])
def test_without_torch_it_says_so_and_goes_on(tmp_path, before):
    ended = in_own_process("--runs", str(tmp_path), "--model", str(WORLD), before=before)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "stop  torch" in ended.stdout
    assert "https://pytorch.org" in ended.stdout
    assert "processor" in ended.stdout
    assert "1 of these would stop a run" in ended.stdout


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "stop"),
        ("", "ok"),
    ],
)
def test_a_torchvision_that_clashes_is_found(tmp_path, source, state):
    packages = tmp_path / "packages"
    (packages / "torchvision").mkdir(parents=True)
    (packages / "torchvision" / "__init__.py").write_text(source, encoding="utf-8")
    about = packages / "torchvision-0.99.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n", encoding="utf-8"
    )
    ended = in_own_process("--runs", str(tmp_path), path=str(packages))
    row = next(line for line in ended.stdout.splitlines() if "torchvision" in line)
    assert row.split()[0] == state
    assert ended.returncode == (state == "stop")
    if state == "stop":
        assert "operator torchvision::nms does not exist" in " ".join(ended.stdout.split())
        assert "pip uninstall torchvision" in ended.stdout


def test_a_missing_and_an_old_library_are_told_with_what_to_install(tmp_path, monkeypatch):
    versions = {"transformers": "4.40.0", "peft": None}
    monkeypatch.setattr(doctor, "version_of", lambda name: versions.get(name, "99.0"))
    monkeypatch.setattr(doctor, "_wanted", lambda: {"transformers": ">=5.0", "peft": ">=0.17"})
    found = {finding.name: finding for finding in doctor._libraries()}
    assert found["transformers"].state == found["peft"].state == "stop"
    assert found["transformers"].fix == "pip install 'transformers>=5.0'"
    assert found["accelerate"].state == "ok"


def test_a_full_disk_and_a_folder_that_cannot_be_written_stop_a_run(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    assert findings(tmp_path)["disk"].state == "stop"
    monkeypatch.setattr(os, "access", lambda *_: False)
    disk = findings(tmp_path)["disk"]
    assert (disk.state, disk.fix) == ("stop", "--runs elsewhere")


def test_a_model_that_is_whole_is_described(tmp_path):
    found = findings(tmp_path, model=str(copied(tmp_path)))
    assert found["model"].state == found["processor"].state == "ok"
    assert "llava" in found["model"].said
    assert "patch_size 12" in found["processor"].said


def test_a_model_needs_no_weights_to_be_looked_at(tmp_path):
    folder = copied(tmp_path, without=("model.safetensors",))
    assert ask("--runs", str(tmp_path), "--model", str(folder)).exit_code == 0


def test_a_model_of_the_hub_is_looked_at_in_the_cache_at_its_commit(tmp_path, monkeypatch):
    commit = "a" * 40
    held = tmp_path / "hub/models--me--mine/snapshots" / commit
    held.parent.mkdir(parents=True)
    copied(tmp_path).rename(held)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = ("--runs", str(tmp_path), "--model", "me/mine")
    found = ask(*asked, "--revision", commit)
    assert found.exit_code == 0, found.output
    assert "ok    processor" in found.output
    other = ask(*asked, "--revision", "b" * 40)
    assert other.exit_code == 1
    assert "hf download me/mine" in other.output
    assert "--revision <commit>" in ask(*asked[:-1], "llava-hf/llava-1.5-7b-hf").output


def test_a_processor_without_its_fields_stops_a_run(tmp_path):
    folder = copied(tmp_path, without=("chat_template.jinja",))
    path = folder / "processor_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["patch_size"] = None
    path.write_text(json.dumps(fields), encoding="utf-8")
    ended = ask("--runs", str(tmp_path), "--model", str(folder))
    assert ended.exit_code == 1
    assert "patch_size" in ended.output
    assert "chat template" in ended.output
    assert "2 of these would stop a run" in ended.output


@pytest.mark.parametrize("without", ["config.json", "tokenizer.json"])
def test_a_torn_model_folder_stops_a_run(tmp_path, without):
    ended = ask("--runs", str(tmp_path), "--model", str(copied(tmp_path, without=(without,))))
    assert ended.exit_code == 1
    assert "stop  model" in ended.output or "stop  processor" in ended.output


def test_pickled_weights_stop_a_run(tmp_path):
    folder = copied(tmp_path, without=("model.safetensors",))
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "pickled" in ask("--runs", str(tmp_path), "--model", str(folder)).output
