"""What a method is: pure losses on what a model says, or a procedure over a training session.

A *loss* returns one value per example from `terms(views)`; it never sees a model, the number of
accumulation steps or of workers, and the training loop does every normalisation. A *procedure* has
`run(session)` and drives phases of that loop, looks at gradients or activations, and edits the
trained tensors (`Session`). A loss is run as a procedure of one phase.

Shape letters: B examples, A answer positions (padded to the longest answer of the batch),
V vocabulary entries, D width of the language model, R forms of a question, O options.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import ConfigDict

from pulse_unlearn.config import Settings, UnlearnSettings
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.records import Alternative, Modality
from pulse_unlearn.registry import Registry

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from pulse_unlearn.methods.gates import Fitted


@dataclass(frozen=True, slots=True)
class AnswerView:
    """What one model says at the answer positions of one batch."""

    log_probs: Tensor
    """Natural log-probabilities over the vocabulary, [B, A, V]; of a reference view with extent
    `answer` those of the answer's own tokens, V = 1, with extent `hidden` nothing, V = 0."""
    labels: Tensor
    """Token ids of the answer, [B, A]; arbitrary valid ids where `mask` is false."""
    mask: Tensor
    """True at answer tokens, [B, A]."""
    hidden: Tensor | None = None
    """Output of the layer that `Needs.hidden_layer` names at the positions whose next token is the
    answer's, [B, A, D]; None unless it is needed. Arbitrary where `mask` is false."""


@dataclass(frozen=True, slots=True)
class OptionView:
    """How likely one model says each option of a question is, in each form it was asked in.

    Columns are the options in the order of the forget example itself, whatever the form's order;
    O is the largest number of options of the batch, R that of forms.
    """

    log_probs: Tensor
    """Natural, [B, R, O], not renormalised over the options: of the option's letter as the first
    answer token or, where it is answered in words, of its text, summed over its tokens."""
    mask: Tensor
    """True at options that there are, [B, R, O]; a form that was not asked has none."""


@dataclass(frozen=True, slots=True)
class Views:
    """Everything a loss may look at in one step; a part it does not need is None."""

    forget: AnswerView
    retain: AnswerView | None = None
    forget_reference: AnswerView | None = None
    retain_reference: AnswerView | None = None
    alternative: AnswerView | None = None
    """The forget questions with another answer than the true one."""
    alternative_reference: AnswerView | None = None
    options: OptionView | None = None
    """Of the forget questions: a form for each order, the example's own first; a single one, of
    texts, where the prompt is answered in words."""
    option_words: OptionView | None = None
    """Of the same questions asked bare, one form; none of a question that cannot be."""
    drawn: Tensor | None = None
    """The place of one option of each forget question, [B], among the example's own: any of them,
    the true one as often as another, and the same text in every order and in words."""
    aside: AnswerView | None = None
    """The forget questions asked bare, answered with a text that is none of their options: another
    answer to the same question about somebody else. What was drawn where there is no such text, or
    no such question."""
    letters: Tensor | None = None
    """True at vocabulary entries that begin a letter of the forget example's options, [B, V]."""
    decoupled: AnswerView | None = None
    """For each forget example the same question about a person of the retain data."""


Extent = Literal["answer", "distribution", "hidden"]
"""How much of the reference a method looks at: the probability of each answer token alone, the
whole distribution over the vocabulary, or hidden states. The first is a number an answer token."""


Orders = Literal["one", "all"]
"""Orders of a question's options: the one in which an example shows them, or all cyclic ones."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the loop must provide beyond the forget batch."""

    retain: bool = False
    forget_reference: Extent | None = None
    retain_reference: Extent | None = None
    """Takes `retain`."""
    alternative: Alternative | None = None
    alternative_reference: Extent | None = None
    """Takes `alternative`."""
    options: Orders | None = None
    option_words: bool = False
    drawn: bool = False
    aside: bool = False
    letters: bool = False
    decoupled: bool = False
    """Takes people in `unlearn.retain`, though no retain batch."""
    hidden_layer: int | None = None
    """Layer of the language model, from 0, whose output every view holds; negative ones count from
    the last."""

    @property
    def reference(self) -> bool:
        """Whether the reference model is asked at all."""
        asked = (self.forget_reference, self.retain_reference, self.alternative_reference)
        return any(extent is not None for extent in asked)


