"""What a tower says of several pictures at once: used where it is what it says of each alone."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

import tiny_models as tiny
from pulse_unlearn.models.fast import features as features_module
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.fast.packed import Packed

SHOWN = [tiny.example(k, shown=True) for k in range(18)]
"""Each with a picture of its own, all of one shape."""


def towers(model, *, mixing: bool = False) -> list[int]:
    """Have the model's tower note how many pictures it is called with, and mix them if asked."""
    tower, sizes = model.model.vision_tower, []
    whole = tower.forward

    def noting(self, pixel_values, *args, **kwargs):
        sizes.append(len(pixel_values))
        if mixing and len(pixel_values) > 1:
            pixel_values = pixel_values + pixel_values.mean(0)
        return whole(pixel_values, *args, **kwargs)

    tower.forward = MethodType(noting, tower)
    return sizes


def said(reader, examples):
    with torch.no_grad():
        return reader.answer_log_probs(examples, tokens="with_end").log_probs


def test_pictures_are_seen_at_once_when_a_trial_has_shown_that_it_changes_no_bit():
    model, features = tiny.base().eval(), Features()
    sizes = towers(model)
    reader = Packed(model, tiny.encoder(), budget=64, features=features)
    said(reader, SHOWN[:5])
    if not all(features.exact.values()):
        pytest.skip("this machine's products round otherwise for four pictures than for one")
    assert sizes == [4, 1, 1, 1, 1, 1]  # four at once, as a trial, each of them alone, and the last
    assert set(features.exact.values()) == {True}
    sizes.clear()
    found = said(reader, SHOWN[5:11])
    assert sizes == [4, 2, 1, 1]
    alone = Packed(model, tiny.encoder(), budget=64)
    for example in SHOWN[5:11]:
        said(alone, [example])
    assert torch.equal(said(alone, SHOWN[5:11]), found)
    sizes.clear()
    # Readers of one run need no further trial.
    said(Packed(model, tiny.encoder(), budget=64, features=features), SHOWN[11:15])
    assert sizes == [4]


def test_a_tower_in_which_pictures_touch_each_other_sees_one_at_a_time():
    model, features = tiny.base().eval(), Features()
    expected = said(Packed(model, tiny.encoder(), budget=64), SHOWN[:8])
    sizes = towers(model, mixing=True)
    reader = Packed(model, tiny.encoder(), budget=64, features=features)
    assert torch.equal(said(reader, SHOWN[:8]), expected)
    assert sizes == [8, *[1] * 8]
    sizes.clear()
    said(reader, SHOWN[8:16])
    assert sizes == [1] * 8


@pytest.mark.parametrize(
    "odd",
    [
        BaseModelOutput(last_hidden_state=torch.zeros(3, 2)),
        BaseModelOutput(last_hidden_state=torch.tensor(1.0)),
    ],
)
def test_an_output_without_equal_parts_is_no_pictures(odd):
    assert features_module._parted(odd, 2) is None
    (whole,) = features_module._parted(odd, 1)
    assert torch.equal(whole.last_hidden_state, odd.last_hidden_state)


def test_a_part_is_a_picture_and_what_is_in_it_twice_is_one_tensor():
    last = torch.arange(8.0).view(4, 2)
    whole = BaseModelOutput(last_hidden_state=last, hidden_states=(last + 1, last))
    parts = features_module._parted(whole, 2)
    assert [part.hidden_states[0].tolist() for part in parts] == [
        [[1, 2], [3, 4]],
        [[5, 6], [7, 8]],
    ]
    for part in parts:
        assert part.last_hidden_state is part.hidden_states[1]
        assert part.last_hidden_state.untyped_storage().nbytes() == 4 * 4
