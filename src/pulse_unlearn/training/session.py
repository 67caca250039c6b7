"""What a method works with while it is applied: phases of the loop, gradients, edits.

A stage that was killed runs its method again from the beginning. Phases of training that are
complete are put back from what they left, the one that was cut off continues from its checkpoint,
and everything else is a function of the weights: so the end is the same, bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pulse_unlearn import store
from pulse_unlearn.config import UnlearnSettings
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.errors import MethodError, Problem
from pulse_unlearn.methods import (
    Activity,
    GradientHook,
    Loss,
    Method,
    ModelPart,
    Part,
    Penalty,
    Procedure,
    Request,
    Seen,
    Serves,
    Tensors,
    TermWeights,
    UpdateHook,
)
from pulse_unlearn.methods.gates import Fitted
from pulse_unlearn.models.adapters import reference_view
from pulse_unlearn.models.forward import Backend, layer_skipped
from pulse_unlearn.models.parts import language_layers, parameters_of
from pulse_unlearn.models.served import INDEX, TENSORS, Entry, ServedSystem, states_of
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.records import Example, Modality
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.inspection import activations, embeddings, evaluated
from pulse_unlearn.training.loop import Hooks, Outcome, Watch, train
from pulse_unlearn.training.objectives import Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.state import copy_weights, gradients_of, put_back, trained
from pulse_unlearn.training.steps import StepData, UnlearnSteps

STATE = "state.safetensors"
"""What a request carries over to the next one, in its stage's folder."""
_DONE = "phase.safetensors"
_OUTCOME = "outcome.json"
_NO_STOP = StopRule(check_every=1)


def _no_views(_part: Part, _epochs: int) -> Sequence[Example]:
    raise MethodError(Problem("this session has no training views to embed"))


