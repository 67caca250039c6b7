"""The report of a synthetic run: whole, partial, hostile, and nothing at all."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import synthetic_findings
import synthetic_run
from pulse_unlearn.errors import StoreError
from pulse_unlearn.records import RESULT_COLUMNS
from pulse_unlearn.report import build, build_report
from pulse_unlearn.report.drawing import GOLD, SERIES
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.figures import figure4
from pulse_unlearn.report.gauges import gauges
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.marks import dodged
from pulse_unlearn.report.samples import sample_groups
from pulse_unlearn.report.scoreboard import Verdicts
from synthetic_run import Recipe, write_run
from synthetic_samples import HOSTILE

MOST_BYTES = 3_000_000
SMALL = {"finetuned": (4, 4), "pretrained": (3, 4), "sustainability": (4, 4)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(seeds=(0, 1), drop=(("pretrained", "NPO"),))
    folder = write_run(tmp_path_factory.mktemp("runs") / "whole", recipe)
    (folder / "scores").mkdir()
    (folder / "scores" / "01-a.b+c=d-00000000.parquet").touch()
    build_report(folder)
    return folder


class _Elements(HTMLParser):
    """Collects tags, ids and attributes of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]


def _text(html: str) -> str:
    """Return what a reader sees, spaces as one; numbers do not part from their sign."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).replace("\xa0", " ").split())


def test_the_page_stands_alone(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    elements = _Elements(text)
    assert len(text.encode()) < MOST_BYTES
    assert "default-src 'none'" in text
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(elements.tags)
    for name, value in elements.attributes:
        assert not name.startswith("on")
        if name in {"src", "href", "xlink:href"} and not value.startswith(("#", "data:image/")):
            assert (run / unquote(value)).resolve().is_relative_to(run.resolve())
            assert (run / unquote(value)).is_file(), value
    # Namespaces are names, not addresses; nothing else may point outside the file.
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in outside
    assert "https://" not in outside


def test_figures_scores_and_results_are_linked(run: Path) -> None:
    elements = _Elements((run / "report.html").read_text(encoding="utf-8"))
    linked = {unquote(value) for name, value in elements.attributes if name == "href"}
    folders = ("figures", "scores")
    files = {f"{name}/{path.name}" for name in folders for path in (run / name).iterdir()}
    assert len(files) > 10
    assert {"results.csv", "results.json", *files} <= linked


def test_samples_have_their_prompt_and_their_kinds(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=4))
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8"))
    experiment["data"] = {"people_prompt": "mmbench_vlmevalkit", "general_prompt": "short"}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    (group,) = sample_groups(load_run(folder))
    wrong, unparsable, right, refused = group.samples
    assert "Question: What does she do?\nOptions:\nA. teacher\nB. painter" in wrong.prompt
    assert wrong.answers[0].kinds == ()
    assert set(wrong.kinds) == {"flipped"}
    assert set(unparsable.kinds) == {"flipped", "unreadable"}
    assert set(right.kinds) == {"mentions"}
    assert set(refused.kinds) == {"flipped"}


def test_a_sample_whose_request_is_no_number_is_shown_all_the_same(tmp_path: Path) -> None:
    """Found by the fuzzer, which put a list there."""
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=1))
    content = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    entries = content if isinstance(content, list) else content["samples"]
    entries[0]["answers"][-1]["request"] = [1]
    (folder / "samples.json").write_text(json.dumps(content), encoding="utf-8")
    (group,) = sample_groups(load_run(folder))
    assert len(group.samples[0].answers) == len(entries[0]["answers"])


def test_an_answer_is_one_letter_where_the_verdict_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=1))
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for verdict in content["verdicts"]:
        # The sample's answer after is B, given by all methods; GA alone says B to everything.
        verdict["condition"] = "plain"
        verdict["letter"] = {"letter": "B", "one_letter": verdict["method"] == "GA"}
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    (group,) = sample_groups(load_run(folder))
    answers = {one.label: one.kinds for one in group.samples[0].answers}
    assert answers == {"before": (), "GA": ("flipped", "one_letter"),
                       "GA+KLR": ("flipped",), "NPO": ("flipped",)}  # fmt: skip


def test_several_seeds_are_drawn_as_points_beside_their_mean(tmp_path: Path) -> None:
    drawn = {}
    for seeds in ((0,), (0, 1, 2)):
        recipe = Recipe(scenarios=("pretrained",), methods=("GA",), seeds=seeds, samples=0)
        record = load_run(write_run(tmp_path / str(len(seeds)), recipe))
        numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
        drawn[len(seeds)] = figure4(numbers).svg
    assert "each seed" in drawn[3]
    assert "each seed" not in drawn[1]
    # Three panels, three seeds in each, and one point in the legend.
    assert drawn[3].count("<use ") == drawn[1].count("<use ") + 10


def test_figures_do_not_clash(run: Path) -> None:
    elements = _Elements((run / "report.html").read_text(encoding="utf-8"))
    assert elements.tags.count("svg") > 3
    assert len(elements.ids) == len(set(elements.ids))
    for name, value in elements.attributes:
        if name in {"href", "xlink:href"} and value.startswith("#"):
            assert value[1:] in elements.ids
        for target in re.findall(r"url\(#([^)]*)\)", value):
            assert target in elements.ids


def test_figures_are_files_too(run: Path) -> None:
    names = sorted(path.name for path in (run / "figures").iterdir())
    assert names == sorted(
        f"{n}.{e}"
        for n in ("figure-4", "figure-4-latent", "figure-5", "figure-5-latent", "training")
        for e in ("svg", "pdf")
    )
    assert all((run / "figures" / name).stat().st_size > 2000 for name in names)


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    recipe = Recipe(scenarios=("finetuned", "sustainability"), methods=("GA",), samples=2)
    folder = write_run(tmp_path / "run", recipe)
    files = [build_report(folder).path, *sorted((folder / "figures").iterdir())]
    assert len(files) == 11
    before = [path.read_bytes() for path in files]
    code = (
        "import sys, pathlib, pulse_unlearn.report as r; "
        "r.build_report(pathlib.Path(sys.argv[1]), redraw=True)"
    )
    # Another process, so that the order of sets and the clock are others too.
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    assert [path.read_bytes() for path in files] == before


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe(scenarios=("finetuned",), methods=("GA",), samples=1)
    folder = write_run(tmp_path_factory.mktemp("small") / "run", recipe)
    build_report(folder)
    return folder


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "run"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Runs that were to be drawn, which takes seconds and is not done."""
    runs: list[Path] = []

    def write(run: Path, *_: object) -> tuple[tuple[str, ...], list[str]]:
        runs.append(run)
        return (), []

    monkeypatch.setattr(build, "_write", write)
    return runs


