"""The questions of a plan: what one of them takes of a model, read or, before they are there, made.

Placeholders are as many and as long as those of MLLMU-Bench and MMBench.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from PIL import Image

from pulse_unlearn.data.alternatives import with_alternative
from pulse_unlearn.data.examples import training_count
from pulse_unlearn.data.facts import of_modality, with_facts
from pulse_unlearn.estimate.counts import NOTHING, Asked, Batch
from pulse_unlearn.estimate.placeholders import ASSUMED_SIDE
from pulse_unlearn.estimate.sizes import TOKENIZER, SizedModel, TextCounter
from pulse_unlearn.methods import Needs
from pulse_unlearn.models.backends import packing_obstacle
from pulse_unlearn.models.forward import expand_options
from pulse_unlearn.pipeline.asked import other_view_examples, stage_examples
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.stage_context import (
    general_epochs,
    people_epochs,
    variants_of,
)
from pulse_unlearn.records import (
    Example,
    Individual,
    Modalities,
    Picture,
)
from pulse_unlearn.scenarios import (
    FinetuneStage,
    Group,
    ScoreStage,
    TrainingStage,
    UnlearnStage,
)
from pulse_unlearn.training.steps import steps_of_epochs

Reading = Literal["answer", "options", "reply"]
"""What is read of a question: its answer, in training; how likely its options are, by a stop rule;
the options and what is said, in scoring."""
Form = Literal["file", "orders", "words"]
"""What a score stage asks: the file's order of the options, the other orders, bare questions."""
FORMS: tuple[Form, ...] = ("file", "orders", "words")

