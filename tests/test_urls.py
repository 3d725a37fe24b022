"""Passwords stay out of what is printed and kept; a URL that can be read in two ways is told apart."""

import shlex
import sys

import pytest

from harness.execution.provenance import command_line
from harness.urls import masked, url_problem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://me:se:cr@t@host:5432/runs", "postgresql+psycopg://me:***@host:5432/runs"),
        ("postgresql+psycopg:///runs?host=/sock&password=secret", "postgresql+psycopg:///runs?host=/sock&password=***"),
        ("http://me:secret@host:5000", "http://me:***@host:5000"),
        ("http://me:se cret@host:5000", "http://me:***@host:5000"),
        ("Invalid url: http://me:secret@host:x/api", "Invalid url: http://me:***@host:x/api"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////data/a:b/mlflow.db", "sqlite:////data/a:b/mlflow.db"),
    ],
)
def test_passwords_are_masked_and_nothing_else(text, shown):
    assert masked(text) == shown


@pytest.mark.parametrize("option", [["--storage", "{}"], ["--storage={}"]])
@pytest.mark.parametrize("url", ["postgresql://me:secret@host/search", "postgresql://host/search?password=secret"])
def test_a_command_line_is_kept_without_the_passwords_in_it(option, url, monkeypatch):
    arguments = ["search", *(it.format(url) for it in option), "--study", "my study.yaml"]
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    expected = ["harness", *(it.replace("secret", "***") for it in arguments)]
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
