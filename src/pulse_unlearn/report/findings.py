"""The paper's four findings and methods against one another, in both readings side by side.

Nothing is judged here: `results.json` says what is settled, by the rule in `RULE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulse_unlearn.report.extras import (
    Comparison,
    Contrast,
    Extras,
    PaperFinding,
    SeedGap,
    Selection,
)
from pulse_unlearn.report.words import (
    MISSING,
    method_title,
    p_value,
    percent,
    points,
    reading_title,
    scenario_title,
    set_title,
)
from pulse_unlearn.texts import printable

READINGS: tuple[str, ...] = ("accuracy", "rotated_accuracy")
MOST_PAIRS = 45
"""Pairs of one set that the page shows: all of ten methods."""
NOT_TESTED, TOO_FEW = "not tested", "too few runs"

RULE = (
    "Seen means: in every one of at least three runs with other seeds, each on its own, by a "
    "paired permutation test over people or questions at 5 %, with Holm's correction over all "
    "contrasts of the same reading. Opposite means the same with the other sign. Anything else is "
    "not settled, and fewer than three runs give no finding."
)


@dataclass(frozen=True, slots=True)
class _Claimed:
    name: str
    claim: str
    paper: str
    measured: str
    """What the points are: positive as the paper has it."""


_FOUR: tuple[_Claimed, ...] = (
    _Claimed(
        "pretrained_costs",
        "Forgetting pre-trained knowledge costs far more general ability than forgetting "
        "fine-tuned knowledge.",
        "MMBench kept: 94 – 96 % against 2 – 7 %.",
        "General ability lost with pre-trained people minus that lost with fine-tuned ones.",
    ),
    _Claimed(
        "not_lasting",
        "After five requests in a row general ability is almost gone, with every method.",
        "MMBench kept after request 5: GA 18 %, GA+KLR 27 %, NPO 0 %.",
        "30 % of the general ability before, minus what is there after the last request.",
    ),
    _Claimed(
        "text_harder",
        "Text-only questions are harder to forget than multimodal ones.",
        "GA, Proj + LLM: 78.0 to 9.6 with the image, 76.8 to 35.2 by name.",
        "Accuracy on D_unlearn lost with the image minus that lost by name alone.",
    ),
    _Claimed(
        "llm_hurts",
        "Updating the language model alone hurts general ability far more than updating projector "
        "and language model.",
        "GA: MMBench 75.1 to 71.1 (Proj + LLM) against 48.8 (LLM).",
        "General ability lost with LLM alone minus that lost with Proj + LLM.",
    ),
)


@dataclass(frozen=True, slots=True)
class Gap:
    """One contrast in one reading, as printed."""

    points: str
    interval: str = ""
    spread: str = ""
    seeds: tuple[str, ...] = ()
    word: str = ""
    kind: str = "untested"


@dataclass(frozen=True, slots=True)
class Line:
    """One contrast in both readings."""

    label: str
    gaps: tuple[Gap, ...]

    @property
    def is_settled(self) -> bool:
        """Whether a reading found a difference, one way or the other."""
        return any(gap.kind in ("seen", "absent") for gap in self.gaps)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the paper beside what this run shows."""

    claim: str
    paper: str
    measured: str
    verdicts: tuple[tuple[str, str, str], ...]
    """(reading, word, kind) in the order of `READINGS`."""
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """All pairs of methods of one scenario, set by set."""

    title: str
    groups: tuple[tuple[str, tuple[Line, ...], str], ...]
    """Set, its pairs, and what is said of those that only `results.json` has."""


def findings(extras: Extras) -> list[Finding]:
    """Return the paper's four findings as this run's results judge them, in both readings."""
    return [_finding(extras.findings, claimed) for claimed in _FOUR]


def compared(extras: Extras) -> list[Compared]:
    """Return the paired comparisons of methods by scenario and set."""
    tables = []
    for scenario in dict.fromkeys(one.scenario for one in extras.comparisons):
        inside = [one for one in extras.comparisons if one.scenario == scenario]
        sets = dict.fromkeys(one.set for one in inside)
        groups = []
        for name in sets:
            pairs = _pairs([one for one in inside if one.set == name])
            groups.append((set_title(name), *_most_telling(pairs)))
        tables.append(Compared(scenario_title(scenario), tuple(groups)))
    return tables


