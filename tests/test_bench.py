"""The scripts beside the package, on files made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pulse_unlearn.evaluation.table import write_predictions
from pulse_unlearn.methods import METHODS
from pulse_unlearn.records import RESULT_COLUMNS, Option, Prediction

FINDINGS = Path(__file__).parents[1] / "bench" / "findings.py"
ROWS = (
    "finetuned,ga,projector+llm,0,1,plain,forget,all,letter_accuracy,0.25,,,40,4",
    "finetuned,ga,projector+llm,0,1,plain,forget,all,forgotten_pct,0.4,,,40,4",
    "finetuned,ga,projector+llm,0,1,plain,general,all,kept_pct,-3.0,,,12,0",
    "finetuned,npo,projector+llm,0,1,plain,forget,multimodal,accuracy,0.5,,,20,4",
    "finetuned,npo,projector+llm,1,1,plain,forget,multimodal,accuracy,0.7,,,20,4",
    "finetuned,npo,projector+llm,0,1,plain,forget,all,forgotten_pct,,,,40,4",
)


def test_findings_prints_percent_whatever_the_size(tmp_path):
    lines = "\n".join([",".join(RESULT_COLUMNS), *ROWS]) + "\n"
    (tmp_path / "results.csv").write_text(lines, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(FINDINGS), str(tmp_path)], capture_output=True, text=True, check=True
    )
    head, ga, npo = (line.split(" | ") for line in done.stdout.splitlines())
    assert [dict(zip(head, ga, strict=True))[name] for name in ("letter", "forgotten %")] == [
        "25",
        "0",
    ]
    assert dict(zip(head, ga, strict=True))["general kept %"] == "-3"
    # 50 and 70: mean 60, standard deviation with n - 1 is 10 * sqrt(2).
    assert dict(zip(head, npo, strict=True))["forget image"] == "60 (14)"
    assert dict(zip(head, npo, strict=True))["forgotten %"] == "-"


@pytest.mark.slow  # fifteen rows, each timed
def test_the_device_table_runs_on_a_small_model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import device
    import speed_cases

    tiny = speed_cases.Size(
        32, 48, 2, 2, tower_width=16, tower_inner=24, tower_layers=2, tower_heads=2, vocabulary=700
    )
    monkeypatch.setitem(speed_cases.SIZES, "small", tiny)
    monkeypatch.setattr(device, "PEOPLE", 2)
    latest = tmp_path / "latest.json"
    latest.write_text('{"devices": {"CPU": {"7b": {}}}}', encoding="utf-8")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    device.main(["small"], latest)
    tables = json.loads(latest.read_text())["devices"]["CPU"]
    assert tables.keys() == {"7b", "small"}
    losses = [name for name, method in METHODS if hasattr(method, "terms")]
    assert tables["small"].keys() == {"matmul_tflops", *losses, "score"}
    assert all(row["seconds"] > 0 for key, row in tables["small"].items() if key != "matmul_tflops")
    with pytest.raises(SystemExit, match="no accelerator"):
        device.main(["7b"], latest)


def test_two_things_are_timed_in_turn_and_ratios_are_of_pairs(monkeypatch):
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import pairs

    calls, clock = [], iter([0, 2, 2, 3, 3, 9, 9, 10, 10, 14, 14, 18])  # 2 and 1, 6 and 1, 4 and 4
    monkeypatch.setattr("pairs.time.perf_counter", lambda: next(clock))
    found = pairs.paired(lambda: calls.append("A"), lambda: calls.append("B"), pairs=3)
    assert calls == ["A", "B"] * 3
    assert (found.ratios, found.ratio, found.spread) == ([2, 6, 1], 2, (1, 6))
    with pytest.raises(ValueError, match="no pairs"):
        pairs.paired(list, list, pairs=0)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="told by Linux alone")
def test_a_neighbour_at_work_is_noticed_and_ones_own_work_is_not(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import pairs

    watch, busy = pairs.Neighbours(), iter([10.0, 30.0, 30.0])
    monkeypatch.setattr(pairs, "_busy_seconds", lambda: next(busy))
    monkeypatch.setattr(pairs, "_own_seconds", lambda: watch._own + 10.0)
    monkeypatch.setattr("pairs.time.monotonic", lambda: watch._began + 20.0)
    monkeypatch.setattr("pairs.os.cpu_count", lambda: 2)
    watch._busy = 0.0
    assert watch.share == pytest.approx(0.0, abs=1e-9)  # all of it was ours
    assert watch.share == pytest.approx(0.5)
    watch.warn()
    assert "other processes took 50% of this machine" in capsys.readouterr().err


def stage(run, name, *, texts=(), weight=None, steps=0):
    folder = run / "stages" / f"{name}-0123abcd"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    if texts:
        options = (Option("A", "baker"), Option("B", "judge"))
        told = [
            Prediction(
                example_id=f"{n}",
                question_id=f"{n}",
                individual="f1",
                modality="text_only",
                category="job",
                options=options,
                answer="A",
                text=text,
                option_log_probs=(0.0, 0.0),
            )
            for n, text in enumerate(texts)
        ]
        write_predictions(folder / "predictions.parquet", told)
    if weight is not None:
        (folder / "adapter").mkdir()
        save_file({"a": torch.tensor(weight)}, folder / "adapter" / "adapter_model.safetensors")
        (folder / "outcome.json").write_text(json.dumps({"steps": steps}), encoding="utf-8")


def test_decisions_counts_answers_and_measures_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import decisions

    mine, other = tmp_path / "mine", tmp_path / "other"
    stage(mine, "01-base.score", texts=["A", "A", "B"])
    stage(other, "01-base.score", texts=["A", "B", "B"])
    stage(mine, "02-seed0.finetune", weight=[3.0, 4.5], steps=7)
    stage(other, "02-seed0.finetune", weight=[3.0, 4.0], steps=5)
    stage(mine, "03-seed0.target.score", texts=["A"])
    # Half a unit apart, against a length of 5.
    assert [" ".join(line.split()) for line in decisions.lines(mine, other)] == [
        "base.score 1 of 3 answers differ 66.7 / 33.3 %",
        "seed0.finetune weights 1.0e-01 apart 7 / 5 steps",
        f"seed0.target.score only in {mine}",
    ]


def test_a_second_model_is_noticed_under_lora_alone(monkeypatch):
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import methods

    assert methods.second_model(methods.fit("npo"), 290, 190, 100)
    assert not methods.second_model(methods.fit("npo"), 280, 190, 100)
    assert not methods.second_model(methods.fit("manu"), 900, 190, 100)  # all tensors trained
    kinds = {name: methods.fit(name).kind for name in METHODS.names()}  # none refuses every kind
    assert (kinds["ga"], kinds["manu"]) == ("", "full")
    assert kinds["gradient_projection"] == "continued"


COPYING = """
import copy, sys
sys.path.insert(0, {bench!r})
import methods
from pulse_unlearn.methods.ga import GradientAscent

