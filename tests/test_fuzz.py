"""A few random inputs of each kind, always the same, and what the long search has found.

`python bench/fuzz.py` tries ten thousand; the guard and the inputs are the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from pipeline_cases import LIMIT, TESTS, environment, make_general, make_people, settings

BENCH = TESTS.parent / "bench"
FUZZ = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(BENCH)!r})
import fuzz
world, work, inputs, *kinds = sys.argv[1:]
for kind in kinds:
    found = fuzz.fuzz(kind, Path(world), Path(work), inputs=int(inputs))
    print(found.line())
    for detail in found.details:
        print(detail)
    assert not found.faults, kind
    assert found.inputs >= int(inputs) and found.accepted and found.refused, kind
"""


def fuzzed(world, work, inputs, *kinds):
    """Fuzz in a process of its own: an audit hook cannot be removed."""
    ended = subprocess.run(
        [sys.executable, "-c", FUZZ, str(world), str(work), str(inputs), *kinds],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


def test_changed_data_are_read_or_refused(tmp_path):
    """Mutation: `plain_file` returns at once: `tsv` hangs at a pipe and at `/dev/zero`."""
    make_people(tmp_path / "people")
    make_general(tmp_path / "general")
    (tmp_path / "tiny.yaml").write_text(json.dumps(settings(tmp_path)), encoding="utf-8")
    (tmp_path / "work").mkdir()
    fuzzed(tmp_path, tmp_path / "work", 40, "people", "tsv", "parquet")


@pytest.mark.slow  # loads a model, half a minute; what was found is in the cases below
def test_changed_experiments_adapters_and_runs_are_read_or_refused(bench, tmp_path):
    """Mutation: `main` does not catch PulseError: every refusal is a traceback."""
    world = bench.experiment.parent
    fuzzed(world, tmp_path, 20, "experiments", "adapters", "run folders")


GUARDED = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(BENCH)!r})
import fuzz_guard

fuzz_guard.WAITING_SECONDS = 0.5


def works():
    until = time.thread_time() + 1.0
    while time.thread_time() < until:
        pass


