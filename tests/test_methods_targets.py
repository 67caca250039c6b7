"""Flat options, levelled letters, a dual variable, decoupled prompts: by hand, and on models."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch

import tiny_models as tiny
from method_cases import variants_of
from pulse_unlearn.config import (
    LoraSettings,
    ModelSettings,
    OptimiserSettings,
    StopSettings,
    load_experiment,
)
from pulse_unlearn.data.datasets import load_people
from pulse_unlearn.data.examples import circular, in_words, training
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.errors import ConfigError, DataError, Interrupted
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.evaluation.scoring import by_question, score
from pulse_unlearn.methods import AnswerView, Needs, OptionView, Views, build_method, losses
from pulse_unlearn.methods.composed import together
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain, joined, read_options
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.registries import schemas
from pulse_unlearn.training.objectives import Unlearning
from pulse_unlearn.training.options import letter_options, letters_of, word_options
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData, UnlearnSteps
from test_training_session import model_of, plan, session_of, settings_of

LORA = LoraSettings(rank=2)
TEXTS = (("baker", "judge", "senior judge", "nurse"), ("Oslo", "New York", "Rome", "Lima"))


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder()


def options(*probabilities, mask=None):
    """Options of one question, a row a form; probabilities need not add up to 1."""
    said = torch.tensor([probabilities], dtype=torch.float64).log()
    held = torch.ones_like(said, dtype=torch.bool) if mask is None else torch.tensor([mask])
    return OptionView(said.masked_fill(~held, 0.0), held)


def gradient(value, given):
    return torch.autograd.grad(value.sum(), given)[0]


# --- flat options, by hand


def test_flatness_is_the_divergence_of_what_is_left_among_the_options():
    # (1/2, 1/4, 1/4) of a mass of 0.4: KL(uniform || p) = ln(1/3) - (ln 1/2 + 2 ln 1/4) / 3.
    value = losses.flatness(options([0.2, 0.1, 0.1]))
    assert value.item() == pytest.approx(5 / 3 * math.log(2) - math.log(3))
    assert losses.flatness(options([0.1, 0.1, 0.1])).item() == pytest.approx(0, abs=1e-12)


def test_flatness_pulls_with_the_difference_from_uniform():
    said = torch.tensor([[[0.3, -1.0, 2.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[[True, True, True, False]]])
    found = gradient(losses.flatness(OptionView(said, mask)), said)
    expected = torch.zeros_like(said)
    expected[..., :3] = said[..., :3].softmax(-1) - 1 / 3
    torch.testing.assert_close(found, expected.detach())


def test_a_preferred_letter_is_not_in_the_average_and_a_preferred_option_is():
    # Columns are options, so a letter that is said whatever stands there moves along the rows.
    letter = options(*([0.7 if (o + r) % 4 == 0 else 0.1 for o in range(4)] for r in range(4)))
    option = options(*([0.7, 0.1, 0.1, 0.1] for _ in range(4)))
    sharp = -math.log(4) - (math.log(0.7) + 3 * math.log(0.1)) / 4
    for view, average in ((letter, 0.0), (option, sharp)):
        assert losses.flatness(view).tolist()[0] == pytest.approx([sharp] * 4)
        assert losses.flatness_of_average(view).item() == pytest.approx(average, abs=1e-12)


def test_the_average_is_flatter_than_its_orders_by_jensen():
    generator = torch.Generator().manual_seed(0)
    said = torch.randn(50, 4, 4, generator=generator).double()
    view = OptionView(said, torch.ones_like(said, dtype=torch.bool))
    assert (losses.flatness_of_average(view) <= losses.flatness(view).mean(-1) + 1e-12).all()


def test_forms_that_were_not_asked_and_options_that_are_not_there_count_nothing():
    some = [[True, True, False], [True, True, False], [False] * 3]
    view = options([0.6, 0.2, 0.9], [0.5, 0.5, 0.9], [0.1, 0.1, 0.1], mask=some)
    two = options([0.6, 0.2], [0.5, 0.5])
    assert losses.flatness(view).tolist()[0] == pytest.approx(
        [*losses.flatness(two)[0].tolist(), 0.0]
    )
    torch.testing.assert_close(losses.flatness_of_average(view), losses.flatness_of_average(two))
    said = torch.full((1, 2, 3), 1e4, dtype=torch.float64, requires_grad=True)
    nothing = OptionView(said, torch.zeros(1, 2, 3, dtype=torch.bool))
    value = losses.flatness(nothing).sum() + losses.flatness_of_average(nothing).sum()
    assert value.item() == 0.0
    assert not gradient(value, said).any()


# --- what can still be read, on a model whose parts are known


class Believer:
    """Says letters by a belief in each option and a liking for each letter; words by another.

    The true option is the first one of the file, and the model is sure of it. What is shown in one
    order is flat where belief and liking cancel out; in all orders only where both are 0.
    """

    def __init__(self, questions=40):
        generator = torch.Generator().manual_seed(0)
        self.belief = torch.zeros(questions, 4, dtype=torch.float64)
        self.belief[:, 0] = 6.0
        self.words = self.belief.clone()
        # Of each question its own, as a model that sees the whole prompt may have it.
        self.liking = torch.randn(questions, 4, generator=generator).double()
        self.order = torch.randint(4, (questions,), generator=generator)
        self.parts = (self.belief, self.words, self.liking)
        for part in self.parts:
            part.requires_grad_()

    def letters(self, turns):
        """Options in the orders that turn the file's by its own and so many places more."""
        turned = self.order.view(-1, 1, 1) + torch.arange(turns).view(1, -1, 1)
        places = (torch.arange(4) - turned) % 4
        liked = self.liking.unsqueeze(1).expand(-1, turns, -1).gather(-1, places)
        return (self.belief.unsqueeze(1) + liked).log_softmax(-1)

    def views(self, turns):
        said, words = self.letters(turns), self.words.unsqueeze(1).log_softmax(-1)
        return Views(
            answer([[0.5, 0.5]]),
            options=OptionView(said, torch.ones_like(said, dtype=torch.bool)),
            option_words=OptionView(words, torch.ones_like(words, dtype=torch.bool)),
        )

    def unlearn(self, **settings):
        method = build_method("df_mcq", {"retain_weight": 0.0, **settings})
        optimiser = torch.optim.Adam(self.parts, lr=0.1)
        for _ in range(250):
            optimiser.zero_grad()
            views = self.views(4 if method.orders == "all" else 1)
            sum(term.weight * term.values.mean() for term in method.terms(views)).backward()
            optimiser.step()
        return self

    def read(self):
        """The true option's probability by each reading, and the least of the first over orders."""
        with torch.no_grad():
            every = self.letters(4)
            shown = {
                "one order": every[:, 0].exp()[:, 0],
                "other orders": every[:, 1:].exp()[:, :, 0].max(-1).values,
                "rotated": every.mean(1).log_softmax(-1).exp()[:, 0],
                "words": self.words.softmax(-1)[:, 0],
            }
            return {reading: float(of.mean()) for reading, of in shown.items()}


