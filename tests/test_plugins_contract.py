"""`pulse plugin check`: a plug-in that keeps the contract, and one for each way of breaking it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import plugin_cases as plugins
from pulse_unlearn import plugin_contract, registries, registry
from pulse_unlearn.cli import pulse
from pulse_unlearn.errors import ConfigError
from pulse_unlearn.methods import METHODS, build_method
from pulse_unlearn.plugin_contract import check_package

ASCENT = "return (Term('x', {}),)"
COUNTING = """
calls = 0
def hook(gradients):
    nonlocal calls
    calls += 1
    for gradient in gradients.values():
        gradient.mul_(calls)
session.train(GradientAscent(), gradient_hook=hook)
"""
SWALLOWING = """
try:
    session.train(GradientAscent())
except Exception:
    pass
"""
FROZEN = """
with torch.no_grad():
    next(p for p in session.model.parameters() if not p.requires_grad).add_(1)
"""
ELSEWHERE = "session.edit({'lm_head.weight': torch.zeros(1)})"
CLOCK = """
import itertools
counter = globals().setdefault('counter', itertools.count(1))
name = sorted(session.initial)[0]
session.edit({name: session.initial[name] * next(counter)})
"""
CARRIES = """
if session.history:
    raise RuntimeError("only one request is foreseen")
session.train(GradientAscent(), steps=1)
session.carry({"a": torch.ones(1)})
"""
NO_SETTINGS = "class Broken:\n    pass\n"
THAWED = """
from pydantic import ConfigDict
from pulse_unlearn.config import Settings


class Broken(Settings):
    model_config = ConfigDict(frozen=False)
"""
REQUIRED = (
    "from pulse_unlearn.config import Settings\n\n\nclass Broken(Settings):\n    beta: float\n"
)
IDLE = "from pulse_unlearn.config import Settings\n\n\nclass Broken(Settings):\n    pass\n"
METHODS_THAT_BREAK = {
    "missing": ("import nothing_of_that_name", "loads", "No module named 'nothing_of_that_name'"),
    "plain": (NO_SETTINGS, "settings", "is no settings model"),
    "thawed": (THAWED, "settings", "its settings can be changed"),
    "required": (REQUIRED, "settings", "has settings without a default; got: beta"),
    "idle": (IDLE, "needs, and terms or run", "is no method"),
    "mean": (
        plugins.loss("Broken", ASCENT.format("losses.gradient_ascent(views.forget).mean()")),
        "a finite value an example, with gradients",
        "the term 'x' has not one value for each example; got: shape []; allowed: [4]",
    ),
    "infinite": (
        plugins.loss("Broken", ASCENT.format("losses.gradient_ascent(views.forget) / 0")),
        "a finite value an example, with gradients",
        "the term 'x' is not finite",
    ),
    "detached": (
        plugins.loss("Broken", ASCENT.format("losses.gradient_ascent(views.forget).detach()")),
        "a finite value an example, with gradients",
        "no gradient reaches the trained tensors",
    ),
    "exits": (
        plugins.loss("Broken", "import sys\nsys.exit(0)"),
        "a finite value an example, with gradients",
        "raises; got: SystemExit: 0 (exits.py, line ",
    ),
    "frozen": (
        plugins.procedure("Broken", FROZEN),
        "edits only its scope",
        "changed what is not trained",
    ),
    "elsewhere": (
        plugins.procedure("Broken", ELSEWHERE),
        "edits only its scope",
        "is not trained, so it must stay as it is",
    ),
    "clock": (plugins.procedure("Broken", CLOCK), "twice the same bits", "a tensor differs"),
    "counting": (
        plugins.procedure("Broken", COUNTING),
        "resumes to the same bits",
        "a tensor differs",
    ),
    "swallowing": (
        plugins.procedure("Broken", SWALLOWING),
        "resumes to the same bits",
        "goes on although it was asked to stop",
    ),
    "single": (
        plugins.procedure("Broken", CARRIES),
        "takes a second request",
        "RuntimeError: only one request is foreseen",
    ),
}
PARSER = "from pulse_unlearn.evaluation.parsers import UNPARSABLE, Parsed\n\n\n"
OTHERS_THAT_BREAK = {
    "raising": (
        "parsers",
        PARSER + "def Broken(text, options):\n    return text[0]\n",
        "IndexError",
    ),
    "texts": ("parsers", PARSER + "def Broken(text, options):\n    return 'A'\n", "got: 'A'"),
    "beyond": (
        "parsers",
        PARSER + "def Broken(text, options):\n    return Parsed('answered', 'Z')\n",
        "letter='Z'",
    ),
    "moody": (
        "parsers",
        PARSER + "import itertools\n\nturn = itertools.cycle(['A', 'B'])\n\n\n"
        "def Broken(text, options):\n    return Parsed('answered', next(turn))\n",
        "in two ways",
    ),
    "planless": ("evaluations", IDLE, "a settings model with plan(planner)"),
    "number": ("measures", "Broken = 3\n", "allowed: a function"),
    "undescribed": ("datasets", "def Broken(source):\n    pass\n", "allowed: a DatasetEntry"),
    "misspelt": ("method", IDLE, "did you mean 'methods'?"),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package whose one entry `NAME` is the object `Broken` of its source."""
    for group in registries.GROUPS:
        registries.registry(group).names()  # read now, so that no broken entry stays for others

    def install(name, source, group="methods", entry=None):
        named = {group: {entry or f"{name}_entry": "Broken"}}
        plugins.install(tmp_path, name, source, named)
        monkeypatch.syspath_prepend(tmp_path)
        return name

    return install


