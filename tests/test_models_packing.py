"""Packing: rows that say the same as the sequences alone, for any batch hypothesis finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import tiny_models as tiny
from pulse_unlearn.config import SpeedSettings
from pulse_unlearn.evaluation.predict import greedy_accuracy, predict
from pulse_unlearn.methods import METHODS, build_method
from pulse_unlearn.models.adapters import reference_view, trainable_names
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.packed import Packed
from pulse_unlearn.models.packing import Image, Line, lay_out, pack
from pulse_unlearn.models.readers import choose, obstacle
from pulse_unlearn.training import references as references_module
from pulse_unlearn.training.objectives import Unlearning, weighted_sum
from pulse_unlearn.training.references import References, fingerprint, recurring
from pulse_unlearn.training.steps import StepData

FACE = tiny.face(0)


def alike(count: int, *, first: int = 0) -> list:
    """Questions on one face, as a person has them."""
    return [
        replace(tiny.example(first + k, words=k % 3, shown=True), picture=FACE)
        for k in range(count)
    ]


BATCH = [*alike(5), *tiny.mixed(), tiny.example(9, words=4), alike(1)[0]]


# --- pure layout

LINES = st.lists(
    st.builds(
        Line,
        st.lists(
            st.integers(0, 2) | st.sampled_from([Image("a", (7, 7, 7)), Image("b", (7, 7, 7))]),
            min_size=1,
            max_size=6,
        ).map(tuple),
        st.lists(st.integers(3, 4), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=8,
)


def expanded(line: Line) -> list[int]:
    tokens: list[int] = []
    for symbol in line.symbols:
        tokens += symbol.tokens if isinstance(symbol, Image) else [symbol]
    return tokens


@settings(max_examples=200, deadline=None)
@given(LINES, st.integers(1, 40))
def test_what_a_lines_last_token_sees_is_the_line_itself(lines, budget):
    packed = pack(lines, budget=budget, pad=99)
    for number, line in enumerate(lines):
        row, last = packed.rows[number], packed.paths[number][-1]
        seen = packed.sees[row, 0, last].nonzero().flatten()
        assert packed.input_ids[row, seen].tolist() == expanded(line)
        assert packed.position_ids[row, seen].tolist() == list(range(len(seen)))


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_a_row_holds_each_distinct_beginning_once(lines):
    row = lay_out(lines)
    distinct = {line.symbols[: at + 1] for line in lines for at in range(len(line.symbols))}
    sizes = [len(b[-1].tokens) if isinstance(b[-1], Image) else 1 for b in distinct]
    assert len(row.tokens) == sum(sizes)


def test_tokens_of_different_pictures_are_never_shared():
    lines = [Line((1, Image(name, (7, 7)), 2), (3,)) for name in "ab"]
    row = lay_out(lines)
    assert row.digests == ["a", "b"]
    assert row.tokens == [1, 7, 7, 2, 3, 7, 7, 2, 3]
    assert row.positions == [0, 1, 2, 3, 4, 1, 2, 3, 4]


def test_rows_keep_to_the_budget_but_one_picture_stays_whole():
    lines = [Line((Image("a", (7,) * 9), k), (k,)) for k in range(3)]
    lines += [Line((k, k, k), ()) for k in range(4, 10)]
    packed = pack(lines, budget=4, pad=0)
    assert len({packed.rows[k] for k in range(3)}) == 1
    assert packed.input_ids.shape[1] == 15  # 9 + 3 * 2
    assert packed.input_ids.shape[0] == 3  # six lines of three in rows of at most fifteen


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt"):
        pack([Line((), (1,))], budget=4, pad=0)


# --- against the plain reader


def readers(made, *, budget=64):
    return (
        Plain(made.model, tiny.encoder()),
        Packed(made.model, tiny.encoder(), budget=budget),
    )


@pytest.fixture(scope="module")
def made():
    found = tiny.prepared("projector+llm")
    tiny.randomise(found.model, seed=3)
    found.model.eval()
    return found


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(range(len(BATCH))), min_size=1, max_size=9), st.integers(8, 200))
def test_answers_are_those_of_the_plain_reader(made, chosen, budget):
    examples = [BATCH[index] for index in chosen]
    with torch.no_grad():
        plain, packed = (
            reader.answers(examples, tokens="with_end") for reader in readers(made, budget=budget)
        )
    assert torch.equal(plain.mask, packed.mask)
    assert torch.equal(plain.labels[plain.mask], packed.labels[packed.mask])
    assert_close(packed.log_probs[packed.mask], plain.log_probs[plain.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scope", ["projector", "llm", "projector+llm", "vision", "all"])
@pytest.mark.parametrize("name", METHODS.names())
def test_losses_and_gradients_of_every_method_and_scope_agree(name, scope, attention):
    found = []
    for packing in (False, True):
        made = tiny.prepared(scope)
        tiny.randomise(made.model, seed=5)
        made.model.get_base_model().set_attn_implementation(attention)
        reader = readers(made)[packing]
        assert packing is False or reader.memory.usable == (scope not in ("vision", "all"))
        chosen = {"retain_weight": 1.0} if name == "npo" else {}
        objective = Unlearning(
            reader, build_method(name, chosen), "with_end", References(made, reader)
        )
        data = StepData(tuple(BATCH), tuple(reversed(BATCH[:7])))
        loss = weighted_sum(objective.terms(data), data)
        loss.backward()
        gradients = {
            key: tensor.grad
            for key, tensor in made.model.named_parameters()
            if key in trainable_names(made.model)
        }
        found.append((loss.detach(), gradients))
    (plain, slow), (packed, fast) = found
    assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    assert slow.keys() == fast.keys()
    assert any(gradient.abs().max() > 1e-4 for gradient in slow.values())
    for key, gradient in slow.items():
        assert_close(fast[key], gradient, atol=1e-5, rtol=1e-4, msg=key)


def test_predictions_and_accuracy_are_the_same(made):
    plain, packed = (
        predict(reader, BATCH, batch_size=5, max_new_tokens=4, on_batch=lambda done, total: None)
        for reader in readers(made)
    )
    assert [one.text for one in packed] == [one.text for one in plain]
    for one, other in zip(packed, plain, strict=True):
        assert one.letter_log_probs == pytest.approx(other.letter_log_probs, abs=1e-5)
    assert len({greedy_accuracy(reader, BATCH, batch_size=4) for reader in readers(made)}) == 1


# --- what is paid for once


def test_the_tower_runs_once_a_picture(made):
    reader = readers(made)[1]
    for _ in range(2):
        with torch.no_grad():
            reader.answers(BATCH, tokens="with_end")
    pictures = {example.picture.digest for example in BATCH if example.picture}
    assert reader.memory.computed == len(pictures)


def test_the_reference_is_asked_once_an_example_whatever_the_batch(made):
    reader = readers(made)[1]
    references, plain = References(made, reader), readers(made)[0]
    tokens = "with_end"
    for part in (BATCH[:4], BATCH[2:6], [BATCH[5], *BATCH[:2]], BATCH[:6]):
        current = reader.answers(part, tokens=tokens)
        seen = references.view(part, current, extent="answer", tokens=tokens)
        with reference_view(made):
            expected = plain.answers(part, tokens=tokens)
        picked = expected.log_probs.gather(-1, expected.labels.unsqueeze(-1))
        assert seen.log_probs.shape == picked.shape
        assert_close(seen.log_probs[seen.mask], picked[expected.mask], atol=1e-5, rtol=1e-5)
    assert references.asked == 5  # the sixth is the first under another name
    whole = references.view(part, current, extent="distribution", tokens=tokens)
    assert references.asked == 10
    assert_close(
        whole.log_probs[whole.mask], expected.log_probs[expected.mask], atol=1e-5, rtol=1e-5
    )


def test_what_does_not_come_again_is_not_kept_and_memory_is_bounded(made, monkeypatch):
    steps = [StepData(tuple(BATCH[:3]), (BATCH[6],)), StepData(tuple(BATCH[2:4]), (BATCH[6],))]
    again = recurring(steps)
    assert again == {fingerprint(BATCH[2]), fingerprint(BATCH[6])}
    reader = readers(made)[1]
    for limit, kept in ((references_module.KEPT_BYTES, 1), (0, 0)):
        monkeypatch.setattr(references_module, "KEPT_BYTES", limit)
        references = References(made, reader, again)
        for data in steps:
            current = reader.answers(data.forget, tokens="text")
            references.view(data.forget, current, extent="answer", tokens="text")
        assert (len(references.kept), references.asked) == (kept, 5 - kept)


# --- the choice


def choice(model, *, packing="auto", examples=BATCH):
    warnings: list[str] = []
    speed = SpeedSettings(packing=packing)
    reader = choose(model, tiny.encoder(), speed=speed, examples=examples, warn=warnings.append)
    return reader, warnings


def test_a_model_that_passes_the_trial_is_packed(made):
    reader, warnings = choice(made.model)
    assert isinstance(reader, Packed)
    assert not warnings
    assert isinstance(choice(made.model, packing="off")[0], Plain)


def test_a_model_that_disagrees_is_read_plainly_and_says_so(made, monkeypatch):
    monkeypatch.setattr(Plain, "answers", lambda self, examples, tokens: _shifted(self, examples))
    reader, warnings = choice(made.model)
    assert isinstance(reader, Plain)
    assert "differ" in warnings[0]


def _shifted(reader, examples):
    view = Packed(reader.model, reader.encoder, budget=64).answers(examples, tokens="with_end")
    return replace(view, log_probs=view.log_probs - 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"sliding_window": 16},
        {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
    ],
)
def test_what_cannot_be_packed_is_named(change):
    config = tiny.config()
    assert obstacle(config) == ""
    for key, value in change.items():
        setattr(config.text_config, key, value)
    assert obstacle(config)
