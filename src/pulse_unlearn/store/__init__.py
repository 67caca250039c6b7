"""The run folder: stages found by fingerprint, atomic files, checkpoints, locks, verification.

A stage is worked on in a partial folder and published in one rename; its manifest, with the SHA-256
of every file, is the completion mark. Nothing here knows what a stage computes.
"""

from pulse_unlearn.store.atomic import (
    file_errors,
    sha256_file,
    write_bytes,
    write_folder,
    write_json,
    write_text,
)
from pulse_unlearn.store.checkpoints import Checkpoint, latest, save
from pulse_unlearn.store.fingerprint import SCHEME, fingerprint
from pulse_unlearn.store.manifest import CHECKPOINTS, MANIFEST, Manifest, read_manifest
from pulse_unlearn.store.products import INDEX, require_products, verify, write_index
from pulse_unlearn.store.stages import STAGES, RunLock, StageKey, Store, refuse_links

__all__ = [
    "CHECKPOINTS",
    "INDEX",
    "MANIFEST",
    "SCHEME",
    "STAGES",
    "Checkpoint",
    "Manifest",
    "RunLock",
    "StageKey",
    "Store",
    "file_errors",
    "fingerprint",
    "latest",
    "read_manifest",
    "refuse_links",
    "require_products",
    "save",
    "sha256_file",
    "verify",
    "write_bytes",
    "write_folder",
    "write_index",
    "write_json",
    "write_text",
]
