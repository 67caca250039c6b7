"""Tables for papers: the report's numbers, escaped for each format."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from statistics import fmean

import pytest
from click.testing import CliRunner

from pipeline_cases import result_rows
from pulse_unlearn.cli import pulse
from pulse_unlearn.errors import ConfigError, StoreError
from pulse_unlearn.report.estimates import Estimate
from pulse_unlearn.report.tables import Row, Shown, Table
from pulse_unlearn.tables import FORMATS, NamedTable, choose, paper_tables
from pulse_unlearn.tables.formats import escape_markdown
from pulse_unlearn.texts import escape_csv, escape_tex
from synthetic_run import Recipe, write_run

SEEDS = (0, 1, 2)
HOSTILE = '=1+1 \\input{/etc/passwd} [x]*_a_|b& 50 % $x^2$ #~ "q" <b> `c` -- \x1b[31m\u202e'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tables"), Recipe(seeds=SEEDS, methods=("GA", "NPO")))


@pytest.fixture(scope="module")
def by_reading(run):
    return {
        reading: {table.name: table for table in paper_tables(run, reading=reading)}
        for reading in ("accuracy", "rotated_accuracy")
    }


@pytest.fixture(scope="module")
def made(by_reading):
    return by_reading["accuracy"]


def as_csv(named):
    return list(csv.DictReader(io.StringIO(FORMATS["csv"].write(named, "low-high"))))


def number(text):
    return float(text) if text else None


@cache
def read(run):
    content = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return result_rows(run), content["over_seeds"]


def over_seeds(run, **where):
    """Mean of the seeds' values in `results.csv`, ends of their interval in `results.json`."""
    where["condition"] = "plain"
    results, means = read(run)
    found = [row for row in results if all(row[name] == str(of) for name, of in where.items())]
    values = [float(row["value"]) for row in found]
    assert len(values) == len(SEEDS)
    (over,) = (row for row in means if all(row[name] == of for name, of in where.items()))
    return fmean(values), over["low"], over["high"]


COLUMNS = {
    "D_unlearn with image": ("forget", "multimodal"),
    "D_unlearn text only": ("forget", "text_only"),
    "D_retain with image": ("retain", "multimodal"),
    "D_retain text only": ("retain", "text_only"),
    "General ability": ("general", "all"),
}


@pytest.mark.parametrize("reading", ["accuracy", "rotated_accuracy"])
@pytest.mark.parametrize(("scenario", "request_"), [("finetuned", 1), ("sustainability", 5)])
def test_accuracies_are_those_of_the_results(run, by_reading, reading, scenario, request_):
    named = by_reading[reading][f"accuracy-{scenario}"]
    rows = {row["Parameters updated"]: row for row in as_csv(named)}
    for title, method in (("GA · Proj, LLM", "GA"), ("NPO · Proj, LLM", "NPO")):
        for column, (of_set, modality) in COLUMNS.items():
            where = {"scenario": scenario, "method": method, "scope": "projector+llm"}
            where |= {"request": request_, "set": of_set, "modality": modality}
            value, low, high = over_seeds(run, **where, measure=reading)
            cells = [number(rows[title][column + end]) for end in ("", ": low", ": high")]
            assert cells == pytest.approx([100 * one for one in (value, low, high)], abs=1e-4)
    assert "Mean of 3 seeds (0, 1, 2)" in named.caption
    assert ("strict" if reading == "accuracy" else "rotated") in named.caption
    assert " sd " not in FORMATS["markdown"].write(named, "low-high")
    assert ("% unreadable" in str(rows)) == (reading == "accuracy")


def test_every_table_is_there_and_sustainability_goes_by_request(run, made):
    scenarios = ("finetuned", "pretrained", "sustainability")
    kinds = [f"{kind}-{one}" for kind in ("accuracy", "readings") for one in scenarios]
    assert list(made) == [*kinds, "verdicts", "sustainability"]
    rows = as_csv(made["sustainability"])
    ga = next(row for row in rows if (row["Set"], row["Method"]) == ("D_unlearn", "GA"))
    for request in (1, 5):
        where = {"scenario": "sustainability", "method": "GA", "request": request}
        value, low, high = over_seeds(
            run, **where, set="forget", modality="all", measure="accuracy"
        )
        column = f"request {request}"
        cells = [number(ga[column + end]) for end in ("", ": low", ": high")]
        assert cells == pytest.approx([100 * one for one in (value, low, high)], abs=1e-4)
    assert [row["Set"] for row in as_csv(made["readings-finetuned"])][:5] == [
        "D_unlearn, with image",
        "D_unlearn, text only",
        "D_retain, with image",
        "D_retain, text only",
        "General ability",
    ]


def test_verdicts_count_the_seeds(run, made):
    words = defaultdict(set)
    remembered = defaultdict(int)
    for one in json.loads((run / "results.json").read_text(encoding="utf-8"))["verdicts"]:
        if (one["scenario"], one["scope"], one["request"]) == ("finetuned", "projector+llm", 1):
            words[one["method"]].add(one["word"])
            remembered[one["method"]] += one["remembered"]
    rows = {
        row["Method"]: row
        for row in as_csv(made["verdicts"])
        if (row["Scenario"], row["Updated"]) == ("Fine-tuned knowledge", "Proj, LLM")
    }
    assert rows.keys() == words.keys()
    for method, row in rows.items():
        assert all(word in row["Verdict"] for word in words[method])
        assert row["Remembered"] == f"{remembered[method]} of 3 seeds"