def test_flat_in_every_order_and_in_words_nothing_is_left_to_read():
    sure = Believer().read()
    assert min(sure.values()) > 0.9
    assert Believer().unlearn().read() == pytest.approx(dict.fromkeys(sure, 0.25), abs=0.01)


def test_flat_in_one_order_alone_the_truth_is_read_from_the_others_and_in_words():
    found = Believer().unlearn(orders="one", words_weight=0.0).read()
    assert found["one order"] == pytest.approx(0.25, abs=0.01)
    assert found["other orders"] > 0.6
    assert found["rotated"] > 0.6
    assert found["words"] > 0.9


# --- levelled letters and squared peaks, by hand


def answer(rows, *, mask=None):
    said = torch.tensor([rows], dtype=torch.float64).log()
    shown = torch.ones(1, len(rows), dtype=torch.bool) if mask is None else torch.tensor([mask])
    return AnswerView(said, torch.zeros(1, len(rows), dtype=torch.long), shown)


def test_levelled_letters_share_their_mass_where_the_answer_begins_and_nowhere_else():
    reference = answer([[0.5, 0.25, 0.25], [0.6, 0.2, 0.2], [0.1, 0.8, 0.1]], mask=[0, 1, 1])
    reference = AnswerView(reference.log_probs, reference.labels, reference.mask.bool())
    letters = torch.tensor([[True, True, False]])
    target = answer([[0.2, 0.2, 0.6], [0.4, 0.4, 0.2], [0.1, 0.8, 0.1]])
    there = AnswerView(target.log_probs, reference.labels, reference.mask)
    assert losses.levelled_kl(there, reference, letters).item() == pytest.approx(0, abs=1e-12)
    # At the reference itself: 0.8 ln(0.4) - 0.4 (ln 0.6 + ln 0.2), over two tokens.
    here = losses.levelled_kl(reference, reference, letters).item()
    expected = 0.8 * math.log(0.4) - 0.4 * (math.log(0.6) + math.log(0.2))
    assert here == pytest.approx(expected / 2)


