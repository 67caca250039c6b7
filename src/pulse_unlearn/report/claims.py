"""What each scenario showed, in sentences made from its numbers; each only if they support it.

The paper's reading never stands without the highest one beside it. No sentence says that something
was deleted, or forgotten: the readings of a run find it, or do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pulse_unlearn.report.estimates import Estimate, Numbers
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.hidden import weights_know
from pulse_unlearn.report.scoreboard import Known, ScoreRow, has_fallen, known
from pulse_unlearn.report.tables import papers_ratios
from pulse_unlearn.report.words import (
    listed,
    method_title,
    percent,
    points,
    reading_phrase,
    scenario_title,
)
from pulse_unlearn.texts import printable

_STRICT = "strict"
_NONE = 0.005
"""A share below this is printed as 0 %."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What one scenario showed, in words."""

    scenario: str
    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """One scenario: before, and its methods at their main scope."""

    numbers: Numbers
    start: ScoreRow
    rows: tuple[ScoreRow, ...]
    flags: tuple[Flag, ...]
    parser: str

    @property
    def requests(self) -> int:
        return max(row.place.request for row in self.rows)

    @property
    def seeds(self) -> int:
        return max(len(self.numbers.seeds(row.place)) for row in self.rows)


def claims(
    numbers: Numbers, rows: Sequence[ScoreRow], flags: Sequence[Flag], *, parser: str
) -> list[Claim]:
    """Say what each scenario showed, over the main scope of its methods."""
    said = []
    for scenario in numbers.scenarios():
        mains = set(numbers.mains(scenario))
        of_scenario = [row for row in rows if row.place.scenario == scenario]
        chosen = tuple(row for row in of_scenario if row.place in mains)
        if chosen:
            own = tuple(flag for flag in flags if flag.scenario == scenario)
            said.append(_claim(_Scene(numbers, of_scenario[0], chosen, own, parser)))
    return said


def _claim(scene: _Scene) -> Claim:
    sentences = [
        *(_answers(row, scene.start.forget) for row in scene.rows),
        *weights_know(scene.numbers, [row.place for row in scene.rows]),
        _gold(scene),
        _theirs(scene),
        _others(scene, "retain", "D_retain"),
        _others(scene, "unseen", "People who were neither to be forgotten nor retained"),
        _others(scene, "general", "General ability"),
        *(_lasting(scene) if scene.requests > 1 else ()),
        *_targets(scene),
        _strict_only(scene),
    ]
    title = scenario_title(scene.rows[0].place.scenario)
    return Claim(title, _headline(scene), tuple(text for text in sentences if text))


def _headline(scene: _Scene) -> str:
    runs = "In this one run" if scene.seeds == 1 else f"On average over {scene.seeds} runs"
    how = "read as the paper does"
    if scene.parser != _STRICT:
        how = f"read with the parser {scene.parser}"
    after = _names(scene.rows) if len(scene.rows) == 1 else "unlearning"
    after = f"{scene.requests} requests" if scene.requests > 1 else after
    before, rows = scene.start.forget, scene.rows
    text = (
        f"{runs}, {how}, {_span([row.forget.usable for row in rows])} of the answers about "
        f"D_unlearn were right after {after} ({_one(before.usable)} before)"
    )
    if any(row.forget.beyond_strict for row in rows):
        phrase = reading_phrase([name for row in rows for name in row.forget.by])
        text += (
            f"; {phrase}, {_span([row.forget.latent for row in rows])} were "
            f"({_one(before.latent)} before)"
        )
    return f"{text}.{_remembered(rows)}"


def _remembered(rows: Sequence[ScoreRow]) -> str:
    """Say with which methods D_unlearn is still known by the tests of this run."""
    told = [
        (row, row.judged.remembered) for row in rows if row.judged and row.judged.only != "unknown"
    ]
    always = [row for row, often in told if often.seeds and often.true == often.seeds]
    if always and len(always) == len(rows):
        which = "every method" if len(rows) > 1 else _names(rows)
        return f" D_unlearn is still known after {which}."
    sometimes = [
        f"{method_title(row.place.method)} ({often.true} of {often.seeds} runs)"
        for row, often in told
        if 0 < often.true < often.seeds
    ]
    names = [method_title(row.place.method) for row in always] + sometimes
    return f" D_unlearn is still known after {listed(names)}." if names else ""


def _answers(row: ScoreRow, before: Known) -> str:
    """Say how one method's answers about D_unlearn behave, by the word that it was given."""
    if row.judged is None:
        return ""
    say = _BY_WORD.get(row.judged.only)
    if say:
        return f"After {method_title(row.place.method)} {say(row, before)}."
    text = f"{method_title(row.place.method)}: {row.judged.text}."
    return f"{text} {_capital(_hidden(row, before))}." if row.forget.is_hidden else text