TEMPLATE_TOKENS = 16
"""Beginning, roles and end of a turn; templates of the known families take 8 to 20."""
SAMPLE = 200
"""Questions of a pool whose tokens are counted; the rest is taken to be like them."""
SURVEYED = 400
"""People of a group up to whom everything asked of them is built. Of more, what is asked of so many
stands for the rest by their questions: exactly, where all are asked alike; the longest questions
are looked for among all."""
LONGEST = 20
"""And the questions of most characters, for the longest."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Questions that are drawn from: how many, what one takes, and the most that one takes."""

    count: int = 0
    each: Asked = NOTHING
    largest: Batch = field(default_factory=Batch)

    def again(self, draws: int) -> int:
        """Return how many examples so many draws may show more than once: epochs draw all anew."""
        return max(0, min(draws - self.count, draws // 2))


Kind = Literal["alternative", "orders", "words", "aside", "decoupled"]


@dataclass(frozen=True, slots=True)
class Beside:
    """Other forms of forget questions, and how many of them there are to each."""

    kind: Kind
    pool: Pool
    each: float


def likely_people(inputs: Inputs, group: Group) -> tuple[str, ...]:
    """Return a group's people; of people yet to be chosen, as many of the candidates."""
    stage = inputs.plan.selection(group)
    return group.ids if stage is None else stage.likely(group.part)


class Pools:
    """Measures pools of questions, each once."""

    def __init__(self, inputs: Inputs, model: SizedModel) -> None:
        self._inputs = inputs
        self._rule = model.pictures
        self._count = TextCounter(model.files.get(TOKENIZER))
        self._packed = not packing_obstacle(model.config, model.family, inputs.experiment.speed)
        self._known: dict[object, Pool] = {}
        self._reading = ("", False)
        self._read: dict[frozenset[str], list[Example]] = {}
        """What one score stage asks of people, while its forms are measured one by one."""

    def trained(self, stage: TrainingStage, group: Group) -> Pool:
        """Return an epoch of a stage's questions about people."""
        shown = _modalities(stage, group)
        key = ("trained", group, shown, stage.settings.forms)
        read = partial(self._first_epoch, stage)
        people = [of_modality(one, shown) for one in self._people(group)]
        return self._pool_of_people(key, people, read)

    def epoch(self, stage: TrainingStage, group: Group) -> list[Example]:
        """Return the first epoch's examples."""
        shown = _modalities(stage, group)
        people = [of_modality(one, shown) for one in self._people(group)]
        return self._first_epoch(stage, people)

    def _first_epoch(self, stage: TrainingStage, people: Sequence[Individual]) -> list[Example]:
        return people_epochs(self._inputs, stage, people)(0)

    def others(self, stage: UnlearnStage, needs: Needs) -> list[Beside]:
        """Return what a loss asks of each forget example besides itself, kind by kind."""
        kinds: list[Kind] = ["alternative"] if needs.alternative else []
        kinds += ["orders"] if needs.options == "all" else []
        kinds += ["words"] if needs.option_words else []
        kinds += ["aside"] if needs.aside else []
        kinds += ["decoupled"] if needs.decoupled else []
        return [self._beside(stage, kind, needs) for kind in kinds]

    def _beside(self, stage: UnlearnStage, kind: Kind, needs: Needs) -> Beside:
        forget = self._people(stage.forget)
        retain = [*self._people(stage.retain), *self._people(stage.others)]
        variants = variants_of(
            self._inputs, stage, forget, retain if kind in ("aside", "decoupled") else ()
        )
        asked = self.epoch(stage, stage.forget)

        def forms() -> list[Example]:
            if kind == "alternative" and needs.alternative:
                return [with_alternative(e, needs.alternative, seed=stage.seed) for e in asked]
            if kind == "aside":
                return [variants.aside(example) for example in asked]
            if kind == "decoupled":
                return [variants.decoupled(example) for example in asked]
            if kind == "orders":
                return [one.example for e in asked for one in variants.turned(e)[1:]]
            bare = [variants.bare(example) for example in asked]
            return [text for one in bare if one for text in expand_options(one)]

        settings = stage.settings
        of = (stage.forget, stage.retain, stage.others, settings.forms, settings.modalities)
        key = (kind, needs.alternative, *of)
        pool = self._pool(key, forms)
        return Beside(kind, pool, pool.count / len(asked))

    def replayed(self, stage: TrainingStage) -> Pool:
        """Return general questions to train on."""
        return self._pool("replayed", lambda: general_epochs(self._inputs, stage)(0))

    def checked(self, group: Group, decides: str) -> Pool:
        """Return what stop rules ask of a group, by the reading that decides."""
        reading: Reading = "options" if decides in ("rotated", "likelihood") else "answer"
        turned = decides == "rotated"
        return self._pool_of_people(
            ("checked", group, turned, reading),
            self._people(group),
            partial(other_view_examples, self._inputs, turned=turned),
            reading,
        )

    def scored(self, stage: ScoreStage) -> list[tuple[Form, Pool]]:
        """Return what a score stage asks of people and in general, by form; none that is empty."""
        found: list[tuple[Form, Pool]] = []
        # General questions are the same for every stage.
        for part in (replace(stage, general=False), replace(stage, ask=())):
            # Which group somebody is in, and where in it, does not change what is asked of them.
            ids = dict.fromkeys(
                one for group in part.ask for one in likely_people(self._inputs, group)
            )
            who = frozenset(ids)
            how = (part.facts, part.facts_seed, part.prompted, part.shots)
            key = (who, part.view, part.turned, part.general, *how)
            people = [self._inputs.people[one] for one in ids]
            for form in FORMS:
                read = partial(self._asked, part, form)
                found.append((form, self._pool_of_people((key, form), people, read, "reply")))
        return [(form, pool) for form, pool in found if pool.count]

    def _asked(self, stage: ScoreStage, form: Form, people: Sequence[Individual]) -> list[Example]:
        """Return what a score stage asks of some of its people, in one form."""
        chosen = {person.id for person in people}

        def resolve(group: Group) -> list[str]:
            return [one for one in likely_people(self._inputs, group) if one in chosen]

        key = frozenset(chosen)
        if self._reading != (stage.name, stage.general):
            self._reading, self._read = (stage.name, stage.general), {}
        if key not in self._read:
            self._read[key] = stage_examples(self._inputs, stage, resolve)
        return [example for example in self._read[key] if _form_of(example) == form]

    def steps(self, stage: FinetuneStage) -> int:
        """Return how many steps a fine-tuning takes at most."""
        people = self._people(stage.learn)
        learned = [with_facts(one, stage.facts, seed=stage.facts_seed) for one in people]
        settings = stage.settings
        return steps_of_epochs(
            training_count(learned, settings.forms),
            batch_size=settings.optimiser.batch_size,
            replay=settings.replay,
            epochs=settings.epochs,
            steps=settings.steps,
        )

    def taken(self, examples: Sequence[Example], reading: Reading = "answer") -> Asked:
        """Return what these examples take together."""
        return sum((one for e in examples for one in self._passes(e, reading)), NOTHING)

    def _people(self, group: Group) -> list[Individual]:
        return [self._inputs.people[key] for key in likely_people(self._inputs, group)]

    def _pool(
        self, key: object, read: Callable[[], Sequence[Example]], reading: Reading = "answer"
    ) -> Pool:
        if key not in self._known:
            self._known[key] = self._measured(read(), reading)
        return self._known[key]

    def _pool_of_people(
        self,
        key: object,
        people: Sequence[Individual],
        read: Callable[[Sequence[Individual]], Sequence[Example]],
        reading: Reading = "answer",
    ) -> Pool:
        """Return the pool of what is read of people; of many, of some who stand for the rest."""
        if key in self._known:
            return self._known[key]
        if len(people) <= SURVEYED:
            return self._pool(key, lambda: read(people), reading)
        some = [people[place * len(people) // SURVEYED] for place in range(SURVEYED)]
        pool = self._measured(read(some), reading, beside=read(_longest(people)))
        share = _questions_of(people) / max(_questions_of(some), 1)
        self._known[key] = replace(pool, count=round(pool.count * share))
        return self._known[key]

    def _measured(
        self, examples: Sequence[Example], reading: Reading, *, beside: Sequence[Example] = ()
    ) -> Pool:
        """Measure a pool; `beside` are further ones that may hold the longest."""
        if not examples:
            return Pool()
        # Kind by kind: every n-th of five and five questions a person might be all of one.
        ordered = sorted(examples, key=lambda example: example.picture is None)
        count = min(SAMPLE, len(ordered))
        sample = [ordered[place * len(ordered) // count] for place in range(count)]
        by_length = sorted((*examples, *beside), key=lambda example: len(example.prompt))
        looked_at = (*sample, *by_length[-LONGEST:])
        most = [one for example in looked_at for one in self._passes(example, reading)]
        return Pool(
            len(examples),
            self.taken(sample, reading).times(1 / len(sample)),
            Batch(
                longest=round(max(one.tokens for one in most)),
                answer=round(max(one.answers for one in most)),
                pictures=round(max(one.pictures for one in most)),
                patches=round(max(one.patches / max(one.pictures, 1) for one in most)),
            ),
        )

    def _passes(self, example: Example, reading: Reading) -> list[Asked]:
        """Return what each pass over an example takes; the first one counts as the question."""
        written = example.system + example.prompt + example.begun
        prompt = self._count(written) + TEMPLATE_TOKENS
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


def _longest(people: Sequence[Individual]) -> list[Individual]:
    """Return the people who are asked the questions of most characters, options included."""

    def characters(person: Individual) -> int:
        return max(
            (
                len(q.hint) + len(q.question) + sum(len(option.text) for option in q.options)
                for q in person.questions
            ),
            default=0,
        )

    return sorted(people, key=characters)[-LONGEST:]


def _modalities(stage: TrainingStage, group: Group) -> Modalities:
    """Return what a training shows of a group: of D_unlearn perhaps one modality alone."""
    if isinstance(stage, UnlearnStage) and group == stage.forget:
        return stage.settings.modalities
    return "both"


def _questions_of(people: Sequence[Individual]) -> int:
    return sum(len(person.questions) for person in people)


def _form_of(example: Example) -> Form:
    if example.asked_as == "words":
        return "words"
    return "orders" if example.rotation else "file"


def picture_size(picture: Picture) -> tuple[int, int]:
    """Return width and height in pixels, from the file's head; assumed for a placeholder."""
    if not picture.data:
        return ASSUMED_SIDE, ASSUMED_SIDE
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.size
