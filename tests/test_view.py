"""`pulse view`: what the server tells about runs and answers, and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.errors import StoreError
from pulse_unlearn.store.stages import HOLDER
from pulse_unlearn.view import ViewServer
from pulse_unlearn.view.answers import Filters
from pulse_unlearn.view.library import Library, Page
from pulse_unlearn.view.runs import find_runs
from view_cases import AFTER, BEFORE, FORGET, HOSTILE, RETAIN_MODEL, copy_run, examples, write_run

AFTER_GA = {"request": "1", "condition": "plain"}


@dataclass
class Site:
    """A server at work, and requests to it as they go over the wire."""

    server: ViewServer
    runs: Path

    def get(self, path: str, *, method: str = "GET", host: str = "") -> tuple[int, bytes, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.server.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        told = answer.status, answer.read(), dict(answer.getheaders())
        connection.close()
        return told

    def json(self, path: str, **query: object) -> dict:
        status, body, _ = self.get(f"{path}?{urlencode(query, doseq=True)}")
        assert status == 200, body
        return json.loads(body)

    def answers(self, **query: object) -> dict:
        return self.json("/api/run/whole/answers", **query)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("view") / "runs"
    write_run(root / "whole")
    return root


@pytest.fixture(scope="module")
def site(runs: Path) -> Iterator[Site]:
    with ViewServer(runs) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(server, runs)
        server.shutdown()


def _states(root: Path) -> dict[str, tuple[str, int]]:
    return {run.key: (run.state, run.done) for run in find_runs(root)}


def _hold(run: Path, pid: int, host: str = "") -> Path:
    note = run / HOLDER
    told = {"pid": pid, "host": host or socket.gethostname(), "started": ""}
    note.write_text(json.dumps(told))
    return note


def test_states_come_from_plan_stages_and_locks(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    copy_run(runs / "whole", root / "whole")
    for name in ("running", "killed", "left"):
        copy_run(runs / "whole", root / name, without=(AFTER, RETAIN_MODEL))
    copy_run(runs / "whole", root / "writing")
    (root / "writing" / "results.csv").unlink()
    _hold(root / "running", os.getpid())
    _hold(root / "writing", os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    _hold(root / "killed", ended.pid)
    assert _states(root) == {
        "whole": ("complete", 4),
        "running": ("running", 2),
        "writing": ("running", 4),
        "killed": ("interrupted", 2),
        "left": ("interrupted", 2),
    }


def test_a_run_on_another_machine_runs_while_it_changes(runs: Path, tmp_path: Path) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "far", without=(AFTER,))
    _hold(run, os.getpid(), host="elsewhere")
    assert _states(run.parent)["far"][0] == "running"
    for place in (run, run / "stages", *(run / "stages").iterdir()):
        os.utime(place, (0, 0))
    assert _states(run.parent)["far"][0] == "interrupted"


def test_a_plug_in_that_failed_is_named(runs: Path, tmp_path: Path) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "half", without=(AFTER,))
    (run / "failures").mkdir()
    (run / "failures" / "ga.txt").write_text("boom")
    (found,) = find_runs(run.parent)
    assert found.state == "failed"
    assert "ga.txt" in found.why


def test_damaged_and_foreign_folders_have_their_reason_and_stop_nothing(
    runs: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    copy_run(runs / "whole", root / "whole")
    (root / "photos").mkdir()
    for name, plan in {
        "broken": '{"stages": [',
        "list": "[]",
        "odd": '{"stages": [3]}',
        "bare": '{"stages": []}',
    }.items():
        (root / name).mkdir()
        (root / name / "plan.json").write_text(plan)
    outside = copy_run(runs / "whole", tmp_path / "outside")
    (root / "link").symlink_to(outside)
    (root / "note.txt").write_text("no folder")
    told = {run["key"]: run for run in Library(root).runs()["runs"]}
    assert set(told) == {"whole", "photos", "broken", "list", "odd", "bare", "link"}
    assert told["whole"]["state"] == "complete"
    for name, why in {
        "photos": "no plan.json",
        "broken": "not valid JSON",
        "list": "lists no stages",
        "odd": "not well formed",
        "link": "not followed",
    }.items():
        assert told[name]["state"] == "unreadable"
        assert why in told[name]["why"]
        assert Library(root).overview(name)["files"] == []
        with pytest.raises(StoreError, match="cannot be read"):
            Library(root).answers(name, Filters(), Page())
    assert Library(root).overview("bare")["cells"] == []


def test_a_single_run_folder_is_a_list_of_one(runs: Path) -> None:
    assert [run.key for run in find_runs(runs / "whole")] == ["whole"]


def test_answers_are_those_stored_with_the_prompt_they_were_asked_by(site: Site) -> None:
    by_question: dict[str, list] = {}
    for one in examples():
        by_question.setdefault(one.question_id, []).append(one)
    shown = site.answers(**AFTER_GA, size=100)
    assert [item["id"] for item in shown["items"]] == list(by_question)
    assert shown["problems"] == []
    for item in shown["items"]:
        asked = by_question[item["id"]]
        assert [form["prompt"] for form in item["forms"]] == [one.prompt for one in asked]
        assert [form["truth"] for form in item["forms"]] == [one.letter for one in asked]
        for form, one in zip(item["forms"], asked, strict=True):
            was, _, never, unlearned = form["answers"]
            assert was["text"] == never["text"] == one.answer
            assert unlearned is None
        is_shown = item["modality"] == "multimodal" and asked[0].picture is not None
        assert item["picture"] == (asked[0].picture.digest if is_shown else "")
        assert item["sets"] == [
            {"f001": "forget", "f002": "forget", "f003": "retain", "": "general"}[
                item["individual"]
            ]
        ]


def test_filters_find_what_was_said(site: Site) -> None:
    """Counted by hand from the invented answers, not by the code under test."""
    strict = [one for one in examples() if one.rotation == 0 and one.asked_as == "options"]
    about = [one for one in strict if one.individual in FORGET]
    odd = {"f001/text_only/1", "f001/text_only/2"}
    letter_d = [one for one in about if one.question_id not in odd]
    true_d = [one for one in letter_d if one.letter == "D"]

    def total(**query: object) -> int:
        return site.answers(**AFTER_GA, **query)["total"]

    assert total() == len(strict)
    assert total(set="forget") == len(about) == 20
    assert total(set="retain", modality="text_only") == 5
    assert total(set="general") == 4
    assert total(kinds="flipped") == len(letter_d) - len(true_d) + len(odd)
    assert total(kinds="one_letter", set="forget") == len(letter_d)
    assert total(kinds="unreadable") == len(odd)
    assert total(kinds=["one_letter", "flipped"]) == len(letter_d) - len(true_d)
    assert total(outcome="right", set="forget") == len(true_d)
    assert total(search="i THINK") == 1
    assert total(search="lucia palmer") == 10
    assert total(search="nobody says this") == 0
    # By the options' probabilities the model after knows everything still.
    assert total(kinds="flipped", reading="rotated") == 0
    assert total(outcome="right", reading="rotated", set="forget") == 20
    assert site.answers(scenario="pretrained")["total"] == 0
    assert site.answers(seed="7")["total"] == 0


def test_an_answer_that_names_the_truth_is_found_although_it_is_not_right(site: Site) -> None:
    (item,) = site.answers(**AFTER_GA, search="i think")["items"]
    strict = item["forms"][0]
    assert strict["answers"][1]["verdict"] == "unparsable"
    assert item["kinds"] == ["flipped", "unreadable"]
    assert strict["options"][0]["text"] in strict["answers"][1]["text"]
    assert "\u202e" not in json.dumps(item, ensure_ascii=False)


def test_pages_hold_every_answer_once_and_in_order(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "long", times=2)
    library, seen = Library(tmp_path / "runs"), []
    filters = Filters(**AFTER_GA)
    for number in range(1, 99):
        page = library.answers("long", filters, Page(number, 15))
        assert page["total"] == 34 * 2
        assert page["page"] == number
        seen += [item["id"] for item in page["items"]]
        if number == page["pages"]:
            break
    assert len(seen) == len(set(seen)) == 34 * 2
    assert seen[34] == f"{seen[0]}~1"
    assert library.answers("long", filters, Page(99, 15))["page"] == 5


@pytest.mark.slow  # writes three stages of 100,000 answers each: over half a minute
def test_a_page_of_a_hundred_thousand_answers_takes_seconds(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "huge", times=603)
    library = Library(tmp_path / "runs")
    began = time.monotonic()
    first = library.answers("huge", Filters(**AFTER_GA), Page(1, 25))
    cold = time.monotonic() - began
    assert first["total"] == 34 * 603
    began = time.monotonic()
    library.answers("huge", Filters(**AFTER_GA), Page(800, 25))
    assert time.monotonic() - began < 1
    assert cold < 30


def test_the_model_before_is_asked_about_whoever_the_last_request_reaches(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    plan = json.loads((run / "plan.json").read_text())
    second = json.loads(json.dumps(plan["operations"][0]))
    second["cell"]["request"] = 2
    second["forget"]["ids"] = [*FORGET, "f003"]
    second["requests"].append({"ids": ["f003"], "selection": "", "part": ""})
    plan["operations"][0]["requests"] = second["requests"]
    plan["operations"].append(second)
    (run / "plan.json").write_text(json.dumps(plan))
    library = Library(run.parent)

    def total(request: str, of_set: str) -> int:
        filters = Filters(condition="plain", request=request, set=of_set)
        return library.answers("whole", filters, Page())["total"]

    assert total("0", "forget") == 30
    assert total("1", "forget") == 20
    assert total("1", "not_yet_requested") == 10
    assert total("1", "forgotten_earlier") == 0


def test_a_model_under_attack_stands_beside_the_one_it_was_made_from(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    plan = json.loads((run / "plan.json").read_text())
    attacked = {**plan["evaluations"][1], "condition": "relearned:3", "scores": BEFORE}
    plan["evaluations"].append(attacked)
    (run / "plan.json").write_text(json.dumps(plan))
    filters = Filters(condition="relearned:3", set="forget")
    for item in Library(run.parent).answers("whole", filters, Page(1, 3))["items"]:
        was, now, _, unlearned = item["forms"][0]["answers"]
        assert was == now
        assert unlearned["text"] == "D"


def test_results_stand_beside_what_they_are_held_against(site: Site) -> None:
    told = site.json("/api/run/whole/results", **AFTER_GA, set="forget")
    rows = {(row["request"], row["condition"]): row for row in told["rows"]}
    assert set(rows) == {(1, "plain"), (0, "plain"), (0, "retain_model")}
    assert rows[1, "plain"]["numbers"]["accuracy"] == [0.25, 0.1, 0.4]
    assert rows[1, "plain"]["verdict"] == "one letter"
    assert site.json("/api/run/whole/results", set="retain")["total"] == 0


def test_pictures_are_those_of_the_questions(site: Site) -> None:
    item = site.answers(**AFTER_GA, modality="multimodal")["items"][0]
    status, body, headers = site.get(f"/picture/whole/{item['picture']}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert picture_from_bytes(body, "")
    assert site.get("/picture/whole/0000")[0] == 404


def test_a_changed_data_set_is_not_shown_as_the_one_that_was_asked(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    experiment = "data: {people: {source: people, path: /nowhere}}"
    (run / "experiment.yaml").write_text(experiment)
    question = "f001/multimodal/1"
    sample = {"id": question, "question": "Sampled?", "name": "Ada", "options": [], "answer": "A"}
    (run / "samples.json").write_text(json.dumps([sample, 7]))
    told = Library(run.parent).answers("whole", Filters(**AFTER_GA), Page(1, 100))
    assert any("/nowhere" in problem for problem in told["problems"])
    items = {item["id"]: item for item in told["items"]}
    assert len(items) == 34
    assert items[question]["question"] == "Sampled?"
    assert items["f002/multimodal/1"]["question"] == ""
    assert items["f002/multimodal/1"]["forms"][0]["answers"][0]["verdict"] == "correct"


def test_an_experiment_that_is_no_text_is_a_problem_that_is_told(
    runs: Path, tmp_path: Path
) -> None:
    """Found by the fuzzer. Mutation: `_data_settings` reads outside of its `try`."""
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    (run / "experiment.yaml").write_bytes(b"data: \xe5\x00")
    told = Library(run.parent).answers("whole", Filters(**AFTER_GA), Page(1, 100))
    assert any("says not which data were asked" in problem for problem in told["problems"])
    assert told["total"] == 34


def test_data_on_the_hub_are_looked_for_on_this_machine_alone(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", reached)
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    source = {"source": "mllmu", "path": "somebody/people", "revision": "0" * 40}
    (run / "experiment.yaml").write_text(json.dumps({"data": {"people": source}}))
    told = Library(run.parent).answers("whole", Filters(**AFTER_GA), Page())
    assert any("can't be had" in problem for problem in told["problems"])
    assert told["total"] == 34


def test_a_damaged_stage_is_told_and_the_others_are_shown(runs: Path, tmp_path: Path) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    (answers,) = run.glob("stages/*finetuned.ga.score*/predictions.parquet")
    answers.write_bytes(answers.read_bytes()[:-200])
    library = Library(run.parent)
    told = library.answers("whole", Filters(**AFTER_GA), Page())
    assert told["total"] == 0
    assert any("predictions" in problem for problem in told["problems"])
    told = library.answers("whole", Filters(condition="retain_model"), Page())
    assert told["total"] == 34


def test_answers_of_a_run_that_still_runs_are_read_without_its_scores(
    runs: Path, tmp_path: Path
) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "young", without=(RETAIN_MODEL,))
    for path in (run / "scores").iterdir():
        path.unlink()
    library = Library(run.parent)
    told = library.answers("young", Filters(**AFTER_GA, set="forget"), Page())
    assert told["total"] == 20
    assert {item["right"][2] for item in told["items"]} == {None}
    assert {cell["asked"] for cell in library.overview("young")["cells"]} == {True, False}


def test_a_link_out_of_a_run_is_not_followed(runs: Path, tmp_path: Path) -> None:
    run = copy_run(runs / "whole", tmp_path / "runs" / "whole")
    secret = tmp_path / "secret.txt"
    secret.write_text("not for the page")
    (run / "report.html").symlink_to(secret)
    (run / "figures").symlink_to(tmp_path)
    (run / "environment.json").symlink_to(secret)
    (answers,) = run.glob("stages/*finetuned.ga.score*/predictions.parquet")
    (tmp_path / "elsewhere.parquet").write_bytes(answers.read_bytes())
    answers.unlink()
    answers.symlink_to(tmp_path / "elsewhere.parquet")
    library = Library(run.parent)
    assert not {"report.html", "figures/secret.txt", "environment.json"} & set(
        library.overview("whole")["files"]
    )
    for name in ("report.html", "figures/secret.txt", "../../secret.txt"):
        with pytest.raises(StoreError):
            library.file("whole", name)
    with pytest.raises(StoreError, match="leads out"):
        library.results("whole", Filters(), Page())
    told = library.answers("whole", Filters(**AFTER_GA), Page())
    assert told["total"] == 0
    assert any("leads out" in problem for problem in told["problems"])


@pytest.mark.parametrize(
    "path",
    [
        *("/file/whole/../../etc/passwd", "/file/whole/..%2f..%2f..%2fetc%2fpasswd"),
        *("/file/..%2fwhole/results.csv", "/file//etc/passwd", "/file/whole//etc/passwd"),
        *("/file/whole/stages", "/file/whole/.lock", "/file/whole/%00", "/../page.js"),
        *(
            "/api/run/..",
            "/api/run/nobody/answers",
            "/nothing",
            f"/file/{quote('whole/', safe='')}/x",
        ),
    ],
)
def test_no_path_leads_anywhere_else(site: Site, path: str) -> None:
    status, body, _ = site.get(path)
    assert status == 404
    assert b"root:" not in body


def test_only_this_machines_own_names_are_answered(site: Site) -> None:
    port = site.server.server_port
    assert site.server.server_address[0] == "127.0.0.1"
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert site.get("/api/runs", host=host)[0] == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"):
        status, body, _ = site.get("/api/runs", host=host)
        assert status == 421
        assert b"whole" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_nothing_but_get_is_answered(site: Site, method: str) -> None:
    status, _, headers = site.get("/api/runs", method=method)
    assert status == 405
    assert headers["Allow"] == "GET"


def test_what_is_sent_may_do_nothing_else(site: Site) -> None:
    _, body, headers = site.get("/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert not re.search(rb"https?://", body + site.get("/page.js")[1] + site.get("/page.css")[1])
    _, body, headers = site.get("/file/whole/results.csv")
    assert headers["Content-Security-Policy"].startswith("sandbox")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert body == (site.runs / "whole" / "results.csv").read_bytes()


def test_a_query_that_means_nothing_is_refused_with_a_reason(site: Site) -> None:
    status, body, _ = site.get("/api/run/whole/answers?reading=__class__")
    assert status == 400
    assert b"rotated" in body
    assert site.answers(page="-3", size="x")["page"] == 1
    assert site.answers(size="100000")["size"] == 100


def test_looking_changes_nothing(site: Site) -> None:
    def files() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in site.runs.rglob("*")}

    was = files()
    site.json("/api/runs")
    site.json("/api/run/whole")
    site.answers(reading="rotated", kinds="flipped")
    site.json("/api/run/whole/results")
    assert files() == was


def test_hostile_text_arrives_as_text(site: Site) -> None:
    _, body, headers = site.get("/api/run/whole/answers?search=onerror&request=1")
    assert headers["Content-Type"] == "application/json"
    assert (
        HOSTILE.rstrip("\u202e") in json.loads(body)["items"][0]["forms"][0]["answers"][1]["text"]
    )


def test_a_taken_port_and_a_missing_folder_are_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot listen"):
        ViewServer(site.runs, port=site.server.server_port)
    with pytest.raises(StoreError, match="cannot list the runs"):
        ViewServer(tmp_path / "nowhere")


def test_the_command_prints_its_address_loads_no_torch_and_ends_with_ctrl_c(runs: Path) -> None:
    code = (
        "import signal, sys; from pulse_unlearn.cli import main\n"
        # Whoever starts tests in the background has them ignore Ctrl-C, and all they start.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['pulse', 'view', {str(runs)!r}, '--port', '0', '--no-browser']\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, flush=True)"
    )
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/run/whole/answers?request=1")
        assert json.loads(connection.getresponse().read())["total"] == 34
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert (out, err) == ("ended\nFalse\n", "")
