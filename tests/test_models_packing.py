"""Packing: rows that say the same as the sequences alone, for any batch hypothesis finds."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers.modeling_outputs import BaseModelOutput

import tiny_models as tiny
from method_cases import LOSSES, OTHER_FORMS, costly, variants_of
from pulse_unlearn.config import SpeedSettings
from pulse_unlearn.evaluation.predict import (
    greedy_accuracy,
    likelihood_accuracy,
    predict,
    rotated_accuracy,
)
from pulse_unlearn.evaluation.scoring import by_question, score_all
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.adapters import reference_view, trainable_names
from pulse_unlearn.models.backends import packing_obstacle, select_backend
from pulse_unlearn.models.families import FAMILIES
from pulse_unlearn.models.fast import features as features_module
from pulse_unlearn.models.fast import packed as packed_module
from pulse_unlearn.models.fast.features import Features
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.fast.packing import Image, Line, lay_out, pack
from pulse_unlearn.models.forward import Plain
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


@settings(max_examples=200)
@given(LINES, st.integers(1, 40))
def test_what_a_lines_last_token_sees_is_the_line_itself(lines, budget):
    packed = pack(lines, budget=budget, pad=99)
    for number, line in enumerate(lines):
        row, last = packed.rows[number], packed.paths[number][-1]
        seen = packed.sees[row, 0, last].nonzero().flatten()
        assert packed.input_ids[row, seen].tolist() == expanded(line)
        assert packed.position_ids[row, seen].tolist() == list(range(len(seen)))


@settings(max_examples=100)
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


@settings(max_examples=100)
@given(LINES, st.integers(1, 40))
def test_no_row_is_wider_than_the_budget_or_one_group(lines, budget):
    groups = {}
    for line in lines:
        groups.setdefault(line.digest or line.prompt, []).append(line)
    sizes = [len(lay_out(group).tokens) for group in groups.values()]
    assert pack(lines, budget=budget, pad=99).input_ids.shape[1] <= max(budget, *sizes)


def test_rows_are_of_like_length():
    """Ten pictures of 600 to 690 tokens and ten short texts."""
    lines = [Line((Image(f"{k}", (7,) * (600 + 10 * k)), 1), (2,)) for k in range(10)]
    lines += [Line(tuple(range(k, k + 50)), (2,)) for k in range(10)]
    for budget in (1000, 4096, 100_000):
        packed = pack(lines, budget=budget, pad=0)
        tokens = sum(len(expanded(line)) for line in lines)
        assert packed.input_ids.numel() < 1.05 * tokens


def test_a_common_beginning_is_worth_a_row_that_is_longer():
    instruction = tuple(range(60))
    lines = [Line((*instruction, 100 + k, 200), (3,)) for k in range(6)]
    assert pack(lines, budget=100, pad=0).input_ids.shape == (1, 60 + 6 * 3)
    assert pack(lines, budget=70, pad=0).input_ids.shape == (2, 60 + 3 * 3)


def test_what_is_tried_behind_one_prompt_shares_a_row():
    lines = [Line((k, k + 1, k + 2), (letter,)) for k in (10, 20, 30) for letter in range(4)]
    packed = pack(lines, budget=8, pad=0)
    assert packed.rows[0::4] == packed.rows[1::4] == packed.rows[2::4] == packed.rows[3::4]
    assert packed.input_ids.shape == (3, 7)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt"):
        pack([Line((), (1,))], budget=4, pad=0)


# --- against the plain backend


def backends(made, *, budget=64):
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


@settings(max_examples=25)
@given(st.lists(st.sampled_from(range(len(BATCH))), min_size=1, max_size=9), st.integers(8, 200))
def test_answers_are_those_of_the_plain_backend(made, chosen, budget):
    examples = [BATCH[index] for index in chosen]
    with torch.no_grad():
        plain, packed = (
            backend.answer_log_probs(examples, tokens="with_end")
            for backend in backends(made, budget=budget)
        )
    assert torch.equal(plain.mask, packed.mask)
    assert torch.equal(plain.labels[plain.mask], packed.labels[packed.mask])
    assert_close(packed.log_probs[packed.mask], plain.log_probs[plain.mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("scope", ["projector", "llm", "projector+llm", "vision", "all"])
@pytest.mark.parametrize("name", costly(LOSSES))
def test_losses_and_gradients_of_every_method_and_scope_agree(name, scope, attention):
    found = []
    for packing in (False, True):
        made = tiny.prepared(scope)
        tiny.randomise(made.model, seed=5)
        made.model.get_base_model().set_attn_implementation(attention)
        backend = backends(made)[packing]
        assert packing is False or backend.memory.usable == (scope not in ("vision", "all"))
        chosen = {"npo": {"retain_weight": 1.0}, "rmu": {"layer": -1}, **OTHER_FORMS}
        method = build_method(name, chosen.get(name, {}))
        references, variants = References(made, backend), variants_of(BATCH)
        objective = Unlearning(backend, method, "with_end", references, 0, variants)
        # An alternative is another option, which answers in other words do not have.
        lettered = [example for example in BATCH if example.answer in tiny.LETTERS]
        forget = lettered if method.needs.alternative or method.needs.options else BATCH
        data = StepData(tuple(forget), tuple(reversed(BATCH[:7])))
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
        predict(backend, BATCH, batch_size=5, max_new_tokens=4, on_batch=lambda done, total: None)
        for backend in backends(made)
    )
    assert [(one.text, one.cut_off) for one in packed] == [(p.text, p.cut_off) for p in plain]
    for one, other in zip(packed, plain, strict=True):
        assert one.option_log_probs == pytest.approx(other.option_log_probs, abs=1e-5)
    assert len({greedy_accuracy(backend, BATCH, batch_size=4) for backend in backends(made)}) == 1


def test_what_is_too_much_for_one_pass_is_asked_in_several(made, monkeypatch):
    backend = backends(made)[1]
    whole = backend.generate(BATCH, max_new_tokens=4)
    sizes, real = [], Packed._log_probs

    def counting(self, packed, *args, **kwargs):
        sizes.append(packed.input_ids.numel())
        return real(self, packed, *args, **kwargs)

    monkeypatch.setattr(packed_module, "PASS_TOKENS", 150)
    monkeypatch.setattr(Packed, "_log_probs", counting)
    parts = backend.generate(BATCH, max_new_tokens=4)
    assert len(sizes) > 2
    assert max(sizes) <= 150
    assert [one.text for one in parts] == [one.text for one in whole]
    for one, other in zip(parts, whole, strict=True):
        assert_close(one.chances.log_probs, other.chances.log_probs, atol=1e-5, rtol=1e-5)


# --- options answered in words

TEXTS = ("black", "black hair", "black hair . judge nurse", "judge")
"""Each but the last begins the next one."""
WORDS = [
    *(
        replace(tiny.in_words(k, TEXTS, true=k % 4, words=k, shown=True), picture=FACE)
        for k in (0, 1, 2)
    ),
    tiny.in_words(3, TEXTS[::-1], words=9),
    tiny.in_words(3, (*TEXTS[1:], TEXTS[0]), words=9),
    tiny.in_words(4, ("Lara Hayes .", "pilot"), true=1, shown=True),
]


def apart(model, example, text):
    """The log-probabilities of a text and of its end, from one plain forward of one sequence."""
    (found,) = tiny.log_probs(model, [replace(example, answer=text)])
    encoder = tiny.encoder()
    tokens = encoder.tokenizer.convert_tokens_to_ids([*text.split(), tiny.END])
    *words, end = found[range(len(tokens)), tokens].double().tolist()
    return sum(words), end, len(words)


def test_options_in_words_are_those_of_plain_sequences_whichever_reader(made):
    batch = [*WORDS, *BATCH[:4]]
    asked = {"batch_size": 5, "max_new_tokens": 4, "on_batch": lambda done, total: None}
    plain, packed = (predict(backend, batch, **asked) for backend in backends(made))
    assert [(one.text, one.cut_off) for one in packed] == [(p.text, p.cut_off) for p in plain]
    for one, other, example in zip(packed, plain, batch, strict=True):
        assert one.option_log_probs == pytest.approx(other.option_log_probs, abs=1e-4)
        if example.option_texts:
            expected = [apart(made.model, example, text) for text in example.option_texts]
            sums, ends, tokens = (list(part) for part in zip(*expected, strict=True))
            for found in (one, other):
                assert found.option_log_probs == pytest.approx(sums, abs=1e-4)
                assert found.end_log_probs == pytest.approx(ends, abs=1e-4)
                assert list(found.option_tokens) == tokens
            assert one.answer == example.letter
            assert len(set(one.option_log_probs)) == len(TEXTS[: len(example.option_texts)])
        else:
            assert (one.end_log_probs, one.option_tokens) == ((), ())


def test_rotated_accuracy_is_that_of_the_stored_answers(made):
    """The stop rule's reading and the report's are the same, whichever backend asks."""
    turned = [
        replace(
            one,
            example_id=f"{one.example_id}/{turn}",
            prompt=f"{one.prompt} {' '.join(option.text for option in shown)}",
            rotation=turn,
            options=shown,
            answer=letter,
        )
        for one in BATCH[:4]
        for turn in range(len(one.options))
        for shown, letter in [in_turn(one, turn)]
    ]
    found = {rotated_accuracy(backend, turned, batch_size=5) for backend in backends(made)}
    asked = {"batch_size": 5, "max_new_tokens": 1, "on_batch": lambda done, total: None}
    predictions = predict(backends(made)[0], turned, **asked)
    scores = by_question(predictions, score_all(predictions))
    assert len(scores) == len({one.question_id for one in turned})
    expected = sum(score.rotated for score in scores) / len(scores)
    assert list(found) == [pytest.approx(expected)] * len(found)


def in_turn(one, turn):
    """An example's options moved up by `turn` places, and the letter of the true one then."""
    texts = [option.text for option in one.options]
    texts = [*texts[turn:], *texts[:turn]]
    truth = next(option.text for option in one.options if option.letter == one.answer)
    shown = tuple(replace(o, text=text) for o, text in zip(one.options, texts, strict=True))
    return shown, shown[texts.index(truth)].letter


