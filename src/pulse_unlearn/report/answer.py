"""The answer at the head of the report: one row per method, a few sentences per scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pulse_unlearn.evaluation.scoring import LIKELIHOOD
from pulse_unlearn.report.estimates import Estimate, Numbers, Place
from pulse_unlearn.report.load import Flag
from pulse_unlearn.report.paper import Relative, relative
from pulse_unlearn.report.words import (
    listed,
    method_title,
    percent,
    scenario_title,
)

_BY_LIKELIHOOD = "The likeliest option counts as the answer, whatever was generated."

UNREADABLE_MOSTLY = 0.5
"""Share of unreadable answers from which a low accuracy says more about output than memory."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the tests of this run allow to say; never more than "not recovered"."""

    kind: str
    """`broken`, `avoids`, `suppressed`, `remembered`, `unrecovered` or `unknown`."""
    word: str
    why: str


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One method after its last request, with the paper's numbers where it has them."""

    place: Place
    forgotten: Estimate | None
    with_image: Estimate | None
    text_only: Estimate | None
    retain_kept: Estimate | None
    general_kept: Estimate | None
    unparsable: Estimate | None
    status: Status
    paper: Relative | None


@dataclass(frozen=True, slots=True)
class Claim:
    """What one scenario showed, in words."""

    scenario: str
    headline: str
    sentences: tuple[str, ...]


def scoreboard(numbers: Numbers, flags: Sequence[Flag]) -> list[ScoreRow]:
    """Return one row per scenario, method and scope, after the last request that was scored."""
    return [_row(numbers, flags, place) for place in numbers.finals()]


def claims(numbers: Numbers, rows: Sequence[ScoreRow], *, parser: str) -> list[Claim]:
    """Say in sentences what each scenario showed, over the main scope of its methods."""
    said = []
    for scenario in numbers.scenarios():
        mains = set(numbers.mains(scenario))
        chosen = [row for row in rows if row.place in mains]
        if chosen:
            said.append(_claim(numbers, scenario, chosen, parser=parser))
    return said


def status(numbers: Numbers, flags: Sequence[Flag], place: Place) -> Status:
    """Judge what D_unlearn's numbers show at one place; the first rule that fits wins."""

    def estimate(measure: str) -> Estimate | None:
        return numbers.get(place, "forget", "all", measure)

    accuracy, letters = estimate("accuracy"), estimate("letter_accuracy")
    chance = numbers.value(place, "forget", "all", "chance")
    unreadable = numbers.value(place, "forget", "all", "unparsable") or 0.0
    if is_flagged(flags, place, "collapsed"):
        why = "flagged as collapsed: the output broke, which lowers accuracy without forgetting"
        return Status("broken", "output broke", why)
    if unreadable >= UNREADABLE_MOSTLY:
        why = f"{percent(unreadable, digits=0)} % of the answers could not be read"
        return Status("broken", "mostly unreadable", why)
    if accuracy is None or accuracy.value is None or chance is None:
        return Status("unknown", "not scored", "D_unlearn accuracy is missing or undefined")
    if numbers.value(place, "forget", "all", "below_chance"):
        why = "letters are right less often than by chance: whoever avoids the answer knows it"
        return Status("avoids", "below chance", why)
    if accuracy.low is not None and accuracy.low > chance:
        return Status("remembered", "remembered in part", "the interval lies above chance")
    if letters is not None and letters.low is not None and letters.low > chance:
        why = "answers are at chance, but the letters' probabilities still favour the truth"
        return Status("suppressed", "suppressed", why)
    if accuracy.low is None:
        why = "without an interval nothing can be said against chance"
        return Status("unknown", "too few people", why)
    why = "neither the answers nor the letters' probabilities stand above chance"
    return Status("unrecovered", "not recovered here", why)


def is_flagged(flags: Sequence[Flag], place: Place, name: str) -> bool:
    """Tell whether any seed of a place carries this flag."""
    return any(
        flag.flag == name
        and (flag.scenario, flag.method, flag.scope) == (place.scenario, place.method, place.scope)
        and flag.request == str(place.request)
        for flag in flags
    )


def _row(numbers: Numbers, flags: Sequence[Flag], place: Place) -> ScoreRow:
    label = numbers.paper(place)
    return ScoreRow(
        place=place,
        forgotten=numbers.get(place, "forget", "all", "forgotten_pct"),
        with_image=numbers.get(place, "forget", "multimodal", "forgotten_pct"),
        text_only=numbers.get(place, "forget", "text_only", "forgotten_pct"),
        retain_kept=numbers.get(place, "retain", "all", "kept_pct"),
        general_kept=numbers.get(place, "general", "all", "kept_pct"),
        unparsable=numbers.get(place, "forget", "all", "unparsable"),
        status=status(numbers, flags, place),
        paper=relative(place.scenario, label, place.request),
    )


