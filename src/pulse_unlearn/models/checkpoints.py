"""A model's files: where they are, what identifies them, and what is wrong with them.

Told from small files and the hub's cache; no weight is loaded, nothing is downloaded, no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest, sha256
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pulse_unlearn.config import EMBEDDED, ModelSettings
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.files import ADAPTER_CONFIG as ADAPTER_CONFIG
from pulse_unlearn.files import FULL_FILE as FULL_FILE
from pulse_unlearn.files import plain_file
from pulse_unlearn.shipped import world

ADAPTER_FILE = "adapter_model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_COMMIT = re.compile("[0-9a-f]{40}")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = 1024
"""Git LFS writes smaller files than this."""
_ORIGINAL = "mm_"
"""How the fields begin that LLaVA's own code writes into a config.json."""
_CONVERTED = {
    ("1.5", 4096): "llava-hf/llava-1.5-7b-hf",
    ("1.5", 5120): "llava-hf/llava-1.5-13b-hf",
    ("1.6", 4096): "llava-hf/llava-v1.6-vicuna-7b-hf",
    ("1.6", 5120): "llava-hf/llava-v1.6-vicuna-13b-hf",
    ("1.6", 7168): "llava-hf/llava-v1.6-34b-hf",
    ("1.6 mistral", 4096): "llava-hf/llava-v1.6-mistral-7b-hf",
}
"""Version and width of LLaVA's language model -> the same weights as transformers reads them."""


@contextmanager
def model_source(settings: ModelSettings) -> Iterator[str]:
    """Yield the folder or hub id to load from; the embedded model may have to be unpacked.

    Raises ModelError for a folder that is an adapter's, of pickled weights or of Git LFS's
    pointers, and for a hub id without a pinned revision.
    """
    with embedded_or_named(settings) as source:
        folder = Path(source)
        if settings.source != EMBEDDED and folder.is_dir():
            problems = folder_problems(folder) or _pickles(folder)
            if problems:
                raise ModelError(problems)
        unknown = unknown_source(settings)
        if unknown:
            raise ModelError(unknown)
        yield source


@contextmanager
def embedded_or_named(settings: ModelSettings) -> Iterator[str]:
    """Yield the folder or hub id; only the embedded model's files are checked, by their hashes."""
    if settings.source == EMBEDDED:
        with world("model/", ModelError) as root:
            yield str(root / "model")
        return
    yield settings.source


def no_hub_id(source: str) -> Problem | None:
    """Return a problem for what is no folder and cannot be a hub id either."""
    from huggingface_hub.errors import HFValidationError  # here, as importing it takes time
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        return Problem(
            "no such folder, and no hub id either",
            "model.source",
            got=source,
            allowed="world, an existing folder, or owner/name on the hub",
        )
    return None


def unknown_source(settings: ModelSettings) -> Problem | None:
    """Return a problem for a hub id without a pinned commit, and for what is no folder and no id.

    A branch or tag will not do: the same experiment would name other weights after the next push.
    """
    if settings.source == EMBEDDED or Path(settings.source).is_dir():
        return None
    if problem := no_hub_id(settings.source):
        return problem
    if _COMMIT.fullmatch(settings.revision or ""):
        return None
    return Problem(
        "a hub model needs a pinned revision",
        "model.revision",
        got=settings.revision or "none",
        allowed="the commit hash of the repository, 40 hex digits",
        fix="--set model.revision=<commit> (`pulse doctor`: --revision <commit>), or name an "
        "existing local folder",
    )


def model_digest(settings: ModelSettings) -> str:
    """Return a SHA-256 over the model folder's files, or over id and revision for a hub model.

    Adapters that belong to the model count as files of it.
    """
    lines = _own_lines(settings)
    for number, adapter in enumerate(settings.adapters):
        full = (Path(adapter) / FULL_FILE).is_file()
        held = _lines(Path(adapter), FULL_FILE if full else ADAPTER_CONFIG)
        lines += [f"adapter {number} {line}" for line in held]
    return sha256("\n".join(lines).encode()).hexdigest()