def test_what_is_likeliest_is_the_same_in_training_and_in_scoring(made):
    batch = [*WORDS, *BATCH[:4]]
    found = {likelihood_accuracy(backend, batch, batch_size=3) for backend in backends(made)}
    asked = {"batch_size": 5, "max_new_tokens": 1, "on_batch": lambda done, total: None}
    read = score_all(predict(backends(made)[0], batch, **asked), parser="likelihood")
    assert found == {sum(one.verdict == "correct" for one in read) / len(batch)}
    assert 0 < found.pop() < 1


def saying(text, examples):
    """A model trained for a moment to say one thing, whatever is asked."""
    trained = tiny.prepared("llm")
    objective = tiny.learning(trained, tiny.encoder())
    data = StepData((), tuple(replace(one, answer=text) for one in examples))
    of_adapter = [tensor for tensor in trained.model.parameters() if tensor.requires_grad]
    optimiser = torch.optim.AdamW(of_adapter, lr=3e-2)
    for _ in range(30):
        optimiser.zero_grad()
        objective.terms(data)[0].values.mean().backward()
        optimiser.step()
    return trained.model.eval()


@pytest.mark.parametrize("spoken", [*TEXTS[:3], "nurse black"])
def test_a_text_said_in_full_is_read_off_its_branch(monkeypatch, spoken):
    """A model that says one thing: an option, one that begins another, one that is cut, or none."""
    batch = [tiny.in_words(k, TEXTS, words=k) for k in (0, 3)]
    model = saying(spoken, batch)
    asked = {"batch_size": 2, "max_new_tokens": 4, "on_batch": lambda done, total: None}
    continued = []
    real = Packed._continue

    def counting(self, cache, starts, first, max_new_tokens):
        continued.extend(starts)
        return real(self, cache, starts, first, max_new_tokens)

    monkeypatch.setattr(Packed, "_continue", counting)
    encoder = tiny.encoder()
    plain, packed = Plain(model, encoder), Packed(model, encoder, budget=64)
    for backend in (plain, packed):
        cut = " ".join(spoken.split()[:4])
        said = predict(backend, batch, **asked)
        assert {one.text for one in said} == {cut}
        assert {one.cut_off for one in said} == {len(spoken.split()) >= 4}
    assert len(continued) == (0 if spoken in TEXTS[:2] else 2)