@methods.METHODS.register("copying")
class Copying(GradientAscent):
    def run(self, session):
        self.__dict__["held"] = [one.clone() for one in session.model.parameters()]
        session.train(GradientAscent())

sys.exit(methods.main(["ga", "npo", "copying", "--pairs", "0"]))
"""


@pytest.mark.slow  # loads a model of 90 MiB and trains it eight times
def test_the_bench_of_methods_finds_one_that_holds_a_second_model():
    code = COPYING.format(bench=str(FINDINGS.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    rows = [line for line in done.stdout.splitlines() if line.startswith("| `")]
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["no", "no", "yes"], done.stdout
    assert done.returncode == 1, done.stderr


def test_injected_faults_are_continued_for_the_same_code_alone(tmp_path, monkeypatch):
    """Mutation: `Record` takes whatever file there is."""
    monkeypatch.syspath_prepend(str(FINDINGS.parent))
    import inject_faults

    from injection_cases import Fate

    path = tmp_path / "injected.jsonl"
    fates = [
        Fate("select", "kill", 3, "write a", "killed", "", ()),
        Fate("select", "error", 4, "fsync a", "code 2", "a is missing", ("other bytes: a",)),
    ]
    record = inject_faults.Record(path, False)
    for fate in fates:
        record.add(fate)
    again = inject_faults.Record(path, True)
    assert again.fates == record.fates
    assert [*again.fates.values()] == fates
    with pytest.raises(SystemExit, match="--continue, or another name"):
        inject_faults.Record(path, False)
    monkeypatch.setattr(inject_faults, "_code", lambda: "of another day")
    with pytest.raises(SystemExit, match="is of other code"):
        inject_faults.Record(path, True)