def _one_letter(row: ScoreRow, before: Known) -> str:
    which = listed(row.letters) if len(row.letters) == 1 else "one letter"
    unread = row.unreadable.value if row.unreadable else None
    share = _one(row.letter_share)
    of = f"in {share} of the answers that can be read"
    if unread is not None and unread < _NONE:
        of = f"to {share} of the questions"
    return _and_what_is_known(f"the model says {which} {of}", row, before)


def _broken(row: ScoreRow, before: Known) -> str:
    return _and_what_is_known(f"{_one(row.unreadable)} of the answers cannot be read", row, before)


def _avoids(row: ScoreRow, before: Known) -> str:
    return "the right option comes up less often than by chance: whoever avoids the answer knows it"


def _suppressed(row: ScoreRow, before: Known) -> str:
    return (
        "the answers as given are no better than their letters alone would be, and yet, "
        f"{_by(row)}, {_one(row.forget.latent)} are right ({_one(before.latent)} before)"
    )


def _plain(row: ScoreRow, before: Known) -> str:
    text = f"{_one(row.forget.usable)} of the answers are right as given"
    if not row.forget.beyond_strict:
        return f"{text}, above chance"
    return f"{text}, and {_one(row.forget.latent)} {_by(row)}"


def _alike(row: ScoreRow, before: Known) -> str:
    return "no reading differs from the retain model, which never knew D_unlearn"


def _unrecovered(row: ScoreRow, before: Known) -> str:
    return "none of the readings of this run stands above chance"


def _served(row: ScoreRow, before: Known) -> str:
    return "nothing stands above chance as it is served, by weights that know what they knew before"


def _unknown(row: ScoreRow, before: Known) -> str:
    return "nothing is said: too few people for a verdict"


_BY_WORD: dict[str, Callable[[ScoreRow, Known], str]] = {
    "one letter": _one_letter,
    "output broken": _broken,
    "avoids": _avoids,
    "suppressed": _suppressed,
    "remembered": _plain,
    "hidden": _served,
    "like never known": _alike,
    "not recovered": _unrecovered,
    "unknown": _unknown,
}


def _and_what_is_known(text: str, row: ScoreRow, before: Known) -> str:
    """End a sentence on broken answers by what other readings find behind them."""
    if row.forget.is_hidden:
        return f"{text}; {_hidden(row, before)}"
    known_in = row.judged.remembered if row.judged else None
    if known_in and known_in.true and known_in.true == known_in.seeds:
        return f"{text}; D_unlearn is known all the same, by a reading above chance"
    return f"{text}, so these answers cannot tell what the model knows"


def _hidden(row: ScoreRow, before: Known) -> str:
    """Say what stands behind broken answers, and whether less of it is found than before."""
    text = f"{_by(row)}, {_one(row.forget.latent)} are right"
    if has_fallen(before.latent, row.forget.latent):
        return f"{text} ({_one(before.latent)} before): how it answers broke, and less is found"
    return f"{text}: what broke is how it answers"


def _by(row: ScoreRow) -> str:
    return reading_phrase(row.forget.by)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _gold(scene: _Scene) -> str:
    """Say what perfect unlearning would leave, where a retain model was trained."""
    place = scene.numbers.retain_model(scene.start.place.scenario)
    if place is None:
        return ""
    found = known(scene.numbers, place, "forget")
    text = f"The retain model, which never saw D_unlearn: {_one(found.usable)} right as given"
    return f"{text}, {_one(found.latent)} latent." if found.beyond_strict else f"{text}."


def _theirs(scene: _Scene) -> str:
    """Say the paper's three ranges for the methods that both have."""
    found = [theirs for row in scene.rows if (theirs := papers_ratios(scene.numbers, row.place))]
    if not found:
        return ""
    lost, retain, general = (
        _range([getattr(theirs, name) for theirs in found], "kept_pct")
        for name in ("forgotten", "retain_kept", "general_kept")
    )
    return (
        f"The paper, on its own model and people: {lost} of the accuracy on D_unlearn gone; "
        f"{retain} on D_retain and {general} of general ability kept."
    )


