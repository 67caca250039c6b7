"""Repositories on the hub: what must be in the cache before a model is loaded without a network."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import ModelError, Problem

NEEDED = ("config.json", "tokenizer_config.json")
TOKENIZER = ("tokenizer.json", "vocab.json", "tokenizer.model")
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def is_offline(settings: ModelSettings) -> bool:
    """Tell whether only the cache may be read: by setting, or by the hub library's own switch."""
    return settings.offline or bool(constants.HF_HUB_OFFLINE)


def cached_folder(settings: ModelSettings) -> Path:
    """Return the folder of the cache that holds the model, to be read as any folder is.

    Raises ModelError naming every file that is needed and not there.
    """
    repository, revision = settings.source, settings.revision
    absent = [name for name in NEEDED if _cached(repository, name, revision) is None]
    absent += [
        " or ".join(names)
        for names in (TOKENIZER, PROCESSOR)
        if not any(_cached(repository, name, revision) for name in names)
    ]
    absent += _absent_weights(repository, revision)
    config = _cached(repository, NEEDED[0], revision)
    if absent or config is None:
        raise ModelError(
            [
                Problem(
                    "the model is not in the cache, and the hub may not be asked",
                    f"{repository}@{revision}",
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


def _absent_weights(repository: str, revision: str | None) -> list[str]:
    if _cached(repository, WEIGHTS, revision):
        return []
    index = _cached(repository, INDEX, revision)
    if index is None:
        return [f"{WEIGHTS} or {INDEX}"]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [name for name in sorted(shards) if _cached(repository, name, revision) is None]


def _cached(repository: str, name: str, revision: str | None) -> Path | None:
    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None
