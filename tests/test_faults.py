"""Faults that once got through, each against the real command; what lets it through again is noted.

The rows are those of a table of attacks on an earlier version. Each docstring names the change of
the code (a mutation) under which its test was seen to fail, where there is one.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from pipeline_cases import TESTS, environment, outcome
from pulse_unlearn import store
from pulse_unlearn.errors import StoreError
from pulse_unlearn.pipeline import provenance

BOMB = "\n".join(
    [
        "a0: &a0 [x, x, x, x, x, x, x, x, x]",
        *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)),
    ]
)
YAML = {
    "bomb": (BOMB, "bomb.yaml:6: too many values"),
    "holds itself": ("name: &a [*a]\n", "itself.yaml:1: a value holds itself"),
    "deep lists": (f"name: {'[' * 5000}{']' * 5000}\n", "lists.yaml:1: nested too deeply"),
    "deep maps": (f"{'{a: ' * 3000}1{'}' * 3000}\n", "maps.yaml:1: nested too deeply"),
    "no date": ("name: 2001-99-99\n", "date.yaml: not valid YAML"),
    "long number": (f"name: {'9' * 5000}\n", "number.yaml: not valid YAML"),
}


@pytest.mark.parametrize("what", YAML)
def test_yaml_that_stands_for_too_much_is_refused_with_its_line(what, server, tmp_path):
    """Mutation: `yaml.safe_load` in place of `parse_yaml`: a minute's work, or a traceback."""
    text, told = YAML[what]
    path = tmp_path / f"{what.split()[-1]}.yaml"
    path.write_text(text, encoding="utf-8")
    ended = server.pulse("plan", str(path))
    assert ended.code == 2
    assert told in ended.output
    assert "Traceback" not in ended.output
    assert ended.seconds < 5


SETTINGS = {
    "methods.npo.settings.beta=.inf": "methods.npo.settings.beta",
    "finetune.epochs=1000000000000000000000": "finetune.epochs",
    "unlearn.lora.rank=100000000": "unlearn.lora.rank",
    "unlearn.optimiser.learning_rate=.nan": "unlearn.optimiser.learning_rate",
    "unlearn.stop.max_steps=100000000000000": "unlearn.stop.max_steps",
    "seeds=[0,0]": "seeds: one stands there twice",
    "methods={'=HYPERLINK(1)': {method: ga}}": "name not allowed",
    "methods={'': {method: ga}}": "name not allowed",
    'methods={"a\\u202eb": {method: ga}}': "name not allowed",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_no_run_can_have_are_refused_by_name(setting, bench):
    """Mutations: `allow_inf_nan`, the limits of `Positive` and `rank`, the pattern of `Label`."""
    ended = bench.server.pulse("plan", str(bench.experiment), "--set", setting)
    assert ended.code == 2, ended.output
    assert SETTINGS[setting] in ended.output
    assert "Traceback" not in ended.output
    assert "\u202e" not in ended.output


@pytest.mark.parametrize("name", ["scores", "figures", "stages", "results.csv"])
def test_links_in_a_run_folder_are_refused_before_anything_is_touched(name, bench, tmp_path):
    """Mutation: `refuse_links` returns at once: files outside are deleted and written over."""
    run = bench.copied(tmp_path)
    outside = tmp_path / "outside"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    commands = [("score", str(run)), ("report", str(run), "--redraw")]
    for ended in (*(bench.server.pulse(*one) for one in commands), bench.run(tmp_path)):
        assert ended.code == 1, ended.output
        assert f"{run / name}: is a symbolic link" in ended.output
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_only_score_files_are_removed_from_the_folder_of_scores(bench, tmp_path):
    """Mutation: every `*.parquet` goes."""
    run = bench.copied(tmp_path)
    own, old = run / "scores" / "mine.parquet", run / "scores" / "99-old.score-0123abcd.parquet"
    for path in (own, old):
        path.write_bytes(b"kept")
    ended = bench.server.pulse("score", str(run), "--parser", "first_character")
    assert ended.code == 0, ended.output
    assert own.read_bytes() == b"kept"
    assert not old.exists()


def test_a_stopped_run_with_another_setting_is_not_called_changed(bench, tmp_path):
    """Mutation: the record is written at the start of every run."""
    run = bench.copied(tmp_path)
    life = bench.start(tmp_path, "--set", "seeds=[7]")
    life.wait_for("tiny/stages/.partial-seed7.*", tmp_path)
    life.send(signal.SIGTERM)
    assert life.wait().code == 130
    assert store.verify(run) == []
    assert (run / "experiment.yaml").read_bytes() == (
        bench.finished / "experiment.yaml"
    ).read_bytes()


def limited(limit, code, *argv):
    """Python in a process of its own that may write no file longer than so many bytes."""
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        cwd=TESTS,
    )


@pytest.mark.slow  # two lives of a run
def test_a_full_disk_is_told_and_the_same_command_goes_on(bench, tmp_path):
    """Held by two doors, `write_bytes` and the stage's own: no single mutation lets it through."""
    code = "from pulse_unlearn.cli import main; main()"
    ended = limited(15_000, code, *bench.command(tmp_path))
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert "give the same command again" in ended.stderr
    assert "Traceback" not in ended.stderr
    again = bench.run(tmp_path)
    assert again.code == 0, again.output
    assert outcome(tmp_path / "tiny") == outcome(bench.finished)


