"""Names of work: pinned, blind to the order of keys, sensitive to every value."""

from __future__ import annotations

import copy
import enum
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.errors import StoreError
from pulse_unlearn.store import SCHEME, fingerprint

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-5, 5)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=5)


def of(settings: dict[str, object]) -> str:
    return fingerprint("train", settings, data={"people": "a" * 64}, parents=())


def test_the_scheme_is_pinned():
    """These literals change only together with SCHEME: else finished runs are computed again."""
    assert SCHEME == 3
    assert (
        fingerprint("finetune", {}, data={}, parents=[])
        == "b410ab22f26a2044c25c58c6480d2f1bf518f067801280f0516c0841d43af430"
    )
    settings = {
        "rate": 3e-4,
        "steps": 40,
        "scope": ["llm"],
        "stop": None,
        "ä": True,
        "z": {"b": 0.0},
    }
    first = fingerprint("finetune", settings, data={"people": "ab" * 32}, parents=[])
    assert first == "ac8af8768dcdd4914a70081cb26856ef44df02c50a8eb698182ce37516bd6759"
    second = fingerprint("unlearn", {"method": "npo"}, data={"people": "ab" * 32}, parents=[first])
    assert second == "653023bf95e6aad3e9457a0100b7bf25b2cb1be6254971293c32800c7c42c042"


def test_the_hashed_text_is_what_the_scheme_says():
    settings = '{"a":0.1,"\\u00e4":[1,true,null]}'
    text = '{"data":{},"kind":"k","parents":[],"scheme":3,"settings":' + settings + "}"
    name = fingerprint("k", {"ä": (1, True, None), "a": 0.1}, data={}, parents=())
    assert name == hashlib.sha256(text.encode("ascii")).hexdigest()


def reordered(value: object) -> object:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return value


@given(SETTINGS)
def test_the_order_of_keys_does_not_count(settings):
    assert of(settings) == of(reordered(settings))


@given(SETTINGS, SCALARS, st.data())
def test_every_changed_value_counts(settings, other, data):
    changed = copy.deepcopy(settings)
    place: object = changed
    while True:
        keys = range(len(place)) if isinstance(place, list) else sorted(place)
        at = data.draw(st.sampled_from(list(keys)))
        if isinstance(place[at], dict | list) and place[at] and data.draw(st.booleans()):
            place = place[at]
            continue
        # repr tells 1, 1.0 and True apart, as the fingerprint must.
        differs = repr(place[at]) != repr(other)
        place[at] = other
        break
    assert (of(settings) != of(changed)) == differs


@given(SETTINGS, SETTINGS)
def test_equal_fingerprints_mean_equal_settings(one, two):
    if of(one) == of(two):
        assert one == two


def test_every_other_input_counts():
    base = {"data": {"people": "a" * 64}, "parents": ["b" * 64, "c" * 64]}
    names = {
        fingerprint("train", {}, **base),
        fingerprint("tests", {}, **base),
        fingerprint("train", {}, **base, scheme=SCHEME + 1),
        fingerprint("train", {}, **{**base, "data": {"people": "d" * 64}}),
        fingerprint("train", {}, **{**base, "data": {"person": "a" * 64}}),
        fingerprint("train", {}, **{**base, "parents": ["c" * 64, "b" * 64]}),
        fingerprint("train", {}, **{**base, "parents": ["b" * 64]}),
        fingerprint("train", {"data": {"people": "a" * 64}}, data={}, parents=base["parents"]),
    }
    assert len(names) == 8


def test_numbers_of_numpy_tuples_and_text_enumerations_are_their_plain_values():
    class Scope(enum.StrEnum):
        LLM = "llm"

    odd = {"rate": np.float64(0.5), "steps": np.int64(3), "scope": (Scope.LLM,), "on": True}
    assert of(odd) == of({"rate": 0.5, "steps": 3, "scope": ["llm"], "on": True})


def test_what_json_cannot_say_is_refused_with_its_path_and_all_at_once():
    bad = {"a": {"b": [1.0, float("nan")]}, "path": Path("x"), 3: "x", "s": {1}, "u": "\ud800"}
    with pytest.raises(StoreError) as caught:
        of(bad)
    places = {problem.where for problem in caught.value.problems}
    assert places == {
        "train.settings",
        "train.settings.a.b[1]",
        "train.settings.path",
        "train.settings.s",
        "train.settings.u",
    }


def test_empty_digests_and_odd_parents_are_refused():
    with pytest.raises(StoreError) as caught:
        fingerprint("train", {}, data={"people": ""}, parents=["short", "b" * 64])
    assert [p.where for p in caught.value.problems] == ["data.people", "parents[0]"]
