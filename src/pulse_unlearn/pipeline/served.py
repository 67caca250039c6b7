"""Asking a served system: the target model, and what is answered in its place.

The target model is asked everything first, in the batches it would be asked in alone. So whoever no
gate takes is answered as before, bit for bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pulse_unlearn.data.alternatives import REFUSALS
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.models.served import ServedSystem, Switched, states_of
from pulse_unlearn.records import Example, Prediction

REFUSAL = REFUSALS[1]
Ask = Callable[[Sequence[Example]], list[Prediction]]


def ask_served(
    system: ServedSystem,
    switched: Switched,
    backend: Backend,
    ask: Ask,
    asked: Sequence[Example],
    *,
    batch_size: int,
) -> tuple[list[Prediction], dict[str, Any]]:
    """Return every answer of the whole system, and how many questions each request took.

    `ask` asks the backend's model as it is switched.
    """
    switched.switch(None)
    answers = ask(asked)
    states = states_of(backend, asked, layer=system.layer, batch_size=batch_size)
    taken = system.taken_by(states, [example.picture is not None for example in asked])
    for place in sorted({place for place in taken if place is not None}):
        mine = [n for n, request in enumerate(taken) if request == place]
        if system.serves == "refusal":
            new = [refused(answers[n]) for n in mine]
        else:
            switched.switch(place)
            new = ask([asked[n] for n in mine])
        for n, answer in zip(mine, new, strict=True):
            answers[n] = answer
    switched.switch(None)
    counts = Counter(place for place in taken if place is not None)
    told = {entry.stage: counts[place] for place, entry in enumerate(system.entries)}
    return answers, {"serves": system.serves, "taken": told}


def refused(prediction: Prediction) -> Prediction:
    """Return a refusal in place of an answer: one text, and no option likelier than another.

    Nothing can be read off a constant answer, so options are equally likely, as letters and in
    words, by the sum and by the mean over tokens: readings by likelihood count a tie as its share.
    """
    count = len(prediction.options)
    words = bool(prediction.option_tokens)
    return replace(
        prediction,
        text=REFUSAL,
        option_log_probs=(-math.log(count),) * count if count else (),
        end_log_probs=(0.0,) * count if words else (),
        option_tokens=(1,) * count if words else (),
        cut_off=False,
    )
