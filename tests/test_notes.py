"""Notes and tags of a study run, and who is told when a command is over."""

import http.server
import json
import shlex
import sys
import threading

import pytest
from click.testing import CliRunner
from own import STUDY, train_study, write_study

from harness.api.work import plan_work, save_manifest
from harness.cli import cli
from harness.cli.notify import notify
from harness.errors import StudyError
from harness.execution.provenance import command_line
from harness.plan.manifest import Manifest
from harness.study.load import load_study
from harness.tracking.outline import Outline


def test_tags_and_note_of_the_study_and_of_each_command_reach_the_study_run_and_mlflow(tmp_path):
    path = write_study(tmp_path / "study", tags={"team": "vision", "ticket": "1"}, note="Of the file.")

    save_manifest(plan_work(path, store=tmp_path, device="cpu", tags={"ticket": "2"}))
    save_manifest(
        plan_work(path, store=tmp_path, device="cpu", tags={"ticket": "2", "more": "x"}, note="Of the command.")
    )
    manifest = save_manifest(plan_work(path, store=tmp_path, device="cpu", tags={"ticket": "3"}))

    assert dict(manifest.tags) == {"team": "vision", "ticket": "3", "more": "x"}
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    outline = Outline(manifest, "store")
    image = outline.study_image({}, is_live=False)
    assert image.tags["ticket"] == "3"
    assert "Of the file." in image.tags["mlflow.note.content"]  # the last command said no other
    assert outline.cell_tags(manifest.variants[1], "parent")["team"] == "vision"


def test_tags_change_no_cell_and_no_study_run(tmp_path):
    plain, tagged = (
        plan_work(write_study(tmp_path / name, tags=tags), store=tmp_path, device="cpu").plan
        for name, tags in (("plain", {}), ("tagged", {"a": "b"}))
    )

    assert plain.id == tagged.id
    assert [it.key for it in plain.cells] == [it.key for it in tagged.cells]


@pytest.mark.parametrize("name", ["mlflow.runName", "harness.seed", "a*b", ""])
def test_a_tag_that_cannot_be_kept_is_named(tmp_path, name):
    with pytest.raises(StudyError, match=r"tags: .*(taken|letters, digits)"):
        load_study(write_study(tmp_path / "study", tags={name: "x"}))
    with pytest.raises(StudyError, match=r"^tag .*(taken|letters, digits)"):
        plan_work(write_study(tmp_path / "other"), store=tmp_path, device="cpu", tags={name: "x"})


TELL = "import os, sys; open(sys.argv[1], 'a').write(os.environ['HARNESS_NOTIFY_OUTCOME'] + sys.stdin.read() + '\\n')"


@pytest.mark.slow
def test_a_command_is_told_how_it_ended_and_is_never_recorded(tmp_path, monkeypatch):
    good = write_study(tmp_path / "good", changes=STUDY["changes"][1:2])
    train_study(good, tmp_path / "store", seeds=1)
    target = shlex.join([sys.executable, "-c", TELL, str(tmp_path / "said")])
    words = ["ablate", "--study", str(good), "--seeds", "0,", "--store", str(tmp_path / "store"), "--notify", target]
    monkeypatch.setattr(sys, "argv", ["harness", *words])

    assert CliRunner().invoke(cli, words).exit_code == 0
    assert CliRunner().invoke(cli, [*words, "--profile", "huge"]).exit_code == 2

    ended, failed = (tmp_path / "said").read_text().splitlines()
    assert ended.startswith("ended{")
    assert failed.startswith("failed{")
    assert "has no profile 'huge'" in json.loads(failed.removeprefix("failed"))["text"]
    assert command_line().endswith("--notify '***'")


def test_an_address_gets_json_and_one_that_fails_is_said_without_showing_it():
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200 if self.path == "/ok" else 403)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert notify(f"{address}/ok", {"text": "done"}) == ""
        assert notify(f"{address}/secret", {"text": "done"}) == "the address could not be called (HTTP 403)."
        server.shutdown()

    assert got == [{"text": "done"}] * 2
    assert "secret" not in notify(f"{address}/secret", {})  # nobody listens any more
    assert notify("no-such-program-here", {}) == "the command could not be started (No such file or directory)."
