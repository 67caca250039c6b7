"""The questions that a run asked: texts and pictures from its data set, if it is still the same."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image
from pydantic import ValidationError

from pulse_unlearn.config import DataSettings, read_yaml
from pulse_unlearn.data import Dataset, Source, datasets
from pulse_unlearn.data.images import decode, picture_from_bytes
from pulse_unlearn.errors import ConfigError, Problem, PulseError, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.records import Option, Picture, Question
from pulse_unlearn.store.atomic import file_errors
from pulse_unlearn.store.manifest import read_manifest
from pulse_unlearn.view.runs import Run, inside, read_json

_LARGEST_SIDE = 512
_SAMPLED = "data:image/png;base64,"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of one question beside the answers to it."""

    question: str
    hint: str
    name: str
    options: tuple[Option, ...]
    answer: str
    picture: str = ""
    """Digest of its picture; empty for none."""


@dataclass(slots=True)
class Catalogue:
    """The questions of one run."""

    questions: Mapping[str, Asked]
    people_prompt: str = ""
    general_prompt: str = ""
    problem: str = ""
    """Why texts and pictures are missing, or come from the samples alone."""
    _pictures: dict[str, Picture] = field(default_factory=dict, repr=False)

    def picture(self, digest: str) -> bytes | None:
        """Return a picture as PNG, scaled down to what a page needs; None if there is none.

        Raises DataError if it is no picture.
        """
        found = self._pictures.get(digest)
        return None if found is None else _as_png(found)

    def profile(self, individual: str) -> str:
        """Return the prompt profile that a person's questions, or general ones, are asked by."""
        return self.people_prompt if individual else self.general_prompt


def catalogue_of(run: Run) -> Catalogue:
    """Read the questions of a run.

    From the data set that its experiment names, if that is byte for byte the one that was asked;
    else from the run's own samples, with the reason.
    """
    people_prompt = general_prompt = ""
    try:
        settings = _data_settings(run)
        people_prompt, general_prompt = settings.people_prompt, settings.general_prompt
        people, general = _load(settings.model_dump_json())
        _check_same(run, people, general)
    except PulseError as error:
        problem = "; ".join(" ".join(str(one).split()) for one in error.problems[:3])
        sampled, pictures = _sampled(run)
        return Catalogue(sampled, people_prompt, general_prompt, problem, pictures)
    names = {person.id: person.name for person in people.individuals}
    asked = [question for person in people.individuals for question in person.questions]
    asked += general.general
    return Catalogue(
        {question.id: _asked(question, names.get(question.individual, "")) for question in asked},
        people_prompt,
        general_prompt,
        _pictures={one.picture.digest: one.picture for one in asked if one.picture},
    )


def _data_settings(run: Run) -> DataSettings:
    path = inside(run.path, "experiment.yaml")
    try:
        with file_errors(path, "read"):
            text = plain_file(path).read_text(encoding="utf-8")
        raw = read_yaml(text, str(path))
        return DataSettings.model_validate(raw["data"])
    except (ConfigError, ValidationError, ValueError, TypeError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise StoreError(Problem("says not which data were asked", str(path), told)) from error


# Most runs ask the same people.
@lru_cache(2)
def _load(told: str) -> tuple[Dataset, Dataset]:
    settings = DataSettings.model_validate_json(told)
    if settings.people.revision or settings.general.revision:
        # A page that is looked at fetches nothing: only what the hub's cache holds is read.
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True
    asked = settings.people
    chosen = asked.model_dump(include={"scored_picture", "options", "options_seed"})
    people = datasets.load_people(asked.source, Source(asked.path, asked.revision, **chosen))
    general = settings.general
    return people, datasets.load_general(general.source, Source(general.path, general.revision))


def _check_same(run: Run, people: Dataset, general: Dataset) -> None:
    """Raise StoreError unless the data are those that the run's stages were made from."""
    now = {f"people/{name}": value for name, value in people.digests.items()}
    now |= {f"general/{name}": value for name, value in general.digests.items()}
    scored = next((one for one in run.stages if one.kind == "score" and one.folder), None)
    if scored is None:
        return
    folder = run.folder_of(scored.name)
    inside(run.path, f"stages/{scored.folder}/manifest.json")
    then = read_manifest(folder).data if folder else {}
    changed = [
        name
        for name, value in then.items()
        if name.startswith(("people/", "general/")) and now.get(name) != value
    ]
    if changed:
        _load.cache_clear()  # it may be put back
        what = "the data set is not the one that was asked, so its texts and pictures are left out"
        raise StoreError(Problem(what, "data", got=", ".join(changed[:3])))


def _asked(question: Question, name: str) -> Asked:
    shown = question.picture if question.modality == "multimodal" else None
    return Asked(
        question.question,
        question.hint,
        name,
        question.options,
        question.answer,
        shown.digest if shown else "",
    )


def _sampled(run: Run) -> tuple[dict[str, Asked], dict[str, Picture]]:
    """Return the questions that `samples.json` holds; what is not well formed is left out."""
    try:
        entries = read_json(run.path, "samples.json")
    except StoreError:
        return {}, {}
    found: dict[str, Asked] = {}
    pictures: dict[str, Picture] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        told = {name: str(entry.get(name) or "") for name in ("id", "question", "hint", "name")}
        picture = _inline(entry.get("picture"), told["id"])
        if picture:
            pictures[picture.digest] = picture
        found[told["id"]] = Asked(
            told["question"],
            told["hint"],
            told["name"],
            options=_options(entry.get("options")),
            answer=str(entry.get("answer") or ""),
            picture=picture.digest if picture else "",
        )
    return found, pictures


def _options(entries: object) -> tuple[Option, ...]:
    found: Sequence[Any] = entries if isinstance(entries, list) else []
    return tuple(
        Option(str(one.get("letter", "")), str(one.get("text", "")))
        for one in found
        if isinstance(one, dict)
    )


def _inline(value: object, where: str) -> Picture | None:
    if not isinstance(value, str) or not value.startswith(_SAMPLED):
        return None
    try:
        data = base64.b64decode(value.removeprefix(_SAMPLED), validate=True)
    except ValueError:
        return None
    return picture_from_bytes(data, where)


def _as_png(picture: Picture) -> bytes:
    image: Image.Image = decode(picture)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