# --- what is paid for once


def test_the_tower_runs_once_a_picture(made):
    backend = backends(made)[1]
    for _ in range(2):
        with torch.no_grad():
            backend.answer_log_probs(BATCH, tokens="with_end")
    pictures = {example.picture.digest for example in BATCH if example.picture}
    assert backend.memory.computed == len(pictures)


def test_the_reference_is_asked_once_an_example_whatever_the_batch(made):
    backend = backends(made)[1]
    references, plain = References(made, backend), backends(made)[0]
    tokens = "with_end"
    for part in (BATCH[:4], BATCH[2:6], [BATCH[5], *BATCH[:2]], BATCH[:6]):
        current = backend.answer_log_probs(part, tokens=tokens)
        seen = references.view(part, current, extent="answer", tokens=tokens)
        with reference_view(made):
            expected = plain.answer_log_probs(part, tokens=tokens)
        picked = expected.log_probs.gather(-1, expected.labels.unsqueeze(-1))
        assert seen.log_probs.shape == picked.shape
        assert_close(seen.log_probs[seen.mask], picked[expected.mask], atol=1e-5, rtol=1e-5)
    assert references.asked == 5  # the sixth is the first under another name
    whole = references.view(part, current, extent="distribution", tokens=tokens)
    assert references.asked == 10
    assert_close(
        whole.log_probs[whole.mask], expected.log_probs[expected.mask], atol=1e-5, rtol=1e-5
    )


