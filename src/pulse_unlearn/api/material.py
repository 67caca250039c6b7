"""What a run asked about: its questions and pictures, read again from the data it names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pulse_unlearn.config import Experiment
from pulse_unlearn.data import datasets
from pulse_unlearn.data.examples import other_view
from pulse_unlearn.data.images import decode
from pulse_unlearn.data.source import Source
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.pipeline.inputs import people_source
from pulse_unlearn.records import Individual, Picture, Question
from pulse_unlearn.registry import did_you_mean

if TYPE_CHECKING:
    from PIL.Image import Image


class Material:
    """People and general questions of an experiment, read when they are first needed."""

    def __init__(self, experiment: Experiment, digests: Mapping[str, str]) -> None:
        """`digests` are those of the files that the answers were given to; others are refused.

        Raises DataError, with every problem, if the data cannot be read or are not the same.
        """
        data = experiment.data
        people = datasets.load_people(data.people.source, people_source(data))
        source = Source(data.general.path, data.general.revision)
        general = datasets.load_general(data.general.source, source)
        now = {
            **{f"people/{name}": value for name, value in people.digests.items()},
            **{f"general/{name}": value for name, value in general.digests.items()},
        }
        changed = [
            Problem("is not the file the run was asked with", name, now.get(name, "none"), was)
            for name, was in digests.items()
            if name.startswith(("people/", "general/")) and now.get(name) != was
        ]
        if changed:
            raise DataError(changed)
        self._profile = data.people_prompt
        self._people: dict[str, Individual] = {one.id: one for one in people.individuals}
        self._questions: dict[str, Question] = {
            question.id: question
            for asked in (*(one.questions for one in people.individuals), general.general)
            for question in asked
        }

    def question(self, identity: str) -> Question:
        """Return a question by its id, or by that of an example of it; raises DataError."""
        found = self._questions.get(identity)
        found = found or self._questions.get(identity.rpartition("/")[0])
        if found is None:
            fix = did_you_mean(identity, self._questions)
            raise DataError(Problem("no question of this run", got=repr(identity), fix=fix))
        return found

    def picture(self, identity: str) -> Image:
        """Return what a question, or an example of it, shows; raises DataError if that is nothing.

        An example of a stop rule's view shows that view; every other one the scored picture.
        """
        question = self.question(identity)
        found = self._other_view(question, identity) or question.picture
        if found is None or question.modality != "multimodal":
            raise DataError(Problem("this question shows no picture", repr(identity)))
        return decode(found)

    def _other_view(self, question: Question, example: str) -> Picture | None:
        person = self._people.get(question.individual)
        if person is None or not example.startswith(f"{question.id}/other"):
            return None
        shown = other_view([person], profile=self._profile, seed=0, turned=True)
        return next((one.picture for one in shown if one.example_id == example), None)