@dataclass(slots=True)
class MethodSession:
    """One application of a method; see `methods.Session` for what a procedure may do."""

    backend: Backend
    references: References
    settings: UnlearnSettings
    plan: Callable[[int], UnlearnSteps]
    """Number of steps -> the step data of a phase."""
    stop: StopRule
    accuracy: Callable[[], float]
    seed: int
    watch: Watch
    """Its folder is the one checkpoints of the stage are kept in."""
    folder: Path
    """The stage's folder."""
    history: Sequence[Request] = ()
    state: Mapping[str, Tensor] = field(default_factory=dict)
    stage: str = ""
    """The stage's name: whose adapter it is that a served system picks."""
    served: ServedSystem | None = None
    """What earlier requests of this sequence serve."""
    views: Callable[[Part, int], Sequence[Example]] = _no_views
    """Part and number of epochs -> training views with and without options, to be embedded."""
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    variants: Variants | None = None
    """Other forms of the forget questions; None for losses that look at none."""
    ranks: Ranks = ALONE
    """The processes that apply the method together: each does all of it but for shared steps."""
    snapshots: Sequence[int] = ()
    """Steps, counted over the phases, after which `watch.on_snapshot` is called."""
    phases: list[Outcome] = field(default_factory=list)
    _procedure: bool = False

    @property
    def model(self) -> nn.Module:
        """The model being changed."""
        model: nn.Module = self.backend.model
        return model

    @property
    def current(self) -> Mapping[str, Tensor]:
        """Copies of the trained tensors as they are now."""
        return copy_weights(self.model)

    def apply(self, method: Method) -> Outcome:
        """Carry out a method; return how its phases ended, taken together."""
        self._procedure = isinstance(method, Procedure)
        if isinstance(method, Procedure):
            self.initial = copy_weights(self.model)
            method.run(self)
        else:
            self.train(method)
        return together(self.phases, self.settings.optimiser.micro_batch_size)

    @property
    def max_steps(self) -> int:
        """`stop.max_steps`, for a method that divides them among its phases."""
        return self.settings.stop.max_steps

    def generator(self, name: str) -> torch.Generator:
        """Return a CPU generator seeded by the stage and a name."""
        drawn = sha256(f"{self.seed}:{name}".encode()).digest()[:8]
        return torch.Generator().manual_seed(int.from_bytes(drawn) >> 1)

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
        """Run one phase of the training loop, or put back what it left."""
        number = len(self.phases) + 1
        checkpoints = self.watch.folder
        done = checkpoints / f"phase{number}-done"
        found = store.latest(done, warn=self.watch.warn) if self.ranks.first else None
        left = self.ranks.told(found.path if found else None)
        if left is not None:
            self._put_back(left / _DONE)
            self.phases.append(_outcome(left / _OUTCOME))
            return
        before = sum(phase.steps for phase in self.phases)
        checkpoints.mkdir(exist_ok=True)
        plan = self.plan(steps or self.max_steps)
        outcome = train(
            self.model,
            self._objective(loss),
            plan.without(skip) if skip else plan,
            settings=self.settings.optimiser,
            stop=self.stop if stop else _NO_STOP,
            accuracy=self.accuracy,
            vocabulary=len(self.backend.encoder.tokenizer),
            # A phase of its own seed, so that dropout is not that of the phase before.
            seed=self.seed + before,
            watch=replace(
                self.watch,
                folder=checkpoints / f"phase{number}",
                on_snapshot=lambda step: self.watch.on_snapshot(before + step),
            ),
            hooks=Hooks(gradient_hook, update_hook, penalty, term_weights),
            snapshots=[step - before for step in self.snapshots if step > before],
            ranks=self.ranks,
        )
        if self._procedure and self.ranks.first:
            store.save(done, 0, write=lambda folder: self._finish(folder, outcome))
        self.phases.append(outcome)

    def _finish(self, folder: Path, outcome: Outcome) -> None:
        # What the reference said is kept, too: asked again, its last bits might differ.
        parts = (("weight", self.current), ("kept", self.references.kept))
        tensors = {
            f"{part}.{name}": value.detach().cpu().contiguous()
            for part, of in parts
            for name, value in of.items()
        }
        store.write_bytes(folder / _DONE, serialise(tensors))
        store.write_json(folder / _OUTCOME, asdict(outcome))

    def _put_back(self, file: Path) -> None:
        device = next(iter(trained(self.model).values())).device
        tensors = load_file(file)
        put_back(self.model, _part(tensors, "weight."))
        kept = _part(tensors, "kept.")
        self.references.kept.update({name: value.to(device) for name, value in kept.items()})

    def gradients(
        self, loss: Loss, *, batches: int, squared: bool = False, first: int = 0
    ) -> dict[str, Tensor]:
        """Return the mean gradient of a loss over so many batches, or its mean square."""
        objective, model = self._objective(loss), self.model
        total = {name: torch.zeros_like(tensor) for name, tensor in trained(model).items()}
        was_training = model.training
        model.eval()
        for data in self._batches(batches, first):
            for micro in self._own(data):
                weighted_sum(objective.terms(micro), data).backward()  # type: ignore[no-untyped-call]
            if not self.ranks.alone:
                self.ranks.add(gradients_of(model).values())
            for name, tensor in trained(model).items():
                if tensor.grad is not None:
                    total[name] += (tensor.grad.square() if squared else tensor.grad) / batches
                tensor.grad = None
        model.train(was_training)
        return total

    def mean_loss(self, loss: Loss, *, batches: int, without_layer: int | None = None) -> float:
        """Return the mean of a loss over so many batches; see `methods.Session`."""
        if without_layer is not None and loss.needs.reference:
            raise ValueError("with a layer left out there is no reference to compare with")
        objective, total = self._objective(loss), 0.0
        with evaluated(self.model), layer_skipped(self._layers, without_layer):
            for data in self._batches(batches):
                for micro in self._own(data):
                    total += float(weighted_sum(objective.terms(micro), data))
        return sum(self.ranks.gather(total)) / batches

    def activations(
        self, layers: Sequence[str], part: Part, *, batches: int, above: float = 0.0
    ) -> dict[Modality, dict[str, Activity]]:
        """Return the activity of what enters linear layers, by modality and layer."""
        tokens, asked = self.settings.answer_tokens, self._parts(part, batches)
        return activations(self.backend, layers, asked, tokens=tokens, above=above)

    def embeddings(
        self, part: Part, *, layer: int = -1, batches: int | None = None
    ) -> dict[str, Tensor]:
        """Return a vector [D] for each question, by its id; see `methods.Session`."""
        if batches is None:
            size = self.settings.optimiser.micro_batch_size
            every = self.plan(1).first_epoch(part)
            asked = [every[start : start + size] for start in range(0, len(every), size)]
        else:
            asked = self._parts(part, batches)
        return embeddings(self.backend, asked, tokens=self.settings.answer_tokens, layer=layer)

    def names_in(self, part: ModelPart) -> tuple[str, ...]:
        """Return the names of the trained tensors in a part of the model."""
        return self._names_of(parameters_of(self.model, self.backend.encoder.family, part))

    @property
    def layers(self) -> Sequence[tuple[str, ...]]:
        """The names of the trained tensors in each layer of the language model."""
        return [self._names_of(layer.parameters()) for layer in self._layers]

    @property
    def _layers(self) -> Sequence[nn.Module]:
        return language_layers(self.model, self.backend.encoder.family)

    def _names_of(self, parameters: Iterable[nn.Parameter]) -> tuple[str, ...]:
        within = {id(parameter) for parameter in parameters}
        return tuple(name for name, one in trained(self.model).items() if id(one) in within)

    def question_embeddings(self, part: Part, *, layer: int, epochs: int) -> Seen:
        """Return embeddings of a part's training views by the model as it was.

        Raises MethodError where whole tensors have been trained already: no such model is left.
        """
        if self.settings.update == "full" and self.phases:
            problem = "the model as it was is asked for after whole tensors were trained"
            raise MethodError(Problem(problem, fix="take embeddings before training"))
        examples = self.views(part, epochs)
        size = self.settings.optimiser.micro_batch_size
        with self._as_it_was():
            states = states_of(self.backend, examples, layer=layer, batch_size=size)
        return Seen(
            states,
            tuple(example.individual for example in examples),
            tuple(example.picture is not None for example in examples),
        )

    @contextmanager
    def _as_it_was(self) -> Iterator[None]:
        if self.settings.update == "lora":
            with reference_view(self.references.prepared):
                yield
            return
        with evaluated(self.model):
            yield

    def serve(self, serves: Serves, gates: Mapping[str, Fitted], *, layer: int) -> None:
        """Serve this request beside the earlier ones of the sequence."""
        before = self.served or ServedSystem(serves, layer)
        system = before.with_entry(Entry(self.stage, gates))
        store.write_bytes(self.folder / TENSORS, system.tensors())
        store.write_json(self.folder / INDEX, system.index())

    def edit(self, tensors: Tensors) -> None:
        """Give trained tensors new values; raises MethodError for what the scope does not allow."""
        allowed = trained(self.model)
        problems = []
        for name, value in tensors.items():
            if name not in allowed:
                problems.append(Problem("is not trained, so it must stay as it is", name))
            elif value.shape != allowed[name].shape:
                got, wanted = list(value.shape), list(allowed[name].shape)
                problems.append(Problem("has another shape", name, f"{got}", f"{wanted}"))
            elif not torch.isfinite(value).all():
                problems.append(Problem("has values that are not finite", name))
        if problems:
            raise MethodError(problems)
        with torch.no_grad():
            for name, value in tensors.items():
                allowed[name].copy_(value)
        self.ranks.follow(allowed[name] for name in tensors)

    def carry(self, tensors: Tensors) -> None:
        """Keep tensors for the next request of the sequence."""
        kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        store.write_bytes(self.folder / STATE, serialise(kept))

    def _objective(self, loss: Loss) -> Unlearning:
        tokens = self.settings.answer_tokens
        return Unlearning(self.backend, loss, tokens, self.references, self.seed, self.variants)

    def _batches(self, count: int, first: int = 0) -> list[StepData]:
        steps = self.plan(first + count)
        return [steps[number] for number in range(first, first + count)]

    def _own(self, data: StepData) -> list[StepData]:
        """Return this rank's part of a step, in micro-batches."""
        return data.part_of(self.ranks).micro_batches(self.settings.optimiser.micro_batch_size)

    def _parts(self, part: Part, batches: int) -> list[tuple[Example, ...]]:
        size = self.settings.optimiser.micro_batch_size
        chosen = []
        for data in self._batches(batches):
            for micro in data.micro_batches(size):
                examples = micro.forget if part == "forget" else micro.retain
                if examples:
                    chosen.append(examples)
        return chosen


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def carried(folder: Path) -> dict[str, Tensor]:
    """Return what a finished request left for the next one; empty if nothing."""
    path = folder / STATE
    return load_file(path) if path.is_file() else {}


def together(phases: Sequence[Outcome], micro_batch_size: int) -> Outcome:
    """Return the outcome of several phases as one: steps are counted on from phase to phase."""
    if len(phases) == 1:
        return phases[0]
    rows, checks, done = [], [], 0
    for number, phase in enumerate(phases, start=1):
        rows += [{**row, "step": row["step"] + done, "phase": number} for row in phase.rows]
        checks += [(step + done, value) for step, value in phase.checks]
        done += phase.steps
    return Outcome(
        steps=done,
        stopped_by=phases[-1].stopped_by if phases else "procedure",
        skipped_steps=sum(phase.skipped_steps for phase in phases),
        flags=tuple(dict.fromkeys(flag for phase in phases for flag in phase.flags)),
        checks=tuple(checks),
        micro_batch_size=phases[-1].micro_batch_size if phases else micro_batch_size,
        rows=tuple(rows),
    )


def _outcome(path: Path) -> Outcome:
    read = json.loads(path.read_text(encoding="utf-8"))
    read["checks"] = tuple((step, value) for step, value in read["checks"])
    return Outcome(**{**read, "flags": tuple(read["flags"]), "rows": tuple(read["rows"])})