def test_what_is_kept_comes_to_where_the_head_is(made):
    """A resumed model over several devices: kept on one, seen on another (here the meta device)."""
    backend, tokens = backends(made)[1], "with_end"
    references, current = (
        References(made, backend),
        backend.answer_log_probs(BATCH[:3], tokens=tokens),
    )
    references.view(BATCH[:3], current, extent="answer", tokens=tokens)
    elsewhere = replace(current, log_probs=current.log_probs.to("meta"))
    seen = references.view(BATCH[:3], elsewhere, extent="answer", tokens=tokens)
    assert (seen.log_probs.device.type, references.asked) == ("meta", 3)


def test_what_does_not_come_again_is_not_kept_and_memory_is_bounded(made, monkeypatch):
    steps = [StepData(tuple(BATCH[:3]), (BATCH[6],)), StepData(tuple(BATCH[2:4]), (BATCH[6],))]
    again = recurring(steps)
    assert again == {fingerprint(BATCH[2]), fingerprint(BATCH[6])}
    backend = backends(made)[1]
    for limit, kept in ((references_module.KEPT_BYTES, 1), (0, 0)):
        monkeypatch.setattr(references_module, "KEPT_BYTES", limit)
        references = References(made, backend, again)
        for data in steps:
            current = backend.answer_log_probs(data.forget, tokens="text")
            references.view(data.forget, current, extent="answer", tokens="text")
        assert (len(references.kept), references.asked) == (kept, 5 - kept)


def test_a_system_sentence_makes_another_example_to_the_reference():
    one = BATCH[0]
    said = replace(one, system="Be brief.")
    assert len({fingerprint(one), fingerprint(said), fingerprint(replace(one, system="."))}) == 3
    # As checkpoints of before have it.
    plain = "\0".join((one.prompt, one.answer, one.picture.digest))
    assert fingerprint(one) == sha256(plain.encode()).hexdigest()
    steps = [StepData((one,), ()), StepData((said,), ())]
    assert recurring(steps) == frozenset()