@dataclass(frozen=True, slots=True)
class Term:
    """One named part of a loss: a value per example and its weight in the sum."""

    name: str
    values: Tensor
    """[B], in nats."""
    weight: float = 1.0
    over: Literal["forget", "retain"] = "forget"
    """Which batch the values belong to, so that the loop can take the mean over it."""


@runtime_checkable
class Loss(Protocol):
    """A frozen settings model with these two members."""

    @property
    def needs(self) -> Needs:
        """What the loop must provide."""

    def terms(self, views: Views) -> tuple[Term, ...]:
        """Return the parts of the loss to minimise."""


Tensors = Mapping[str, "Tensor"]
"""Name of a trained tensor -> values of its shape."""
Part = Literal["forget", "retain"]
ModelPart = Literal["vision_tower", "projector", "language_model"]
GradientHook = Callable[[dict[str, "Tensor"]], None]
"""Given each trained tensor's gradient over the whole step, before clipping; changes it in place.
Must depend on the gradients and on what was there before the phase alone, or a resumed phase would
differ from an uninterrupted one."""
UpdateHook = Callable[[Tensors], None]
"""Given the trained tensors after each update; changes them in place. Bound as a gradient hook is,
and may besides depend on the tensors as they were before that one update."""
Penalty = Callable[[Tensors], "Tensor"]
"""Trained tensors -> one number, added to each step's loss."""
TermWeights = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]]
"""Log rows of the phase so far, each with every term's mean by its name -> weights that take the
place of the terms' own in the next step. A function of the rows alone, so that it is resumed."""


Serves = Literal["adapter", "refusal"]
"""What is served to a question that a request's gate takes: the answer of the model with that
request's adapter alone, or a refusal. A method says so in a class variable `serves`; scoring then
asks the whole system, and each request begins from the target model."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Embeddings of questions by the frozen base model."""

    states: Tensor
    """Mean output of a layer over the picture's tokens, or the whole question's, [N, D] float64."""
    individuals: tuple[str, ...]
    """Whom each is about; empty for general questions."""
    pictured: tuple[bool, ...]
    """Which of them show a picture."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What enters a linear layer at answer positions: one value per input feature each."""

    mean_absolute: Tensor
    frequency: Tensor
    """Share of the positions where the absolute value is above a threshold."""
    variance: Tensor
    mean_square: Tensor


@dataclass(frozen=True, slots=True)
class Request:
    """An earlier request of the sequence."""

    stage: str
    individuals: tuple[str, ...]


