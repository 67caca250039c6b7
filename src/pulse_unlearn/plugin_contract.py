"""What a plug-in must keep, tried out: `pulse plugin check PACKAGE`.

Methods are applied to the embedded model, on a few of the people it knows, through the session that
a run gives them. Nothing is written but to a temporary folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from pulse_unlearn.config import LoraSettings, ModelSettings, Settings, UnlearnSettings
from pulse_unlearn.config import Scenario as ScenarioSettings
from pulse_unlearn.data.datasets import DatasetEntry, load_people
from pulse_unlearn.data.examples import training
from pulse_unlearn.data.prompts import PromptProfile
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.errors import (
    ConfigError,
    Interrupted,
    MethodError,
    PluginError,
    Problem,
    PulseError,
)
from pulse_unlearn.evaluation.parsers import require_parsed
from pulse_unlearn.isolation import deadline, isolated
from pulse_unlearn.methods import Checked, Loss, Needs, Part, Procedure, Request, losses
from pulse_unlearn.models.adapters import (
    AdapterStack,
    AnyModel,
    TrainableModel,
    add_trainable,
    prepare,
    prepare_full,
)
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.families import Family
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.records import Example, Individual, Option
from pulse_unlearn.registries import GROUPS, registry
from pulse_unlearn.registry import did_you_mean, origin_of
from pulse_unlearn.scenarios import Condition, Scenario
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch
from pulse_unlearn.training.objectives import Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.session import MethodSession, carried
from pulse_unlearn.training.state import copy_weights, trained
from pulse_unlearn.training.steps import UnlearnSteps

SECONDS = 60.0
"""No rule may take longer to be tried."""
_STEPS = 3
_PEOPLE = 2
_MOST_LIVES = 40
_PREFIX = "pulse_unlearn."
_TEXTS = (
    *("", " ", "\n\n", "\x00", "\ufffd\u202e", "A", "b", "(C)", "D.", "E", "AB", "A or B"),
    *("The answer is C.", "I don't know.", "选项 B", "Ответ: А", "🙂", "é" * 300, "Because"),
    *("A" * 10_000, "A B C D " * 1250, "(" * 10_000, "word " * 2000, "9" * 10_000),
)
_OPTIONS = (
    (Option("A", "baker"), Option("B", "a judge"), Option("C", "A"), Option("D", "é")),
    (Option("A", "same"), Option("B", "same"), Option("C", "(.*")),
)
_KINDS: Mapping[str, type] = {
    "scenarios": Scenario,
    "families": Family,
    "datasets": DatasetEntry,
    "prompts": PromptProfile,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One rule that one entry point keeps or does not."""

    entry: str
    """Group and name."""
    rule: str
    problem: Problem | None = None
    """None if the rule is kept."""
    is_warning: bool = False


class _Tries:
    """Tries the rules of one entry point; whatever is raised breaks the rule."""

    def __init__(self, point: EntryPoint) -> None:
        self.point, self.origin = point, origin_of(point)
        self.group = point.group.removeprefix(_PREFIX)
        self.failed = False

    def __call__(self, rule: str, action: Callable[[], None], *, warns: bool = False) -> Check:
        entry, problem = f"{self.group} {self.point.name}", None
        try:
            with isolated(entry, self.origin), deadline(SECONDS):
                action()
        except PluginError as error:
            cause, problem = error.__cause__, Problem("raises", got=error.problems[0].got)
            if isinstance(cause, PulseError):
                problem = cause.problems[0]
        self.failed = problem is not None and not warns
        return Check(entry, rule, problem, is_warning=warns)


def check_package(package: str) -> Iterator[Check]:
    """Try each entry point that a distribution adds to PULSE; raises ConfigError for none."""
    try:
        points = [p for p in distribution(package).entry_points if p.group.startswith(_PREFIX)]
    except PackageNotFoundError:
        points = []
    if not points:
        found = [point.dist for group in GROUPS for point in entry_points(group=_PREFIX + group)]
        having = sorted({one.name for one in found if one})
        what = "no installed package of this name has entry points of PULSE"
        fix = did_you_mean(package, having) or "install it: pip install -e FOLDER"
        raise ConfigError(Problem(what, got=package, allowed=", ".join(having), fix=fix))
    for point in sorted(points):
        yield from _check_point(_Tries(point))


