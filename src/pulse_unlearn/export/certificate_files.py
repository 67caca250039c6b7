"""A certificate's page and JSON: written, signed with an SSH key, and checked again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.export.certificate import KIND, choose_operation, facts, products_of
from pulse_unlearn.export.finished import open_run
from pulse_unlearn.files import plain_file
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.templates import templates
from pulse_unlearn.report.words import (
    percent,
    set_title,
    with_reading_titles,
)
from pulse_unlearn.store import file_errors, require_products, sha256_file, write_text
from pulse_unlearn.store.fingerprint import canonical_text
from pulse_unlearn.texts import printable

NAMESPACE = "pulse-certificate"
"""What a signature is for; one made for anything else does not count."""
FOLDER = "certificates"
SHOWN = 24
"""People on the page; all of them are in the JSON."""


def write_certificate(
    run: Path,
    *,
    request: int,
    scenario: str | None = None,
    method: str | None = None,
    seed: int | None = None,
    names: bool = False,
    out: Path | None = None,
    key: Path | None = None,
) -> Path:
    """Write a certificate's page, its JSON and, with a `key`, a signature; return the JSON.

    `out` is the folder; the run's own `certificates/` if not given. Raises ConfigError unless one
    operation is meant, and StoreError if a stage was changed, a file cannot be written or signed.
    """
    if key is not None:
        _ssh_keygen()
    found = open_run(run)
    operation = choose_operation(
        found, request=request, scenario=scenario, method=method, seed=seed
    )
    require_products(run, products_of(found))
    results = load_run(run)
    found.check([*dict.fromkeys((*operation.chain, operation.before, operation.after))])
    folder = out or run / FOLDER
    with file_errors(folder, "make the folder"):
        folder.mkdir(parents=True, exist_ok=True)
    cell = operation.cell
    parts = (cell.scenario, cell.method, f"seed{cell.seed}", f"request{cell.request}")
    stem = "-".join(part.replace("/", "-") for part in parts)
    told = facts(found, results, operation, names=names)
    told["run_folder"] = Path(os.path.relpath(run.resolve(), folder.resolve())).as_posix()
    page = render(told)
    told["page"] = {"file": f"{stem}.html", "sha256": _digest(page)}
    path, signature = folder / f"{stem}.json", folder / f"{stem}.json.sig"
    with file_errors(signature, "remove the old signature"):
        signature.unlink(missing_ok=True)
    write_text(folder / f"{stem}.html", page)
    write_text(path, canonical_text(told, where=path.name) + "\n")
    if key is not None:
        _sign(path, key)
    return path


def render(told: Mapping[str, Any]) -> str:
    """Return the page: every value escaped, no script, nothing from elsewhere."""
    environment = templates("pulse_unlearn.export")
    environment.filters |= {
        "said": printable,
        "number": _number,
        "reading": lambda name: _READINGS.get(name, name),
        "set": set_title,
        "titled": with_reading_titles,
    }
    return environment.get_template("certificate.html.j2").render(told=told, shown=SHOWN)


_READINGS = {
    "latent_accuracy": "highest reading: what is still known, however it is asked for",
    "accuracy": "strict: what somebody who asks gets as an answer",
    "rotated_accuracy": "rotated: asked in every order of the options",
    "words_accuracy": "words: asked without options, the likeliest answer",
    "words_per_token_accuracy": "words per token: the same, by the mean over its parts",
    "words_named": "named in words: asked without options, the answer as written",
    "mentions": "mentions: answers that name the fact anywhere",
}


def _number(one: Mapping[str, Any]) -> str:
    value = one["value"]
    why = printable(with_reading_titles(one["reason"]))
    if value is None:
        return why or "not asked"
    if one["low"] is None or one["high"] is None:
        return f"{percent(value)} %, no interval: {why.replace('n/a ', '').strip('()')}"
    return f"{percent(value)} % ({percent(one['low'])} to {percent(one['high'])})"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _ssh_keygen() -> str:
    found = shutil.which("ssh-keygen")
    if found is None:
        fix = "install OpenSSH 8.1 or later"
        raise StoreError(Problem("ssh-keygen is not installed", fix=fix))
    return found


def _sign(path: Path, key: Path) -> None:
    # Standard input and error stay the user's: a key's passphrase is asked for there.
    command = [_ssh_keygen(), "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode != 0 or not path.with_name(f"{path.name}.sig").is_file():
        raise StoreError(
            Problem(
                "the certificate is written, and could not be signed",
                str(path),
                got=f"ssh-keygen ended with code {done.returncode}",
                fix="name a private SSH key, such as ~/.ssh/id_ed25519",
            )
        )


def verify_certificate(
    path: Path,
    *,
    run: Path | None = None,
    signers: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Check a certificate's signature, its page, and that the run's files are still the same.

    `signers` is OpenSSH's allowed_signers file: the signature must then be there, and of one of
    them. Raises Corrupted with everything that is wrong.
    """
    told = _read(path)
    problems = _signature_problems(path, signers, say)
    page = path.with_name(Path(str(told["page"]["file"])).name)
    root = run or (path.parent / str(told["run_folder"]))
    named = {page: str(told["page"]["sha256"])}
    named |= {root / name: str(digest) for name, digest in told["files"].items()}
    for file, digest in named.items():
        if not file.is_file():
            fix = "" if file == page else "say where the run is now: --run FOLDER"
            problems.append(Problem("is missing", str(file), allowed=f"sha256 {digest}", fix=fix))
        elif (found := sha256_file(file)) != digest:
            what = "is not the file that the certificate names"
            problems.append(Problem(what, str(file), f"sha256 {found}", f"sha256 {digest}"))
    if problems:
        raise Corrupted(problems)
    say(f"{len(named)} files are the ones the certificate names")


