"""Files of others, opened only if they are files: the one place that says so."""

from __future__ import annotations

import errno
from pathlib import Path

ADAPTER_CONFIG = "adapter_config.json"
FULL_FILE = "changed_weights.safetensors"
"""What a full update leaves."""


def plain_file(path: Path) -> Path:
    """Return the path of a file, or of a link to one, that can be read to its end.

    A pipe makes its reader wait, a device may have no end. Raises OSError, as opening does.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "no file has a NUL in its name", str(path))
    # What is not there, or is a link that leads nowhere, says so itself; so does a folder.
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a file", str(path))
    return path


def is_update(folder: Path) -> bool:
    """Tell a folder with an adapter, or the tensors a training left, from one of whole weights."""
    written = any((folder / name).is_file() for name in (ADAPTER_CONFIG, FULL_FILE))
    # LLaVA's own trainer writes a config.json beside an adapter, too.
    return written and not any(folder.glob("model*.safetensors*"))


def home_path(text: str) -> Path:
    """Return the path that a text names, `~` being a home; as it stands if nobody has that name."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