def test_readers_of_one_run_share_features_while_the_tower_is_the_same(made):
    features, batch = Features(), alike(3)
    first, other = (
        Packed(model, tiny.encoder(), budget=64, features=features)
        for model in (made.model, tiny.prepared("llm").model)  # another adapter, the same tower
    )
    expected = first.answer_log_probs(batch, tokens="with_end").log_probs
    other.answer_log_probs(batch, tokens="with_end")
    assert (first.memory.computed, other.memory.computed) == (1, 0)
    again = Packed(made.model, tiny.encoder(), budget=64, features=features)
    assert torch.equal(again.answer_log_probs(batch, tokens="with_end").log_probs, expected)
    changed = tiny.base(seed=9)
    backend = Packed(changed, tiny.encoder(), budget=64, features=features)
    own = Packed(changed, tiny.encoder(), budget=64)
    view = backend.answer_log_probs(batch, tokens="with_end")
    assert backend.memory.computed == 1
    assert torch.equal(view.log_probs, own.answer_log_probs(batch, tokens="with_end").log_probs)


def test_a_tower_whose_weights_are_elsewhere_shares_nothing():
    with torch.device("meta"):
        tower = torch.nn.Linear(2, 2).requires_grad_(False)
    features = Features()
    features["", "a picture"] = BaseModelOutput(last_hidden_state=torch.zeros(1))
    memory = features_module.TowerMemory(tower, features=features)
    assert memory.missing(["a picture"]) == ["a picture"]


def test_features_are_forgotten_when_they_are_too_many_and_seen_again(made, monkeypatch):
    backend = backends(made)[1]
    expected = backend.answer_log_probs(BATCH, tokens="with_end").log_probs
    pictures = backend.memory.computed
    monkeypatch.setattr(features_module, "KEPT_BYTES", 2500)  # two pictures' 17 states of 16
    small = backends(made)[1]
    for _ in range(2):
        assert torch.equal(small.answer_log_probs(BATCH, tokens="with_end").log_probs, expected)
    assert pictures < small.memory.computed <= 2 * pictures


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        ((), ["last", 0, 1, 2]),  # a family that reads none of them
        ((-2,), [1]),
        ((-1,), ["last", 2]),
        ((0, 1), [0, 1]),
    ],
)
def test_only_the_hidden_states_a_family_reads_are_kept(layers, kept):
    states = tuple(torch.full((1, 2), float(n)) for n in range(3))
    whole = BaseModelOutput(last_hidden_state=states[2], hidden_states=states)
    found = features_module._selected(whole, layers)
    names = ["last"] if found.last_hidden_state is not None else []
    names += [n for n, state in enumerate(found.hidden_states) if state is not None]
    assert names == kept


# --- the choice


def choice(model, *, packing="auto", examples=BATCH):
    warnings: list[str] = []
    speed = SpeedSettings(packing=packing)
    backend = select_backend(
        model, tiny.encoder(), speed=speed, examples=examples, warn=warnings.append
    )
    return backend, warnings


def test_a_model_that_passes_the_trial_is_packed(made):
    backend, warnings = choice(made.model)
    assert isinstance(backend, Packed)
    assert not warnings
    assert isinstance(choice(made.model, packing="off")[0], Plain)


def test_a_model_that_disagrees_is_read_plainly_and_says_so(made, monkeypatch):
    monkeypatch.setattr(
        Plain, "answer_log_probs", lambda self, examples, tokens: _shifted(self, examples)
    )
    backend, warnings = choice(made.model)
    assert isinstance(backend, Plain)
    assert "differ" in warnings[0]


def _shifted(backend, examples):
    view = Packed(backend.model, backend.encoder, budget=64).answer_log_probs(
        examples, tokens="with_end"
    )
    return replace(view, log_probs=view.log_probs - 1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"sliding_window": 16},
        {"_attn_implementation": "flash_attention_2"},
        {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
    ],
)
def test_what_cannot_be_packed_is_named(change):
    config, family = tiny.config(), FAMILIES.get("llava")
    auto = SpeedSettings(packing="auto")
    assert packing_obstacle(config, family, auto) == ""
    for key, value in change.items():
        setattr(config.text_config, key, value)
    assert packing_obstacle(config, family, auto)
