"""What on this machine would stop a run, or change its numbers, before one is begun.

Nothing here needs torch to be there: that it is missing is one of the findings.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError
from pulse_unlearn.files import home_path

State = Literal["ok", "note", "stop"]
LIBRARIES = ("transformers", "peft", "accelerate", "tokenizers", "safetensors")
OPTIONAL = ("bitsandbytes", "flash-attn")
HUB_SECONDS = 3.0
LITTLE_DISK = 2e9
"""Bytes the demo takes at most, and then some."""
IMPORT_SECONDS = 120.0
_OURS = "pulse-unlearn"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: `stop` would stop a run, `note` is worth knowing."""

    name: str
    state: State
    said: str
    fix: str = ""


def examine(
    runs: Path, *, model: str | None, revision: str | None = None, prompt: str = ""
) -> Iterator[Finding]:
    """Yield the findings, quick ones first; `model` is a folder, or a hub id with a revision.

    It is asked ten questions by the prompt profile `prompt`, none if that is empty.
    """
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    yield from _libraries()
    yield from _torch()
    yield from _torchvision()
    yield _memory()
    yield _disk(runs)
    yield _hub()
    if model is not None:
        yield from _model(model, revision, prompt)


def version_of(name: str) -> str | None:
    """Return an installed distribution's version; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _libraries() -> Iterator[Finding]:
    wanted = _wanted()
    for name in LIBRARIES:
        found, asked = version_of(name), wanted.get(name, "")
        fix = f"pip install '{name}{asked}'"
        if found is None:
            yield Finding(name, "stop", "not installed", fix)
        elif not _fits(found, asked):
            yield Finding(name, "stop", f"{found}, but {asked} is needed", fix)
        else:
            yield Finding(name, "ok", found)
    for name in OPTIONAL:
        found = version_of(name)
        if found:
            yield Finding(name, "ok", f"{found} (optional)")


def _wanted() -> dict[str, str]:
    """Return the version range of each library we depend on; empty when run from a checkout."""
    try:
        lines = metadata.requires(_OURS) or []
    except metadata.PackageNotFoundError:
        return {}
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in lines]
    return {one.name: str(one.specifier) for one in parsed if one.marker is None}


def _fits(version: str, asked: str) -> bool:
    if not asked:
        return True
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(asked).contains(version, prereleases=True)


def _torch() -> Iterator[Finding]:
    installed = version_of("torch")
    fix = "pip install torch, the build for your device: https://pytorch.org/get-started/locally"
    try:
        import torch
    # A build for other hardware, or a torn one, fails in more ways than by being absent.
    except (ImportError, OSError, RuntimeError) as error:
        said = f"{installed} cannot be imported: {error}" if installed else "not installed"
        yield Finding("torch", "stop", said, fix)
        return
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    asked = _wanted().get("torch", "")
    if not _fits(torch.__version__, asked):
        yield Finding("torch", "stop", f"{torch.__version__}, but {asked} is needed", fix)
    else:
        yield Finding("torch", "ok", f"{torch.__version__} ({built})")
    yield from _devices(torch)


def _devices(torch: Any) -> Iterator[Finding]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            half = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16: use float16"
            name = torch.cuda.get_device_name(number)
            said = f"{name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, {half}"
            yield Finding(f"cuda:{number}", "ok", said)
        return
    said = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads; no CUDA device"
    if shutil.which("nvidia-smi"):
        yield Finding(
            "device",
            "note",
            f"{said}, although nvidia-smi is here",
            "install a CUDA build of torch, or mend the driver: nvidia-smi says which",
        )
    else:
        yield Finding("device", "ok", said)


def _torchvision() -> Iterator[Finding]:
    """Tell a torchvision that does not fit its torch: transformers imports it and fails."""
    installed = version_of("torchvision")
    if installed is None:
        yield Finding("torchvision", "ok", "not installed; pictures go through Pillow")
        return
    # In a process of its own: a failed import leaves torch half registered in this one.
    tried = subprocess.run(
        [sys.executable, "-c", "import torchvision"],
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
        check=False,
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        said = f"{installed} clashes with torch {version_of('torch')}: {reason}"
        yield Finding(
            "torchvision", "stop", said, "pip uninstall torchvision; few families need it"
        )
        return
    yield Finding("torchvision", "ok", f"{installed} fits its torch; few families need it")


def _memory() -> Finding:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        free, total = (page * os.sysconf(name) for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return Finding("memory", "note", "this system does not tell")
    available = _available() or free
    return Finding("memory", "ok", f"{available / 1e9:.1f} of {total / 1e9:.1f} GB free")


def _available() -> int | None:
    """Return what Linux could give, caches included; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _disk(runs: Path) -> Finding:
    place = next(path for path in (runs, *runs.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.1f} GB free below {runs.absolute()}"
    if not os.access(place, os.W_OK):
        return Finding("disk", "stop", f"{place} cannot be written to", "--runs elsewhere")
    if free < LITTLE_DISK:
        return Finding("disk", "stop", said, "make room, or --runs elsewhere; see pulse plan")
    return Finding("disk", "ok", said)


def _hub() -> Finding:
    """Tell whether the hub answers; being offline stops nothing that is here already."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return Finding("hub", "note", "huggingface_hub is not installed")
    fix = "local folders work; a model can be fetched elsewhere with hf download and copied"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", "switched off by HF_HUB_OFFLINE", fix)
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            return Finding("hub", "ok", f"{constants.ENDPOINT} answers")
    except urllib.error.HTTPError as error:
        # It answered, if not as asked.
        return Finding("hub", "ok", f"{constants.ENDPOINT} answers ({error.code})")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        said = f"{constants.ENDPOINT} cannot be reached: {reason}"
        return Finding("hub", "note", said, fix)


def _model(name: str, revision: str | None, prompt: str) -> Iterator[Finding]:
    """Say whether a run would accept a model, by what loading it asks; then ask ten questions."""
    try:
        from pulse_unlearn.estimate.sizes import describe
        from pulse_unlearn.models.checkpoints import unknown_source
        from pulse_unlearn.models.loading import look_at_model
    except (ImportError, OSError, RuntimeError) as error:
        said = f"nor the model looked at, as torch or transformers fail: {error}"
        yield Finding("processor", "note", said)
        return
    settings = ModelSettings(source=name, revision=revision)
    needed = 0.0
    try:
        described = describe(settings)
        needed = described.parameters * 4
        millions = described.parameters / 1e6
        said = f"{described.config.model_type}, {millions:,.1f} M parameters, {name}"
        yield Finding("model", "ok", said)
        unknown = unknown_source(settings)
        if unknown:
            raise ModelError(unknown)
        files = look_at_model(settings)
    except ModelError as error:
        yield from _stops("processor" if needed else "model", error)
        return
    if files is None:
        yield Finding("processor", "note", "not looked at: it is not whole in the hub's cache")
        return
    yield Finding("processor", "ok", files.said)
    if files.on_trial:
        yield Finding("family", "note", files.on_trial)
    if prompt:
        yield from _manner(settings, prompt, bytes_needed=needed)


def _manner(settings: ModelSettings, prompt: str, *, bytes_needed: float) -> Iterator[Finding]:
    """Ask ten questions, where the weights fit into this machine's memory."""
    from pulse_unlearn.models.checkpoints import cached_folder
    from pulse_unlearn.pipeline.ten_questions import ask

    folder = home_path(settings.source)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        yield Finding("answers", "note", "not asked: there are no weights in this folder")
        return
    if settings.revision:
        try:
            cached_folder(settings)
        except ModelError:
            yield Finding("answers", "note", "not asked: it is not whole in the hub's cache")
            return
    available = _available()
    if available is not None and bytes_needed > available:
        gib = bytes_needed / 2**30
        yield Finding("answers", "note", f"not asked: {gib:.0f} GiB of weights do not fit here")
        return
    held = settings.model_copy(update={"offline": True})  # nothing is fetched to ask questions
    try:
        manner = ask(held, profile=prompt)
    except ModelError as error:
        yield from _stops("answers", error)
        return
    state: State = "ok" if manner.habit == "letter" else "note"
    yield Finding("answers", state, manner.said, manner.fix)


def _stops(name: str, error: ModelError) -> Iterator[Finding]:
    for problem in error.problems:
        said = f"{problem.what}: {problem.got}" if problem.got else problem.what
        yield Finding(name, "stop", said, problem.fix)
