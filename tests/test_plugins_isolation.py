"""A plug-in that fails takes its own cells with it, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
import traceback

import pytest
import yaml

import plugin_cases as plugins
from pipeline_cases import Bench, Server, computed, make_experiment, result_rows
from pulse_unlearn import store
from pulse_unlearn.errors import Interrupted, MethodError, PluginError, Problem, StoreError
from pulse_unlearn.isolation import Origin, deadline, isolated

SOMEBODY = Origin("somebody", "1.0", "abc")
BODIES = {
    "raises": 'raise ValueError("no such layer")',
    "exits": "import sys\nsys.exit(0)",
    "leaves": "import os\nos._exit(0)",
    "astray": 'return (Term("x", losses.gradient_ascent(views.forget), over="nobody"),)',
    "hangs": "import time\ntime.sleep(600)",
    "shapeless": 'return (Term("x", losses.gradient_ascent(views.forget).mean()),)',
}
PARSERS = '''
from pulse_unlearn.evaluation.parsers import Parsed, parse_strict


def lenient(text, options):
    """Read as strict does."""
    return parse_strict(text, options)


def fussy(text, options):
    """Raise."""
    raise RuntimeError("cannot read this")


def wild(text, options):
    """Answer with a letter that was not offered."""
    return Parsed("answered", "Z")
'''
MULTIPLIES = """
session.train(GradientAscent(), steps=1)
with torch.no_grad():
    next(p for p in session.model.parameters() if not p.requires_grad).mul_(1.01)
"""
LATER = """
if session.history:
    raise RuntimeError("cannot follow")
session.train(GradientAscent(), steps=1)
"""
PROBE = """
from dataclasses import dataclass
from typing import ClassVar

from pulse_unlearn.config import Settings
from pulse_unlearn.scenarios import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStage(Stage):
    kind: ClassVar[str] = "gauge"


class Probe(Settings):
    def plan(self, planner):
        planner.add(ProbeStage(name="probe", chain=planner.operations[0].chain))
        return ()