def base_digest(settings: ModelSettings) -> str:
    """Return the digest of a model without its adapters, in the form of `model_digest`."""
    return sha256("\n".join(_own_lines(settings)).encode()).hexdigest()


def _own_lines(settings: ModelSettings) -> list[str]:
    """Return a line for each file of the model's own folder, or its id and revision."""
    with model_source(settings) as source:
        folder = Path(source)
        return _lines(folder, _CONFIG) if folder.is_dir() else [f"{source}@{settings.revision}"]


def _lines(folder: Path, required: str) -> list[str]:
    """Return name and SHA-256 of each file; raises ModelError unless the required one is there."""
    paths = sorted(path for path in folder.glob("*") if path.is_file())
    if not any(path.name == required for path in paths):
        kind = "a model" if required == _CONFIG else "an adapter"
        raise ModelError(
            Problem(f"not {kind} folder", str(folder), f"{len(paths)} files", f"has a {required}")
        )
    lines = []
    for path in paths:
        with plain_file(path).open("rb") as file:
            lines.append(f"{path.name} {file_digest(file, 'sha256').hexdigest()}")
    return lines


def is_offline(settings: ModelSettings) -> bool:
    """Tell whether only the cache may be read: by setting, or by the hub library's own switch."""
    from huggingface_hub import constants  # here, as importing it takes time

    return settings.offline or bool(constants.HF_HUB_OFFLINE)


def cached_folder(settings: ModelSettings) -> Path:
    """Return the folder of the hub's cache that holds the whole model.

    Raises ModelError naming every file that is needed and not there.
    """
    config = _cached(settings, _CONFIG)
    absent = [name for name in (_CONFIG, "tokenizer_config.json") if not _cached(settings, name)]
    absent += [
        " or ".join(names)
        for names in (TOKENIZER_FILES, _PROCESSOR_FILES)
        if not any(_cached(settings, name) for name in names)
    ]
    absent += _absent_weights(settings)
    if absent or config is None:
        raise ModelError(
            [
                Problem(
                    "the model is not in the cache, and the hub may not be asked",
                    f"{settings.source}@{settings.revision}",
                    got=f"no {name}",
                    fix=fetch_command(settings),
                )
                for name in absent
            ]
        )
    return config.parent


def fetch_command(settings: ModelSettings) -> str:
    """Return the command that fetches the model."""
    pinned = f" --revision {settings.revision}" if settings.revision else ""
    return f"with a network: hf download {settings.source}{pinned}"


def _absent_weights(settings: ModelSettings) -> list[str]:
    if _cached(settings, _WEIGHTS):
        return []
    index = _cached(settings, _INDEX)
    if index is None:
        return [f"{_WEIGHTS} or {_INDEX}"]
    shards = set(json.loads(plain_file(index).read_text(encoding="utf-8"))["weight_map"].values())
    return [name for name in sorted(shards) if not _cached(settings, name)]


