"""A machine that really has no more memory: the step is cut into smaller pieces, or refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline_cases import TESTS, environment

TRAIN = """
import pathlib, resource, sys, torch
import tiny_models as tiny
from pulse_unlearn.methods import build_method
from pulse_unlearn.training.steps import StepData
from test_training_loop import Runner

made = tiny.prepared("projector+llm")
inner = tiny.unlearning(made, tiny.encoder(), build_method("ga", {}))

class Hungry:
    kept = {}
    def terms(self, data):
        held = torch.ones(len(data.forget) * int(sys.argv[2]) * 2**18)  # MiB each
        return inner.terms(data)

data = StepData(tuple(tiny.letters(8)), ())
run = Runner(pathlib.Path(sys.argv[1]) / "first")
run(made.model, inner, [data], batch_size=8, micro_batch_size=1)  # libraries are loaded now
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 700 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
run = Runner(pathlib.Path(sys.argv[1]) / "second")
ended = run(made.model, Hungry(), [data], batch_size=8, micro_batch_size=8)
print("ended with", ended.micro_batch_size, run.warnings)
"""


@pytest.mark.slow  # another process that imports torch
@pytest.mark.parametrize(
    ("mib", "told"), [(200, "ended with 2"), (4000, "one example does not fit")]
)
def test_a_real_shortage_halves_the_micro_batch_or_is_refused_in_words(mib, told, tmp_path):
    """Mutation: `is_shortage` knows torch's own class alone: RuntimeError, as torch raises it."""
    argv = [sys.executable, "-c", TRAIN, str(tmp_path), str(mib)]
    ended = subprocess.run(
        argv, check=False, env=environment(), capture_output=True, text=True, cwd=TESTS
    )
    assert told in ended.stdout + ended.stderr, ended.stderr
    assert (ended.returncode == 0) is (mib == 200)
    assert "RuntimeError: " not in ended.stderr.rsplit("ModelError", 1)[-1]
