"""Pools of questions, measured: how many there are, and what one of them takes of a model."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

from PIL import Image

from pulse_unlearn.data import examples as make
from pulse_unlearn.data.facts import with_facts
from pulse_unlearn.models.costs import NOTHING, Asked
from pulse_unlearn.models.describe import (
    TEMPLATE_TOKENS,
    Described,
    TextCounter,
    packing_obstacle,
)
from pulse_unlearn.pipeline.asked import other_view_examples, stage_examples
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.records import Example, Individual, Picture
from pulse_unlearn.scenarios import Group, ScoreStage, SelectStage

Reading = Literal["answer", "options", "reply"]
"""What is read of a question: its answer, in training; how likely its options are, by a stop rule;
the options and what is said, in scoring."""

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
    """Tokens of the longest sequence."""
    answer: int
    """Most places of a sequence at which the head is applied."""
    pictures: int
    """Tiles of the picture with the most."""
    patches: int
    """Of the tile with the most."""

    def again(self, draws: int) -> int:
        """Return how many examples so many draws may show more than once: epochs draw all anew."""
        return max(0, min(draws - self.count, draws // 2))


EMPTY = Pool(0, NOTHING, 0, 0, 0, 0)


Form = Literal["file", "orders", "words"]
FORMS: tuple[Form, ...] = ("file", "orders", "words")
"""What a score stage asks: the file's order of the options, the other orders, bare questions."""


def form_of(example: Example) -> Form:
    """Return the form a scored example is of."""
    if example.asked_as == "words":
        return "words"
    return "orders" if example.rotation else "file"


def chosen_sizes(stage: SelectStage) -> dict[str, int]:
    """Return how many people a selection stage will put into each part."""
    sizes = {"forget": stage.settings.forget, "retain": stage.settings.retain}
    left = len(stage.candidates.ids) - sum(sizes.values())
    return {**sizes, "unseen": min(stage.unseen, left)}