def _check_point(tries: _Tries) -> Iterator[Check]:
    group, loaded = tries.group, list[Any]()
    yield tries("loads", lambda: loaded.append(_load(group, tries.point)))
    if tries.failed:
        return
    entry = loaded[0]
    if group == "methods":
        yield from _method_checks(entry, tries)
    elif group == "parsers":
        yield tries("reads any text", lambda: _read_odd_texts(entry))
    else:
        yield tries("is what its group holds", lambda: _require_kind(group, entry))


def _load(group: str, point: EntryPoint) -> Any:
    if group not in GROUPS:
        fix = did_you_mean(group, GROUPS)
        raise MethodError(Problem("there is no such group", "", group, ", ".join(GROUPS), fix))
    entries = registry(group)
    if point.name in entries.names() and entries.origin(point.name) is None:
        raise MethodError(Problem("the name is one of PULSE's own", got=point.name))
    return point.load()


def _require_kind(group: str, entry: Any) -> None:
    if group == "evaluations":
        _require_settings(entry, Settings)
        kept, allowed = isinstance(entry(), Condition), "a settings model with plan(planner)"
    elif group in _KINDS:
        kept, allowed = isinstance(entry, _KINDS[group]), f"a {_KINDS[group].__name__}"
    else:
        kept, allowed = callable(entry), "a function"
    if not kept:
        raise MethodError(Problem("is not what its group holds", "", repr(entry), allowed))
    if isinstance(entry, Scenario):
        _require_settings(entry.settings, ScenarioSettings)


def _require_settings(entry: Any, base: type[Settings]) -> None:
    """Raise MethodError unless an entry is a frozen settings model, all of it with defaults."""
    if not (isinstance(entry, type) and issubclass(entry, base)):
        allowed = f"a class with the base pulse_unlearn.config.{base.__name__}"
        raise MethodError(Problem("is no settings model", got=repr(entry), allowed=allowed))
    if not entry.model_config.get("frozen"):
        fix = f"leave model_config as {base.__name__} has it"
        raise MethodError(Problem("its settings can be changed", got="frozen=False", fix=fix))
    required = [name for name, one in entry.model_fields.items() if one.is_required()]
    if required:
        raise MethodError(Problem("has settings without a default", got=", ".join(required)))


def _read_odd_texts(parser: Any) -> None:
    for text in _TEXTS:
        for options in _OPTIONS:
            shown = f"{text[:40]!r} ({len(text)} characters)"
            try:
                read = [require_parsed(parser(text, options), options) for _ in range(2)]
            except Exception as error:
                got = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise MethodError(Problem(f"fails on {shown}", got=got)) from error
            if read[0] != read[1]:
                got = f"{read[0]}, then {read[1]}"
                raise MethodError(Problem(f"reads {shown} in two ways", got=got))


def _method_checks(entry: Any, tries: _Tries) -> Iterator[Check]:
    """Try all that a method must keep; stop where nothing more can be said."""
    yield tries("settings", lambda: _require_settings(entry, Settings))
    if tries.failed:
        return
    trials, left = list[_Trial](), list[_Applied]()
    yield tries("needs, and terms or run", lambda: trials.append(_Trial(entry())))
    if tries.failed:
        return
    trial = trials[0]
    if not isinstance(trial.method, Procedure):
        yield tries("a finite value an example, with gradients", trial.look_at_terms)
    if tries.failed:
        return
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield tries("edits only its scope", lambda: left.append(trial.apply(folder / "1")))
        if tries.failed:
            return
        first = left[0]
        yield tries("twice the same bits", lambda: first.require_same(trial.apply(folder / "2")))
        yield tries("resumes to the same bits", lambda: trial.resume(folder / "3", first))
        if isinstance(trial.method, Procedure):
            yield tries("takes a second request", lambda: trial.follow(folder / "4", first))
        yield tries("forget answers become less likely", first.require_forgetting, warns=True)


