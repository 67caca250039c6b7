"""What is asked of whom: the examples of score stages and stop rules. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pulse_unlearn.data import PROFILES
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.facts import with_facts
from pulse_unlearn.data.options import obstacles
from pulse_unlearn.data.prompted import prompted, reworded
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.records import Example, Individual, Question
from pulse_unlearn.scenarios import Group, ScoreStage

PREDICTIONS = "predictions.parquet"
"""The answers of a score stage, in its folder."""


def stage_examples(
    inputs: Inputs, stage: ScoreStage, resolve: Callable[[Group], Sequence[str]]
) -> list[Example]:
    """Return what a score stage asks about people, and of the general questions.

    `resolve` gives a group's people; those in several groups are asked once.
    """
    ids = dict.fromkeys(identity for group in stage.ask for identity in resolve(group))
    people = [
        with_facts(inputs.people[identity], stage.facts, seed=stage.facts_seed) for identity in ids
    ]
    if stage.prompted:
        people = [reworded(person, stage.prompted) for person in people]
    if stage.view == "other_view":
        return other_view_examples(inputs, people, turned=stage.turned)
    scoring, data = inputs.experiment.scoring, inputs.experiment.data
    questions = [question for person in people for question in person.questions]
    circular, words = scoring.people == "circular", scoring.words != "none"
    found = _forms(questions, data.people_prompt, circular=circular, words=words)
    if stage.prompted:
        found = prompted(
            found,
            stage.prompted,
            asked=people,
            others=[person for person in inputs.people.values() if person.id not in ids],
            profile=data.people_prompt,
            shots=stage.shots,
        )
    if stage.general:
        circular, words = scoring.general == "circular", scoring.words == "all"
        found += _forms(inputs.general, data.general_prompt, circular=circular, words=words)
    return found


def other_view_examples(
    inputs: Inputs, people: Sequence[Individual], *, turned: bool
) -> list[Example]:
    """Return questions on views that are never reported; `turned` for the reading `rotated`."""
    profile = inputs.experiment.data.people_prompt
    return make.other_view(people, profile=profile, seed=0, turned=turned)


def _forms(
    questions: Sequence[Question], profile: str, *, circular: bool, words: bool
) -> list[Example]:
    """Return questions with their options, in every order if `circular`, and bare if `words`."""
    shown = PROFILES.get(profile).options_shown
    ask = make.circular if circular and shown else make.scored
    # Where the options are not shown, the scored prompt is the bare question already.
    bare = make.in_words(questions, profile=profile) if words and shown else []
    return [*ask(questions, profile=profile), *bare]


def words_notes(inputs: Inputs) -> list[str]:
    """Say which questions are not asked in words, and why: a line for each reason."""
    scoring, asked = inputs.experiment.scoring, []
    if scoring.words != "none":
        people = [question for person in inputs.people.values() for question in person.questions]
        asked.append(("of people", people))
    if scoring.words == "all":
        asked.append(("general", list(inputs.general)))
    return [
        f"not asked in words: {count} of {len(questions)} questions ({whose}), as {reason}"
        for whose, questions in asked
        for reason, count in sorted(obstacles(questions).items())
    ]
