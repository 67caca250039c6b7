"""The house: rooms import upwards only, and the light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "pulse_unlearn"

LEVELS = {
    "errors": 0,
    "records": 0,
    "texts": 0,
    "isolation": 0.2,
    "ranks": 0.5,
    "registry": 0.5,
    "shipped": 0.5,
    "config": 1,
    "store": 1,
    "data": 2,
    "scenarios": 2,
    "models": 2,
    "methods": 2,
    "evaluation": 2,
    "trackers": 2,
    "registries": 3,
    "training": 3,
    "evaluation.predict": 3,
    "pipeline": 4,
    "launch": 4.2,
    "estimate": 4.5,
    "tuning": 4.7,
    "pipeline.doctor": 4.6,
    "plugin_contract": 4.5,
    "report": 5,
    "api": 5.2,
    "diff": 5.4,
    "leaderboard": 5.4,
    "tables": 5.4,
    "view": 5,
    "export": 5.5,
    "cli": 6,
    "__main__": 7,
}
# Within level 2, a model's room turns examples into tensors (data) and speaks in answer views
# (methods); a page over runs reads and words them as the report does. Nothing else crosses.
ALLOWED_ACROSS = {
    ("models", "data"),
    ("models", "methods"),
    ("scenarios", "config"),
    ("view", "report"),
}
NO_TORCH = (
    "errors",
    "isolation",
    "records",
    "registry",
    "shipped",
    "config",
    "store",
    "texts",
    "data",
    "scenarios",
    "report",
    "api",
    "diff",
    "leaderboard",
    "tables",
    "tuning",
    "view",
    "launch",
)


def room_of(module: str) -> str:
    parts = module.split(".")
    deep = ".".join(parts[:2])
    return deep if deep in LEVELS else parts[0]


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            yield name, path


def recipes():
    """Yield the files of the folder that stands beside the package."""
    for path in sorted((ROOT / "recipes").rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imports_of(path: Path, module: str):
    """Yield (imported dotted name, whether it is only for type checking)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                yield ".".join(["pulse_unlearn", *base, node.module or ""]).rstrip(".")
            elif node.module == "pulse_unlearn" or (node.module or "").startswith("pulse_unlearn."):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=[name for name, _ in modules()])
def test_imports_go_up_the_list_only(module, path):
    here = room_of(module)
    for imported in imports_of(path, module):
        if not imported.startswith("pulse_unlearn."):
            continue
        there = room_of(imported.removeprefix("pulse_unlearn."))
        if there not in LEVELS or there == here:
            continue
        lower = LEVELS[there] < LEVELS[here]
        assert lower or (here, there) in ALLOWED_ACROSS, f"{module} imports {imported}"


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=[name for name, _ in modules()])
def test_rooms_of_pure_data_never_import_torch(module, path):
    if room_of(module) in NO_TORCH or (
        module.startswith("evaluation.") and module != "evaluation.predict"
    ):
        heavy = {"torch", "transformers", "peft", "accelerate"}
        assert not heavy & {name.split(".")[0] for name in imports_of(path, module)}


def test_the_package_never_imports_the_recipes():
    assert list(recipes())
    for module, path in modules():
        beside = {name.split(".")[0] for name in imports_of(path, module)} & {"recipes", "tests"}
        assert not beside, f"{module} imports {beside}"


@pytest.mark.parametrize(
    "statement",
    [
        "import pulse_unlearn.cli",
        "import pulse_unlearn.report",
        "from pulse_unlearn import load_run, run",
        "import pulse_unlearn.view.library",
        "import pulse_unlearn.pipeline.run, pulse_unlearn.registries as all; all.schemas()",
    ],
)
def test_light_commands_import_no_torch(statement):
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_files_and_functions_stay_small():
    lengths = []
    for module, path in [*modules(), *recipes()]:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 450, f"{module} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 80, f"{module}.{node.name} has {length} lines"
                lengths.append(length)
    lengths.sort()
    assert lengths[int(0.95 * len(lengths)) - 1] < 50


def test_no_modules_import_one_another_in_a_circle():
    """Inside rooms too, and imports for type checking count: who reads one must read the other."""
    names = dict(modules())
    imports = {
        module: {
            next((one for one in (found, found.rpartition(".")[0]) if one in names), module)
            for imported in imports_of(path, module)
            for found in (imported.removeprefix("pulse_unlearn."),)
        }
        - {module}
        for module, path in names.items()
    }
    done: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module not in done:
            for other in sorted(imports[module]):
                follow(other, (*way, module))
            done.add(module)

    for module in names:
        follow(module, ())
