"""Pure losses on log-probabilities: tensors in, one value per example out.

Shape letters: B examples, A answer positions, V vocabulary entries, R forms of a question and O
options. Log-probabilities are natural
and normalised (never logits); masks are boolean and true at answer tokens only, so neither the
prompt nor padding can enter. Every example must have at least one answer token.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pulse_unlearn.methods.base import AnswerView, OptionView, Term, Views, present

KlDirection = Literal["reference_to_current", "current_to_reference"]


def token_nll(view: AnswerView) -> Tensor:
    """Return each answer token's negative log-likelihood, [B, A], 0 outside the mask."""
    picked = view.log_probs.gather(-1, view.labels.unsqueeze(-1)).squeeze(-1)
    return (-picked).masked_fill(~view.mask, 0.0)


def sum_nll(view: AnswerView) -> Tensor:
    """Return the negative log-likelihood of the whole answer, [B]."""
    return token_nll(view).sum(-1)


def mean_nll(view: AnswerView) -> Tensor:
    """Return the negative log-likelihood per answer token, [B]."""
    return sum_nll(view) / view.mask.sum(-1)


def retain_terms(views: Views, weight: float) -> tuple[Term, ...]:
    """Return the retain examples' mean negative log-likelihood as a term; nothing at weight 0."""
    if weight == 0:
        return ()
    values = mean_nll(present(views.retain, "a retain batch"))
    return (Term("retain_nll", values, weight, over="retain"),)


def retain_kl_terms(views: Views, weight: float) -> tuple[Term, ...]:
    """Return KL(reference || current) of retain examples as a term; nothing at weight 0."""
    if weight == 0:
        return ()
    values = kl_divergence(
        present(views.retain, "a retain batch"),
        present(views.retain_reference, "the reference on retain answers"),
        direction="reference_to_current",
    )
    return (Term("kl", values, weight, over="retain"),)


def gradient_ascent(view: AnswerView) -> Tensor:
    """Return `-mean_nll`, [B]: minimising it is ascent on the forget answers (PULSE, GA)."""
    return -mean_nll(view)


def kl_divergence(view: AnswerView, reference: AnswerView, *, direction: KlDirection) -> Tensor:
    """Return the KL divergence between reference and current model per answer token, [B].

    `reference_to_current` is KL(reference || current), as in TOFU's KL term; the other direction is
    KL(current || reference). Summed over the vocabulary, averaged over the answer's tokens; >= 0.
    """
    current, frozen = view.log_probs, reference.log_probs
    if direction == "reference_to_current":
        first, second = frozen, current
    else:
        first, second = current, frozen
    return _answer_mean(_kl_per_token(first, second), view)


def npo(view: AnswerView, reference: AnswerView, *, beta: float) -> Tensor:
    """Return negative preference optimisation, [B] (Zhang et al. 2024, arXiv 2404.05868, eq. 3).

    `(2 / beta) * softplus(-beta * (NLL - NLL_reference))` with NLL summed over the answer's tokens.
    At the reference it equals `(2 / beta) ln 2`; as beta -> 0 its gradient tends to that of ascent.
    """
    margin = sum_nll(view) - sum_nll(reference)
    return softplus(-beta * margin) * (2.0 / beta)


def dpo(
    preferred: AnswerView,
    preferred_reference: AnswerView,
    rejected: AnswerView,
    rejected_reference: AnswerView,
    *,
    beta: float,
) -> Tensor:
    """Return direct preference optimisation, [B] (Rafailov et al. 2023, arXiv 2305.18290, eq. 7).

    `(2 / beta) * softplus(-beta * margin)` where the margin is how much more likely than at the
    reference the preferred answer became, less the same for the rejected one; sums over tokens.
    """
    gained = sum_nll(preferred_reference) - sum_nll(preferred)
    lost = sum_nll(rejected) - sum_nll(rejected_reference)
    return softplus(-beta * (gained + lost)) * (2.0 / beta)


def simnpo(view: AnswerView, *, beta: float, margin: float) -> Tensor:
    """Return NPO without a reference model, [B] (Fan et al. 2024, arXiv 2410.07163).

    `(2 / beta) * softplus(-beta * (NLL / tokens - margin))`: the margin is in nats per token, as in
    the published code.
    """
    return softplus(-beta * (mean_nll(view) - margin)) * (2.0 / beta)