def test_an_unchanged_run_is_not_drawn_again(copy: Path) -> None:
    outputs = [copy / "report.html", copy / build.RECORD, *(copy / "figures").iterdir()]
    for path in outputs:
        os.utime(path, ns=(0, 0))
    code = (
        "import sys, pathlib, pulse_unlearn.report as r; "
        "print(*r.build_report(pathlib.Path(sys.argv[1])).summary, sep='\\n'); "
        "print(sorted({'matplotlib', 'jinja2', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True
    )
    *summary, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert not any(path.stat().st_mtime_ns for path in outputs)
    assert summary == list(build_report(copy, redraw=True).summary)
    assert all(path.stat().st_mtime_ns for path in outputs)


@pytest.mark.parametrize(
    "name",
    [
        *("results.csv", "results.json", "experiment.yaml", "plan.json", "samples.json"),
        *("environment.json", "train.jsonl", "report.html", "figure-4.pdf", build.RECORD),
    ],
)
@pytest.mark.parametrize("missing", [True, False])
def test_a_run_is_drawn_again_if_a_file_is_another(
    copy: Path, drawn: list[Path], name: str, *, missing: bool
) -> None:
    path = min(copy.rglob(name))
    if missing:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    build_report(copy)
    assert drawn == [copy]


def test_a_run_is_drawn_again_if_it_has_other_tables_of_scores(
    copy: Path, drawn: list[Path]
) -> None:
    build_report(copy)
    assert not drawn
    (copy / "scores").mkdir()
    (copy / "scores" / "01-other.parquet").touch()
    build_report(copy)
    assert drawn == [copy]


