"""The N-th write, fsync, rename or unlink fails, or the command is killed at it: a sample.

`python bench/inject_faults.py` takes every call; docs/reliability.md says what it found.
"""

from __future__ import annotations

import pytest

import injection_cases
from injection_cases import DISTURBING, RESULTS, injection

pytestmark = pytest.mark.skipif(bool(injection_cases.obstacle()), reason=injection_cases.obstacle())


@pytest.fixture(scope="module")
def injected(tmp_path_factory):
    with injection(tmp_path_factory.mktemp("injection")) as made:
        yield made


def disturb(injected, run, case, picks):
    """Disturb the calls picked, in each mode in turn; nothing may be wrong afterwards."""
    case = next(one for one in injected.cases() if case in one)
    calls = injected.calls(case, run)
    for count, number in enumerate(picks(calls)):
        fate = injected.fate(case, DISTURBING[count % len(DISTURBING)], number, run)
        assert not fate.wrong, str(fate)
        yield fate


def numbers(calls, kind, part):
    """Numbers of the calls of a kind, such as `write`, on paths that hold a part."""
    return [n for n, call in enumerate(calls, 1) if call.startswith(f"{kind} ") and part in call]


def test_a_sample_of_all_calls_of_unlearning(injected, tmp_path):
    """Mutations: `write_bytes` without the rename; `file_errors` that let errors through."""
    run = tmp_path / "runs" / "tiny"
    spread = range(5, 10**6, 20)
    fates = list(
        disturb(
            injected, run, "request2.unlearn", lambda calls: [n for n in spread if n <= len(calls)]
        )
    )
    assert len(fates) >= 7
    assert {"typed", "killed"} <= {fate.ended for fate in fates}


def test_killed_while_a_library_writes_an_update(injected, tmp_path):
    """Mutation: written in place, so that safetensors' own scratch file is published."""
    run = tmp_path / "runs" / "tiny"
    case = next(one for one in injected.cases() if "ga.unlearn" in one)
    number = numbers(injected.calls(case, run), "write", "/.tmp")[0]
    fate = injected.fate(case, "kill", number, run)
    assert fate.ended == "killed"
    assert not fate.wrong, str(fate)


def test_no_room_for_the_scores_is_one_error(injected, tmp_path):
    """Mutation: the folder of scores is made outside `file_errors`, and `main` lets it through."""
    run = tmp_path / "runs" / "tiny"
    fates = list(disturb(injected, run, RESULTS, lambda calls: numbers(calls, "mkdir", "scores")))
    assert [fate.ended for fate in fates] == ["typed"]