def test_levelled_letters_pull_to_the_target():
    logits = torch.tensor([[[1.0, -0.5, 0.2, 0.0]]], dtype=torch.float64, requires_grad=True)
    view = AnswerView(
        logits.log_softmax(-1), torch.zeros(1, 1, dtype=torch.long), torch.tensor([[True]])
    )
    reference = answer([[0.5, 0.1, 0.3, 0.1]])
    letters = torch.tensor([[True, False, True, False]])
    found = gradient(losses.levelled_kl(view, reference, letters), logits)
    expected = logits.softmax(-1) - torch.tensor([0.4, 0.1, 0.4, 0.1])
    torch.testing.assert_close(found, expected.detach())


def test_the_squared_peak_is_that_of_logits_and_rests_where_they_are_flat():
    logits = torch.tensor([[[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]]], dtype=torch.float64)
    logits.requires_grad_()
    mask = torch.ones(1, 2, dtype=torch.bool)
    view = AnswerView(logits.log_softmax(-1), torch.zeros(1, 2, dtype=torch.long), mask)
    value = losses.peak_squared(view)
    assert value.item() == pytest.approx((3 - 1) ** 2 / 2)
    found = gradient(value, logits)
    # 2 (max - mean) (one-hot of the peak - 1 / V) / tokens.
    torch.testing.assert_close(found[0, 0], torch.tensor([4 / 3, -2 / 3, -2 / 3]).double())
    assert not found[0, 1].any()


# --- the dual variable


def rows(*retain, skipped=()):
    return [{"retain_nll": nll, "skipped": n in skipped} for n, nll in enumerate(retain)]


def test_the_dual_variable_by_hand():
    one = build_method("pdu", {"retain_eps": 0.5, "dual_step": 2.0, "dual_start": 1.0})
    path = [one.weights(rows(0.5, 0.75, 0.0, 0.0, 1.0)[:n])["retain_nll"] for n in range(6)]
    # Steps of 2 (nll - 0.5) from 1, never below 0: 0, +0.5, -1, -1 (to 0), +1.
    assert path == [1.0, 1.0, 1.5, 0.5, 0.0, 1.0]
    warm = build_method("pdu", {**one.model_dump(), "warmup_steps": 2})
    assert warm.weights(rows(9.0, 9.0)) == {"retain_nll": 1.0}
    assert warm.weights(rows(9.0, 9.0, 1.0)) == {"retain_nll": 2.0}


def test_without_a_bound_it_is_what_the_first_batch_had():
    one = build_method("pdu", {})
    assert one.weights(rows(0.25)) == {"retain_nll": 1.0}
    assert one.weights(rows(0.25, 0.75)) == {"retain_nll": 1.5}
    assert one.weights(rows(None, 0.25, 0.75, skipped={0})) == {"retain_nll": 1.5}
    assert one.weights(rows(0.25, 0.75, 0.75, skipped={1})) == {"retain_nll": 1.5}
    assert one.weights([]) == {"retain_nll": 1.0}


