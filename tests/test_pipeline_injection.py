"""The N-th write, fsync, rename or unlink fails, or the command is killed at it: a sample.

`python bench/inject_faults.py` takes every call; docs/reliability.md says what it found.
"""

from __future__ import annotations

import pytest

import injection_cases
from injection_cases import DISTURBING, RESULTS, injection, smallest

pytestmark = pytest.mark.skipif(bool(injection_cases.obstacle()), reason=injection_cases.obstacle())


@pytest.fixture(scope="module")
def injected(tmp_path_factory):
    with injection(tmp_path_factory.mktemp("injection"), smallest) as made:
        yield made


def calls_of(injected, part, run):
    """A case by part of its name, and its calls."""
    case = next(one for one in injected.cases() if part in one)
    return case, injected.calls(case, run)


def first(calls, kind, part):
    """Number of the first call of a kind, such as `write`, on a path that holds a part."""
    found = (n for n, call in enumerate(calls, 1) if call.startswith(f"{kind} ") and part in call)
    return next(found)


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_sample_of_all_calls_of_a_stage(injected, tmp_path):
    """Mutation: what a kill left half-written is not swept (`delete_scratch` does nothing)."""
    run = tmp_path / "runs" / "tiny"
    case, calls = calls_of(injected, "finetune-", run)
    ends = set()
    for count, number in enumerate(range(4, len(calls), len(calls) // 5)):
        fate = injected.fate(case, DISTURBING[count % len(DISTURBING)], number, run)
        assert not fate.wrong, str(fate)
        ends.add(fate.ended)
    assert {"typed", "killed"} <= ends


def test_killed_while_a_library_writes_an_update(injected, tmp_path):
    """Mutation: written in place, so that safetensors' own scratch file is published."""
    run = tmp_path / "runs" / "tiny"
    case, calls = calls_of(injected, "ga.unlearn", run)
    fate = injected.fate(case, "kill", first(calls, "write", "/.tmp"), run)
    assert fate.ended == "killed"
    assert not fate.wrong, str(fate)


def test_no_room_for_the_scores_is_one_error(injected, tmp_path):
    """Mutation: the folder of scores is made outside `file_errors`, and `main` lets it through."""
    run = tmp_path / "runs" / "tiny"
    case, calls = calls_of(injected, RESULTS, run)
    fate = injected.fate(case, "full", first(calls, "mkdir", "scores"), run)
    assert fate.ended == "typed"
    assert not fate.wrong, str(fate)
