"""A user's repository under every command, killed ones too: nothing of it changes, and nothing is left behind."""

import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from commands import Commands
from repository import RATE, START, WIDTH, TinyRepository, checksums

from harness.cli import COMMANDS

pytestmark = pytest.mark.slow

READ_NO_CODE = {"new", "studies", "claims", "visualize", "conv", "ui", "init"}
# Command line -> exit code; {out}: a folder outside of the repository; {base}, {rate}, {wide}, {start}: commits.
LINES: dict[tuple[str, ...], int] = {
    ("validate", "own.yaml"): 0,
    ("show", "own.yaml"): 0,
    ("changes", "--study", "own.yaml"): 0,
    ("plan", "--study", "own.yaml"): 0,
    ("try", "own.yaml"): 0,
    ("study", "{base}..{start}", "--study", "own.yaml", "--output", "{out}/commits.yaml"): 0,
    ("study", "--from", "{out}/log.tsv", "--study", "own.yaml", "--output", "{out}/log.yaml", "--budget", "90"): 0,
    ("ablate", "--study", "{out}/commits.yaml", "--executor", "here"): 0,
    ("worker", "--study", "{out}/commits.yaml"): 0,
    ("prune", "--study", "{out}/commits.yaml", "--delta", "1", "--seeds", "6", "--branch", "less"): 0,
    ("ablate", "--study", "own.yaml"): 0,
    ("judge", "{rate}", "--study", "own.yaml", "--explore", "--promote"): 0,
    ("judge", "wide", "--study", "own.yaml"): 0,
    ("judge", "fix.diff", "--study", "own.yaml", "--explore"): 0,
    ("judge", ".", "--study", "own.yaml", "--explore"): 1,
    ("lineage", "--study", "own.yaml"): 0,
    ("lineage", "--study", "{out}/commits.yaml", "--log", "{out}/log.tsv"): 0,
    ("search", "--study", "own.yaml", "--trials", "3", "--executor", "here"): 0,
    ("confirm", "--study", "own.yaml", "--seeds", "7", "--executor", "here"): 0,
    ("tune", "--study", "own.yaml"): 2,  # it names no nuisance settings
    ("aa", "--study", "own.yaml", "--seeds", "4", "--executor", "here"): 0,
    ("gate", "--study", "own.yaml", "--baseline-ref", "wide", "--max-drop", "9"): 3,  # too few seeds
    ("compare", "own", "own"): 2,  # one study run
    ("results", "--study", "own.yaml"): 0,
    ("summary", "--study", "own.yaml"): 2,  # no network
    ("export", "--study", "own.yaml", "--output", "{out}/table.csv"): 0,
    ("report", "--study", "own.yaml", "--output", "{out}/page"): 0,
    ("sync",): 0,
    ("pack", "own", "--output", "{out}/own.pack"): 0,
    ("merge", "{out}/own.pack"): 0,
    ("check",): 0,
    ("gc",): 0,
    ("doctor",): 0,
    ("delete", "own", "--yes"): 0,
}
BRANCH = {".git/refs/heads/less", ".git/logs/refs/heads/less"}


@pytest.fixture
def project(tmp_path):
    """A repository as people leave it: staged, stashed and edited files, one that git does not know, hooks that
    write, an index that is older than its files."""
    repository = TinyRepository(tmp_path / "project")
    folder, repository.out = repository.folder, tmp_path / "out"
    rate = repository.commit("Double the rate", RATE)
    wide = repository.commit("Wider", WIDTH, onto=rate, branch="wide")
    start = repository.commit("Start", START, onto=wide)
    changes = [{"name": "rate", "commit": rate}, {"name": "wide", "commit": wide}]
    repository.study(changes=changes, fixed=["evaluation.py"], profiles={"standard": {"seeds": 2}})
    repository.git("commit", "-qam", "A study of changes")
    alone = repository.commit("Start alone", START, onto=repository.base)
    (folder / "fix.diff").write_text(repository.git("diff", repository.base, alone))
    (folder / "README.md").write_text("stashed\n")
    repository.git("stash", "push", "-q", "README.md")
    (folder / "README.md").write_text("staged\n")
    repository.git("add", "README.md")
    (folder / "README.md").write_text("not staged\n")
    (folder / "mathematics.py").write_text((folder / "mathematics.py").read_text().replace("0.9", "0.8"))
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-commit"):
        hook = folder / ".git" / "hooks" / name
        hook.write_text("#!/bin/sh\ntouch hooked\n")
        hook.chmod(0o755)
    os.utime(folder / "evaluation.py", (1, 1))  # whoever refreshes the index would note it
    repository.out.mkdir()
    log = [("commit", "score", "status", "description"), (repository.base, "1", "keep", "begin")]
    log += [(rate, "2", "keep", "rate"), (wide, "3", "keep", "wide"), (start, "4", "keep", "start")]
    (repository.out / "log.tsv").write_text("".join("\t".join(it) + "\n" for it in log))
    repository.words = {"out": repository.out, "base": repository.base, "rate": rate, "wide": wide, "start": start}
    return repository