class Seen:
    """PDU that notes the weight of each step."""

    def __init__(self, settings):
        self.method, self.duals = build_method("pdu", settings), []
        self.needs = self.method.needs

    def terms(self, views):
        return self.method.terms(views)

    def run(self, session):
        def weights(told):
            found = self.method.weights(told)
            self.duals.append(found["retain_nll"])
            return found

        session.train(self, term_weights=weights)


def test_the_dual_follows_the_logged_retain_loss_and_a_resumed_run_goes_on_with_it(
    encoder, tmp_path
):
    chosen = {"retain_eps": 1.0, "dual_step": 0.5, "warmup_steps": 1}
    whole = Seen(chosen)
    session = session_of(tmp_path / "whole", encoder, settings_of())
    outcome = session.apply(whole)
    expected = [1.0, 1.0]
    for row in outcome.rows[1:-1]:
        expected.append(max(0.0, expected[-1] + 0.5 * (row["retain_nll"] - 1.0)))
    assert whole.duals == expected
    assert expected[-1] > 1.1
    with pytest.raises(Interrupted):
        session_of(tmp_path / "cut", encoder, settings_of(), stop_at=2).apply(Seen(chosen))
    after = Seen(chosen)
    again = session_of(tmp_path / "cut", encoder, settings_of())
    again.apply(after)
    assert after.duals == whole.duals[2:]
    assert all(torch.equal(again.current[n], session.current[n]) for n in session.current)


def test_the_dual_weighs_the_gradient(encoder, tmp_path):
    """Of two runs with the same first step the one whose constraint is broken keeps more."""
    ended = {}
    for bound in (0.0, 100.0):
        chosen = {"retain_eps": bound, "dual_step": 5.0, "forget_weight": 0.05}
        session = session_of(tmp_path / f"{bound}", encoder, settings_of(lora=LORA))
        ended[bound] = session.apply(build_method("pdu", chosen)).rows
    assert ended[0.0][0]["grad_norm"] == ended[100.0][0]["grad_norm"]
    assert ended[0.0][-1]["retain_nll"] < ended[100.0][-1]["retain_nll"]


# --- what the loop provides


