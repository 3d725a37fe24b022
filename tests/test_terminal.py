"""What a person at a terminal gets: a sign of life, tables that fit, the next command, names to complete."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Annotated

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel, PlainSerializer
from rich.cells import cell_len
from synthetic import Numbers, synthetic_plan, synthetic_store

from harness.cli import LazyGroup, Problem, cli
from harness.cli.grid import Column, print_grid
from harness.cli.loading import SIGN
from harness.cli.progress import RunProgress
from harness.cli.screen import Screen
from harness.cli.studies import CHANGES, _change_rows
from harness.cli.training import stopping
from harness.study.load import load_study, outline, studies
from harness.texts import counted

LOADING = """
import sys, time
from harness.cli.loading import loading
with loading(0.2):
    time.sleep({pause})
    {stream}.write("the result\\n")
"""


def at_a_terminal(command, columns=80):
    """What a program writes on a terminal of this width, and when the first byte came."""
    main, other = pty.openpty()
    known = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    started, first, output = time.monotonic(), None, b""
    process = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=known)
    os.close(other)
    while True:
        try:
            block = os.read(main, 4096)
        except OSError:  # the other end was closed
            break
        if not block:
            break
        first = first or time.monotonic() - started
        output += block
    process.wait()
    os.close(main)
    return re.sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r\n", "\n"), first


def harness(*arguments, columns=80):
    return at_a_terminal([sys.executable, "-m", "harness", *map(str, arguments)], columns)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["sys.stdout", "sys.stderr"])
def test_a_slow_start_gives_a_sign_of_life_and_the_output_takes_its_place(stream):
    said, _ = at_a_terminal([sys.executable, "-c", LOADING.format(pause=1, stream=stream)])
    assert said == f"{SIGN}\r\x1b[Kthe result\n"


@pytest.mark.slow
def test_what_is_fast_and_what_is_no_terminal_gives_no_sign_of_life():
    said, _ = at_a_terminal([sys.executable, "-c", LOADING.format(pause=0, stream="sys.stdout")])
    assert said == "the result\n"
    code = LOADING.format(pause=1, stream="sys.stdout")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("the result\n", "")


@pytest.mark.slow
def test_a_sentence_is_broken_between_words_in_a_window_and_nowhere_in_a_pipe():
    sentence = "  20 events delivered; MLflow has everything that is in /a/folder/with-a-long-name/mlruns."
    code = f"from harness.cli.sentences import tell; tell({sentence!r})"
    said, _ = at_a_terminal([sys.executable, "-c", code], columns=40)
    assert said.splitlines() == [
        "  20 events delivered; MLflow has",
        "  everything that is in",
        "  /a/folder/with-a-long-name/mlruns.",
    ]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == sentence + "\n"


@pytest.mark.slow
def test_a_plan_is_a_table_that_fits_and_ends_with_the_next_command(tmp_path):
    for columns in (60, 80, 120):
        said, _ = harness("plan", "--study", "task3", "--profile", "quick", "--store", tmp_path, columns=columns)
        table, _, after = said.rpartition("Next: ")
        assert max(map(len, table.splitlines())) <= columns
        assert "optimizer-adamax" in table
        assert after.startswith(f"harness ablate --study task3 --profile quick --store {tmp_path}  (trains them)")
    command = [
        sys.executable,
        "-m",
        "harness",
        "plan",
        "--study",
        "task3",
        "--profile",
        "quick",
        "--store",
        str(tmp_path),
    ]
    piped = subprocess.run(command, capture_output=True, text=True)
    assert "Next:" not in piped.stdout + piped.stderr


@pytest.fixture
def store(tmp_path):
    """Two changes, three seeds, a cell that failed and one that diverged."""
    plan = synthetic_plan(seeds=3, profile="standard", only=("batch-norm", "kernel-7"))
    outcomes = {("kernel-7", 1): "failed", ("kernel-7", 2): "failed", ("batch-norm", 0): "diverged"}
    synthetic_store(tmp_path, plan, Numbers(outcomes=outcomes))
    return tmp_path


def ran(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_results_say_why_cells_have_no_number_and_where_to_read_more(store):
    said = ran("results", "--study", "task3", "--store", store).output
    assert "kernel-7 seeds 1, 2: failed: planted: failed\n" in said
    assert "batch-norm seed 0: diverged: planted: diverged\n" in said
    assert re.search(r"`harness logs [0-9a-f]{16}` shows what the first of them said\.", said)


@pytest.mark.slow
def test_results_fit_a_terminal_and_say_what_a_wider_one_shows(store):
    said, _ = harness("results", "--study", "task3", "--store", store, columns=70)
    rows = [line for line in said.splitlines() if line.startswith(("variant", "baseline", "kernel-7  "))]
    assert len(rows) == 7
    assert max(map(len, rows)) <= 70
    assert "A wider window also shows: " in said


def test_an_export_is_what_its_file_is_named_after(store, tmp_path):
    for name, first in (("effects.csv", "design,"), ("variants.md", "**Variants"), ("other.json", "[")):
        assert ran("export", "--study", "task3", "--store", store, "--output", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_text().startswith(first)
    assert "status" in json.loads((tmp_path / "other.json").read_text())[0]  # cells, whatever the name
    refused = ran("export", "--study", "task3", "--store", store, "--output", tmp_path / "a.csv", "--format", "json")
    assert refused.exit_code == 2
    assert "is named like csv, but --format is json" in refused.output


@pytest.mark.slow
def test_parquet_is_never_written_to_a_terminal(store):
    said, _ = harness("export", "--study", "task3", "--store", store, "--format", "parquet")
    assert "parquet is no text" in " ".join(said.split())
    assert "PAR1" not in said
    shown, _ = harness("export", "--study", "task3", "--store", store, columns=200)
    assert shown.removeprefix(f"{SIGN}\r\x1b[K").startswith("study,variant,")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("harness plan --study task3 --profile q", {"quick"}),
        ("harness plan --design add-one,pa", {"add-one,path", "add-one,pairs"}),
        ("harness ablate --study task3 --only batch-norm,ker", {"batch-norm,kernel-3", "batch-norm,kernel-7"}),
        ("harness confirm --study task3 --variant model", {"model-1", "model-2"}),
        ("harness report --store STORE --study task3-st", {"RUN"}),
        ("harness logs --store STORE CELL", {"KEY"}),
    ],
)
def test_names_are_completed(store, words, expected):
    run = next(path.stem for path in (store / "studies").glob("*.json"))
    key = sorted(path.name for path in (store / "cells").iterdir())[0]
    filled = words.replace("STORE", str(store)).replace("CELL", key[:9])
    variables = {
        "_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": filled, "COMP_CWORD": str(len(filled.split()) - 1),
    }  # fmt: skip
    done = CliRunner().invoke(cli, [], prog_name="harness", env=variables)
    found = {line.partition(",")[2] for line in done.output.splitlines()}
    assert found == {it.replace("RUN", run).replace("KEY", key) for it in expected}


def test_a_number_stands_with_the_right_noun():
    assert [counted(n, "cell") for n in (0, 1, 2, 1000)] == ["0 cells", "1 cell", "2 cells", "1,000 cells"]


def _stopped_in_python():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as stop:
        raise RuntimeError("a validator failed") from stop


def _stopped_in_compiled_code():
    def serialize(value):
        raise KeyboardInterrupt

    class Setting(BaseModel):
        rate: Annotated[float, PlainSerializer(serialize)]

    Setting(rate=0.1).model_dump()  # pydantic's own error: the cause is set, the context is not


@pytest.mark.parametrize("library", [_stopped_in_python, _stopped_in_compiled_code])
def test_a_stop_that_a_library_passed_on_as_an_error_of_its_own_is_a_stop(library, capsys):
    work = SimpleNamespace(plan=SimpleNamespace(cells=()), cells=None)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    try:
        with pytest.raises(KeyboardInterrupt), stopping(Screen(), work):
            library()
        with pytest.raises(ZeroDivisionError), stopping(Screen(), work):
            raise ZeroDivisionError
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])
    assert capsys.readouterr().out.count("Run the same command to continue.") == 1


def test_names_and_settings_are_never_broken_where_changes_are_listed():
    rows = list(_change_rows(load_study("task3")))
    for width in (60, 80, 120):
        file = io.StringIO()
        print_grid(Screen(file=file, force_terminal=True, width=width), CHANGES, rows)
        lines = file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert [name for name, *_ in rows if not any(name in line.split() for line in lines)] == []
        assert ("optimizer.learning_rate" in file.getvalue()) == (width > 60)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("claims",), ("summary", "--study", "task3"), ("validate", "task3")])
def test_what_a_narrow_window_shows_fits_it(words):
    said, _ = harness(*words, columns=60)
    assert max(map(len, said.splitlines())) <= 60


@pytest.mark.parametrize("width", [40, 60, 120])
def test_an_estimate_goes_on_in_the_next_line_only_where_the_window_is_too_narrow(width):
    rows = [("wide+fast", "+15.11 [+9.60, +20.62]", "+15.11 [+12.32, +17.90]", "not in it")]
    columns = [
        Column("change", is_number=False),
        *(Column(it, may_break=True) for it in ("over", "out of", "averaged")),
    ]
    file = io.StringIO()
    print_grid(Screen(file=file, force_terminal=True, color_system=None, width=width), columns, rows)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    for word in " ".join(rows[0]).replace("wide+fast", "").split():
        assert any(word in line.split() for line in lines), (word, lines)
    assert (len(lines) == 2) == (width == 120)


def test_a_character_that_takes_two_columns_counts_as_two():
    rows = [("学习率", "+1.0"), ("rate", "+10.0")]
    for is_terminal in (True, False):
        file = io.StringIO()
        screen = Screen(file=file, force_terminal=is_terminal, color_system=None, width=40)
        print_grid(screen, [Column("change", is_number=False), Column("effect")], rows)
        assert len({cell_len(line) for line in file.getvalue().splitlines()}) == 1  # numbers end in one column


def test_claims_are_a_table_of_words_without_markup(tmp_path):
    said = CliRunner().invoke(cli, ["claims", "--store", str(tmp_path)]).output
    assert " confirmed\n" in said
    assert "[green]" not in said


def test_an_error_is_broken_between_words(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    Problem("no results of study 'nothere'. `harness ablate --study nothere` makes them.").show()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(line.removeprefix("error: ").strip() for line in lines).endswith(
        "`harness ablate --study nothere` makes them."
    )


@pytest.mark.parametrize("name", studies())
def test_the_outline_of_a_study_is_what_it_says_when_it_is_loaded(name):
    short, whole = outline(name), load_study(name)
    assert (short.name, short.title, short.changes, short.combinations) == (
        whole.name, whole.title, whole.changes, whole.combinations,
    )  # fmt: skip
    assert short.profiles == tuple(whole.profiles)


def test_progress_has_a_bar_and_what_is_left_on_lines_of_their_own():
    for width in (40, 60, 80):
        file = io.StringIO()
        console = Screen(file=file, force_terminal=True, width=width, color_system=None)
        console.print(RunProgress(console, {}, 3, 1, (0.0, 300.0), metric=None)._render())
        lines = [line.rstrip() for line in file.getvalue().splitlines()]
        assert lines[0].strip("━╸ ") == ""
        assert lines[1] == "1 of 3 cells; 0 to 5 min left"


def test_a_broken_pipe_that_is_not_of_the_output_is_no_success(capfd):
    """A dead worker's pipe once passed for the reader of `harness results | head` that has gone: exit code 0."""

    def write_to_a_dead_process():
        reader, writer = os.pipe()
        os.close(reader)
        os.write(writer, b"orders")

    class Group(LazyGroup):
        def get_command(self, ctx, name):
            return click.Command("results", callback=write_to_a_dead_process)

    with capfd.disabled(), pytest.raises(RuntimeError, match="a process of ours has ended unexpectedly"):
        Group("harness").main(["results"], standalone_mode=False)