def weighted_ascent(view: AnswerView, *, confidence: float, doubt: float = 0.0) -> Tensor:
    """Return ascent with each token weighted by its probability p, [B].

    `-mean_t p^confidence (1 - p)^doubt NLL_t`, the weights held constant: WGA (Wang et al. 2025,
    arXiv 2502.19301) with doubt 0, SatImp (Yang et al. 2025, arXiv 2505.11953) with both.
    """
    nll = token_nll(view)
    said = -nll.detach()
    weight = said.exp() ** confidence * (-torch.expm1(said)).clamp(min=0.0) ** doubt
    return -_answer_mean(weight * nll, view)


def self_distillation(view: AnswerView, reference: AnswerView, *, beta: float) -> Tensor:
    """Return the cross-entropy to the reference with the answer's logits lowered by beta, [B].

    Per answer token (UNDIAL, Dong et al. 2024, arXiv 2402.10052). It is least, though not 0, where
    the two distributions are the same.
    """
    lowering = torch.full_like(reference.log_probs[..., :1], -beta)
    lowered = reference.log_probs.scatter_add(-1, view.labels.unsqueeze(-1), lowering)
    return _answer_mean(_cross_entropy(lowered.softmax(-1), view.log_probs), view)


def cross_entropy_unlearning(view: AnswerView) -> Tensor:
    """Return the cross-entropy to the model itself without the answer's token, [B].

    Per answer token, the target held constant (CE-U, Yang 2025, arXiv 2503.01224). Its gradient
    vanishes as the answer's probability does.
    """
    without = view.log_probs.detach().scatter(-1, view.labels.unsqueeze(-1), -torch.inf)
    return _answer_mean(_cross_entropy(without.softmax(-1), view.log_probs), view)


def softened_nll(
    view: AnswerView, reference: AnswerView, *, sharpness: float, known: float
) -> Tensor:
    """Return the cross-entropy to a target between the reference and the labels, [B].

    Per answer token with initial probability p0 of its label the target is
    `(1 - w) * reference + w * label`, `w = sigmoid(sharpness * (p0 - known))` (ALKN, ICML 2025).
    """
    labels = view.labels.unsqueeze(-1)
    initial = reference.log_probs.exp()
    weight = torch.sigmoid(sharpness * (initial.gather(-1, labels) - known))
    target = ((1.0 - weight) * initial).scatter_add(-1, labels, weight)
    return _answer_mean(_cross_entropy(target, view.log_probs), view)


def js_to_labels(view: AnswerView) -> Tensor:
    """Return the Jensen-Shannon divergence to certainty of the labels per answer token, [B].

    With p the label's probability, `ln 2 + (p ln p - (1 + p) ln(1 + p)) / 2`, from 0 to ln 2
    (JensUn, Singh et al. 2025, arXiv 2509.02820).
    """
    said = -token_nll(view)
    p = said.exp()
    return _answer_mean(math.log(2.0) + (p * said - (1.0 + p) * p.log1p()) / 2.0, view)


def js_divergence(view: AnswerView, reference: AnswerView) -> Tensor:
    """Return the Jensen-Shannon divergence to the reference per answer token, [B]; 0 to ln 2."""
    current, frozen = view.log_probs, reference.log_probs
    middle = torch.logaddexp(current, frozen) - math.log(2.0)
    both = _kl_per_token(current, middle) + _kl_per_token(frozen, middle)
    return _answer_mean(both / 2.0, view)


def peak_squared(view: AnswerView) -> Tensor:
    """Return `(max_v z_v - mean_v z_v)^2` of the logits z per answer token, [B], in nats squared.

    The same of log-probabilities, which differ from logits by a constant (PDU, arXiv 2506.05314).
    """
    said = view.log_probs
    return _answer_mean((said.amax(-1) - said.mean(-1)).square(), view)