def run_probe(context):
    raise OSError("no probe here")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny experiment, and a process that finds the plug-ins of this file."""
    root = tmp_path_factory.mktemp("plugins")
    folder = root / "site"
    plugins.install(
        folder,
        "faulty",
        "".join(plugins.loss(name, body) for name, body in BODIES.items()),
        {"methods": {name: name for name in BODIES}},
    )
    plugins.install(folder, "sound", plugins.loss("sound"), {"methods": {"sound": "sound"}})
    plugins.install(
        folder,
        "multiplies",
        plugins.procedure("multiplies", MULTIPLIES),
        {"methods": {"multiplies": "multiplies"}},
    )
    plugins.install(
        folder, "later", plugins.procedure("later", LATER), {"methods": {"later": "later"}}
    )
    plugins.install(
        folder,
        "probing",
        PROBE,
        {"evaluations": {"probe": "Probe"}, "runners": {"gauge": "run_probe"}},
    )
    plugins.install(
        folder,
        "parsing",
        PARSERS,
        {"parsers": {"lenient": "lenient", "fussy": "fussy", "wild": "wild"}},
    )
    broken = "import a_module_that_nobody_has\n"
    plugins.install(
        folder,
        "broken",
        broken,
        {group: {"broken": "Broken"} for group in ("methods", "parsers", "datasets")},
    )
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), before])
    try:
        experiment = make_experiment(root)
        settings = yaml.safe_load(experiment.read_text())
        settings["scenarios"] = {"finetuned": {"forget": 2, "retain": 2}}
        settings["methods"] = {"ga": {}}
        experiment.write_text(yaml.safe_dump(settings))
        with Server(root) as server:
            yield Bench(server, experiment, root / "runs" / "tiny")
    finally:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def finished(world):
    """The run of gradient ascent alone."""
    ended = world.run(world.finished.parent)
    assert ended.code == 0, ended.output
    return world


def with_methods(*names: str) -> tuple[str, str]:
    return ("--set", f"methods={json.dumps({name: {} for name in names})}")


def rows_of(run, method):
    return [row for row in result_rows(run) if row["method"] == method]


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_each_failing_method_loses_its_own_cell_and_later_ones_are_carried_out(finished, tmp_path):
    """Mutation: no `require_untouched`."""
    run = finished.copied(tmp_path)
    asked = with_methods(*BODIES, "multiplies", "sound", "ga")
    ended = finished.run(tmp_path, *asked, "--set", "plugin_seconds=3")
    assert ended.code == 1, ended.output
    done = [name for name in computed(ended) if "/finetuned/" in name]
    assert done == [f"seed0/finetuned/sound/{part}" for part in ("unlearn", "score")]
    for name, said in {
        "raises": "ValueError: no such layer",
        "exits": "SystemExit: 0",
        "leaves": "SystemExit: os._exit(0) (faulty.py",
        "astray": "the term 'x' belongs to no batch",
        "multiplies": "changed what is not trained",
        "hangs": "nothing for 3 s",
        "shapeless": "has not one value for each example",
    }.items():
        failed = f"seed0/finetuned/{name}/unlearn"
        package = "multiplies" if name == "multiplies" else "faulty"
        assert f"seed0/finetuned/{name}/score is skipped, since {failed} failed" in ended.output
        (line,) = [
            line
            for line in ended.output.rsplit("error: ", 1)[1].splitlines()
            if line.startswith(f"{failed}: the plug-in {package} 0.1 failed: ")
        ]
        assert said in line
        (kept,) = (run / "failures").glob(f"seed0.finetuned.{name}.unlearn-*.txt")
        assert "Traceback" in kept.read_text()
        assert rows_of(run, name) == []
    # What is complete is measured, and the report says what is not, and why.
    assert len(rows_of(run, "sound")) == len(rows_of(run, "ga")) > 0
    notes = json.loads((run / "results.json").read_text())["notes"]
    assert sum("not measured, since" in note for note in notes) == 7
    assert "finetuned raises seed 0 request 1" in "\n".join(notes)
    assert "ValueError: no such layer" in (run / "report.html").read_text()
    assert store.verify(run) == []
    # Stored answers are scored again to the same results, with what is missing left out.
    results = (run / "results.json").read_bytes()
    again = finished.server.pulse("score", str(run))
    assert again.code == 0, again.output
    assert (run / "results.json").read_bytes() == results


@pytest.mark.slow  # another run
def test_requests_before_the_one_that_failed_are_measured(finished, tmp_path):
    run = finished.copied(tmp_path)
    sequence = {"sustainability": {"forget": 2, "retain": 2, "requests": 2}}
    asked = (*with_methods("later", "ga"), "--set", f"scenarios={json.dumps(sequence)}")
    ended = finished.run(tmp_path, *asked)
    assert ended.code == 1, ended.output
    assert "seed0/sustainability/later/request2/unlearn: the plug-in later 0.1" in ended.output
    assert "RuntimeError: cannot follow" in ended.output
    requests = {name: {row["request"] for row in rows_of(run, name)} for name in ("later", "ga")}
    assert requests == {"later": {"0", "1"}, "ga": {"0", "1", "2"}}
    assert "sustainability later seed 0 request 2" in (run / "report.html").read_text()
    assert store.verify(run) == []


def test_a_stage_of_a_third_party_s_own_kind_fails_alone(finished, tmp_path):
    run = finished.copied(tmp_path)
    ended = finished.run(tmp_path, "--set", "evaluations={probe: {}}")
    assert ended.code == 1, ended.output
    assert "probe: the plug-in probing 0.1 failed: OSError: no probe here" in ended.output
    assert (run / "results.csv").read_bytes() == (finished.finished / "results.csv").read_bytes()


def test_without_the_faulty_ones_nothing_is_left_of_the_failure(finished, tmp_path):
    run = finished.copied(tmp_path)
    assert finished.run(tmp_path, *with_methods("raises", "ga")).code == 1
    assert list((run / "failures").iterdir())
    ended = finished.run(tmp_path)
    assert ended.code == 0, ended.output
    assert computed(ended) == []
    assert not list((run / "failures").iterdir())
    assert (run / "results.csv").read_bytes() == (finished.finished / "results.csv").read_bytes()
    assert store.verify(run) == []


def test_a_run_of_which_nothing_is_left_says_so(finished, tmp_path):
    shutil.copytree(finished.finished, tmp_path / "tiny")
    ended = finished.server.pulse("--debug", *finished.command(tmp_path, *with_methods("raises")))
    assert ended.code != 0
    assert "ValueError: no such layer" in ended.output
    assert "in terms" in ended.output  # the plug-in's own frame, under --debug


def test_an_error_of_this_package_s_own_methods_stops_the_run(finished, tmp_path):
    run = finished.copied(tmp_path)
    shutil.rmtree(next(run.glob("stages/*ga.score-*")))
    ended = finished.run(tmp_path, poison="room:0")
    assert ended.code == 1
    assert "skipped" not in ended.output
    assert not (run / "failures").exists()


def test_an_entry_point_that_cannot_be_imported_is_named_and_harms_nobody(finished, tmp_path):
    listed = finished.server.pulse("list", "methods")
    assert listed.code == 0
    assert "sound" in listed.output
    assert "the plug-in broken 0.1 failed" in listed.output
    assert "a_module_that_nobody_has" in listed.output
    for group in ("parsers", "datasets"):
        assert finished.server.pulse("list", group).code == 0
    refused = finished.run(tmp_path, "--set", "scoring.parser=broken")
    assert refused.code == 2
    assert "the plug-in broken 0.1 failed" in refused.output
    assert not (tmp_path / "tiny").exists()
    # A method fails its own cells, and all others are carried out.
    run = finished.copied(tmp_path)
    ended = finished.run(tmp_path, *with_methods("broken", "ga"))
    assert ended.code == 1
    assert "No module named 'a_module_that_nobody_has'" in ended.output
    assert not rows_of(run, "broken")
    assert rows_of(run, "ga")


def test_a_parser_of_a_third_party_reads_the_answers_and_is_named_in_the_results(
    finished, tmp_path
):
    run = finished.copied(tmp_path)
    ended = finished.server.pulse("score", str(run), "--parser", "lenient")
    assert ended.code == 0, ended.output
    # Its own rows are those of the parser it calls.
    assert (run / "results.csv").read_bytes() == (finished.finished / "results.csv").read_bytes()
    notes = json.loads((run / "results.json").read_text())["notes"]
    assert any("the parser 'lenient' of parsing 0.1" in note for note in notes)


@pytest.mark.parametrize(
    ("parser", "said"), [("fussy", "RuntimeError: cannot read this"), ("wild", "letter='Z'")]
)
def test_a_parser_that_fails_stops_the_scoring_by_name(finished, tmp_path, parser, said):
    run = finished.copied(tmp_path)
    answers = {path: path.read_bytes() for path in run.glob("stages/*/predictions.parquet")}
    ended = finished.server.pulse("score", str(run), "--parser", parser)
    assert ended.code == 1
    assert f"parser {parser} on " in ended.output
    assert "the plug-in parsing 0.1 failed" in ended.output
    assert said in ended.output
    assert "the answers are kept" in ended.output
    assert answers == {path: path.read_bytes() for path in answers}


@pytest.mark.slow  # another run
def test_editing_a_plug_in_computes_its_stages_anew_and_no_others(finished, tmp_path):
    run = finished.copied(tmp_path)
    asked = with_methods("sound", "ga")
    mine = [f"seed0/finetuned/sound/{part}" for part in ("unlearn", "score")]
    first = finished.run(tmp_path, *asked)
    assert (first.code, computed(first)) == (0, mine)
    assert computed(finished.run(tmp_path, *asked)) == []
    manifest = json.loads(next(run.glob("stages/*sound.unlearn-*/manifest.json")).read_text())
    assert manifest["settings"]["plugin"]["package"] == "sound"
    source = finished.experiment.parent / "site" / "sound.py"
    text = source.read_text()
    source.write_text(text + "# edited\n")
    try:
        edited = finished.run(tmp_path, *asked)
        assert (edited.code, computed(edited)) == (0, mine)
    finally:
        source.write_text(text)


def test_what_is_raised_is_told_with_the_plug_in_s_name():
    with pytest.raises(PluginError) as caught, isolated("its stage", SOMEBODY):
        raise KeyError("hidden")
    line = traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].lineno
    assert str(caught.value) == (
        "its stage: the plug-in somebody 1.0 failed\n"
        f"  got: KeyError: 'hidden' (test_plugins_isolation.py, line {line})\n"
        "  fix: `pulse plugin check somebody` looks for the cause"
    )
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), Interrupted("x"), StoreError("x"), MemoryError()]
)
def test_what_is_not_the_plug_in_s_doing_passes(error):
    with pytest.raises(type(error)) as caught, isolated("its stage", SOMEBODY):
        raise error
    assert caught.value is error


def test_errors_of_this_package_s_own_entries_pass():
    with pytest.raises(KeyError), isolated("a stage", None):
        raise KeyError("own")


def hang():
    try:
        time.sleep(30)
    except Exception:  # noqa: BLE001  # as plug-ins do
        time.sleep(30)


def test_the_deadline_is_moved_by_every_step_and_restores_the_alarm():
    import signal

    before = signal.getsignal(signal.SIGALRM)
    with deadline(0.3) as more_time:
        for _ in range(4):
            time.sleep(0.15)
            more_time()
    began = time.monotonic()
    with pytest.raises(MethodError, match="does not return"), deadline(0.2):
        hang()
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_does_not_return_is_left_soon_after_the_run_was_asked_to_stop(monkeypatch):
    """Mutation: `stopped` is not looked at: it hangs until its own deadline."""
    monkeypatch.setattr("pulse_unlearn.isolation.GRACE", 0.3)
    monkeypatch.setattr("pulse_unlearn.isolation._TICK", 0.1)
    began = time.monotonic()
    said = "did not hear of it"
    with pytest.raises(Interrupted, match=said), deadline(20, stopped=lambda: True):
        hang()
    assert time.monotonic() - began < 5


def test_processes_of_a_plug_in_may_leave_as_they_like():
    """Mutation: `os._exit` raises in every process."""
    with isolated("its stage", SOMEBODY):
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_leaving_the_process_is_an_error_of_the_plug_in():
    """Mutation: no `_exit_raises`: the process is gone, with exit code 0."""
    child = os.fork()  # a process of its own, as it may end
    if not child:
        try:
            with isolated("its stage", SOMEBODY):
                os._exit(0)
        except PluginError as error:
            os._exit(7 if "os._exit(0)" in str(error) else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_shape_that_is_wrong_is_told_with_what_was_got_and_allowed():
    problem = Problem("the term has not one value", got="shape []", allowed="[8]")
    said = r"MethodError: the term .* got: shape \[\] allowed"
    with pytest.raises(PluginError, match=said), isolated("its stage", SOMEBODY):
        raise MethodError(problem)
