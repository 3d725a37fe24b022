"""What is kept of a user's checkout: how it differs from its commit, without the secrets that stand in it."""

import subprocess
import time

import pytest

from harness.execution.provenance import DIFF_LIMIT, kept_diff, provenance

SECRETS = [
    'API_KEY = "hunter2"',
    "  password: hunter2hunter2",
    '"access_token": "hunter2",',
    "DATABASE_URL=postgresql://me:hunter2@host/db",
    "requests.get('https://host/?api_key=hunter2')",
    "export AWS_SECRET_ACCESS_KEY='hunter2'",
    "use ghp_hunter2hunter2hunter2hunter2",
    "sk-hunter2-hunter2hunter2hunter2",
    "-----BEGIN RSA PRIVATE KEY-----\n+hunter2\n+hunter2\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n+hunter2",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_diff_is_masked(secret):
    kept = kept_diff(f" before\n+{secret}\n")
    assert "hunter2" not in kept
    assert kept.startswith(" before\n+")
    assert "***" in kept


def test_code_that_holds_no_secret_is_kept_as_it_is():
    diff = " learning_rate = 0.1\n+num_tokens = 512\n-token = next(it)\n+for key in keys:\n+    secrets.append(1)\n"
    assert kept_diff(diff) == diff


def test_a_long_diff_is_cut_and_says_so_and_the_cut_uncovers_no_key():
    key = "-----BEGIN PRIVATE KEY-----\n" + "hunter2\n" * 200 + "-----END PRIVATE KEY-----\n"
    started = time.monotonic()
    kept = kept_diff("x" * (DIFF_LIMIT - 100) + "\n" + key + "y" * 10_000_000)
    assert time.monotonic() - started < 5
    assert "hunter2" not in kept
    assert len(kept) < DIFF_LIMIT + 100


def test_the_variable_leaves_the_diff_out_and_still_says_that_there_was_one(tmp_path, monkeypatch):
    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "a.py").write_text("lr = 0.1\n")
    git("add", "a.py")
    git("commit", "-qm", "first")
    (tmp_path / "a.py").write_text("lr = 0.2\npassword = 'hunter2'\n")
    kept = provenance("harness", folder=tmp_path)
    assert "+lr = 0.2" in kept["diff"]
    assert "hunter2" not in kept["diff"]
    monkeypatch.setenv("HARNESS_DIFF", "0")
    left_out = provenance("harness", folder=tmp_path)
    assert (left_out["dirty"], left_out["diff"]) == (True, "")