def _read(path: Path) -> dict[str, Any]:
    with file_errors(path, "read"):
        data = plain_file(path).read_bytes()
    try:
        told = json.loads(data)
        if told["kind"] != KIND or told["version"] != 1:
            raise ValueError("another kind or version")
        if data != (canonical_text(told, where=path.name) + "\n").encode():
            raise ValueError("not in the form it was written in")
        if not {"page", "files", "run_folder"} <= told.keys():
            raise ValueError("lacks a part")
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupted(Problem("is no certificate of PULSE", str(path), str(error))) from error
    found: dict[str, Any] = told
    return found


def _signature_problems(
    path: Path, signers: Path | None, say: Callable[[str], None]
) -> list[Problem]:
    signature = path.with_name(f"{path.name}.sig")
    if not signature.is_file():
        if signers is not None:
            return [Problem("the signature is missing", str(signature))]
        say("it is not signed: whoever can write these files can have changed all of them")
        return []
    where = ["-n", NAMESPACE, "-s", str(signature)]
    if signers is None:
        done = _keygen("check-novalidate", *where, content=path)
        if done.returncode == 0:
            say(f"{done.stdout.strip()}; whose key that is, --allowed-signers FILE would say")
            return []
        return [_bad_signature(signature, done)]
    who = _keygen("find-principals", "-s", str(signature), "-f", str(signers), content=path)
    identity = who.stdout.strip().splitlines()
    if who.returncode != 0 or not identity:
        return [
            Problem("is signed by none of the allowed signers", str(path), allowed=str(signers))
        ]
    done = _keygen("verify", "-f", str(signers), "-I", identity[0], *where, content=path)
    if done.returncode == 0:
        say(f"signed by {printable(identity[0])}")
        return []
    return [_bad_signature(signature, done)]


def _keygen(what: str, *options: str, content: Path) -> subprocess.CompletedProcess[str]:
    with content.open("rb") as file:
        return subprocess.run(
            [_ssh_keygen(), "-Y", what, *options],
            check=False,
            stdin=file,
            capture_output=True,
            text=True,
        )


def _bad_signature(signature: Path, done: subprocess.CompletedProcess[str]) -> Problem:
    got = (done.stderr or done.stdout).strip()
    return Problem("the signature is not of this certificate", str(signature), got=got)
