"""The ledger of named requests: what was done for whom, to which weights, with which verdict.

`ledger.jsonl` only ever grows. Each line holds the SHA-256 of the line before; a number that is
read differently later becomes a new line that names the one it replaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.evaluation.verdicts import ForgettingVerdict
from pulse_unlearn.files import plain_file
from pulse_unlearn.pipeline.results import rounded
from pulse_unlearn.records import Cell, NamedRequest
from pulse_unlearn.scenarios import Operation
from pulse_unlearn.store import read_manifest, write_text

LEDGER = "ledger.jsonl"
SCENARIO = "requests"
"""The scenario whose operations are requests that somebody made."""

Line = Mapping[str, Any]


def read_ledger(run: Path) -> list[Line]:
    """Return the lines, first to last; none if there is no ledger.

    Raises Corrupted if one is not the line that was written.
    """
    path = run / LEDGER
    if not path.is_file():
        return []
    lines, before = [], ""
    for number, text in enumerate(
        plain_file(path).read_text(encoding="utf-8").splitlines(), start=1
    ):
        where = f"{path}:{number}"
        try:
            line = json.loads(text)
            follows = line["previous"] == before
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupted(Problem("not a line of the ledger", where, str(error))) from error
        if not follows:
            fix = "put the ledger back from a copy"
            raise Corrupted(Problem("the line before was changed", where, fix=fix))
        lines.append(line)
        before = _digest(text)
    return lines


def check_order(run: Path, requests: Sequence[NamedRequest]) -> None:
    """Raise StoreError if a request that was carried out is not where it was, or no longer there.

    The models of all later requests rest on it: it can be neither changed nor taken back.
    """
    recorded = {line["request"]: line for line in read_ledger(run)}
    done = sorted(recorded.values(), key=lambda line: int(line["number"]))
    problems = []
    for line in done:
        place = int(line["number"]) - 1
        now = requests[place] if place < len(requests) else None
        asked = NamedRequest(line["name"], tuple(line["who"]), line["when"], line["why"])
        if now != asked:
            problems.append(
                Problem(
                    f"request {place + 1} was carried out, and the file of requests now says "
                    "otherwise",
                    str(run / LEDGER),
                    got=_told(now) if now else "nothing at this place",
                    allowed=_told(asked),
                    fix="add new requests below (in a CSV file: with a later date), or begin "
                    "another run with another name",
                )
            )
    if problems:
        raise StoreError(problems)


def _told(request: NamedRequest) -> str:
    when = f", {request.date}" if request.date else ""
    why = f", {request.why}" if request.why else ""
    return f"{request.name}: {', '.join(request.people)}{when}{why}"


def write_ledger(run: Path, entries: Sequence[Line]) -> None:
    """Add what is new to the ledger of a run; equal entries are there already."""
    lines = read_ledger(run)
    texts = [_text(line) for line in lines]
    latest = {_place(line): (number, line) for number, line in enumerate(lines, start=1)}
    for entry in entries:
        number, known = latest.get(_place(entry), (0, {}))
        if _content(known) == _content(entry):
            continue
        previous = _digest(texts[-1]) if texts else ""
        texts.append(_text({**entry, "replaces": number or None, "previous": previous}))
    if texts:
        write_text(run / LEDGER, "\n".join(texts) + "\n")


def ledger_entries(
    experiment: Experiment,
    requests: Sequence[NamedRequest],
    operations: Sequence[Operation],
    verdicts: Mapping[Cell, ForgettingVerdict],
    *,
    model: str,
    folder_of: Callable[[str], Path],
) -> list[Line]:
    """Return an entry for each operation on a named request.

    `model` is the digest of the base model, `folder_of` gives the folders of finished stages.
    """
    found = []
    for operation in operations:
        cell = operation.cell
        if cell.scenario != SCENARIO:
            continue
        request, verdict = requests[cell.request - 1], verdicts[operation.cell]
        after = (*operation.chain, *operation.served)
        highest = verdict.highest
        found.append(
            rounded(
                {
                    "request": f"{cell.request}: {request.name}",
                    "number": cell.request,
                    "name": request.name,
                    "who": list(request.people),
                    "when": request.date,
                    "why": request.why,
                    "method": cell.method,
                    "scope": cell.scope,
                    "settings": experiment.methods[cell.method].model_dump(mode="json"),
                    "seed": cell.seed,
                    "base_model": model,
                    "before": _updates(after[:-1], folder_of),
                    "after": _updates(after, folder_of),
                    **({"served": list(operation.served)} if operation.served else {}),
                    "verdict": {
                        "about": "all whom requests have named so far",
                        "word": verdict.word,
                        "why": verdict.why,
                        "highest_reading": highest.reading if highest else "",
                        "estimate": asdict(highest.estimate) if highest else None,
                        "read_by": experiment.scoring.parser,
                    },
                }
            )
        )
    return found


def _updates(chain: Sequence[str], folder_of: Callable[[str], Path]) -> list[dict[str, Any]]:
    """Return the updates that make up a model on its base: stages with the hashes of their files.

    Weights, and the gates of a served system; logs and outcomes beside them are no part of it.
    """
    return [
        {
            "stage": name,
            "files": {
                path: entry.sha256
                for path, entry in sorted(read_manifest(folder_of(name)).files.items())
                if path.endswith(".safetensors") and path.startswith(("adapter/", "served."))
            },
        }
        for name in chain
    ]


def _place(line: Line) -> tuple[Any, ...]:
    return (line["number"], line["method"], line["seed"])


def _content(line: Line) -> dict[str, Any]:
    kept = {key: value for key, value in line.items() if key not in ("replaces", "previous")}
    return dict(json.loads(json.dumps(kept)))


def _text(line: Line) -> str:
    return json.dumps(line, sort_keys=True, ensure_ascii=False)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