@pytest.mark.parametrize("what", ["code_digest", "version"])
def test_a_run_is_drawn_again_by_other_code(
    copy: Path, drawn: list[Path], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    build_report(copy)
    assert not drawn
    monkeypatch.setattr(build, what, lambda *_: "another")
    build_report(copy)
    assert drawn == [copy]


def test_a_report_that_was_edited_is_made_whole(copy: Path) -> None:
    path = copy / "report.html"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"e", b"f", 1))
    build_report(copy)
    assert path.read_bytes() == whole


def test_a_partial_run_says_what_is_missing(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "48 of 50 cells have numbers" in text
    assert "Pre-trained knowledge, NPO · Proj, LLM: request 1, seed 0, 1" in text
    assert any("not finished" in line for line in build_report(run).summary)


@pytest.mark.usefixtures("undrawn")
def test_a_whole_run_says_nothing_about_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",)))
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "This run is not finished" not in text
    assert "single seed (0)" in text


def test_d_unlearn_accuracy_is_never_without_its_unreadable_share(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    table = text[text.index('id="table-3"') : text.index('id="figure-4-section"')]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    rows = body.split("<tr")[1:]
    assert len(rows) == 5
    for row in rows:
        cells = row.split("<td")[1:3]
        assert all("unreadable" in cell for cell in cells)


def test_the_paper_stands_beside_ours(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    table = text[text.index('id="table-3"') : text.index("as printed")]
    for value in ("78.0", "9.6", "35.2", "14.8", "29.2", "71.1", "48.8"):
        assert f"</span>{value}</span>" in table


def test_hostile_text_is_shown_not_obeyed(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("finetuned",), hostile=True))
    text = build_report(folder).path.read_text(encoding="utf-8")
    elements = _Elements(text)
    assert "script" not in elements.tags
    assert text.count("&lt;script&gt;") > 6, "the word, why, flag, finding, method, sample"
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "example.org" not in text
    assert "picture left out: not an inline image" in text
    for character in ("\x1b", "\u202e", "\ud800"):
        assert character not in text
        assert character not in "\n".join(build_report(folder).summary)
    assert HOSTILE.count("\x1b") == 1  # the test above means something


def test_few_people_and_a_single_method(tmp_path: Path) -> None:
    recipe = Recipe(scenarios=("finetuned",), methods=("NPO",), people=SMALL, samples=0)
    text = build_report(write_run(tmp_path / "run", recipe)).path.read_text(encoding="utf-8")
    assert "too few people for a verdict" in text
    assert "n/a (4 people)" in text
    assert "one run: no finding" in text


def test_before_unlearning_only(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("finetuned",), methods=()))
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "Nothing has been unlearned yet" in text


@pytest.mark.usefixtures("undrawn")
def test_other_files_missing_is_said_on_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=2))
    for name in ("samples.json", "plan.json", "environment.json"):
        (folder / name).unlink()
    (folder / "experiment.yaml").write_text("a: [", encoding="utf-8")
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "samples.json: file is missing" in text
    assert "experiment.yaml: not valid YAML" in text


@pytest.mark.parametrize("content", [None, "", "scenario,method\n", "header"])
def test_nothing_finished_is_a_typed_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "results.csv").write_text(content, encoding="utf-8")
    with pytest.raises(StoreError) as caught:
        build_report(tmp_path)
    assert any(problem.fix for problem in caught.value.problems)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "many"])