def _cached(settings: ModelSettings, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(settings.source, name, revision=settings.revision)
    return Path(found) if isinstance(found, str) else None


def folder_problems(folder: Path) -> list[Problem]:
    """Return why a folder cannot be read as a model whatever is in its other files."""
    return [*pointer_problems(folder), *_adapter_problems(folder)]


def pointer_problems(folder: Path) -> list[Problem]:
    """Return a problem if files of a folder are Git LFS's pointers to files never fetched."""
    pointers = sorted(path.name for path in folder.glob("*") if _is_pointer(path))
    if not pointers:
        return []
    return [
        Problem(
            "a pointer of Git LFS stands in place of the file",
            str(folder),
            got=", ".join(pointers),
            allowed="the files themselves",
            fix="git lfs install, then in the folder: git lfs pull",
        )
    ]


def _is_pointer(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size >= _POINTER_BYTES:
        return False
    with plain_file(path).open("rb") as file:
        return file.read(len(_POINTER)) == _POINTER


def _adapter_problems(folder: Path) -> list[Problem]:
    """Return a problem for an adapter's folder: transformers would load a base model of its own."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        return []
    if (folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file():
        what = "the folder holds a model and an adapter, and it does not say whether one is in the "
        what += "other"
        got = ADAPTER_CONFIG
        fix = (
            f"move {ADAPTER_CONFIG} and the adapter's file into a folder of their own, and if "
            "the weights do not have it in them name that folder in model.adapters"
        )
    else:
        what, got = (
            "the folder is an adapter, and no model",
            f"{ADAPTER_CONFIG} without a whole model",
        )
        base = named_base(path)[0] or "<its base model>"
        fix = f"--set model.source={base} --set model.adapters=[{folder}]"
    allowed = "a model's folder; adapters are named in model.adapters"
    return [Problem(what, str(folder), got=got, allowed=allowed, fix=fix)]


def named_base(path: Path) -> tuple[str, str | None]:
    """Return the base model an adapter's config names, and its commit if it names one.

    Empty if it names none or cannot be read.
    """
    try:
        found = json.loads(plain_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "", None
    if not isinstance(found, dict):
        return "", None
    commit = str(found.get("revision") or "")
    source = str(found.get("base_model_name_or_path") or "")
    return source, commit if _COMMIT.fullmatch(commit) else None


def _pickles(folder: Path) -> list[Problem]:
    """Return a problem for a folder whose only weights are pickled."""
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
    if not pickled or any(folder.glob("*.safetensors")):
        return []
    return [
        Problem(
            "pickled weights are never read",
            str(folder),
            got=", ".join(pickled),
            allowed="*.safetensors",
            fix="convert them with transformers' save_pretrained on a machine that trusts them",
        )
    ]


def unconverted(config: Mapping[str, Any], where: str) -> Problem | None:
    """Return a problem for a LLaVA config of its own code, which transformers takes for a 7B.

    Its sizes stand where transformers does not look for them.
    """
    kind = str(config.get("model_type", ""))
    parts = {"text_config", "vision_config"} & config.keys()
    written = [name for name in config if name.startswith(_ORIGINAL)]
    if not kind.startswith("llava") or parts or (kind != "llava" and not written):
        return None
    converted = _CONVERTED.get((_version(config), int(config.get("hidden_size") or 0)))
    convert = "convert it with transformers' convert_llava_weights_to_hf.py"
    return Problem(
        "the checkpoint is in the form of LLaVA's own code, whose sizes transformers would not "
        "see: it would take any for one of 7B",
        where,
        got=f"config.json with model_type {kind!r}, "
        + (f"{', '.join(written[:3])}, " if written else "")
        + "no text_config, no vision_config",
        allowed="a checkpoint converted for transformers; their names end in -hf",
        fix=f"use {converted}; if the weights are your own, {convert}" if converted else convert,
    )


def _version(config: Mapping[str, Any]) -> str:
    patches = str(config.get("mm_patch_merge_type", "flat"))
    if config.get("image_aspect_ratio") != "anyres" and not patches.startswith("spatial"):
        return "1.5"
    return "1.6 mistral" if "Mistral" in str(config.get("architectures")) else "1.6"


def own_code(told: str, source: str) -> Problem | None:
    """Return a problem for a model that transformers would read with the model's own code only."""
    if "trust_remote_code" not in told:
        return None
    return Problem(
        "the model is read by Python code of its own, and PULSE runs no code of a model's folder "
        "unless that model is named",
        source,
        allowed="families that transformers has code for",
        fix="use a model of such a family; or, having read that code, "
        f"--set model.trust_remote_code=[{source}]",
    )


def adapter_parameters(folder: Path) -> int:
    """Return how many numbers an adapter has; raises ModelError if its file cannot be read."""
    try:
        with safe_open(plain_file(folder / ADAPTER_FILE), framework="np") as file:
            return sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            Problem("the adapter's file cannot be read", str(folder / ADAPTER_FILE), str(error))
        ) from error