def test_what_safetensors_makes_of_a_full_disk_is_told_alike(tmp_path):
    """Mutation: `file_errors` looks at OSError alone: a traceback of safetensors."""
    code = (
        "import sys, numpy, pathlib\n"
        "from safetensors.numpy import save_file\n"
        "from pulse_unlearn.store import file_errors\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "with file_errors(path, 'save the update'):\n"
        "    save_file({'a': numpy.zeros(10_000)}, path)\n"
    )
    ended = limited(15_000, code, str(tmp_path / "a.safetensors"))
    assert "StoreError" in ended.stderr
    assert "cannot save the update: File too large" in ended.stderr
    assert "raise the file size limit" in ended.stderr


def test_other_versions_are_refused_and_nothing_is_rewritten(bench, tmp_path):
    """Mutations: `require_same` not called; `environment.json` written at the start."""
    run = bench.copied(tmp_path)
    shim = tmp_path / "shim" / "torch-2.99.0.dist-info"
    shim.mkdir(parents=True)
    (shim / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.99.0\n")
    other = {**os.environ, "PYTHONPATH": os.pathsep.join([str(shim.parent), *sys.path])}
    command = [sys.executable, "-c", "from pulse_unlearn.cli import main; main()"]

    def run_with_shim():
        argv = [*command, *bench.command(tmp_path)]
        return subprocess.run(argv, check=False, env=other, capture_output=True, text=True)

    before = (run / "environment.json").read_bytes()
    whole = run_with_shim()  # nothing to compute: nothing to refuse
    assert whole.returncode == 0, whole.stderr
    assert (run / "environment.json").read_bytes() == before
    shutil.rmtree(next(run.glob("stages/*request2.score-*")))
    refused = run_with_shim()
    assert refused.returncode == 1
    assert "computed with other versions" in refused.stderr
    assert "--accept-env-change" in refused.stderr
    assert "torch 2.99.0" in refused.stderr
    assert (run / "environment.json").read_bytes() == before


def test_a_run_of_two_environments_says_which_stage_is_under_which(tmp_path):
    now = provenance.environment()
    then = {**now, "packages": {**now["packages"], "torch": "2.5.0"}}
    found = {tmp_path / name: dict(now) for name in "ab"} | {tmp_path / "c": then}
    record = provenance.environment_record(found)
    assert {name: value for name, value in record.items() if name != "other_stages"} == now
    assert record["other_stages"] == {"c": then}
    assert "other_stages" not in provenance.environment_record({tmp_path / "c": then})
    with pytest.raises(StoreError, match=r"torch 2\.5\.0 \(1 stages\)"):
        provenance.require_same(found)
    provenance.require_same({tmp_path / "a": {**now, "code": "another"}})
    assert provenance.other_code({tmp_path / "a": {**now, "code": "another"}}) == 1


def test_each_stage_notes_what_it_was_computed_with(bench):
    folders = [path for path in (bench.finished / "stages").iterdir() if path.is_dir()]
    notes = provenance.noted(folder for folder in folders if not folder.name.startswith("."))
    assert len(notes) >= 10
    assert all(made["packages"]["torch"] for made in notes.values())


@pytest.mark.parametrize("how", ["link", "pipe", "folder", "device"])
def test_what_is_no_picture_file_is_a_problem_of_its_row(how, server, tmp_path):
    """Mutations: `Path.resolve` in place of `realpath` (a traceback), no `is_file` (waits)."""
    folder = tmp_path / "people"
    assert server.pulse("data", "init", str(folder)).code == 0
    victim = folder / "images" / "p01-other.png"
    victim.unlink()
    if how == "link":
        victim.symlink_to(victim.name)
    elif how == "pipe":
        os.mkfifo(victim)
    elif how == "folder":
        victim.mkdir()
    else:
        victim.symlink_to("/dev/zero")
    ended = server.pulse("data", "check", str(folder))
    assert ended.code == 1
    assert "people.jsonl:1 id p01 other_images images/p01-other.png" in ended.output
    assert "Traceback" not in ended.output
    assert ended.seconds < 20


def test_names_from_files_move_no_cursor(server, tmp_path):
    """Mutation: errors are echoed as they are."""
    folder = tmp_path / "people"
    assert server.pulse("data", "init", str(folder)).code == 0
    path = folder / "people.jsonl"
    first, rest = path.read_text(encoding="utf-8").split("\n", 1)
    row = json.loads(first)
    row["name\x1b]0;owned\x07\u202e"] = "x"
    row["image"] = "images/\x1b[2Jnowhere.png"
    path.write_text(json.dumps(row) + "\n" + rest, encoding="utf-8")
    ended = server.pulse("data", "check", str(folder))
    assert ended.code == 1
    assert "nowhere.png" in ended.output
    assert not {"\x1b", "\x07", "\u202e"} & set(ended.output)


def test_lines_of_a_plan_move_no_cursor():
    """Mutation: `wrapped` takes text as it is; met with a model's name by random inputs."""
    from pulse_unlearn.cli.wrapped import wrapped

    said = wrapped("a\u202eb\u2066, \x9b2J float32", first="tiny\x1b[2J  ")
    assert said.isprintable()
    assert "float32" in said


def test_memory_of_the_machine_that_does_not_suffice_is_no_traceback():
    """Mutation: `main` does not catch MemoryError."""
    code = (
        "import click, pulse_unlearn.cli as c\n"
        "def short(**_): raise MemoryError\n"
        "c.pulse.commands['verify'].callback = short\n"
        "import sys; sys.argv = ['pulse', 'verify', '.']; c.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "memory does not suffice" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_cpu_without_memory_counts_as_a_full_device():
    import torch

    from pulse_unlearn.models.memory import is_shortage

    with pytest.raises(RuntimeError) as error:
        torch.empty(10**14)
    assert is_shortage(error.value)
    assert is_shortage(MemoryError())
    assert not is_shortage(RuntimeError("shapes do not fit"))