def test_a_number_that_is_none_is_refused_with_its_line(tmp_path: Path, value: str) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=0))
    lines = (folder / "results.csv").read_text(encoding="utf-8").splitlines()
    cells = lines[3].split(",")
    cells[RESULT_COLUMNS.index("value")] = value
    lines[3] = ",".join(cells)
    (folder / "results.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"results\.csv:4"):
        build_report(folder)


def test_a_row_told_twice_is_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=0))
    text = (folder / "results.csv").read_text(encoding="utf-8")
    (folder / "results.csv").write_text(text + text.splitlines()[1] + "\n", encoding="utf-8")
    with pytest.raises(StoreError, match="repeats line 2"):
        build_report(folder)


def test_results_json_that_is_not_what_it_should_be(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(scenarios=("pretrained",), samples=0))
    (folder / "results.json").write_text(json.dumps(["x"]), encoding="utf-8")
    (folder / "samples.json").write_text(json.dumps({"x": 1}), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps({"stages": [1, {"seed": "x"}]}), encoding="utf-8")
    assert build_report(folder).path.exists()


@pytest.mark.usefixtures("undrawn")
def test_one_letter_that_knows_the_answers_is_never_called_forgotten(tmp_path: Path) -> None:
    """The invented pre-trained GA says D to everything and knows 98 % in every order."""
    recipe = Recipe(scenarios=("pretrained",), methods=("GA",), samples=0)
    text = build_report(write_run(tmp_path / "run", recipe)).path.read_text(encoding="utf-8")
    answer = _text(text.split('id="answer"')[1].split("</section>")[0])
    assert "In this one run, read as the paper does, 28 % of the answers" in answer
    assert "After GA the model says D in 100 % of the answers that can be read" in answer
    assert "what broke is how it answers" in answer
    assert "one letter" in answer
    for word in ("not recovered", "erased", "forgot "):
        assert word not in answer
    assert answer.count("deleted") == 1, "only to say that no result means it"
    assert "gives no finding" in answer


@pytest.mark.usefixtures("undrawn")
def test_seeds_stand_beside_every_number(tmp_path: Path) -> None:
    recipe = Recipe(scenarios=("finetuned",), seeds=(0, 1, 2), samples=0)
    text = build_report(write_run(tmp_path / "run", recipe)).path.read_text(encoding="utf-8")
    assert "On average over 3 runs" in text
    assert re.search(r"sd \d+\.\d over 3 seeds", text)
    assert "GA+KLR: suppressed (2 of 3), one letter (1 of 3)." in text
    assert "seed 2: " in text
    section = _text(text.split('id="findings"')[1].split("</section>")[0])
    assert re.search(r"strict\s+seen", section)
    assert "no finding" not in section.replace("fewer than three runs give no finding", "")
    assert "does not cover what another seed would give" in text


@pytest.mark.usefixtures("undrawn")
def test_a_vanilla_run_shows_the_papers_reading_and_says_so(tmp_path: Path) -> None:
    recipe = Recipe(scenarios=("finetuned",), rotated=False, words=False, samples=0)
    folder = write_run(tmp_path / "run", recipe)
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "cannot tell a broken habit of answering" in text
    assert "The same, asked in every order of the options" not in text
    rows = [line for group, line in summary_rows(folder, "what it cost") if group == "finetuned"]
    assert rows
    assert all(re.search(r"\d+ \| -", line) for line in rows)