@pytest.mark.parametrize("packed", [False, True])
def test_options_are_those_that_scoring_reads_in_the_order_of_the_example(packed, encoder):
    made = model_of(settings_of())
    tiny.randomise(made.model, seed=2)
    made.model.eval()
    backend = Packed(made.model, encoder, budget=64) if packed else Plain(made.model, encoder)
    examples = [*tiny.letters(3), tiny.example(9, answer="B", options=3)]
    of = variants_of(examples)
    turned = [of.turned(example) for example in examples]
    bare = [*(of.bare(example) for example in examples[:3]), None]
    own = backend.answer_log_probs(examples, tokens="with_end")
    letters, words = letter_options(backend, own, turned), word_options(backend, bare, own)
    assert letters.log_probs.shape == (4, 4, 4)
    assert letters.log_probs.requires_grad
    assert words.mask.sum(-1).tolist() == [[4], [4], [4], [0]]
    with torch.no_grad():
        for number, orders in enumerate(turned):
            for form, (shown, order) in enumerate(orders):
                (read,) = read_options(backend, [shown])
                expected = [read.log_probs[order.index(place)] for place in range(len(order))]
                found = letters.log_probs[number, form][letters.mask[number, form]]
                assert found.tolist() == pytest.approx(expected, abs=1e-4)
            assert letters.mask[number].any(-1).sum() == len(orders)
        for number, one in enumerate(bare[:3]):
            told = [replace(one, answer=text) for text in one.option_texts]
            expected = joined(read_options(backend, told)).log_probs
            assert words.log_probs[number, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_letters_are_marked_in_the_vocabulary(encoder):
    made = model_of(settings_of())
    backend = Plain(made.model, encoder)
    examples = [tiny.example(0), tiny.example(1, options=2)]
    with torch.no_grad():
        own = backend.answer_log_probs(examples, tokens="text")
    letters = letters_of(backend, examples, own)
    assert letters.sum(-1).tolist() == [4, 2]
    for row, example in zip(letters, examples, strict=True):
        assert row.nonzero().flatten().tolist() == sorted(encoder.letter_ids(example))


def test_texts_are_the_options_where_the_prompt_shows_none(encoder):
    made = model_of(settings_of())
    examples = [tiny.in_words(n, texts) for n, texts in enumerate(TEXTS)]
    objective = tiny.unlearning(made, encoder, build_method("df_mcq", {"retain_weight": 0.0}))
    made.model.eval()
    terms = {t.name: t.values for t in objective.terms(StepData(tuple(examples), ()))}
    with torch.no_grad():
        for number, one in enumerate(examples):
            told = [replace(one, answer=text) for text in one.option_texts]
            said = torch.tensor(joined(read_options(objective.backend, told)).log_probs)
            flat = losses.flatness(OptionView(said.view(1, 1, 4), torch.ones(1, 1, 4).bool()))
            assert terms["flat_letters"][number].item() == pytest.approx(flat.item(), abs=1e-4)
    assert not terms["flat_words"].any()  # they are asked bare already, and count once
    levelled = tiny.unlearning(made, encoder, build_method("levelled", {}))
    with pytest.raises(DataError, match="no letters to be levelled"):
        levelled.terms(StepData(tuple(examples), tuple(examples)))


def test_decoupled_questions_are_learned_at_their_weight(encoder):
    made = model_of(settings_of(lora=LORA))
    examples = tiny.letters(3)
    method = build_method("safe_eraser", {"loss": {"method": "ga"}, "pd_weight": 0.25})
    objective = tiny.unlearning(made, encoder, method)
    made.model.eval()
    with torch.no_grad():
        ascent, decoupled, _ = objective.terms(StepData(tuple(examples), ()))
        others = [tiny.variants().decoupled(one) for one in examples]
        view = objective.backend.answer_log_probs(others, tokens="with_end")
    assert (ascent.name, decoupled.name, decoupled.weight) == ("ascent", "decoupled_nll", 0.25)
    torch.testing.assert_close(decoupled.values, losses.mean_nll(view))


def test_decoupling_twice_keeps_both_terms_apart():
    inner = {"method": "safe_eraser", "settings": {"loss": {"method": "ga"}}}
    names = [
        term.name
        for term in build_method("safe_eraser", {"loss": inner}).terms(
            Views(answer([[0.5, 0.5]]), decoupled=answer([[0.5, 0.5]]))
        )
    ]
    assert names == ["ascent", "decoupled_nll", "decoupled_nll_2"]


def test_needs_of_options_add_up_and_different_orders_are_refused():
    wanted = [Needs(options="all"), Needs(option_words=True, letters=True), Needs(decoupled=True)]
    assert together(wanted) == Needs(options="all", option_words=True, letters=True, decoupled=True)
    with pytest.raises(ValueError, match="orders"):
        together([Needs(options="all"), Needs(options="one")])


def test_settings_that_leave_a_method_without_its_data_are_told_before_a_run():
    alone = "method: safe_eraser, settings: {loss: {method: ga}}, unlearn"
    chosen = [
        "methods.flat={method: df_mcq, unlearn: {forms: both}}",
        "methods.level={method: levelled, unlearn: {forms: short_answer}}",
        *(f"methods.{kind}={{{alone}: {{retain: {kind}}}}}" for kind in ("none", "general")),
    ]
    with pytest.raises(ConfigError) as error:
        read_inputs(load_experiment("smoke", overrides=chosen, schemas=schemas()))
    assert [(one.where, one.got) for one in error.value.problems] == [
        ("methods.flat.unlearn.forms", "both"),
        ("methods.level.unlearn.forms", "short_answer"),
        ("methods.none.unlearn.retain", "none"),
        ("methods.general.unlearn.retain", "general"),
    ]


# --- one loss in six forms


@pytest.mark.parametrize("direction", ["reference_to_current", "current_to_reference"])
@pytest.mark.parametrize("data", ["d_retain", "general", "forget"])
def test_ga_klr_penalises_on_three_kinds_of_data_in_two_directions(data, direction, encoder):
    """`d_retain` as in other tests; `general` has no people; `forget` needs no retain batch."""
    made = model_of(settings_of(lora=LORA))
    tiny.randomise(made.model, seed=2)
    made.model.eval()
    chosen = {"direction": direction, "weight": 0.5}
    method = build_method("ga_klr", chosen | ({"data": "forget_batch"} if data == "forget" else {}))
    shown = {
        "d_retain": plan(1, share=0.0)[0],
        "general": plan(1, people=False, share=1.0)[0],
        "forget": plan(1, people=False, share=0.0)[0],
    }[data]
    ids = {example.question_id for example in shown.retain}
    assert ids <= {f"q{n}" for n in range(200, 204)} if data == "general" else True
    assert bool(ids) == (data != "forget") == method.needs.retain
    backend = Plain(made.model, encoder)
    objective = Unlearning(backend, method, "with_end", References(made, backend), seed=0)
    kl = next(term for term in objective.terms(shown) if term.weight == 0.5)
    penalised = shown.forget if data == "forget" else shown.retain
    assert (kl.over, kl.weight) == ("forget" if data == "forget" else "retain", 0.5)
    current = tiny.log_probs(made.model, penalised)
    frozen = tiny.log_probs(tiny.base(), penalised)
    for value, p, q in zip(kl.values, current, frozen, strict=True):
        first, second = (q, p) if direction == "reference_to_current" else (p, q)
        expected = (first.exp() * (first - second)).sum(-1).mean()
        torch.testing.assert_close(value.detach(), expected, atol=1e-4, rtol=1e-3)


# --- on the embedded model, which knows its celebrities


@pytest.mark.slow  # trains and reads the embedded model, 90 seconds of a core
def test_people_who_were_known_are_read_by_no_reading_and_others_are(encoder, tmp_path):
    loaded = load_model(ModelSettings(device="cpu"))
    known = [one for one in load_people("world").individuals if one.group == "celebrity"]
    forget, retain = known[:5], known[5:15]
    optimiser = OptimiserSettings(learning_rate=2e-3, batch_size=16, micro_batch_size=16)
    settings = settings_of(
        scope="projector+llm", lora=LoraSettings(rank=16, alpha=32.0), answer_tokens="text"
    ).model_copy(update={"optimiser": optimiser, "stop": StopSettings(max_steps=90)})

    def fresh(base):
        return add_trainable(base, loaded.family, settings.scope, lora=settings.lora, seed=0)

    made = prepare(loaded.model, AdapterStack(), how="merged", fresh=fresh)
    backend = Packed(made.model, Encoder(loaded.processor, loaded.family), budget=256)

    def epoch(people):
        return lambda number: training(
            people, profile="short", seed=0, epoch=number, forms="multiple_choice"
        )

    def steps(count):
        data = (epoch(forget), epoch(retain), epoch(()))
        return UnlearnSteps(*data, batch_size=16, general_share=0.0, steps=count, seed=0)

    def read(people):
        made.model.eval()
        asked = [question for one in people for question in one.questions]
        examples = [*circular(asked, profile="short"), *in_words(asked, profile="short")]
        told = predict(backend, examples, batch_size=64, max_new_tokens=4, on_batch=lambda *_: None)
        judged = by_question(told, [score(one, parser="strict") for one in told])
        readings = ("letter_probability", "rotated_probability", "words_probability")
        return [fmean(getattr(one, reading) for one in judged) for reading in readings]

    assert min(read(forget)) > 0.6
    assert min(read(retain)) > 0.6
    session = session_of(tmp_path / "s", encoder, settings, made=made)
    session.backend, session.references = backend, References(made, backend)
    session.plan, session.variants = steps, Variants(forget, retain, profile="short", seed=0)
    method = build_method("df_mcq", {"average_weight": 5.0})
    session.apply(method)
    assert max(read(forget)) < 0.32
    assert min(read(retain)) > 0.6