def _claim(numbers: Numbers, scenario: str, rows: Sequence[ScoreRow], *, parser: str) -> Claim:
    requests = max(row.place.request for row in rows)
    after = f"After {requests} requests, " if requests > 1 else ""
    forgotten = _span([row.forgotten for row in rows])
    retain, general = _span([r.retain_kept for r in rows]), _span([r.general_kept for r in rows])
    headline = (
        f"{after}{forgotten} of what was known about D_unlearn no longer showed. "
        f"{retain} of D_retain and {general} of general ability were left."
    )
    broken = [row for row in rows if row.status.kind == "broken"]
    if broken:
        which = "every method" if len(broken) == len(rows) else _names(broken)
        headline += f" With {which} the output broke, so part of this is not forgetting."
    read = _BY_LIKELIHOOD if parser == LIKELIHOOD else _unreadable(rows)
    sentences = [_theirs(rows), _by_modality(rows), read, _verdicts(rows)]
    if requests > 1:
        sentences[1:1] = _lasting(numbers, rows)
    return Claim(scenario_title(scenario), headline, tuple(text for text in sentences if text))


def _theirs(rows: Sequence[ScoreRow]) -> str:
    """Say the paper's three ranges for the methods that both have."""
    found = [row.paper for row in rows if row.paper]
    if not found:
        return ""
    ranges = [
        _range([getattr(theirs, name) for theirs in found], "kept_pct")
        for name in ("forgotten", "retain_kept", "general_kept")
    ]
    return f"The paper, on its own model and people: {listed(ranges)}."


def _by_modality(rows: Sequence[ScoreRow]) -> str:
    parts = [
        f"{method_title(row.place.method)} "
        f"{percent(row.with_image.value, 'forgotten_pct', digits=0)} against "
        f"{percent(row.text_only.value, 'forgotten_pct', digits=0)} %"
        for row in rows
        if row.with_image and row.text_only
    ]
    return f"Forgotten with the image, against by name alone: {'; '.join(parts)}." if parts else ""


def _unreadable(rows: Sequence[ScoreRow]) -> str:
    shares = [row.unparsable for row in rows]
    if not any(share and share.value is not None for share in shares):
        return ""
    return (
        f"Of the answers about D_unlearn, {_span(shares, 'unparsable')} could not be read at all."
    )


def _names(rows: Sequence[ScoreRow]) -> str:
    return listed([method_title(row.place.method) for row in rows])


def _verdicts(rows: Sequence[ScoreRow]) -> str:
    words: dict[str, list[str]] = {}
    for row in rows:
        words.setdefault(row.status.word, []).append(method_title(row.place.method))
    parts = [f"{word} ({listed(methods)})" for word, methods in words.items()]
    return f"The tests of this run say: {'; '.join(parts)}."


def _lasting(numbers: Numbers, rows: Sequence[ScoreRow]) -> list[str]:
    """Say where general ability fell most, and what happened to people nobody asked to remove."""
    drops, waiting = [], []
    for row in rows:
        place, title = row.place, method_title(row.place.method)
        path = [
            numbers.value(place.at(request), "general", "all", "accuracy")
            for request in range(place.request + 1)
        ]
        steps = [
            (before - after, request)
            for request, (before, after) in enumerate(pairwise(path), start=1)
            if before is not None and after is not None
        ]
        if steps:
            size, request = max(steps)
            drops.append(f"{title} at request {request} (−{percent(size, digits=0)} points)")
        spared, unread = (
            numbers.value(place.at(place.request - 1), "not_yet_requested", "all", measure)
            for measure in ("accuracy", "unparsable")
        )
        if spared is not None:
            lost = f"; {percent(unread, digits=0)} % unreadable" if unread is not None else ""
            waiting.append(f"{percent(spared, digits=0)} % ({title}{lost})")
    start = numbers.value(rows[0].place.at(0), "forget", "all", "accuracy")
    said = []
    if drops:
        said.append(f"General ability fell most for {'; '.join(drops)}.")
    if waiting and start is not None:
        said.append(
            "People whose turn had not come were already down from "
            f"{percent(start, digits=0)} % to {listed(waiting)} before the last request."
        )
    return said


def _span(estimates: Sequence[Estimate | None], measure: str = "kept_pct") -> str:
    """Write the range over methods: ``65 – 71 %``."""
    values = [found.value for found in estimates if found and found.value is not None]
    if not values:
        return "an undefined share"
    return _range(values, measure)


def _range(values: Sequence[float], measure: str) -> str:
    low, high = (percent(end, measure, digits=0) for end in (min(values), max(values)))
    return f"{low} %" if low == high else f"{low} – {high} %"