def _most_telling(pairs: tuple[Line, ...]) -> tuple[tuple[Line, ...], str]:
    """Of more pairs than anybody reads return settled ones before others, and what is left out."""
    if len(pairs) <= MOST_PAIRS:
        return pairs, ""
    ranked = sorted(range(len(pairs)), key=lambda at: (not pairs[at].is_settled, at))
    settled = sum(pairs[at].is_settled for at in ranked[MOST_PAIRS:])
    left = f"And {len(pairs) - MOST_PAIRS} more pairs, {settled or 'none'} of them settled"
    return tuple(pairs[at] for at in sorted(ranked[:MOST_PAIRS])), left


def _finding(found: Sequence[PaperFinding], claimed: _Claimed) -> Finding:
    by_reading = {one.reading: one for one in found if one.name == claimed.name}
    verdicts = []
    for reading in READINGS:
        one = by_reading.get(reading)
        contrasts = one.contrasts if one else ()
        runs = max((len(contrast.by_seed) for contrast in contrasts), default=0)
        settled = one.settled if one and runs else NOT_TESTED
        verdicts.append((reading_title(reading), settled_word(settled, runs), _kind(settled)))
    contrasts_of = {reading: one.contrasts for reading, one in by_reading.items()}
    return Finding(
        claimed.claim, claimed.paper, claimed.measured, tuple(verdicts), _lines(contrasts_of)
    )


def _pairs(inside: Sequence[Comparison]) -> tuple[Line, ...]:
    return _lines(
        {
            reading: tuple(one.contrast for one in inside if one.measure == reading)
            for reading in READINGS
        }
    )


def _lines(by_reading: Mapping[str, Sequence[Contrast]]) -> tuple[Line, ...]:
    labels = dict.fromkeys(
        one.label for reading in READINGS for one in by_reading.get(reading, ()) if one.by_seed
    )
    lines = []
    for label in labels:
        gaps = []
        for reading in READINGS:
            inside = by_reading.get(reading, ())
            gaps.append(_gap(next((one for one in inside if one.label == label), None)))
        lines.append(Line(_titled(label), tuple(gaps)))
    return tuple(lines)


def _titled(label: str) -> str:
    """Print ``ga - npo`` or ``ga, finetuned`` with the titles of methods and scenarios."""
    parts = [" − ".join(map(method_title, part.split(" - "))) for part in label.split(", ")]
    if len(parts) > 1:
        parts[-1] = scenario_title(label.rsplit(", ", 1)[1]).lower()
    return printable(", ".join(parts), 80)


def _gap(one: Contrast | None) -> Gap:
    if one is None or not one.by_seed:
        return Gap(MISSING, word=NOT_TESTED)
    runs = len(one.by_seed)
    ends = one.by_seed[0] if runs == 1 else one.over
    value = one.by_seed[0].value if runs == 1 else one.over.value
    seeds = tuple(in_seed(gap, alone=runs == 1) for gap in one.by_seed)
    return Gap(
        points=points(value),
        interval=_ends(ends.low, ends.high),
        spread="" if one.over.spread is None else f"sd {percent(one.over.spread)}",
        seeds=seeds,
        word=settled_word(one.settled, runs),
        kind=_kind(one.settled),
    )


def in_seed(gap: SeedGap, *, alone: bool) -> str:
    """Write a seed's own gap and p-value; of a single run its p-value."""
    value = "" if alone else f"seed {gap.seed}: {points(gap.value)}"
    return ", ".join(text for text in (value, p_value(gap.p_value)) if text)


def settled_word(settled: str, runs: int) -> str:
    """Write what a contrast of so many runs shows."""
    if settled == TOO_FEW:
        return f"{'one run' if runs == 1 else f'{runs} runs'}: no finding"
    return printable(settled, 40)


def _kind(settled: str) -> str:
    known = {"seen": "seen", "opposite": "absent", "not settled": "leaning"}
    return known.get(settled, "untested")


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{points(low)} – {points(high)}"


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