guard = fuzz_guard.Guard(Path.cwd())
waits = (lambda: time.sleep(30), lambda: os.read(os.pipe()[0], 1))
print(*(guard.call(work).fault or "none" for work in (works, *waits)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="who waits for a processor is Linux's to tell")
def test_waiting_for_a_processor_is_no_hang(tmp_path):
    """Mutation: the clock of the guard is the wall's: what works is called a hang."""
    ended = subprocess.run(
        [sys.executable, "-c", GUARDED],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=tmp_path,
    )
    assert ended.stdout.split() == ["none", "hang", "hang"], ended.stderr


# --- what was found


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("spoil", [pipe, endless])
@pytest.mark.parametrize("name", ["general.tsv", "answers.jsonl", "answers.tsv", "e.yaml"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_refused(name, spoil, server, tmp_path):
    """Mutation: `plain_file` returns at once: the command hangs, or fills the memory."""
    general = make_general(tmp_path / "general").rename(tmp_path / "general.tsv")
    victim = tmp_path / name
    if victim != general:
        victim.write_text("{}")
    spoil(victim)
    if name == "e.yaml":
        command = ("plan", victim)
    elif name == "general.tsv":
        command = ("data", "check", general)
    else:
        command = ("score", "--answers", victim, "--general", general)
    ended = server.start(*map(str, command)).wait(20)
    assert ended.code in {1, 2}, ended.output
    assert "a pipe, a socket or a device, not a file" in ended.output
    assert "Traceback" not in ended.output


def test_a_table_that_is_a_pipe_does_not_make_the_reader_wait(server, tmp_path):
    """Mutation: `columns_of` opens what it is given."""
    pipe(make_people(tmp_path / "people") / "ft_Data" / "train-00000-of-00001.parquet")
    ended = server.start("data", "check", str(tmp_path / "people")).wait(20)
    assert ended.code == 1, ended.output
    assert "not a readable parquet file" in ended.output


def test_a_time_no_calendar_has_is_no_traceback(server, tmp_path):
    """Mutation: `_parquet` lets OverflowError through."""
    path = make_people(tmp_path / "people") / "Full_Set" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    times = pa.array([2**62] * len(table), pa.timestamp("us"))
    at = table.column_names.index("biography")
    pq.write_table(table.set_column(at, "biography", times), path)
    ended = server.pulse("data", "check", str(tmp_path / "people"))
    assert ended.code == 1, ended.output
    assert "a value cannot be read" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("how", ["merged", "stacked"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_adapter_that_is_not_finite_is_refused(value, how, bench, tmp_path):
    """Mutation: `attach_adapter` does not look: PEFT raises as it merges, or nobody does."""
    from pulse_unlearn.config import ModelSettings
    from pulse_unlearn.errors import ModelError
    from pulse_unlearn.models.adapters import load_adapters
    from pulse_unlearn.models.loading import load_model

    folder = next(bench.copied(tmp_path).glob("stages/*finetune-*")) / "adapter"
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[next(iter(tensors))][0, 0] = value
    save_file(tensors, path)
    model = load_model(ModelSettings(source=str(bench.experiment.parent / "model"))).model
    with pytest.raises(ModelError, match="no finite numbers"):
        load_adapters(model, [folder], how=how)


@pytest.mark.parametrize("data", [b"\xb4", b"{}", b'{"verdicts": 1}'])
def test_no_certificate_rests_on_results_that_were_changed(data, bench, tmp_path):
    """Mutation: `require_products` is not called: a traceback, or a certificate."""
    run = bench.copied(tmp_path)
    (run / "results.json").write_bytes(data)
    asked = ("--request", "1", "--scenario", "sustainability", "--method", "npo")
    ended = bench.server.pulse("certificate", str(run), *asked)
    assert ended.code == 1, ended.output
    assert "results.json" in ended.output
    assert "Traceback" not in ended.output
    assert not (run / "certificates").exists()


@pytest.mark.parametrize("command", ["check", "score"])
def test_categories_of_a_file_move_no_cursor(command, server, tmp_path):
    """Mutation: `data check` and `score --answers` echo their lines as they are."""
    path = make_general(tmp_path / "general")
    path.write_text(path.read_text().replace("attribute_recognition", "a\x9b2J\u202e"))
    answers = tmp_path / "answers.jsonl"
    asked = [int(line.split("\t")[0]) for line in path.read_text().splitlines()[1:]]
    answers.write_text("\n".join(json.dumps({"question_id": n, "text": "A"}) for n in asked))
    commands = {
        "check": ("data", "check", path),
        "score": ("score", "--answers", answers, "--general", path),
    }
    ended = server.pulse(*map(str, commands[command]))
    assert "\ufffd2J\ufffd" in ended.output, ended.output
    assert not {"\x9b", "\u202e"} & set(ended.output)


CONFIGS = {
    "megatron": {"megatron_config": {"a": 1}},
    "pattern": {"alpha_pattern": [{}, {}]},
    "rank pattern": {"rank_pattern": [1]},
}


@pytest.mark.parametrize("what", CONFIGS)
def test_fields_of_an_adapter_that_mean_something_else_are_refused(what, bench, tmp_path):
    """Mutations: `megatron_config` allowed: PEFT imports megatron; `_settle` unguarded."""
    from pulse_unlearn.config import ModelSettings
    from pulse_unlearn.errors import ModelError
    from pulse_unlearn.models.adapters import load_adapters
    from pulse_unlearn.models.loading import load_model

    folder = next(bench.copied(tmp_path).glob("stages/*finetune-*")) / "adapter"
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | CONFIGS[what]))
    model = load_model(ModelSettings(source=str(bench.experiment.parent / "model"))).model
    with pytest.raises(ModelError, match=next(iter(CONFIGS[what])) + "|no attribute"):
        load_adapters(model, [folder], how="merged")


def test_answers_of_a_changed_stage_are_not_judged_anew(bench, tmp_path):
    """Mutation: `rescore` does not look: a traceback, or results of what nobody chose."""
    run = bench.copied(tmp_path)
    path = next(run.glob("stages/*select-*/selection.json"))
    chosen = json.loads(path.read_text())
    chosen["candidates"][0] = [chosen["candidates"][0]]
    path.write_text(json.dumps(chosen))
    before = (run / "results.csv").read_bytes()
    ended = bench.server.pulse("score", str(run), "--parser", "first_character")
    assert ended.code == 1, ended.output
    assert "selection.json" in ended.output
    assert "Traceback" not in ended.output
    assert (run / "results.csv").read_bytes() == before


def test_sets_of_another_form_are_told_by_their_file(bench, tmp_path):
    """Mutation: `LoadedRun.people` lets TypeError through."""
    run = bench.copied(tmp_path)
    path = run / "results.json"
    found = json.loads(path.read_text())
    found["sets"] = {name: {"requests": 1, "forget": [[]]} for name in found["sets"]}
    path.write_text(json.dumps(found))
    ended = bench.server.pulse("diff", str(bench.finished), str(run))
    assert ended.code == 1, ended.output
    assert "holds no sets of people as written" in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("part", ["settings", "unlearn"])
def test_a_tuned_method_with_a_list_for_its_settings_is_refused(part, server):
    """Mutation: `take_tuned` fills in whatever stands there."""
    setting = f"methods={{ga: {{tuned: world, {part}: [1]}}}}"
    ended = server.pulse("plan", "smoke", "--set", setting)
    assert ended.code == 2, ended.output
    assert f"methods.ga.{part}" in ended.output
    assert "Traceback" not in ended.output


PATHS = (
    "methods={ga: {tuned: PATH}}",
    "data.people={source: people, path: PATH}",
    "model.source=PATH",
    "scenarios={requests: {file: PATH}}",
)


@pytest.mark.parametrize("path", ["~no-such-user/x", '"a\\0b"'])
@pytest.mark.parametrize("setting", PATHS)
def test_paths_that_no_file_can_have_are_refused(setting, path, server):
    """Mutations: `home_path` lets RuntimeError through; `plain_file` does not look for NUL."""
    ended = server.pulse("plan", "smoke", "--set", setting.replace("PATH", path))
    assert "Traceback" not in ended.output, ended.output
    assert ended.code in {0, 1, 2}  # a plan names data that are missing at its end
