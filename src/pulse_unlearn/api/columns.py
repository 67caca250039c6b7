"""The columns of the frames: names in the order they are shown, and Arrow types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

Columns = tuple[tuple[str, Any], ...]

_TEXT, _WHOLE, _NUMBER, _TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()

CELL: Columns = (
    ("scenario", _TEXT),
    ("method", _TEXT),
    ("scope", _TEXT),
    ("seed", _WHOLE),
    ("request", _WHOLE),
    ("condition", _TEXT),
)
RESULTS: Columns = (
    *CELL,
    ("set", _TEXT),
    ("modality", _TEXT),
    ("measure", _TEXT),
    ("value", _NUMBER),
    ("low", _NUMBER),
    ("high", _NUMBER),
    ("questions", _WHOLE),
    ("individuals", _WHOLE),
    ("reason", _TEXT),
)
MODELS: Columns = (*CELL, ("stage", _TEXT), ("compared_to", _TEXT))
VERDICTS: Columns = (
    *CELL,
    ("word", _TEXT),
    ("why", _TEXT),
    ("remembered", _TRUTH),
    ("highest", _TEXT),
    ("letter", _TEXT),
    (
        "readings",
        pa.list_(
            pa.struct(
                [
                    ("reading", _TEXT),
                    ("value", _NUMBER),
                    ("low", _NUMBER),
                    ("high", _NUMBER),
                    ("chance", _NUMBER),
                    ("p_above", _NUMBER),
                    ("p_below", _NUMBER),
                    ("above_chance", _TRUTH),
                ]
            )
        ),
    ),
)
ANSWERS: Columns = (
    ("stage", _TEXT),
    ("question_id", _TEXT),
    ("example_id", _TEXT),
    ("individual", _TEXT),
    ("modality", _TEXT),
    ("category", _TEXT),
    ("asked_as", _TEXT),
    ("rotation", _WHOLE),
    ("options", pa.list_(pa.struct([("letter", _TEXT), ("text", _TEXT)]))),
    ("answer", _TEXT),
    ("text", _TEXT),
    ("verdict", _TEXT),
    ("choice", _TEXT),
    ("right", _TRUTH),
    ("mentioned", _TEXT),
    ("option_log_probs", pa.list_(_NUMBER)),
    ("end_log_probs", pa.list_(_NUMBER)),
    ("option_tokens", pa.list_(_WHOLE)),
    ("likeliest", _TEXT),
    ("true_probability", _NUMBER),
    ("chance", _NUMBER),
    ("cut_off", _TRUTH),
)
QUESTION: Columns = (
    ("question_id", _TEXT),
    ("individual", _TEXT),
    ("modality", _TEXT),
    ("category", _TEXT),
    ("answer", _TEXT),
    ("verdict", _TEXT),
    ("choice", _TEXT),
    ("chance", _NUMBER),
)


def scores(measures: Iterable[str]) -> Columns:
    """Return the columns of question scores, with one for each measure."""
    return (("stage", _TEXT), *QUESTION, *((name, _NUMBER) for name in measures))
