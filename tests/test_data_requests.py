"""A file of requests: who, when, in which order; every bad row told at once."""

from __future__ import annotations

import pytest

from pulse_unlearn.data.requests import read_request_file
from pulse_unlearn.errors import DataError
from pulse_unlearn.records import NamedRequest

KNOWN = ("ada", "ben", "cleo", "dan", "eve")


def read(tmp_path, text, known=KNOWN):
    path = tmp_path / "requests.csv"
    path.write_text(text, encoding="utf-8")
    return read_request_file(path, known)


def test_requests_of_any_size_by_date_then_in_the_files_order(tmp_path):
    found = read(
        tmp_path,
        "individual,request,date,set\n"
        "ada,late,2026-03-02,forget\n"
        "ben,undated,,\n"
        "cleo,early,2026-01-31,\n"
        "dan,early,2026-01-31,\n"
        "eve,,,retain\n",
    )
    assert found.requests == (
        NamedRequest("early", ("cleo", "dan"), "2026-01-31"),
        NamedRequest("late", ("ada",), "2026-03-02"),
        NamedRequest("undated", ("ben",)),
    )
    assert found.retained == ("eve",)


def test_every_row_that_cannot_be_used_is_told_with_its_line(tmp_path):
    with pytest.raises(DataError) as error:
        read(
            tmp_path,
            "individual,request,date,set\n"
            "adda,first,2026-01-31,forget\n"
            "ben,first,31.01.2026,forget\n"
            "cleo,,,forget\n"
            "dan,second,,kept\n"
            "ben,third,,\n",
        )
    told = str(error.value)
    for line, part in (
        (2, "did you mean 'ada'"),
        (3, "not a date"),
        (3, "two dates"),
        (4, "has no name"),
        (5, "unknown set"),
        (6, "twice"),
    ):
        assert any(f":{line}" in one and part in one for one in told.split("\n/")), (line, part)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("individual,set\nada,retain\n", "a column is missing"),
        ("individual,request,dat\nada,a,\n", "did you mean 'date'"),
        ("individual,request,set\nada,,retain\n", "nobody asks to be forgotten"),
    ],
)
def test_files_without_what_is_needed(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, text)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_request_file(tmp_path / "none.csv", KNOWN)


def lines(tmp_path, text, known=KNOWN):
    path = tmp_path / "requests.jsonl"
    path.write_text(text, encoding="utf-8")
    return read_request_file(path, known)


def test_lines_of_json_are_requests_as_they_came_in(tmp_path):
    found = lines(
        tmp_path,
        '{"who": ["ben", "ada"], "when": "2026-01-31", "why": "Art. 17"}\n'
        "\n"
        '{"retain": ["eve", "dan"]}\n'
        '{"request": "R-7", "who": "dan", "when": "2026-01-31"}\n',
    )
    assert found.requests == (
        NamedRequest("line 1", ("ben", "ada"), "2026-01-31", "Art. 17"),
        NamedRequest("R-7", ("dan",), "2026-01-31"),
    )
    assert found.retained == ("eve", "dan")  # who may still ask later


def test_every_line_of_json_that_cannot_be_used_is_told(tmp_path):
    with pytest.raises(DataError) as error:
        lines(
            tmp_path,
            '{"who": "adda", "when": "2026-02-01"}\n'
            '{"who": "ben", "when": "2026-01-01"}\n'
            '{"who": "ben", "when": "yesterday"}\n'
            '{"who": [], "wen": "2026-03-01"}\n'
            "{who: ada}\n"
            '["ada"]\n'
            '{"who": ["cleo", "cleo"], "when": "2026-03-01", "why": 17}\n'
            '{"who": ["cleo", "cleo"], "when": "2026-03-01"}\n'
            '{"retain": ["eve"]}\n'
            '{"retain": ["dan"]}\n',
        )
    told = [str(problem) for problem in error.value.problems]
    for line, part in (
        (1, "did you mean 'ada'"),
        (2, "goes back"),
        (3, "not a date"),
        (4, "names nobody"),
        (4, "did you mean 'when'"),
        (5, "not a line of JSON"),
        (6, "is no request"),
        (7, "'why' is not text"),
        (8, "twice"),
        (10, "a second line"),
    ):
        assert any(f".jsonl:{line}" in one and part in one for one in told), (line, part, told)