class Session(Protocol):
    """What a procedure works with: one request, one model, the tensors its scope allows.

    A procedure killed at any moment is run again from its beginning: phases of training that are
    complete are not repeated but put back, and everything else is computed anew. So `run` must
    do the same each time: no clock, no randomness but `generator`.
    """

    @property
    def seed(self) -> int:
        """The stage's own seed."""

    @property
    def max_steps(self) -> int:
        """`stop.max_steps`, for a method that divides them among its phases."""

    @property
    def history(self) -> Sequence[Request]:
        """Earlier requests of this sequence, first to last."""

    @property
    def state(self) -> Tensors:
        """What the request before carried over by `carry`; empty for the first."""

    @property
    def initial(self) -> Tensors:
        """The trained tensors as they were when the stage began."""

    @property
    def current(self) -> Tensors:
        """Copies of the trained tensors as they are now."""

    def generator(self, name: str) -> Generator:
        """Return a CPU generator seeded by the stage and a name."""

    def train(
        self,
        loss: Loss,
        *,
        steps: int | None = None,
        stop: bool = True,
        gradient_hook: GradientHook | None = None,
        update_hook: UpdateHook | None = None,
        penalty: Penalty | None = None,
        term_weights: TermWeights | None = None,
        skip: Collection[str] = (),
    ) -> None:
        """Run one phase of the training loop with the experiment's optimiser.

        `steps` defaults to `stop.max_steps`; without `stop` the experiment's stop rule, which
        looks for forgetting, does not end this phase. Forget batches leave out the questions whose
        ids are in `skip`; raises DataError if that leaves none.
        """

    def gradients(
        self, loss: Loss, *, batches: int, squared: bool = False, first: int = 0
    ) -> dict[str, Tensor]:
        """Return the mean gradient of a loss over so many batches, or its mean square (Fisher).

        The batches are those of the steps from `first`, counted from 0.
        """

    def mean_loss(self, loss: Loss, *, batches: int, without_layer: int | None = None) -> float:
        """Return the mean of a loss over so many batches, without dropout.

        With `without_layer` one layer of the language model, from 0, passes on what it is given.
        Raises ValueError if the loss then needs a reference, which would lack it as well.
        """

    def activations(
        self, layers: Sequence[str], part: Part, *, batches: int, above: float = 0.0
    ) -> dict[Modality, dict[str, Activity]]:
        """Return the activity of what enters linear layers, by modality and layer.

        `layers` are full module paths. A modality that the batches do not have is left out.
        """

    def embeddings(
        self, part: Part, *, layer: int = -1, batches: int | None = None
    ) -> dict[str, Tensor]:
        """Return a vector [D] for each question, by its id: what a layer says of it.

        The mean over its answer's positions, where the answer is decided, and over its examples, of
        the language model's layer; float32 on the CPU. Of the first `batches`, or of all examples
        of the first epoch.
        """

    def names_in(self, part: ModelPart) -> tuple[str, ...]:
        """Return the names of the trained tensors in a part of the model."""

    @property
    def layers(self) -> Sequence[tuple[str, ...]]:
        """The names of the trained tensors in each layer of the language model, first to last."""

    def question_embeddings(self, part: Part, *, layer: int, epochs: int) -> Seen:
        """Return embeddings of a part's training views, by the model as it was before it began.

        With and without options, whatever `unlearn.forms` trains on, since people ask both ways.
        """

    def serve(self, serves: Serves, gates: Mapping[str, Fitted], *, layer: int) -> None:
        """Serve this request, beside the earlier ones of the sequence: see `Serves`."""

    def edit(self, tensors: Tensors) -> None:
        """Give trained tensors new values; raises MethodError for any outside the scope."""

    def carry(self, tensors: Tensors) -> None:
        """Keep tensors for the next request of the sequence: its `state`."""


@runtime_checkable
class Procedure(Protocol):
    """A frozen settings model that drives a session.

    Where it only trains, in one phase, a class variable `by_steps` is true: see `goes_by_steps`.
    """

    @property
    def needs(self) -> Needs:
        """What its losses need together, for planning."""

    def run(self, session: Session) -> None:
        """Apply the method to one request."""


Method = Loss | Procedure


@runtime_checkable
class Checked(Protocol):
    """A method that does not work with every setting says which."""

    def problems(self, unlearn: UnlearnSettings) -> Iterable[Problem]:
        """Yield what is wrong with the settings; places are relative to the method's entry."""


class _Unloaded(Settings):
    """Stands for a plug-in that cannot be loaded: takes any settings, and fails its own cells."""

    model_config = ConfigDict(frozen=True, extra="allow")
    problem: ClassVar[Problem]

    @property
    def needs(self) -> Needs:
        """Nothing that is known."""
        return Needs()

    def run(self, session: Session) -> None:
        """Raise MethodError: what went wrong when it was loaded."""
        raise MethodError(self.problem)


def _unloaded(name: str, problem: Problem) -> type:
    told = {
        "problem": problem,
        "__doc__": f"Cannot be loaded: {problem.got}",
        "__module__": __name__,
    }
    return type(f"Unloaded_{name}", (_Unloaded,), told)


METHODS: Registry[type] = Registry("method", group="pulse_unlearn.methods", stand_in=_unloaded)


View = TypeVar("View")


def present(view: View | None, what: str) -> View:
    """Return the view; raises ValueError if the loop did not provide what the method needs."""
    if view is None:
        raise ValueError(f"the training loop did not provide {what}")
    return view


def shows_options(unlearn: UnlearnSettings) -> Iterator[Problem]:
    """Yield a problem where a method on options would be given questions without any."""
    if unlearn.forms != "multiple_choice":
        what = "the method works on options, which short answers have none of"
        yield Problem(what, "unlearn.forms", unlearn.forms, "multiple_choice")
