"""The paper's four findings, each held against this run's numbers by a stated rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pulse_unlearn.report.estimates import MAIN_SCOPE, Estimate, Numbers, Place
from pulse_unlearn.report.words import method_title, scope_title, spoken

NEARLY_GONE = 30.0
"""Percent of general ability kept; the paper's best method kept 27 % after five requests."""

SEEN, LEANING, ABSENT, UNTESTED = "seen", "leaning", "absent", "untested"
VERDICTS = {
    SEEN: "seen here",
    LEANING: "same direction, within uncertainty",
    ABSENT: "not seen here",
    UNTESTED: "not tested in this run",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of the paper beside what this run shows."""

    claim: str
    paper: str
    ours: tuple[str, ...]
    verdict: str
    rule: str

    @property
    def word(self) -> str:
        """The verdict in words."""
        return VERDICTS[self.verdict]


def findings(numbers: Numbers) -> list[Finding]:
    """Check the four findings of the paper; contrasts are judged method by method."""
    return [_pretrained_costs(numbers), _not_lasting(numbers), _text_gap(numbers), _scope(numbers)]


def _pretrained_costs(numbers: Numbers) -> Finding:
    fine = {place.method: place for place in numbers.mains("finetuned")}
    pairs = [
        (method_title(place.method), fine[place.method], place)
        for place in numbers.mains("pretrained")
        if place.method in fine
    ]
    ours, verdicts = _contrasts(
        pairs,
        lambda place: numbers.get(place, "general", "all", "kept_pct"),
        ("fine-tuned keeps", "pre-trained keeps"),
    )
    return Finding(
        "Forgetting pre-trained knowledge costs far more general ability than forgetting "
        "fine-tuned knowledge.",
        "MMBench kept: 94 – 96 % against 2 – 7 %.",
        ours,
        _all(verdicts),
        "Seen if general ability kept is higher for fine-tuned people with every method and the "
        "intervals do not overlap.",
    )


def _not_lasting(numbers: Numbers) -> Finding:
    ours, verdicts = [], []
    for place in numbers.mains("sustainability"):
        if place.request < 2:
            continue
        kept = numbers.get(place, "general", "all", "kept_pct")
        if kept is None or kept.value is None:
            continue
        ours.append(
            f"{method_title(place.method)}: {spoken(kept, 'kept_pct')} kept after "
            f"{place.request} requests"
        )
        sure = kept.high is not None and kept.high < NEARLY_GONE
        verdicts.append(SEEN if sure else LEANING if kept.value < NEARLY_GONE else ABSENT)
    return Finding(
        "After five requests in a row general ability is almost gone, with every method.",
        "MMBench kept after request 5: GA 18 %, GA+KLR 27 %, NPO 0 %.",
        tuple(ours),
        _all(verdicts),
        f"Seen if every method's interval lies below {NEARLY_GONE:.0f} % kept.",
    )


def _text_gap(numbers: Numbers) -> Finding:
    ours, verdicts = [], []
    for scenario in ("finetuned", "pretrained"):
        for place in numbers.mains(scenario):
            image, text = (
                numbers.get(place, "forget", modality, "forgotten_pct")
                for modality in ("multimodal", "text_only")
            )
            if _unknown(image) or _unknown(text):
                continue
            verdicts.append(_higher(image, text))
            name = "fine-tuned" if scenario == "finetuned" else "pre-trained"
            ours.append(
                f"{method_title(place.method)}, {name}: {spoken(image, 'forgotten_pct')} with the "
                f"image, {spoken(text, 'forgotten_pct')} by name"
            )
    return Finding(
        "Text-only questions are harder to forget than multimodal ones.",
        "GA, Proj + LLM: 78.0 to 9.6 with the image, 76.8 to 35.2 by name (forgotten 88 and 54 %).",
        tuple(ours),
        _all(verdicts),
        "Seen if more is forgotten with the image in every cell and the intervals do not overlap.",
    )


def _scope(numbers: Numbers) -> Finding:
    finals = numbers.finals("finetuned")
    both = {numbers.kind(place): place for place in finals if place.scope == MAIN_SCOPE}
    pairs = [
        (numbers.kind(place), both[numbers.kind(place)], place)
        for place in finals
        if place.scope == "llm" and numbers.kind(place) in both
    ]
    ours, verdicts = _contrasts(
        pairs,
        lambda place: numbers.get(place, "general", "all", "kept_pct"),
        (f"{scope_title(MAIN_SCOPE)} keeps", f"{scope_title('llm')} keeps"),
    )
    return Finding(
        "Updating the language model alone hurts general ability far more than updating projector "
        "and language model.",
        "GA: MMBench 75.1 to 71.1 (Proj + LLM) against 48.8 (LLM).",
        ours,
        _all(verdicts),
        "Seen if Proj + LLM keeps more general ability and the intervals do not overlap.",
    )


def _contrasts(
    pairs: Sequence[tuple[str, Place, Place]],
    number: Callable[[Place], Estimate | None],
    words: tuple[str, str],
) -> tuple[tuple[str, ...], list[str]]:
    ours, verdicts = [], []
    for title, first, second in pairs:
        more, less = number(first), number(second)
        if _unknown(more) or _unknown(less):
            continue
        verdicts.append(_higher(more, less))
        ours.append(
            f"{title}: {words[0]} {spoken(more, 'kept_pct')}, {words[1]} {spoken(less, 'kept_pct')}"
        )
    return tuple(ours), verdicts


def _higher(more: Estimate | None, less: Estimate | None) -> str:
    """Judge whether `more` is above `less`; without intervals it can at best lean."""
    if more is None or less is None or more.value is None or less.value is None:
        return UNTESTED
    if more.low is not None and less.high is not None and more.low > less.high:
        return SEEN
    return LEANING if more.value > less.value else ABSENT


def _all(verdicts: Sequence[str]) -> str:
    """A finding is as strong as its weakest cell."""
    return next((verdict for verdict in (ABSENT, LEANING, SEEN) if verdict in verdicts), UNTESTED)


def _unknown(estimate: Estimate | None) -> bool:
    return estimate is None or estimate.value is None
