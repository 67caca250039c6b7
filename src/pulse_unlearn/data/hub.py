"""Files of a data set on the Hugging Face hub, at a pinned commit; from the cache when offline."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pulse_unlearn.data.source import Source, given
from pulse_unlearn.errors import DataError, Problem

_HUB_PATH = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(/(?P<inside>[\w./-]+))?")


def local_path(source: Source, name: str, what: str, *, patterns: Sequence[str] = ()) -> Path:
    """Return the file or folder a source names, fetched from the hub if it has a revision.

    `owner/name/inside` names a folder inside a hub data set, or a file if it has a suffix; of a
    folder only what matches `patterns` is fetched. Raises ConfigError without a path, DataError if
    the hub's files can't be had; whether a local path exists is for its reader to say.
    """
    path = given(source, name, what)
    if source.revision is None:
        return Path(path).expanduser()
    found = _HUB_PATH.fullmatch(path)
    if not found:
        raise DataError(
            Problem(
                "not a data set on the hub",
                path,
                allowed="owner/name, or owner/name/path/inside",
                fix="leave data.<part>.revision out for a local path",
            )
        )
    inside = (found["inside"] or "").strip("/")
    return _fetch(found["repository"], inside, source.revision, patterns)


def _fetch(repository: str, inside: str, revision: str, patterns: Sequence[str]) -> Path:
    # Here, because importing it takes time that local data need not spend.
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    is_file = bool(Path(inside).suffix)
    try:
        if is_file:
            return Path(hf_hub_download(repository, inside, repo_type="dataset", revision=revision))
        wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in patterns]
        folder = snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns=wanted or None
        )
    # Offline, a name that does not exist, a closed socket: all of them are OSError or these two.
    except (OSError, EntryNotFoundError, HFValidationError) as error:
        command = ["hf", "download", repository, *([inside] if is_file else [])]
        command += ["--repo-type", "dataset", "--revision", revision]
        raise DataError(
            Problem(
                "the hub's data set can't be had",
                f"{repository} at {revision}" + (f": {inside}" if inside else ""),
                got=" ".join(str(error).split())[:200],
                fix=f"fetch it where there is a network: {shlex.join(command)}; "
                "or give a local path",
            )
        ) from error
    return Path(folder) / inside
