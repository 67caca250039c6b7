"""The same command again costs nothing; a changed setting costs what rests on it; listings."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys

import pytest
import yaml

from pipeline_cases import computed, environment, in_own_process, outcome
from pulse_unlearn import store
from pulse_unlearn.cli.listings import LISTINGS

SEE_TORCH = """
import sys
from pulse_unlearn.cli import main
try:
    main()
finally:
    print("torch imported:", "torch" in sys.modules or "transformers" in sys.modules)
"""
PRETRAINED = ["seed0/pretrained/npo/unlearn", "seed0/pretrained/npo/score"]
LATER = [
    f"seed0/sustainability/npo/request{number}/{part}"
    for number in (1, 2)
    for part in ("unlearn", "score")
]
TARGET = ["seed0/target/score", "seed0/target/score-other-view"]
FINETUNED = ["seed0/finetuned/ga/unlearn", "seed0/finetuned/ga/score"]


def seeing_torch(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SEE_TORCH, *argv],
        check=False,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_same_command_again_computes_nothing_and_never_imports_torch(bench, tmp_path):
    run = bench.copied(tmp_path)
    before = outcome(run)
    manifests = {p: p.stat().st_mtime_ns for p in run.glob("stages/*/*") if p.is_file()}
    again = seeing_torch(*bench.command(tmp_path))
    assert again.returncode == 0, again.stderr
    assert "0 stages computed, 14 reused" in again.stdout
    assert "torch imported: False" in again.stdout
    assert outcome(run) == before
    assert manifests == {p: p.stat().st_mtime_ns for p in run.glob("stages/*/*") if p.is_file()}
    assert store.verify(run) == []


def test_a_methods_setting_recomputes_that_method_alone(bench, tmp_path):
    run = bench.copied(tmp_path)
    ended = bench.run(tmp_path, "--set", "methods.npo.settings.beta=2.0")
    assert ended.code == 0, ended.output
    assert computed(ended) == PRETRAINED + LATER
    assert store.verify(run) == []
    back = bench.run(tmp_path)
    assert computed(back) == []
    assert (run / "results.csv").read_bytes() == (bench.finished / "results.csv").read_bytes()


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_finetuning_setting_recomputes_what_rests_on_it(bench, tmp_path):
    bench.copied(tmp_path)
    ended = bench.run(tmp_path, "--set", "finetune.optimiser.learning_rate=0.002")
    assert ended.code == 0, ended.output
    assert computed(ended) == ["seed0/finetune", *TARGET, *FINETUNED, *LATER]


@pytest.mark.slow  # two whole runs
def test_a_run_does_not_depend_on_where_its_inputs_lie_or_where_it_is_read(bench, tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("model", "people", "general"):
        shutil.copytree(bench.experiment.parent / name, here / name)
    moved = yaml.safe_load(bench.experiment.read_text(encoding="utf-8"))
    moved["model"]["source"] = "model"
    moved["data"]["people"]["path"] = "people"
    moved["data"]["general"]["path"] = "general/mmbench_world.tsv"
    (here / "tiny.yaml").write_text(yaml.safe_dump(moved), encoding="utf-8")
    run = bench.copied(here / "runs")
    again = in_own_process("run", "tiny.yaml", cwd=here)
    assert again.returncode == 0, again.stderr
    assert "0 stages computed, 14 reused" in again.stdout
    # The record of the run names the inputs in full, so it can be read from any folder.
    scored = in_own_process("score", str(run), "--parser", "first_character", cwd=elsewhere)
    assert scored.returncode == 0, scored.stderr
    assert (run / "results.csv").read_bytes() != (bench.finished / "results.csv").read_bytes()
    assert str(here / "people") in (run / "experiment.yaml").read_text(encoding="utf-8")


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_parser_recomputes_nothing_and_changes_the_results(bench, tmp_path):
    run = bench.copied(tmp_path)
    strict = (run / "results.csv").read_bytes()
    ended = bench.run(tmp_path, "--set", "scoring.parser=first_character")
    assert ended.code == 0, ended.output
    assert "0 stages computed, 14 reused" in ended.output
    lenient = (run / "results.csv").read_bytes()
    assert lenient != strict
    assert unparsable(lenient) < unparsable(strict)
    # `pulse score` goes the same way, there and back, from the run folder alone.
    for parser, expected in (("strict", strict), ("first_character", lenient)):
        scored = bench.server.pulse("score", str(run), "--parser", parser)
        assert scored.code == 0, scored.output
        assert (run / "results.csv").read_bytes() == expected
        assert store.verify(run) == []
    assert json.loads((run / "results.json").read_text())["verdicts"]


def unparsable(results: bytes) -> float:
    lines = [line.split(",") for line in results.decode().splitlines()]
    column = lines[0].index("value")
    return sum(float(line[column] or 0) for line in lines if "unreadable" in line)


def test_report_makes_the_report_anew_from_the_results(bench, tmp_path):
    run = bench.copied(tmp_path)
    before = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    ended = bench.server.pulse("report", str(run))
    assert ended.code == 0, ended.output
    assert (run / "report.html").read_bytes() == before
    assert store.verify(run) == []


def test_help_is_quick_and_loads_nothing_heavy():
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = seeing_torch("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert shown.returncode == 0
        assert "torch imported: False" in shown.stdout
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1.0, "seconds of processor time for --help"


@pytest.mark.parametrize("what", sorted(LISTINGS))
def test_every_listing_names_its_entries(bench, what):
    ended = bench.server.pulse("list", what)
    assert ended.code == 0, ended.output
    names = [name for name, _ in LISTINGS[what]()]
    lines = ended.output.splitlines()
    assert max(map(len, lines)) <= 80
    # What does not fit behind a name goes on below, indented.
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == names
    assert names


def test_list_alone_lists_everything_by_kind(bench):
    ended = bench.server.pulse("list")
    assert ended.code == 0, ended.output
    kinds = dict.fromkeys(LISTINGS)
    for block in ended.output.split("\n\n"):
        kind, *rows = block.splitlines()
        kinds[kind] = [row.split()[0] for row in rows if row[2] != " "]
    assert kinds == {kind: [name for name, _ in rows()] for kind, rows in LISTINGS.items()}


def test_plan_spends_nothing_and_marks_what_is_there(bench, tmp_path):
    ended = bench.server.pulse("plan", "smoke", "--runs", str(tmp_path))
    assert ended.code == 0, ended.output
    assert "D_unlearn  4 people" in ended.output
    assert list(tmp_path.iterdir()) == []
    done = bench.server.pulse("plan", str(bench.experiment), "--runs", str(bench.finished.parent))
    assert done.output.count("\n  + ") == 14


def test_commands_on_a_folder_that_is_no_run_say_so(tmp_path):
    for command in (("verify",), ("report",), ("score",)):
        ended = in_own_process(*command, str(tmp_path / "none"))
        assert ended.returncode in (1, 2)
        assert "none" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not (tmp_path / "none").exists()
