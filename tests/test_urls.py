"""Passwords stay out of what is printed and kept; a URL that can be read in two ways is told apart."""

import shlex
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.api.work import plan_work, save_manifest
from harness.cli import cli
from harness.execution.here import run_one
from harness.execution.provenance import command_line, provenance
from harness.urls import masked, url_problem

pytestmark = pytest.mark.slow

SECRET_URLS = [
    "postgresql://me:hunter2@host/search",
    "postgresql://host/search?password=hunter2",
    "https://hunter2@host/search",
    "https://host/search?access_token=hunter2",
    "https://host/search?api_key=hunter2",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://me:se:cr@t@host:5432/runs", "postgresql+psycopg://me:***@host:5432/runs"),
        ("postgresql+psycopg:///runs?host=/sock&password=secret", "postgresql+psycopg:///runs?host=/sock&password=***"),
        ("http://me:secret@host:5000", "http://me:***@host:5000"),
        ("http://me:se cret@host:5000", "http://me:***@host:5000"),
        ("Invalid url: http://me:secret@host:x/api", "Invalid url: http://me:***@host:x/api"),
        ("http://host:5000", "http://host:5000"),
        ("https://ghp_secret@host/a.git", "https://***@host/a.git"),
        ("git+https://secret@host/a.git", "git+https://***@host/a.git"),
        (f"https://{'s' * 40}:x-oauth-basic@host/a", "https://***@host/a"),
        (f"git+https://{'s' * 40}:x-oauth-basic@host/a", "git+https://***@host/a"),
        ("https://host/?access_token=secret&page=2", "https://host/?access_token=***&page=2"),
        ("https://host/?api_key=secret#top", "https://host/?api_key=***"),
        ("https://host/?X-Amz-Signature=secret&apikey=s", "https://host/?X-Amz-Signature=***&apikey=***"),
        ("https://host/?Password=se cret", "https://host/?Password=***"),
        ("see https://host/?token=secret (page 2)", "see https://host/?token=*** (page 2)"),
        ("host=db password=secret user=me", "host=db password=*** user=me"),
        ("PGPASSWORD=secret psql", "PGPASSWORD=*** psql"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("https://host/?page=2&key_size=3&authors=me", "https://host/?page=2&key_size=3&authors=me"),
        ("num_tokens=3 token_count=4 monkey=5", "num_tokens=3 token_count=4 monkey=5"),
        ("sqlite:////data/a:b/mlflow.db", "sqlite:////data/a:b/mlflow.db"),
    ],
)
def test_passwords_are_masked_and_nothing_else(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize("option", [["--storage", "{}"], ["--storage={}"]])
@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_command_line_is_kept_without_the_passwords_in_it(option, url, monkeypatch):
    arguments = ["search", *(it.format(url) for it in option), "--study", "my study.yaml"]
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    expected = ["harness", *(it.replace("hunter2", "***") for it in arguments)]
    assert shlex.split(command_line()) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:se@cret@host/db",
        "postgresql://me:se/cret@host/db",
        "postgresql://me:12/34@host/db",  # 12 could be a port
        "postgresql://me:se#cret@host/db",
        "postgresql://me:se?cret@host/db",
        "postgresql://me@host:port/db",
        "postgresql://me@host:99999/db",
        "postgresql://me@[::1/db",
    ],
)
def test_a_url_that_can_be_read_in_two_ways_has_a_problem(url):
    assert "write @ as %40" in url_problem(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/db",
        "postgresql+psycopg://me:se%40cret@host:5432/db",
        "postgresql://me@[::1]:5432/db",
        "postgresql:///db?host=/sock&user=me@here",
        "http://tracking:5000",
    ],
)
def test_a_plain_url_has_none(url):
    assert url_problem(url) == ""


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_place_that_keeps_or_prints_a_command_or_a_reason_holds_a_password(url, tmp_path, monkeypatch):
    """A cell that fails with an address in its reason: journal, result, manifest, MLflow tags, what commands print."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["harness", "ablate", "--study", "s.yaml", f"--tracking={url}"])
    Path("mod.py").write_text(f"def train(run):\n    raise OSError('cannot reach ' + {url!r}.replace('X', ''))\n")
    Path("s.yaml").write_text(
        "name: x\ntrainer: {function: 'mod:train'}\nbaseline: {lr: 0.1}\nselect: val/loss\nreport: test/loss\n"
        "metrics: {val/loss: {goal: minimize}, test/loss: {goal: minimize}}\n"
    )
    work = plan_work("s.yaml", seeds="1", store="store", device="cpu")
    manifest = save_manifest(work)
    (cell,) = work.plan.cells
    work.plan.study.trainer.prepare([cell.settings], store=work.cells.root)
    run_one(cell, work.cells, device="cpu", provenance=provenance(command_line()))
    assert "cannot reach" in work.cells.result(cell.key).reason
    delivered = CliRunner().invoke(cli, ["sync", "--store", "store"], catch_exceptions=False)
    assert "events delivered" in delivered.output
    folder = work.cells.folder(cell.key)
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "sources" not in path.parts]
    assert {folder / "journal.jsonl", folder / "result.json", tmp_path / "store" / "mlflow.db"} <= set(kept)
    kept = [path for path in kept if b"hunter2" in path.read_bytes()]
    assert kept == []
    assert "hunter2" not in str(manifest.to_json())
    for command in (["logs", cell.key], ["results", "--study", "x"], ["results", "--list"]):
        said = CliRunner().invoke(cli, [*command, "--store", "store"]).output
        assert "hunter2" not in said, command


@pytest.mark.parametrize("piece", ["x", "x://", "x://a:", "token", "a=", "?", "x:x@"])
def test_masking_a_long_text_takes_no_time(piece):
    started = time.monotonic()
    masked(piece * (200_000 // len(piece)))
    assert time.monotonic() - started < 5