@pytest.fixture(scope="module")
def temporary():
    """What commands have for a temporary folder; its path is short, for sockets are made in it."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    yield folder
    for it in (folder, folder.parent / f"{folder.name}-cache"):
        shutil.rmtree(it, ignore_errors=True)


@pytest.fixture(scope="module")
def commands(temporary):
    kept = {name: it for name, it in os.environ.items() if not name.startswith(("HARNESS_", "MLFLOW_"))}
    made = Commands(
        kept | {"TMPDIR": str(temporary), "HARNESS_CACHE": str(temporary.parent / f"{temporary.name}-cache")}
    )
    yield made
    made.close()


def test_the_lines_are_of_every_command_that_reads_code():
    assert {line[0] for line in LINES} | {"logs", "mcp"} | READ_NO_CODE == set(COMMANDS)


@pytest.mark.ordeal
def test_no_command_touches_the_repository(project, commands, temporary):
    before = checksums(project.folder, folders=True)
    for line, code in LINES.items():
        words = [it.format(**project.words) for it in line]
        done = commands.run(*words, cwd=project.folder, env={"HARNESS_STORE": str(project.out / "mlruns")})
        assert done.returncode == code, (line, done.stdout.decode(), done.stderr.decode())
        after = checksums(project.folder, folders=True)
        changed = {name for name in {*before, *after} if after.get(name) != before.get(name)}
        if line[0] == "prune":
            files = {it for it in changed if not it.endswith("/") and not it.startswith(".git/objects/")}
            assert files == BRANCH
            before = after
        else:
            assert changed == set(), line
        assert _left_in(temporary) == [], line


KILLED = [
    ("study", "{base}..{start}", "--study", "own.yaml", "--output", "{out}/commits.yaml", "--budget", "20"),
    ("ablate", "--study", "{out}/commits.yaml", "--executor", "here"),
    ("judge", "{rate}", "--study", "own.yaml", "--promote", "--champion", "{base}", "--level", "each"),
    ("judge", "wide", "--study", "own.yaml", "--promote", "--seeds", "6", "--level", "each"),
    ("prune", "--study", "{out}/commits.yaml", "--delta", "1", "--seeds", "6", "--branch", "less", "--json"),
    ("search", "--study", "own.yaml", "--trials", "3", "--executor", "here"),
    ("lineage", "--study", "own.yaml", "--json"),
    ("plan", "--study", "{out}/commits.yaml"),
]
AGAIN = 0.6  # of what was killed is killed once more
ENDS = {"judge": (0, 1, 3)}


@pytest.mark.ordeal
def test_killed_at_random_and_continued_every_command_ends_as_if_it_had_not_been(project, commands, temporary):
    """SIGKILL of the command alone, at a random moment of what it takes without one, again and again until it ends."""
    dice, kills = random.Random(0), 0
    whole, killed = project.out / "whole", project.out / "killed"
    said, seconds = {}, 0.0  # of the line before it is killed
    for out in (whole, killed):
        out.mkdir()
    before = checksums(project.folder, folders=True)
    for line in KILLED:
        for out in (whole, killed):
            words = [it.format(**{**project.words, "out": out}) for it in line]
            words = [f"{it}-{out.name}" if it == "less" else it for it in words]
            env = {"HARNESS_STORE": str(out / "mlruns")}
            began = time.monotonic()
            done = None
            while done is None or done.returncode == -9:
                is_to_die = out is killed and (done is None or dice.random() < AGAIN)
                after = dice.uniform(0, 0.7 * seconds) if is_to_die else None
                done = commands.run(*words, cwd=project.folder, env=env, killed_after=after)
                kills += done.returncode == -9
                changed = _changed(project, before, {f"{it}-{out.name}" for it in BRANCH})
                assert changed == set(), (line, after)
            seconds = time.monotonic() - began
            assert done.returncode in ENDS.get(line[0], (0,)), (line, done.stdout, done.stderr)
            said[line, out] = done.stdout.decode().replace(str(out), "").replace(out.name, "")
            before = checksums(project.folder, folders=True)
        assert _line(whole) == _line(killed)
        if "--json" in line:
            assert json.loads(said[line, whole]) == json.loads(said[line, killed])
    assert kills >= len(KILLED) // 2
    assert _left_in(temporary) == []
    texts = [(out / "commits.yaml").read_text().replace(str(out), "") for out in (whole, killed)]
    assert texts[0] == texts[1]
    assert [it.name for it in killed.iterdir() if it.name != "mlruns"] == ["commits.yaml"]


def _left_in(temporary: Path) -> list[str]:
    return [it.name for it in temporary.iterdir() if not it.name.startswith("torchinductor")]  # of importing torch


def _changed(project, before, new) -> set[str]:
    """But for the branch that `prune` makes, and the objects of it."""
    after = checksums(project.folder, folders=True)
    changed = {name for name in {*before, *after} if after.get(name) != before.get(name)}
    if new & after.keys():
        changed = {it for it in changed if not it.endswith("/")}
    return {it for it in changed if not it.startswith(".git/objects/")} - new


def _line(out: Path) -> list[dict]:
    """The events of a line of champions, but for the time and the place of patches."""
    path = out / "mlruns" / "lines" / "own-standard-main.jsonl"
    text = path.read_text().replace(str(out), "") if path.exists() else ""
    events = [json.loads(it) for it in text.splitlines()]
    return [{key: it for key, it in event.items() if key != "time"} for event in events]
