"""Every stored answer of a run, filtered and by the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.errors import PulseError
from pulse_unlearn.records import Prediction, QuestionScore, Score
from pulse_unlearn.report.asked import kinds_of, prompt_of
from pulse_unlearn.texts import printable, printable_block
from pulse_unlearn.view.comparisons import GENERAL, Comparison, comparisons_of, sets_of
from pulse_unlearn.view.questions import Asked, Catalogue
from pulse_unlearn.view.runs import Run
from pulse_unlearn.view.stage_answers import Given, StageAnswers

READINGS: Mapping[str, str] = {
    "strict": "Strict",
    "letter": "Likeliest letter",
    "rotated": "Rotated",
    "circular": "Circular",
    "words": "Words",
    "words_named": "Named in words",
    "mentions": "Mentions",
}
"""Reading -> title; each is a field of `QuestionScore`, but for strict, the paper's."""

_TEXT = 2000
_HALF = 0.5
"""An answer counts as right if a reading gives it more: options that tie share their credit."""
_UNKNOWN = Asked("", "", "", (), "")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which answers are wanted; empty texts are any."""

    scenario: str = ""
    method: str = ""
    seed: str = ""
    request: str = ""
    condition: str = ""
    set: str = ""
    modality: str = ""
    reading: str = "strict"
    outcome: str = ""
    """`right` or `not_right` after."""
    kinds: tuple[str, ...] = ()
    """All of them must hold."""
    search: str = ""

    def takes(self, comparison: Comparison) -> bool:
        """Tell whether a comparison's cell is wanted."""
        cell = comparison.cell
        return all(
            wanted in ("", str(value))
            for wanted, value in (
                (self.scenario, cell.scenario),
                (self.method, cell.method),
                (self.seed, cell.seed),
                (self.request, cell.request),
                (self.condition, cell.condition),
            )
        )


@dataclass(frozen=True, slots=True)
class Models:
    """The opened answers of one comparison's models; None where there are none, or not yet."""

    before: StageAnswers | None
    after: StageAnswers | None
    never_knew: StageAnswers | None
    unlearned: StageAnswers | None = None
    only: StageAnswers | None = None

    @property
    def last(self) -> StageAnswers | None:
        """The model that filters are about: after, or before where nothing was unlearned."""
        return self.after or self.before


@dataclass(frozen=True, slots=True)
class Found:
    """The answers that pass the filters: comparison and question, in order."""

    rows: tuple[tuple[Comparison, str], ...]
    problems: tuple[str, ...]
    """Comparisons that could not be read, and why."""


OpenStage = Callable[[Run, str], StageAnswers | None]
"""Opens a score stage by name; None if it is not complete or not named."""


def find(
    run: Run,
    filters: Filters,
    *,
    catalogue: Catalogue,
    letters: Mapping[tuple[Any, ...], str],
    open_stage: OpenStage,
) -> Found:
    """Return what passes the filters; a stage that cannot be read is told, not raised.

    `letters` are those of the cells whose verdict is one letter. Raises Corrupted for a bad plan.
    """
    rows: list[tuple[Comparison, str]] = []
    problems: list[str] = []
    for comparison in comparisons_of(run):
        if not filters.takes(comparison):
            continue
        try:
            models = models_of(run, comparison, open_stage)
            wanted = _wanted_people(run, comparison, filters.set)
            passing = _passing(comparison, models, filters, wanted, catalogue, letters)
            rows += [(comparison, question) for question in passing]
        except PulseError as error:
            told = (" ".join(str(problem).split()) for problem in error.problems)
            problems += [line for line in told if line not in problems]
    return Found(tuple(rows), tuple(problems))


def models_of(run: Run, comparison: Comparison, open_stage: OpenStage) -> Models:
    """Open the models of a comparison; raises StoreError if one is damaged."""
    after = open_stage(run, comparison.after)
    if comparison.after and after is None:
        return Models(None, None, None)
    before = open_stage(run, comparison.before)
    return Models(
        before,
        after,
        open_stage(run, comparison.never_knew),
        open_stage(run, comparison.unlearned),
        open_stage(run, comparison.only),
    )


def _wanted_people(run: Run, comparison: Comparison, name: str) -> frozenset[str] | None:
    """Return who is in the set asked for; None for everybody, and "" stands for nobody."""
    if not name:
        return None
    if name == GENERAL:
        return frozenset({""})
    return sets_of(run, comparison).get(name, frozenset())


def _passing(
    comparison: Comparison,
    models: Models,
    filters: Filters,
    people: frozenset[str] | None,
    catalogue: Catalogue,
    letters: Mapping[tuple[Any, ...], str],
) -> Iterator[str]:
    """Yield the questions that pass, cheap filters first."""
    last = models.last
    if last is None:
        return
    given = last.given()
    before = models.before.given() if models.before else {}
    only = models.only.rows if models.only else None
    passing = [
        question
        for question, one in given.items()
        if (people is None or one.individual in people)
        and filters.modality in ("", one.modality)
        and (only is None or question in only)
    ]
    if filters.search:
        sought = filters.search.casefold()
        passing = [one for one in passing if sought in _searched(one, models, catalogue)]
    if not filters.kinds and not filters.outcome:
        yield from passing
        return
    was = right_by(filters.reading, models.before, passing)
    now = right_by(filters.reading, models.after, passing)
    letter = letters.get(_key(comparison), "")
    for question in passing:
        one = given[question]
        kinds = kinds_of(
            right=(was(question) if question in before else None, now(question)),
            verdict=one.verdict,
            choice=one.choice,
            mentions=one.mentions,
            letter=letter,
        )
        right = (now if models.after else was)(question)
        if not all(kind in kinds for kind in filters.kinds):
            continue
        if filters.outcome and (right is None or right != (filters.outcome == "right")):
            continue
        yield question


