"""Pools of questions, measured: how many there are, and what one of them takes of a model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from pulse_unlearn.data import examples as make
from pulse_unlearn.models.costs import NOTHING, Asked
from pulse_unlearn.models.describe import TEMPLATE_TOKENS
from pulse_unlearn.models.shapes import PictureRule
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.records import Example, Picture
from pulse_unlearn.scenarios import Group

SAMPLE = 200
"""Questions of a pool whose tokens are counted; the rest is taken to be like them."""
LONGEST = 20
"""And the questions of most characters, for the longest."""
ASSUMED_SIDE = 512
"""Pixels along both sides of a picture that is not there yet."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Questions that are drawn from: how many, and what one of them takes."""

    count: int
    each: Asked
    longest: int
    answer: int
    pictures: int
    """Tiles of the picture with the most."""
    patches: int
    """Of the tile with the most."""


EMPTY = Pool(0, NOTHING, 0, 0, 0, 0)


class Surveyor:
    """Measures pools of questions, each once."""

    def __init__(self, inputs: Inputs, rule: PictureRule, count: Callable[[str], int]) -> None:
        self._inputs = inputs
        self._rule = rule
        self._count = count
        self._known: dict[object, Pool] = {}

    def training(self, group: Group, forms: make.Forms) -> Pool:
        """Return an epoch of training questions about people."""
        return self._pool(("training", group, forms), lambda: self.epoch(group, forms))

    def epoch(self, group: Group, forms: make.Forms) -> list[Example]:
        """Return the first epoch's examples."""
        profile = self._inputs.experiment.data.people_prompt
        people = [self._inputs.people[key] for key in self._ids(group)]
        return make.training(people, profile=profile, seed=0, epoch=0, forms=forms)

    def replayed(self) -> Pool:
        """Return general questions to train on."""
        return self._pool("replayed", self.general_epoch)

    def general_epoch(self) -> list[Example]:
        """Return their first epoch's examples."""
        profile = self._inputs.experiment.data.general_prompt
        questions = self._inputs.general_training
        return make.general_training(questions, profile=profile, seed=0, epoch=0)

    def held_out(self, group: Group) -> Pool:
        """Return what stop rules and the choice of people ask."""
        profile = self._inputs.experiment.data.people_prompt
        people = [self._inputs.people[key] for key in self._ids(group)]
        return self._pool(
            ("held out", group), lambda: make.other_view(people, profile=profile, seed=0)
        )

    def scored(self, group: Group) -> Pool:
        """Return people's questions as they are scored."""
        profile = self._inputs.experiment.data.people_prompt
        questions = [q for key in self._ids(group) for q in self._inputs.people[key].questions]
        return self._pool(("scored", group), lambda: make.scored(questions, profile=profile))

    def general(self) -> Pool:
        """Return the general questions, every rotation if they are scored so."""
        experiment = self._inputs.experiment
        ask = make.circular if experiment.scoring.general == "circular" else make.scored
        profile = experiment.data.general_prompt
        return self._pool("general", lambda: ask(self._inputs.general, profile=profile))

    def taken(self, examples: Sequence[Example]) -> Asked:
        """Return what these examples take together."""
        return sum((self._seen(example) for example in examples), NOTHING)

    def _ids(self, group: Group) -> tuple[str, ...]:
        """Return a group's people; of people yet to be chosen, as many of the candidates."""
        if not group.selection:
            return group.ids
        stage = self._inputs.plan.stage(group.selection)
        wanted = stage.settings["pretrained"]
        parts = ("forget", "retain") if group.part == "all" else (group.part,)
        return stage.ask.ids[: sum(int(wanted[part]) for part in parts)]

    def _pool(self, key: object, read: Callable[[], Sequence[Example]]) -> Pool:
        if key not in self._known:
            self._known[key] = self._measured(read())
        return self._known[key]

    def _measured(self, examples: Sequence[Example]) -> Pool:
        if not examples:
            return EMPTY
        sample = examples[:: max(1, len(examples) // SAMPLE)]
        seen = [self._seen(example) for example in sample]
        total = sum(seen, NOTHING)
        by_length = sorted(examples, key=lambda example: len(example.prompt))
        most = [*seen, *(self._seen(example) for example in by_length[-LONGEST:])]
        return Pool(
            len(examples),
            total.times(1 / len(seen)),
            longest=round(max(one.tokens for one in most)),
            answer=round(max(one.answers for one in most)),
            pictures=round(max(one.pictures for one in most)),
            patches=round(max(one.patches / max(one.pictures, 1) for one in most)),
        )

    def _seen(self, example: Example) -> Asked:
        answer = self._count(example.answer) + 1
        tokens = self._count(example.system + example.prompt) + TEMPLATE_TOKENS + answer
        pictures, patches = 0, 0
        if example.picture is not None:
            size = picture_size(example.picture)
            tokens += self._rule.tokens(*size)
            pictures, patches = self._rule.patches(*size)
        return Asked(
            questions=1,
            tokens=tokens,
            squares=tokens**2,
            answers=answer,
            pictures=pictures,
            patches=pictures * patches,
            patch_squares=pictures * patches**2,
        )


def picture_size(picture: Picture) -> tuple[int, int]:
    """Return width and height in pixels, from the file's head; assumed for a stand-in."""
    if not picture.data:
        return ASSUMED_SIDE, ASSUMED_SIDE
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.size