def _others(scene: _Scene, name: str, title: str) -> str:
    """Say what happened to a set that should have stayed: usable, latent, which of them fell."""
    before: Known = getattr(scene.start, name)
    after: list[tuple[ScoreRow, Known]] = [(row, getattr(row, name)) for row in scene.rows]
    if not any(one.usable and one.usable.value is not None for _, one in after):
        return ""
    text = (
        f"{title}: {_span([one.usable for _, one in after])} usable ({_one(before.usable)} before)"
    )
    if not before.beyond_strict:
        return f"{text}."
    text += f", {_span([one.latent for _, one in after])} latent ({_one(before.latent)} before)."
    fell = [(row, one) for row, one in after if has_fallen(before.usable, one.usable)]
    lost = [row for row, one in after if has_fallen(before.latent, one.latent)]
    habit = [row for row, one in fell if row not in lost and one.is_hidden]
    if habit:
        text += (
            f" With {_names(habit)} what is usable fell and what is latent cannot be told from "
            "before: a broken habit of answering."
        )
    if lost:
        text += f" With {_names(lost)} the highest reading fell, too: loss by every reading."
    return text


def _lasting(scene: _Scene) -> list[str]:
    """Say where general ability fell most, and what happened to people whose turn had not come."""
    drops, waiting = [], []
    for row in scene.rows:
        place, title = row.place, method_title(row.place.method)
        path = [known(scene.numbers, place.at(k), "general") for k in range(place.request + 1)]
        steps = [
            (was.usable.value - now.usable.value, k, was, now)
            for k, (was, now) in enumerate(pairwise(path), start=1)
            if was.usable and now.usable
            if was.usable.value is not None and now.usable.value is not None
        ]
        if steps:
            size, k, was, now = max(steps, key=lambda step: step[:2])
            latent = _minus(was.latent, now.latent) if now.beyond_strict else ""
            shown = f"; latent {latent}" if latent else ""
            drops.append(f"{title} at request {k} ({points(-size, digits=0)} points{shown})")
        spared = known(scene.numbers, place.at(place.request - 1), "not_yet_requested")
        if spared.usable and spared.usable.value is not None:
            shown = f", {_one(spared.latent)} latent" if spared.beyond_strict else ""
            waiting.append(f"{title} {_one(spared.usable)} usable{shown}")
    said = [f"General ability, as given, fell most for {'; '.join(drops)}."] if drops else []
    if waiting:
        said.append(
            "People whose turn had not come stood, before the last request, at "
            f"{'; '.join(waiting)} ({_one(scene.start.forget.usable)} usable at the start)."
        )
    return said


def _targets(scene: _Scene) -> list[str]:
    """Say with which methods the stop target was reached by broken answers alone."""
    said = []
    for name, how in (
        ("target_reached_by_one_letter", "by one letter to everything"),
        ("target_reached_by_unreadable_answers", "by answers that cannot be read"),
    ):
        found = [flag for flag in scene.flags if flag.flag == name]
        parts = [text for row in scene.rows if (text := _where(scene, row, found))]
        if parts:
            said.append(f"The stop target was reached {how} with {listed(parts)}.")
    return said


def _where(scene: _Scene, row: ScoreRow, flags: Sequence[Flag]) -> str:
    """Name a method with the requests and runs that were flagged; empty if none was."""
    place = row.place
    own = [flag for flag in flags if (flag.method, flag.scope) == (place.method, place.scope)]
    if not own:
        return ""
    told = []
    if scene.requests > 1:
        requests = sorted({printable(flag.request, 10) for flag in own})
        told.append(f"request{'s' if len(requests) > 1 else ''} {listed(requests)}")
    seeds = len({flag.seed for flag in own})
    if scene.seeds > 1:
        told.append(f"{seeds} of {scene.seeds} runs")
    title = method_title(place.method)
    return f"{title} ({', '.join(told)})" if told else title


def _strict_only(scene: _Scene) -> str:
    if any(row.forget.beyond_strict for row in scene.rows):
        return ""
    return (
        "No other reading was asked (scoring.people, scoring.words), so this run cannot tell a "
        "broken habit of answering from anything else."
    )


def _names(rows: Sequence[ScoreRow]) -> str:
    return listed([method_title(row.place.method) for row in rows])


def _one(estimate: Estimate | None) -> str:
    value = estimate.value if estimate else None
    return "an unknown share" if value is None else f"{percent(value, digits=0)} %"


def _minus(before: Estimate | None, after: Estimate | None) -> str:
    if before is None or after is None or before.value is None or after.value is None:
        return ""
    return points(after.value - before.value, digits=0)


def _span(estimates: Sequence[Estimate | None]) -> str:
    """Write the range over methods: ``65 – 71 %``."""
    values = [found.value for found in estimates if found and found.value is not None]
    return _range(values, "accuracy") if values else "an unknown share"


def _range(values: Sequence[float], measure: str) -> str:
    low, high = (percent(end, measure, digits=0) for end in (min(values), max(values)))
    return f"{low} %" if low == high else f"{low} – {high} %"
