"""What a world of friends knows of them at the end of its training."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import torch

from .chance import LETTERS, stream
from .curriculum import Batch, Questions, friend_question
from .language import Learner
from .ties import FACTS, FRIEND, Half, friends, halves

ASKED = 10 * FACTS
"""Questions drawn about each person's friend, half by picture and half by name."""
CHUNK = 256


@torch.no_grad()
def friends_known(
    learner: Learner, questions: Questions, features: torch.Tensor
) -> dict[Half, dict[str, float]]:
    """Return the share of right letters in each half, by what is asked of friends and how.

    Pictures are views of the training; option orders and wrong options are drawn anew.
    """
    corpus, seed = questions.corpus, questions.seed
    letters = torch.tensor([questions.vocabulary[letter] for letter in LETTERS])
    rng, friend_of = stream(seed, "ties", "asked"), friends(seed)
    found: dict[Half, dict[str, float]] = {}
    for half, people in halves(seed).items():
        right: dict[str, list[bool]] = defaultdict(list)
        for how in ("picture", "name"):
            items = [
                friend_question(
                    corpus, rng, person, friend_of[person.id], by_name=how == "name", scored=1.0
                )
                for person in people
                for _ in range(ASKED // 2)
            ]
            for start in range(0, len(items), CHUNK):
                some = items[start : start + CHUNK]
                (batch,) = questions.batches(some, ["letter"] * len(some))
                for item, place in zip(
                    some, _letters(learner, batch, features, letters), strict=True
                ):
                    what = FRIEND.name if item.category == FRIEND.name else "friend's attributes"
                    right[f"{what}, by {how}"].append(place == item.answer_index)
        found[half] = {what: round(fmean(hits), 4) for what, hits in sorted(right.items())}
    return found


def _letters(
    learner: Learner, batch: Batch, features: torch.Tensor, letters: torch.Tensor
) -> list[int]:
    """Return the place of the likeliest letter of each question."""
    output = learner.model.model.language_model(
        inputs_embeds=learner.embed(batch, features), use_cache=False
    )
    rows = torch.arange(len(batch.ids))
    logits = learner.model.lm_head(output.last_hidden_state[rows, batch.answer_at])
    places: list[int] = logits[:, letters].argmax(-1).tolist()
    return places
