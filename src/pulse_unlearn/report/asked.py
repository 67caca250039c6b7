"""How a stored answer was asked for, and what kind of answer it is: for report and view alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pulse_unlearn.data.prompts import PROFILES, render, render_short_answer
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.records import UNREADABLE, AskedAs, Option

Kind = Literal["flipped", "one_letter", "unreadable", "mentions"]

KINDS: Mapping[Kind, tuple[str, str]] = {
    "flipped": ("Flipped", "right before and not after, or the other way round"),
    "one_letter": (
        "One letter",
        "the letter that this model gives to nearly everything, by its verdict",
    ),
    "unreadable": ("Unreadable", "no option could be read from the answer after"),
    "mentions": ("Mentions the truth", "the answer after names the true option anywhere"),
}
"""Kind -> its title and what it is."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The turns before an answer, without the chat template; empty where they are not known."""

    user: str
    system: str = ""


def prompt_of(
    profile: str,
    question: str,
    options: Sequence[Option],
    *,
    hint: str = "",
    asked_as: AskedAs = "options",
) -> Prompt:
    """Return the prompt of a question under a prompt profile, as the model was given it.

    Empty for a profile that is not there, as that of a plug-in that is not installed.
    """
    try:
        system = PROFILES.get(profile).system
        if asked_as == "words":
            return Prompt(render_short_answer(profile, question, hint=hint), system)
        return Prompt(render(profile, question, options=options, hint=hint), system)
    except ConfigError:
        return Prompt("")


def kinds_of(
    *,
    right: tuple[bool | None, bool | None],
    verdict: str,
    choice: str,
    mentions: bool,
    letter: str,
) -> tuple[Kind, ...]:
    """Return what kinds of answer this is.

    `right` is whether it was right before and after, None where it was not asked; `verdict`,
    `choice` and `mentions` are of the answer after. `letter` is the one that the verdict "one
    letter" names; empty where it was not given.
    """
    before, after = right
    found: list[Kind] = []
    if before is not None and after is not None and before != after:
        found.append("flipped")
    if letter and choice == letter:
        found.append("one_letter")
    if verdict in UNREADABLE:
        found.append("unreadable")
    if mentions:
        found.append("mentions")
    return tuple(found)


def one_letters(verdicts: object) -> dict[tuple[Any, ...], str]:
    """Return the letter of each cell whose verdict is one letter, from `results.json`.

    A cell is scenario, method, scope, seed, request, condition; what is not well formed is no
    verdict.
    """
    found = {}
    for entry in verdicts if isinstance(verdicts, list) else []:
        told: Any = entry.get("letter") if isinstance(entry, dict) else None
        if isinstance(told, dict) and told.get("one_letter") is True and told.get("letter"):
            place = tuple(
                entry.get(name)
                for name in ("scenario", "method", "scope", "seed", "request", "condition")
            )
            found[place] = str(told["letter"])
    return found
