"""How the people were chosen whom a model knows from pre-training."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.report.extras import Selection
from pulse_unlearn.report.printable import printable
from pulse_unlearn.report.words import percent


def how_chosen(selections: Sequence[Selection]) -> tuple[str, ...]:
    """Say for every choice what decided it; equal ones of several seeds once."""
    said: dict[str, list[str]] = {}
    for one in selections:
        said.setdefault(_sentence(one), []).append(printable(one.stage.partition("/")[0], 20))
    if len(said) == 1:
        return tuple(said)
    return tuple(f"{', '.join(stages)}: {text}" for text, stages in said.items())


def _by(one: Selection) -> str:
    """Say what counted as right, and on which pictures."""
    asked = {"other_view": "on views that are never scored", "scored": "on the scored views"}
    how = (
        f"by the reading {printable(one.decides, 20)}" if one.decides else "",
        asked.get(one.questions, ""),
    )
    told = ", ".join(part for part in how if part)
    return f" ({told})" if told else ""


def _sentence(one: Selection) -> str:
    chosen = one.forget + one.retain
    text = f"{one.perfect} of {one.candidates} candidates had every answer right{_by(one)}"
    if one.perfect > chosen:
        text += "; among them the mean probability of the true option decided"
    elif one.lowest_chosen is not None:
        text += (
            "; then accuracy decided, and where it was equal the mean probability of the true "
            f"option. The lowest accuracy among the chosen is {percent(one.lowest_chosen)} %"
        )
    text += f". {one.forget} went to D_unlearn and {one.retain} to D_retain, at random"
    if one.unseen:
        text += f"; the next {one.unseen} of the ranking were set aside as unseen"
    return f"{text}."