def test_figures_give_a_method_one_look(run: Path) -> None:
    """GA is blue, GA+KLR orange and NPO green in Figures 4 and 5 and in both readings."""
    for name in ("figure-4", "figure-4-latent", "figure-5", "figure-5-latent"):
        drawn = (run / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert all(series in drawn for series in SERIES[:3])
        assert not any(series in drawn for series in SERIES[3:])


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_the_retain_model_and_relearning_stand_beside_the_methods(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Recipe(seeds=(0, 1), conditions=True, samples=0))
    report = build_report(folder)
    text = report.path.read_text(encoding="utf-8")
    for section in ("answer", "table-3", "figure-4-section", "figure-5-section", "gauges"):
        assert "retain model" in _text(text.split(f'id="{section}"')[1].split("</section>")[0])
    for table in ("D_unlearn", "what it cost"):
        rows = [group for group, line in summary_rows(folder, table) if "retain model" in line]
        assert rows == ["finetuned", "sustainability"]
    assert "75 of 75" not in report.summary[0]
    assert "50 of 50 cells finished, mean of 2 seeds" in report.summary[0]
    for name in ("figure-4", "figure-5", "figure-5-latent", "relearning"):
        assert GOLD in (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
    relearning = _text(text.split('id="relearning-section"')[1].split("</section>")[0])
    assert "What comes back faster than in the retain model was hidden, not gone" in relearning
    assert "step 40" in relearning
    assert len(re.findall("[a-z] retain model", relearning)) > 1


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
def test_a_run_of_many_methods_says_what_its_page_leaves_out(tmp_path, monkeypatch) -> None:
    """Mutations: a legend in one row, which runs off the figure; a distance that never shrinks."""
    names = [f"method{number:02d}" for number in range(13)]
    for name in names:
        for table in (synthetic_run.AFTER, synthetic_findings.WORDS):
            like = table["sustainability", "GA", "projector+llm"]
            monkeypatch.setitem(table, ("sustainability", name, "projector+llm"), like)
    recipe = Recipe(scenarios=("sustainability",), methods=names, seeds=(0, 1), samples=0)
    folder = write_run(tmp_path / "run", recipe)
    text = build_report(folder).path.read_text(encoding="utf-8")
    page = _text(text)
    assert "And 33 more pairs, none of them settled: comparisons in results.json" in page
    left = re.search(r"Left out of so long a table: ([\w ,]+)\. results\.csv has them", page)
    assert left
    assert "Requested earlier" in left[1]
    assert "D_retain" not in left[1]
    assert "Single seeds are drawn with up to 8 methods in a panel" in page
    whole = (folder / "figures" / "figure-5.svg").read_text(encoding="utf-8")
    assert "each seed" not in whole
    assert "each seed" in (folder / "figures" / "figure-4.svg").read_text(encoding="utf-8")
    places = re.findall(r'x="(-?[\d.]+)"[^>]*>method\d\d<', whole)
    assert len(places) == 13
    assert all(20 < float(place) < 660 for place in places)
    record = load_run(folder)
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    mains = numbers.mains("sustainability")
    shifts = [shift for _, shift in dodged(mains, 0.07, 0.45)]
    assert shifts[-1] - shifts[0] == pytest.approx(0.45)
    whole_table = gauges(numbers, Verdicts(record.extras.verdicts), "sustainability", "readings")
    assert "Requested earlier, text only" in {row.heads[1] for row in whole_table.rows}


PARTS = ("over_seeds", "verdicts", "paper_findings", "comparisons", "selections")
BROKEN = (None, 3, {"a": 1}, [None, 5, {}, {"seed": "x", "word": 1, "request": math.nan}])


def _with_parts(tmp_path: Path, **parts: object) -> Path:
    recipe = Recipe(scenarios=("finetuned",), methods=("GA",), seeds=(0, 1), samples=0)
    folder = write_run(tmp_path / "run", recipe)
    path = folder / "results.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**whole, **parts}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("content", BROKEN)
def test_a_part_of_results_json_that_is_missing_or_broken_is_said(
    tmp_path: Path, part: str, content: object
) -> None:
    (problem,) = load_run(_with_parts(tmp_path, **{part: content})).problems
    told = "entries are not well formed" if isinstance(content, list) else "parts are missing"
    assert told in problem.what
    assert part in str(problem)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("content", BROKEN[2:])
def test_a_run_without_verdicts_and_findings_is_reported_all_the_same(
    tmp_path: Path, content: object
) -> None:
    folder = _with_parts(tmp_path, **dict.fromkeys(PARTS, content))
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "Files that could not be used" in text
    answer = _text(text.split('id="answer"')[1].split("<table")[0])
    assert "GA: no verdict." in answer
    assert "still known after" not in answer
    assert "not tested" in text
    assert "How people were chosen" not in text
    assert not re.search(r"sd \d", text)
    assert any(line.endswith("no verdict") for line in build_report(folder).summary)


def test_importing_the_room_is_light() -> None:
    code = (
        "import sys, pulse_unlearn.report; "
        "heavy = {'torch', 'matplotlib', 'jinja2', 'pyarrow', 'transformers', 'scipy'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_summary_is_plain_ascii_and_has_the_numbers(run: Path) -> None:
    lines = build_report(run).summary
    assert all(line.isascii() and line.isprintable() for line in lines)
    forgotten, cost = summary_rows(run, "D_unlearn"), summary_rows(run, "what it cost")
    assert len(forgotten) == len(cost) == 12, "nine methods, and three times before"
    assert any(line.endswith("output broken") for at, line in cost if at == "sustainability (5)")
    (one,) = [line for at, line in cost if at == "pretrained" and line.startswith("  GA ")]
    assert one.endswith("one letter")
    (one,) = [line for at, line in forgotten if at == "pretrained" and line.startswith("  GA ")]
    assert " D 100 " in one
    assert max(map(len, lines)) <= 80


def summary_rows(run: Path, table: str) -> list[tuple[str, str]]:
    """The rows of one table of the summary, each with what it stands below."""
    lines = iter(build_report(run).summary)
    next(line for line in lines if line.startswith(table))
    next(lines)
    rows, group = [], ""
    for line in itertools.takewhile(bool, lines):
        group = group if line.startswith(" ") else line
        rows += [(group, line)] if re.match("  [^ ]", line) else []  # not the rest of a verdict
    return rows


def test_summary_tells_flags_in_a_line_each(run: Path) -> None:
    lines = [
        " ".join(one.split()) for one in re.split(r"\n(?! )", "\n".join(build_report(run).summary))
    ]
    told = [line for line in lines if line.startswith(("one_letter", "collapsed", "target_"))]
    assert [line.partition(":")[0] for line in told] == [
        "one_letter", "collapsed", "target_reached_by_one_letter",
        "target_reached_by_unreadable_answers",
    ]  # fmt: skip
    assert "finetuned GA (2 of 2 seeds), GA+KLR (1 of 2 seeds); pretrained GA" in told[0]
    assert "sustainability GA (request 5, 2 of 2 seeds)" in told[1]


@pytest.mark.usefixtures("undrawn")
def test_notes_about_the_data_are_told_and_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "noted", Recipe(scenarios=("pretrained",), methods=("GA",)))
    path = folder / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["notes"] = ["f001: the scored picture is trained on <b>"]
    path.write_text(json.dumps(content), encoding="utf-8")
    text = build_report(folder).path.read_text(encoding="utf-8")
    assert "the scored picture is trained on &lt;b&gt;" in text


@pytest.mark.parametrize(
    ("column", "measure", "category", "questions"),
    [
        ("category", "accuracy:counting", "counting", "60"),
        ("l2-category", "l2_accuracy:reasoning", "reasoning", "120"),
    ],
)
def test_general_ability_by_category(
    run: Path, column: str, measure: str, category: str, questions: str
) -> None:
    """The invented run has one category and one wider one, in vanilla accuracy only."""
    text = (run / "report.html").read_text(encoding="utf-8")
    heading = "General ability by category · {}: accuracy by {}</summary>"
    for scenario in ("Fine-tuned knowledge", "Pre-trained knowledge", "Sustainability"):
        assert heading.format(scenario, column) in text
    block = text.split(heading.format("Fine-tuned knowledge", column))[1].split("</details>")[0]
    assert block.count("<tr>") == 2, "the head, and one row"
    row = block.split(category)[1].split("</tr>")[0]
    assert questions in row
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        kept = [
            float(line["value"])
            for line in csv.DictReader(file)
            if line["measure"] == measure
            and (line["scenario"], line["method"], line["scope"]) == ("finetuned", "GA", "llm")
        ]
    assert f"{100 * sum(kept) / len(kept):.1f}" in row
