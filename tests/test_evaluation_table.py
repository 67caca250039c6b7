import ast
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pulse_unlearn.evaluation as room
from pulse_unlearn.errors import Corrupted, DataError, StoreError
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import (
    read_predictions,
    read_scores,
    write_predictions,
    write_scores,
)
from synthetic_scores import in_words, prediction

AWKWARD = [
    prediction(text, log_probs=[-0.1, -2.5e-300, float("-inf"), -1e300])
    for text in ("B", "", "\x00\x1b[31m", "\u202e\U0001f600\ufffd", "x" * 10_000, 'a,"b"\r\n')
]


def some_scores(count):
    """As many judged answers, right ones and wrong ones."""
    return score_all(prediction("AB"[number % 2], number=number) for number in range(count))


def test_predictions_come_back_as_they_were(tmp_path):
    write_predictions(tmp_path / "p.parquet", AWKWARD)
    assert read_predictions(tmp_path / "p.parquet") == tuple(AWKWARD)


def test_answers_in_words_come_back_as_they_were(tmp_path):
    """Fault: a column of the answers in words lost, or tuples that come back as lists."""
    rows = (in_words("a teacher", [-0.5, -1.5, -2.5, -9.0], tokens=[1, 2, 3, 4], ends=[-0.1] * 4),)
    write_predictions(tmp_path / "p.parquet", rows)
    assert read_predictions(tmp_path / "p.parquet") == rows
    assert read_predictions(tmp_path / "p.parquet")[0].asked_as == "words"
    write_scores(tmp_path / "s.parquet", score_all(rows))
    assert read_scores(tmp_path / "s.parquet") == score_all(rows)


def test_scores_come_back_as_they_were(tmp_path):
    scores = (*some_scores(20), *score_all(AWKWARD))
    write_scores(tmp_path / "s.parquet", scores)
    assert read_scores(tmp_path / "s.parquet") == scores


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=50),
    log_probs=st.lists(st.floats(allow_nan=False), min_size=4, max_size=4),
)
def test_any_text_and_number_survives(tmp_path, text, log_probs):
    rows = (prediction(text, log_probs=log_probs),)
    write_predictions(tmp_path / "p.parquet", rows)
    assert read_predictions(tmp_path / "p.parquet") == rows


def test_empty_tables(tmp_path):
    write_predictions(tmp_path / "p.parquet", [])
    write_scores(tmp_path / "s.parquet", [])
    assert read_predictions(tmp_path / "p.parquet") == ()
    assert read_scores(tmp_path / "s.parquet") == ()


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_predictions(tmp_path / name, AWKWARD)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a", "b")}
    assert len(digests) == 1


def test_a_table_of_the_other_kind_is_refused(tmp_path):
    write_scores(tmp_path / "s.parquet", some_scores(10))
    with pytest.raises(Corrupted, match="not a table of predictions") as caught:
        read_predictions(tmp_path / "s.parquet")
    assert caught.value.problems[0].got == "scores"


def test_another_version_is_refused(tmp_path):
    write_scores(tmp_path / "s.parquet", some_scores(10))
    table = pq.read_table(tmp_path / "s.parquet")
    metadata = {**table.schema.metadata, b"pulse_unlearn.version": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "new.parquet")
    with pytest.raises(StoreError, match="unknown version") as caught:
        read_scores(tmp_path / "new.parquet")
    assert caught.value.problems[0].got == "version 99"


def test_changed_columns_are_refused(tmp_path):
    write_scores(tmp_path / "s.parquet", some_scores(10))
    table = pq.read_table(tmp_path / "s.parquet").drop_columns(["chance"])
    pq.write_table(table, tmp_path / "less.parquet")
    with pytest.raises(Corrupted, match="columns of scores changed"):
        read_scores(tmp_path / "less.parquet")


def test_foreign_damaged_and_missing_files_are_told_apart(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    with pytest.raises(Corrupted, match="another parquet file"):
        read_scores(tmp_path / "foreign.parquet")
    write_scores(tmp_path / "s.parquet", some_scores(500))
    whole = (tmp_path / "s.parquet").read_bytes()
    for damaged in (b"", b"hello", whole[:-20], whole[: len(whole) // 2]):
        (tmp_path / "bad.parquet").write_bytes(damaged)
        with pytest.raises(Corrupted, match=r"bad\.parquet"):
            read_scores(tmp_path / "bad.parquet")
    with pytest.raises(StoreError, match="none\\.parquet"):
        read_scores(tmp_path / "none.parquet")


def test_a_flipped_byte_is_found_or_harmless(tmp_path):
    scores = some_scores(50)
    write_scores(tmp_path / "s.parquet", scores)
    whole = (tmp_path / "s.parquet").read_bytes()
    refused = 0
    for place in range(0, len(whole), 29):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        (tmp_path / "bad.parquet").write_bytes(broken)
        try:
            assert read_scores(tmp_path / "bad.parquet") == scores
        except StoreError:
            refused += 1
    assert refused > 50


def test_text_that_no_file_can_hold_is_an_error_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="rows don't fit"):
        write_predictions(tmp_path / "p.parquet", [prediction("\ud800")])
    assert not (tmp_path / "p.parquet").exists()


def test_an_unwritable_place_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match="cannot write"):
        write_scores(tmp_path / "missing" / "s.parquet", [])


def test_scoring_needs_no_model():
    # Only predict.py may ask the model; everything else must import without torch.
    folder = Path(room.__file__).parent
    for path in folder.glob("*.py"):
        if path.name == "predict.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert not name.startswith(("torch", "transformers")), path.name
                assert name != "pulse_unlearn.evaluation.predict", path.name