def levelled_kl(view: AnswerView, reference: AnswerView, letters: Tensor) -> Tensor:
    """Return KL(levelled reference || current) per answer token, [B].

    Where the answer begins, the levelled reference shares what the reference gives to all option
    letters (`letters`, [B, V]) equally among them; everything else is the reference's.
    """
    frozen, among = reference.log_probs, letters.unsqueeze(1)
    together = frozen.masked_fill(~among, -torch.inf).logsumexp(-1, keepdim=True)
    share = together - among.sum(-1, keepdim=True).to(frozen.dtype).log()
    begins = view.mask & (view.mask.cumsum(-1) == 1)
    levelled = torch.where(among & begins.unsqueeze(-1), share, frozen)
    return _answer_mean(_kl_per_token(levelled, view.log_probs), view)


def option_nll(view: OptionView, chosen: Tensor) -> Tensor:
    """Return the negative log-likelihood of one option of each question, [B].

    Summed over the option's tokens, the mean over the forms it was asked in; 0 where it was in
    none. `chosen` are the options' places, [B].
    """
    asked = view.mask.any(-1)
    places = chosen.view(-1, 1, 1).expand(-1, view.mask.shape[1], 1)
    said = view.log_probs.gather(-1, places).squeeze(-1).masked_fill(~asked, 0.0)
    return -said.sum(-1) / asked.sum(-1).clamp(min=1)


def among_options(view: OptionView) -> OptionView:
    """Return the same with probabilities renormalised over the options of each form."""
    return OptionView(_renormalised(view.log_probs, view.mask), view.mask)


def flatness(view: OptionView) -> Tensor:
    """Return KL(uniform || options) of each form, [B, R]; 0 where it was not asked.

    `-ln O - mean_o log p(o)` with p renormalised over the O options (DF-MCQ, Sun et al. 2025, arXiv
    2505.02884).
    """
    return _from_uniform(view.log_probs, view.mask)


def flatness_of_average(view: OptionView) -> Tensor:
    """Return KL(uniform || average over the forms), [B], the average being that of `rotated`.

    Of renormalised log-probabilities, so that what is the same in every form is left over and a
    preferred letter is not. Never above the mean of `flatness`.
    """
    asked = view.mask.any(-1, keepdim=True)
    each = _renormalised(view.log_probs, view.mask).masked_fill(~view.mask, 0.0)
    average = each.sum(1) / asked.sum(1).clamp(min=1)
    return _from_uniform(average, view.mask.any(1))


def hidden_of(view: AnswerView) -> Tensor:
    """Return the view's hidden states, [B, A, D]; raises ValueError if there are none."""
    if view.hidden is None:
        raise ValueError("the training loop did not provide hidden states")
    return view.hidden


def hidden_distance(view: AnswerView, towards: Tensor) -> Tensor:
    """Return the mean squared distance of hidden states, [B]: over dimensions, then positions.

    `towards` is one direction [D] or states [B, A, D] (RMU, arXiv 2403.03218, eqs. 1 and 2).
    """
    squares = (hidden_of(view).float() - towards.float()).square().mean(-1)
    return _answer_mean(squares, view)


def _answer_mean(values: Tensor, view: AnswerView) -> Tensor:
    """Return the mean over answer tokens, [B], of values [B, A]; the others do not count."""
    return values.masked_fill(~view.mask, 0.0).sum(-1) / view.mask.sum(-1)


def _renormalised(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return log-probabilities among the options, [..., O]; those of none where there are none."""
    # Not -inf: where no option is there, that would be undefined and its gradient too.
    low = torch.finfo(log_probs.dtype).min
    return log_probs.masked_fill(~mask, low).log_softmax(-1)


def _from_uniform(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Return KL(uniform || p) over the last dimension's options; 0 without any."""
    count = mask.sum(-1).clamp(min=1)
    said = _renormalised(log_probs, mask).masked_fill(~mask, 0.0)
    apart = -count.to(said.dtype).log() - said.sum(-1) / count
    return apart.masked_fill(~mask.any(-1), 0.0)


def _kl_per_token(first: Tensor, second: Tensor) -> Tensor:
    """Return sum_v p (log p - log q), [B, A]; a probability of exactly 0 contributes 0."""
    difference = torch.where(first == -torch.inf, torch.zeros_like(first), first - second)
    return (first.exp() * difference).sum(-1)


def _cross_entropy(target: Tensor, log_probs: Tensor) -> Tensor:
    """Return -sum_v target log p, [B, A]; a target of exactly 0 contributes 0."""
    return -torch.where(target == 0, torch.zeros_like(target), target * log_probs).sum(-1)