class TokenStats:
    """Measures pools of questions, each once."""

    def __init__(self, inputs: Inputs, model: Described) -> None:
        self._inputs = inputs
        self._rule = model.shape.pictures
        self._count = TextCounter(model.tokenizer)
        speed, attention = inputs.experiment.speed, inputs.experiment.model.attention
        self._packed = not packing_obstacle(model.config, speed, attention=attention)
        self._known: dict[object, Pool] = {}

    def training(self, group: Group, forms: make.Forms) -> Pool:
        """Return an epoch of training questions about people."""
        return self._pool(("training", group, forms), lambda: self.epoch(group, forms))

    def epoch(self, group: Group, forms: make.Forms) -> list[Example]:
        """Return the first epoch's examples."""
        profile = self._inputs.experiment.data.people_prompt
        people = self._people((group,))
        return make.training(people, profile=profile, seed=0, epoch=0, forms=forms)

    def replayed(self) -> Pool:
        """Return general questions to train on."""
        return self._pool("replayed", self.general_epoch)

    def general_epoch(self) -> list[Example]:
        """Return their first epoch's examples."""
        profile = self._inputs.experiment.data.general_prompt
        questions = self._inputs.general_training
        return make.general_training(questions, profile=profile, seed=0, epoch=0)

    def checked(self, group: Group, decides: str) -> Pool:
        """Return what stop rules ask of a group, by the reading that decides."""
        reading: Reading = "options" if decides in ("rotated", "likelihood") else "answer"
        turned = decides == "rotated"
        return self._pool(
            ("checked", group, turned),
            lambda: other_view_examples(self._inputs, self._people((group,)), turned=turned),
            reading,
        )

    def scored(self, stage: ScoreStage) -> list[tuple[Form, Pool]]:
        """Return what a score stage asks of people and in general, by form; none that is empty."""
        key = ("scored", stage.ask, stage.view, stage.general, stage.facts, stage.facts_seed)

        @cache
        def examples() -> list[Example]:
            people = [
                with_facts(person, stage.facts, seed=stage.facts_seed)
                for person in self._people(stage.ask)
            ]
            return stage_examples(self._inputs, stage, people)

        def of(form: Form, person: bool) -> list[Example]:
            chosen = [one for one in examples() if bool(one.individual) == person]
            return [one for one in chosen if form_of(one) == form]

        pools = [
            (form, self._pool((key, form, person), partial(of, form, person), "reply"))
            for form in FORMS
            for person in (True, False)
        ]
        return [(form, pool) for form, pool in pools if pool.count]

    def taken(self, examples: Sequence[Example], reading: Reading = "answer") -> Asked:
        """Return what these examples take together."""
        return sum((one for e in examples for one in self._passes(e, reading)), NOTHING)

    def _people(self, groups: Sequence[Group]) -> list[Individual]:
        ids = dict.fromkeys(key for group in groups for key in self._ids(group))
        return [self._inputs.people[key] for key in ids]

    def _ids(self, group: Group) -> tuple[str, ...]:
        """Return a group's people; of people yet to be chosen, as many of the candidates."""
        stage = self._inputs.plan.selection(group)
        if stage is None:
            return group.ids
        sizes = chosen_sizes(stage)
        parts = tuple(sizes) if group.part == "all" else (group.part,)
        return tuple(stage.candidates.ids[: sum(sizes[part] for part in parts)])

    def _pool(
        self, key: object, read: Callable[[], Sequence[Example]], reading: Reading = "answer"
    ) -> Pool:
        if key not in self._known:
            self._known[key] = self._measured(read(), reading)
        return self._known[key]

    def _measured(self, examples: Sequence[Example], reading: Reading) -> Pool:
        if not examples:
            return EMPTY
        # Kind by kind: every n-th of five and five questions a person might be all of one.
        ordered = sorted(examples, key=lambda example: example.picture is None)
        count = min(SAMPLE, len(ordered))
        sample = [ordered[place * len(ordered) // count] for place in range(count)]
        by_length = sorted(examples, key=lambda example: len(example.prompt))
        looked_at = (*sample, *by_length[-LONGEST:])
        most = [one for example in looked_at for one in self._passes(example, reading)]
        return Pool(
            len(examples),
            self.taken(sample, reading).times(1 / len(sample)),
            longest=round(max(one.tokens for one in most)),
            answer=round(max(one.answers for one in most)),
            pictures=round(max(one.pictures for one in most)),
            patches=round(max(one.patches / max(one.pictures, 1) for one in most)),
        )

    def _passes(self, example: Example, reading: Reading) -> list[Asked]:
        """Return what each pass over an example takes; the first one counts as the question."""
        prompt = self._count(example.system + example.prompt) + TEMPLATE_TOKENS
        pictures, patches = 0, 0
        if example.picture is not None:
            size = picture_size(example.picture)
            prompt += self._rule.tokens(*size)
            pictures, patches = self._rule.patches(*size)
        return [
            Asked(
                questions=number == 0,
                tokens=prompt + behind,
                squares=(prompt + behind) ** 2,
                answers=heads,
                pictures=pictures,
                patches=pictures * patches,
                patch_squares=pictures * patches**2,
            )
            for number, (behind, heads) in enumerate(self._behind(example, reading))
        ]

    def _behind(self, example: Example, reading: Reading) -> list[tuple[int, int]]:
        """Return for each pass the tokens behind the prompt, and where the head is applied.

        In packs all options are behind one prompt; a reply reads what follows each of them, too.
        Otherwise a reply is generated, and each option in words is read in a pass of its own.
        """
        answer = self._count(example.answer) + 1
        texts = [self._count(text) + 1 for text in example.option_texts]
        if self._packed and reading == "reply":
            tried = texts or [self._count(option.letter) for option in example.options]
            return [(sum(tried), sum(tried) + len(tried))]
        if self._packed and reading == "options" and texts:
            return [(sum(texts), sum(texts))]
        apart = [(tokens, tokens) for tokens in texts] if reading != "answer" else []
        return [(answer, answer), *apart] if reading == "reply" or not apart else apart


def picture_size(picture: Picture) -> tuple[int, int]:
    """Return width and height in pixels, from the file's head; assumed for a stand-in."""
    if not picture.data:
        return ASSUMED_SIDE, ASSUMED_SIDE
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.size
