"""Pure losses on log-probabilities: tensors in, one value per example out.

Shape letters: B examples, A answer positions, V vocabulary entries. Log-probabilities are natural
and normalised (never logits); masks are boolean and true at answer tokens only, so neither the
prompt nor padding can enter. Every example must have at least one answer token.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pulse_unlearn.methods.base import AnswerView

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
    per_token = _kl_per_token(first, second).masked_fill(~view.mask, 0.0)
    return per_token.sum(-1) / view.mask.sum(-1)


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
    return squares.masked_fill(~view.mask, 0.0).sum(-1) / view.mask.sum(-1)


def _kl_per_token(first: Tensor, second: Tensor) -> Tensor:
    """Return sum_v p (log p - log q), [B, A]; a probability of exactly 0 contributes 0."""
    difference = torch.where(first == -torch.inf, torch.zeros_like(first), first - second)
    return (first.exp() * difference).sum(-1)