def right_by(
    reading: str, stage: StageAnswers | None, questions: list[str]
) -> Callable[[str], bool | None]:
    """Return what tells whether a question is answered right; None where it was not asked."""
    if stage is None:
        return lambda question: None
    if reading == "strict":
        given = stage.given()
        return lambda question: given[question].verdict == "correct" if question in given else None
    read = stage.readings(questions)

    def right(question: str) -> bool | None:
        value = getattr(read[question], reading) if question in read else None
        return None if value is None else value > _HALF

    return right


def _searched(question: str, models: Models, catalogue: Catalogue) -> str:
    """Return everything about a question that a text is looked for in."""
    asked = catalogue.questions.get(question, _UNKNOWN)
    texts = [question, asked.question, asked.hint, asked.name]
    texts += [option.text for option in asked.options]
    for stage in (models.before, models.after, models.never_knew, models.unlearned):
        one: Given | None = stage.given().get(question) if stage else None
        texts += [one.individual, one.text] if one else []
    return "\n".join(texts).casefold()


def _key(comparison: Comparison) -> tuple[Any, ...]:
    cell = comparison.cell
    return (cell.scenario, cell.method, cell.scope, cell.seed, cell.request, cell.condition)


# --- one question, as the page shows it


def item(
    comparison: Comparison,
    question: str,
    models: Models,
    *,
    sets: Mapping[str, frozenset[str]],
    catalogue: Catalogue,
    reading: str,
    letter: str,
) -> dict[str, Any]:
    """Return one question with everything the models answered to it, as plain data."""
    asked = catalogue.questions.get(question, _UNKNOWN)
    last = models.last
    one = last.given().get(question) if last else None
    individual = one.individual if one else ""
    stages = (models.before, models.after, models.never_knew, models.unlearned)
    forms = [_by_form(stage, question) for stage in stages]
    profile = catalogue.profile(individual)
    names: dict[str, Prediction] = {
        name: pair[0] for by_form in reversed(forms) for name, pair in by_form.items()
    }
    ordered = sorted(names.values(), key=lambda p: (p.asked_as == "words", p.rotation))
    right = [right_by(reading, stage, [question])(question) for stage in stages]
    return {
        "id": printable(question, 200),
        "individual": printable(individual, 120),
        "name": printable(asked.name, 120),
        "sets": [name for name, people in sets.items() if individual in people and individual]
        or ([GENERAL] if not individual else []),
        "modality": one.modality if one else "",
        "question": printable(asked.question, _TEXT),
        "hint": printable(asked.hint, _TEXT),
        "picture": asked.picture,
        "cell": {name: getattr(comparison.cell, name) for name in _CELL},
        "right": right,
        "kinds": kinds_of(
            right=(right[0], right[1]),
            verdict=one.verdict if one else "",
            choice=one.choice if one else "",
            mentions=bool(one and one.mentions),
            letter=letter,
        ),
        "readings": [_readings(stage, question) for stage in stages],
        "forms": [_form(form, forms, asked, profile) for form in ordered],
    }


_CELL = ("scenario", "method", "scope", "seed", "request", "condition")

_Answers = dict[str, tuple[Prediction, Score]]


def _by_form(stage: StageAnswers | None, question: str) -> _Answers:
    return {pair[0].example_id: pair for pair in stage.answers(question)} if stage else {}


def _readings(stage: StageAnswers | None, question: str) -> dict[str, float | None]:
    found: QuestionScore | None = stage.readings([question]).get(question) if stage else None
    if found is None:
        return {}
    told = {name: getattr(found, name) for name in READINGS if name != "strict"}
    strict = None if found.verdict is None else float(found.verdict == "correct")
    return {"strict": strict, **told}


def _form(form: Prediction, answers: list[_Answers], asked: Asked, profile: str) -> dict[str, Any]:
    """Return one way in which the question was put, and what each model said."""
    prompt = prompt_of(
        profile, asked.question, form.options, hint=asked.hint, asked_as=form.asked_as
    )
    known = bool(asked.question and prompt.user)
    return {
        "asked_as": form.asked_as,
        "rotation": form.rotation,
        "truth": form.answer,
        "options": [
            {"letter": option.letter, "text": printable(option.text, _TEXT)}
            for option in form.options
        ],
        "prompt": printable_block(prompt.user) if known else "",
        "system": printable_block(prompt.system) if known else "",
        "answers": [_answer(by_form.get(form.example_id)) for by_form in answers],
    }


def _answer(pair: tuple[Prediction, Score] | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    prediction, score = pair
    return {
        "text": printable(prediction.text, _TEXT),
        "verdict": score.verdict,
        "choice": score.choice,
        "mentions": score.answer in score.mentioned,
        "probability": round(score.true_probability, 4)
        if score.true_probability == score.true_probability
        else None,
    }