def checked(package):
    result = CliRunner().invoke(pulse, ["plugin", "check", package])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", METHODS_THAT_BREAK)
def test_a_method_that_breaks_a_rule_fails_it_by_name(installed, name):
    source, rule, said = METHODS_THAT_BREAK[name]
    code, output = checked(installed(name, source))
    assert code == 1
    line, *_ = [line for line in output.splitlines() if line.startswith("FAILS")]
    assert line.startswith(f"FAILS  methods {name}_entry: {rule}: ")
    assert said in line


@pytest.mark.parametrize("name", OTHERS_THAT_BREAK)
def test_another_entry_that_breaks_a_rule_fails_it_by_name(installed, name):
    group, source, said = OTHERS_THAT_BREAK[name]
    code, output = checked(installed(name, source, group))
    assert code == 1
    (line,) = [line for line in output.splitlines() if line.startswith("FAILS")]
    assert f"{group} {name}_entry" in line
    assert said in line


def test_packages_are_looked_through_once_until_the_path_changes(tmp_path, monkeypatch):
    """Mutations: `_installed` without its cache; a cache that does not know the path."""
    looked = []
    real = registry.entry_points
    monkeypatch.setattr(registry, "entry_points", lambda: looked.append(1) or real())
    registry._installed.cache_clear()
    for _ in range(3):
        assert registry.third_party("pulse_unlearn.runners", "probe") is None
    assert len(looked) == 1
    plugins.install(tmp_path, "probing", "run_probe = print", {"runners": {"probe": "run_probe"}})
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.third_party("pulse_unlearn.runners", "probe").package == "probing"


def test_a_name_of_pulse_s_own_is_refused(installed):
    code, output = checked(installed("taking", IDLE, entry="ga"))
    assert code == 1
    assert "the name is one of PULSE's own; got: ga" in output


def test_a_method_that_hangs_is_interrupted(installed, monkeypatch):
    monkeypatch.setattr(plugin_contract, "SECONDS", 5.0)
    code, output = checked(installed("slow", plugins.loss("Broken", "import time\ntime.sleep(99)")))
    assert code == 1
    assert "does not return, so it was interrupted; got: nothing for 5 s" in output


def test_a_loss_of_the_wrong_sign_is_warned_of(installed):
    source = plugins.loss("Broken", ASCENT.format("losses.mean_nll(views.forget)"))
    code, output = checked(installed("descent", source))
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if not line.startswith("ok")]
    assert line.startswith("warns  methods descent_entry: forget answers become less likely: ")
    assert "look at the sign of the loss" in line


def test_an_unknown_package_is_told_which_ones_there_are(installed):
    installed("present", IDLE)
    with pytest.raises(ConfigError, match="did you mean 'present'"):
        list(check_package("presen"))


@pytest.mark.slow
def test_the_methods_of_this_package_keep_the_contract(tmp_path, monkeypatch):
    lines = ["from pulse_unlearn.methods import METHODS", ""]
    lines += [f"{name} = METHODS.get('{name}')" for name in METHODS.names()]
    entries = {f"own_{name}": name for name in METHODS.names()}
    plugins.install(tmp_path, "own_methods", "\n".join(lines), {"methods": entries})
    monkeypatch.syspath_prepend(tmp_path)
    found = list(check_package("own_methods"))
    assert {check.entry for check in found} == {f"methods {name}" for name in entries}
    failed = [check for check in found if check.problem]
    assert [check for check in failed if not check.is_warning] == []
    # Weighted as published, they hardly move at first where their retain term begins at once.
    slow_to_begin = {"methods own_sat_imp", "methods own_simnpo"}
    assert {(check.entry, check.rule) for check in failed} == {
        (entry, "forget answers become less likely") for entry in slow_to_begin
    }


def test_a_head_tied_to_trained_embeddings_is_trained_with_them(tmp_path):
    trial = plugin_contract._Trial(build_method("sine_project", {}))
    assert trial.settings.update == "full"
    left = trial.apply(tmp_path)
    model = trial.loaded.model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert any("embed_tokens" in name for name in left.weights)