@dataclass(frozen=True, slots=True)
class _Applied:
    """What one application of a method left: tensors, and the forget answers' likelihood."""

    weights: Mapping[str, Tensor]
    carried: Mapping[str, Tensor]
    before: float
    """Mean negative log-likelihood, nats a token."""
    after: float

    def require_same(self, other: _Applied) -> None:
        for one, two in ((self.weights, other.weights), (self.carried, other.carried)):
            for name in sorted(one.keys() | two.keys()):
                if name not in one or name not in two or not torch.equal(one[name], two[name]):
                    fix = "draw from session.generator alone; keep nothing in the class or module"
                    raise MethodError(Problem("a tensor differs", got=name, fix=fix))

    def require_forgetting(self) -> None:
        if not self.after > self.before:
            got = f"mean NLL {self.before:.4f} before, {self.after:.4f} after, nats a token"
            fix = "look at the sign of the loss, unless it forgets in another way"
            raise MethodError(Problem("they did not after a few steps", got=got, fix=fix))


class _Trial:
    """A method, the embedded model, and a few people to forget and to retain."""

    def __init__(self, method: Any) -> None:
        if not isinstance(method, Loss | Procedure) or not isinstance(method.needs, Needs):
            allowed = "needs, a Needs, and terms(views) or run(session)"
            raise MethodError(Problem("is no method", got=repr(method), allowed=allowed))
        self.method: Any = method
        self.settings = _accepted(method)
        self.loaded = load_model(ModelSettings(device="cpu"))
        known = [p for p in load_people("world").individuals if p.group == "celebrity"]
        self.forget, self.retain = known[:_PEOPLE], known[_PEOPLE : 2 * _PEOPLE]
        self.variants = Variants(self.forget, self.retain, profile="short", seed=0)
        self.stops_each_step = self.asked = False

    def plan(self, steps: int) -> UnlearnSteps:
        """Return the step data of a phase, as a run would."""

        def epochs(people: Sequence[Individual]) -> Callable[[int], list[Example]]:
            return lambda epoch: training(
                people, profile="short", seed=0, epoch=epoch, forms="multiple_choice"
            )

        retain = epochs(self.retain) if self.method.needs.retain else None
        size = self.settings.optimiser.batch_size
        data = (epochs(self.forget), retain, epochs(()))
        return UnlearnSteps(*data, batch_size=size, general_share=0.0, steps=steps, seed=0)

    def views(self, part: Part, epochs: int) -> list[Example]:
        """Return what is embedded of the people to forget or to retain."""
        people = self.forget if part == "forget" else self.retain
        return [
            example
            for epoch in range(epochs)
            for example in training(people, profile="short", seed=0, epoch=epoch, forms="both")
        ]

    def prepared(self) -> tuple[TrainableModel, Plain]:
        """Return a copy of the model, ready to be trained, and what reads it."""
        model, family = copy.deepcopy(self.loaded.model), self.loaded.family
        scope, lora = self.settings.scope, self.settings.lora

        def fresh(base: AnyModel) -> Any:
            return add_trainable(base, family, scope, lora=lora, seed=0)

        if self.settings.update == "full":
            made = prepare_full(model, AdapterStack(), family=family, scope=scope)
        else:
            made = prepare(model, AdapterStack(), how="merged", fresh=fresh)
        return made, Plain(made.model, Encoder(self.loaded.processor, family))

    def look_at_terms(self) -> None:
        """Raise MethodError unless a loss gives finite values, and gradients to what is trained."""
        prepared, backend = self.prepared()
        tokens, references = self.settings.answer_tokens, References(prepared, backend)
        data = self.plan(1)[0]
        terms = Unlearning(
            backend, self.method, tokens, references, seed=0, variants=self.variants
        ).terms(data)
        for term in terms:
            if not torch.isfinite(term.values).all():
                got = f"{term.values.tolist()}"
                raise MethodError(Problem(f"the term '{term.name}' is not finite", got=got))
        loss = weighted_sum(terms, data)
        if not loss.requires_grad:
            fix = "compute it from views.forget.log_probs, without detach or no_grad"
            raise MethodError(Problem("no gradient reaches the trained tensors", fix=fix))
        loss.backward()  # type: ignore[no-untyped-call]
        for name, tensor in trained(prepared.model).items():
            if tensor.grad is not None and not torch.isfinite(tensor.grad).all():
                raise MethodError(Problem("has a gradient that is not finite", got=name))

    def apply(
        self,
        folder: Path,
        *,
        history: Sequence[Request] = (),
        state: Mapping[str, Tensor] | None = None,
    ) -> _Applied:
        """Apply the method to a fresh copy; raises MethodError if it changes what is not trained.

        Raises Interrupted after the first new step if `stops_each_step`.
        """
        prepared, backend = self.prepared()
        model = prepared.model
        names = set(trained(model))
        own = {tensor.data_ptr() for tensor in trained(model).values()}
        # A head that is tied to trained embeddings is trained, though it has no name of its own.
        frozen = {n: t.clone() for n, t in model.state_dict().items() if t.data_ptr() not in own}
        before, self.asked = self._nll(backend), False

        def on_step(*_: object) -> None:
            self.asked = self.stops_each_step

        checkpoints = folder / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        MethodSession(
            backend,
            References(prepared, backend),
            self.settings,
            self.plan,
            StopRule(check_every=1),
            accuracy=lambda: 1.0,
            seed=0,
            watch=Watch(checkpoints, 1e9, on_step, lambda: self.asked, lambda _: None),
            folder=folder,
            history=history,
            state=state or {},
            variants=self.variants,
            views=self.views,
        ).apply(self.method)
        if self.asked:
            fix = "let pulse_unlearn.errors.Interrupted pass"
            raise MethodError(Problem("goes on although it was asked to stop", fix=fix))
        now = model.state_dict()
        changed = [name for name, value in frozen.items() if not torch.equal(value, now[name])]
        changed += sorted(names ^ set(trained(model)))
        if changed:
            got = f"{len(changed)} tensors, such as {changed[0]}"
            fix = "change tensors by session.edit, which knows the scope"
            raise MethodError(Problem("changed what is not trained", got=got, fix=fix))
        return _Applied(copy_weights(model), carried(folder), before, self._nll(backend))

    def resume(self, folder: Path, uninterrupted: _Applied) -> None:
        """Stop after every step and continue in a fresh model; the end must be the same."""
        self.stops_each_step = True
        try:
            for _ in range(_MOST_LIVES):
                try:
                    return uninterrupted.require_same(self.apply(folder))
                except Interrupted:
                    continue
        finally:
            self.stops_each_step = False
        raise MethodError(Problem("does not end", got=f"stopped and continued {_MOST_LIVES} times"))

    def follow(self, folder: Path, earlier: _Applied) -> None:
        """Apply the method to a request after another one, with what that one carried."""
        request = Request("earlier", tuple(person.id for person in self.forget))
        self.apply(folder, history=[request], state=earlier.carried)

    def _nll(self, backend: Plain) -> float:
        backend.model.eval()
        asked = self.plan(1)[0].forget
        with torch.no_grad():
            view = backend.answer_log_probs(asked, tokens=self.settings.answer_tokens)
        return float(losses.mean_nll(view).mean())


def _accepted(method: Any) -> UnlearnSettings:
    """Return the first way of updating the model that a method accepts."""
    common = {
        "lora": LoraSettings(rank=4, alpha=8.0, dropout=0.1),
        "optimiser": {"learning_rate": 3e-4, "batch_size": 4, "micro_batch_size": 4},
        "stop": {"max_steps": _STEPS},
    }
    problems: list[Problem] = []
    for way in ({}, {"adapter": "continued"}, {"update": "full"}):
        settings = UnlearnSettings.model_validate({**common, **way})
        problems = list(method.problems(settings)) if isinstance(method, Checked) else []
        if not problems:
            return settings
    raise MethodError([Problem("accepts no way of updating the model"), *problems])