def test_names_choose_tables_and_unknown_ones_are_told_together(run, made):
    tables = list(made.values())
    assert [one.name for one in choose(tables, ["accuracy"])] == list(made)[:3]
    assert [one.name for one in choose(tables, ["verdicts", "accuracy-finetuned"])] == [
        "accuracy-finetuned",
        "verdicts",
    ]
    assert choose(tables, []) == tables
    with pytest.raises(ConfigError, match="did you mean 'verdicts'") as error:
        choose(tables, ["verdict", "nothing"])
    assert len(error.value.problems) == 2
    with pytest.raises(ConfigError, match="did you mean 'rotated_accuracy'"):
        paper_tables(run, reading="rotated_acuracy")
    with pytest.raises(StoreError):
        paper_tables(run / "nowhere")


@pytest.fixture(scope="module")
def hostile():
    one = Estimate(0.25, 0.125, 0.5, None, ((0, 0.25),), 40, "")
    bare = Estimate(-0.5, None, None, None, ((0, -0.5),), 40, HOSTILE)
    cells = (
        Shown("25.0", "", "a", beside=(HOSTILE,), estimate=one, measure="accuracy"),
        Shown("−50.0", "", "", estimate=bare, measure="accuracy"),
        Shown(HOSTILE),
    )
    rows = (Row((HOSTILE,), cells), Row(("[plain]",), cells))
    table = Table("t", ("Method",), ("Strict", HOSTILE, "Word"), rows, (("a", HOSTILE),))
    return NamedTable("accuracy-x", HOSTILE, table)


def test_markdown_holds_nothing_but_its_cells(hostile):
    text = FORMATS["markdown"].write(hostile, "low-high")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert re.sub(r"</?sup>|<br>", "", text).count("<") == 0
    assert "25.0<sup>a</sup><br>[12.5, 50.0]<br>" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert escape_markdown("a_b|c[d]") == "a\\_b\\|c&#91;d&#93;"
    assert [len(line.split("--:")) - 1 for line in lines][1] == 2
    half = FORMATS["markdown"].write(hostile, "half-width")
    assert "25.0 ± 18.8<sup>a</sup>" in half
    assert "[12.5" not in half


def test_csv_holds_no_formula(hostile):
    rows = list(csv.reader(io.StringIO(FORMATS["csv"].write(hostile, "low-high"))))
    assert {len(row) for row in rows} == {1 + 4 + 4 + 1}
    assert rows[1][0].startswith("'=1+1")
    assert rows[1][1:4] == ["25.0000", "12.5000", "50.0000"]
    assert rows[1][5:8] == ["-50.0000", "", ""]
    assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row)
    assert escape_csv("–") == "–"


LATEX = re.compile(r"\\begin\{(\w+)\}|\\end\{(\w+)\}")


def test_latex_is_balanced_and_escapes_what_has_a_meaning(hostile, made):
    assert escape_tex("D_unlearn of a_b--c") == r"$D_{\mathrm{unlearn}}$ of a\_b-{}-c"
    assert escape_tex("\\input{x} [*]") == r"\textbackslash{}input\{x\} {[}{*}{]}"
    for named in (hostile, *made.values()):
        text = FORMATS["latex"].write(named, "low-high")
        open_ones: list[str] = []
        for begun, ended in LATEX.findall(text):
            if begun:
                open_ones.append(begun)
            else:
                assert open_ones.pop() == ended
        assert not open_ones
        plain = re.sub(r"\\.", "", text)
        assert plain.count("{") == plain.count("}")
        columns = re.search(r"^\\begin\{tabular\}\{(\w+)\}", text, re.M)[1]
        body = [line for line in text.splitlines() if line.endswith(r"\\")]
        for line in body:
            inside = re.sub(r"\\[&%#$_{}]", "", line)
            assert inside.count("&") == len(columns) - 1
        assert len(body) == len(named.table.rows) + 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(hostile, made, tmp_path):
    names = []
    for named in (hostile, *made.values()):
        (tmp_path / f"{named.name}.tex").write_text(FORMATS["latex"].write(named, "low-high"))
        names.append(rf"\input{{{named.name}.tex}}\clearpage")
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "all.tex").write_text("\n".join([packages, *names, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "all.tex"]
    done = subprocess.run(
        command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout


def test_the_command_writes_files_and_one_csv_at_a_time(tmp_path):
    run = write_run(tmp_path / "run", Recipe(scenarios=("finetuned",), methods=("GA",)))
    call = CliRunner().invoke
    out = tmp_path / "new" / "tables"
    done = call(pulse, ["tables", str(run), "--format", "csv", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{one.name}.csv" for one in paper_tables(run)
    )
    assert done.output.splitlines()[0] == str(out / "accuracy-finetuned.csv")
    several = call(pulse, ["tables", str(run), "--format", "csv"])
    assert several.exit_code == 2
    assert "several tables" in several.output
    one = call(pulse, ["tables", str(run), "--format", "csv", "--table", "verdicts"])
    assert one.output == (out / "verdicts.csv").read_text(encoding="utf-8")
