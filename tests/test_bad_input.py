"""What no study and no command line may bring about: a traceback, a hang, a machine without memory."""

import importlib
import os
import resource
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the installed package

from benchmarks.chaos.fuzz import OWN, SHAPES, fuzz


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "mod.py").write_text("def train(run): pass\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*arguments):
    """What a command says that exits with 2; anything but its own exit is shown as the traceback that it was."""
    answer = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert answer.exit_code == 2, answer.output
    assert len(answer.output) < 20_000
    return answer.output


def said_of(study):
    Path("s.yaml").write_bytes(study.encode() if isinstance(study, str) else study)
    return refused("plan", "--study", "s.yaml")


def own(baseline):
    return OWN.replace("{lr: 0.1}", baseline)


def convnet(other):
    return SHAPES.replace("{kind: convnet}", other)


LETTERS = list(zip("abcdefgh", "bcdefghi", strict=True))
TENFOLD = "".join(f"  {new}: &{new} [{','.join(['*' + old] * 10)}]\n" for old, new in LETTERS)
MERGED = "".join(f"  {new}: &{new} {{<<: [{','.join(['*' + old] * 10)}]}}\n" for old, new in LETTERS)
FILES = {
    "deep lists": ("title: " + "[" * 5000 + "]" * 5000, "more than 32 lists and mappings inside each other"),
    "deep mappings": ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "more than 32 lists"),
    "deep blocks": ("".join(" " * depth + "a:\n" for depth in range(1500)), "s.yaml:32:32: more than 32 lists"),
    "list in itself": ("changes: &a [*a]\n", "*a stands inside of what it names"),
    "overrides in themselves": (SHAPES.replace("{optimizer.learning_rate: 0.1}", "&a {x: *a}"), "*a stands inside"),
    "billions of values": (own("\n  a: &a [1,1,1,1,1,1,1,1,1,1]\n" + TENFOLD), "more than 100,000 values"),
    "billions of merged keys": (own("\n  a: &a {k: 1}\n" + MERGED), "more than 100,000 values"),
    "large file": ("#" * 5_000_001, "larger than 5,000,000 bytes"),
    "no date": ("title: 2026-13-45\n", "s.yaml:1:8: '2026-13-45' cannot be read as timestamp"),
    "date": (SHAPES + "title: 2026-11-25\n", "title: datetime.date(2026, 11, 25) is a date; write it as a text"),
    "no binary": ("title: 0b_\n", "'0b_' cannot be read as int"),
    "5,000 digits": ("title: " + "9" * 5000, "cannot be read as int"),
    "30 digits": (own("{lr: " + "9" * 30 + "}"), "baseline.lr: a whole number beyond 9,223,372,036,854,775,807"),
    "no int": ("title: !!int abc\n", "'abc' cannot be read as int"),
    "no bool": ("title: !!bool abc\n", "'abc' cannot be read as bool"),
    "no float": ("title: !!float abc\n", "'abc' cannot be read as float"),
    "empty float": ("title: !!float ''\n", "'' cannot be read as float"),
    "no timestamp": ("title: !!timestamp abc\n", "'abc' cannot be read as timestamp"),
    "bytes": (own("{lr: !!binary aGVsbG8=}"), "baseline.lr: b'hello' is a bytes; write it as a text"),
    "set": (own("{lr: !!set {a}}"), "baseline.lr: {'a'} is a set"),
    "NUL": (SHAPES + 'title: "a\\0b"\n', r"title: the text holds '\x00', which cannot be printed"),
    "NUL byte": (b"title: a\x00b\n", "cannot be read as YAML"),
    "escape": (SHAPES + 'title: "\\e[31mred"\n', r"title: the text holds '\x1b'"),
    "surrogate": (SHAPES + 'title: "\\ud800"\n', r"title: the text holds '\ud800'"),
    "surrogate key": ('"\\ud800": 1\n', r"top level: the key '\ud800' holds a character that cannot be printed"),
    "long key": ("x" * 50_000 + ": 1\n", "s.yaml"),
    "quoted long key": ('? "' + "x" * 5_000 + '"\n: 1\n', "has 5,000 characters; at most 1,000 are allowed"),
    "long text": (f"title: '{'a' * 60_000}'\n", "title: a text of 60,000 characters; at most 50,000 are allowed"),
    "long root": (OWN.replace("'mod:train'", f"'mod:train', root: '{'a' * 5000}'"), "trainer.root: 'aaa"),
    "long glob": (OWN.replace("'mod:train'", f"'mod:train', sources: ['{'a' * 5000}']"), "is no glob (File name too"),
    "long module": (OWN.replace("mod:train", "a" * 5000 + ":f"), "no module aaa"),
    "long data": (SHAPES.replace("kind: shapes", f"kind: image-folder, path: '{'a' * 6000}'"), "more characters ..."),
    "long weights": (convnet(f"{{kind: resnet18, weights: 'file:{'a' * 6000}'}}"), "File name too long"),
    "no home": (convnet("{kind: resnet18, weights: 'file:~nobodyx/a'}"), "No such file"),
    "device as weights": (convnet("{kind: resnet18, weights: 'file:/dev/null'}"), "/dev/null cannot be read (no reg"),
    "main as model": (convnet("{kind: plugin, factory: '__main__:x'}"), "there is no file of a module '__main__'"),
    "built-in as model": (convnet("{kind: plugin, factory: 'sys:exit'}"), "there is no file of a module 'sys'"),
    "main as trainer": ("trainer: {class: '__main__:x_'}\n", "__main__:x_ cannot be imported"),
    "relative trainer": ("trainer: {class: '..:y'}\n", "trainer: unknown '..:y'"),
    "nameless trainer": ("trainer: {class: ':'}\n", "trainer: unknown ':'"),
    "100,000,000 seeds": (SHAPES + "profiles: {standard: {seeds: 100000000}}\n", "less than or equal to 10000"),
    "400 changes in pairs": (
        own("{lr: 0.1, x: 0}").split("changes:")[0]
        + "designs: [pairs]\nchanges:\n"
        + "".join(f"  - {{name: c{count}, overrides: {{x: {count}}}}}\n" for count in range(1, 401)),
        "400 changes make 79,800 pairs, more than 20,000. Take fewer changes",
    ),
    "too many cells": (
        own("{lr: 0.1, x: 0}").split("changes:")[0]
        + "profiles: {standard: {seeds: 10000}}\nchanges:\n"
        + "".join(f"  - {{name: c{count}, overrides: {{x: {count}}}}}\n" for count in range(1, 401)),
        "401 variants with 10,000 seeds are 4,010,000 cells, more than 200,000",
    ),
    "3,000 wrong changes": ("changes:\n" + "  - {name: X, a: b}\n" * 3000, "more lines."),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_study_that_no_study_may_be_is_refused_in_a_sentence(name):
    study, sentence = FILES[name]
    assert sentence in said_of(study)


LINES = {
    "jobs of 23 digits": (["--jobs", "9" * 23], "--jobs: expected 1 to 1,000 cells at a time"),
    "a million jobs": (["--jobs", "1000000"], "--jobs: expected 1 to 1,000"),
    "a device as a store": (["--store", "/dev/null"], "/dev/null: is no folder"),
    "a long store": (["--store", "a" * 5000], "File name too long"),
    "a store with NUL": (["--store", "a\0b"], "null byte"),
    "weights with NUL": (["--weights", "a\0b"], "a path holds no NUL"),
    "a seed of 5,000 digits": (["--seeds", "1" * 5000 + ","], "a number of more than 18 digits"),
    "seeds of 5,000 digits": (["--seeds", "1" * 5000], "a number of more than 18 digits"),
    "a deep value": (["--set", "model=" + "[" * 3000], "more than 32 lists and mappings"),
    "a value in itself": (["--set", "model=&a {x: *a}"], "*a stands inside of what it names"),
    "no date": (["--set", "optimizer.learning_rate=2026-13-45"], "cannot be read as timestamp"),
    "long data": (["--data", "d" * 30_000], "no such source"),
    "a long name": (["--only", "z" * 30_000], "more characters ..."),
    "a long device": (["--device", "x" * 30_000], "more characters ..."),
}


@pytest.mark.parametrize("name", LINES)
def test_a_command_line_beyond_bounds_is_refused_in_a_sentence(name):
    arguments, sentence = LINES[name]
    Path("s.yaml").write_text(SHAPES)
    assert sentence in refused("plan", "--study", "s.yaml", *arguments)


def test_the_path_of_a_study_may_be_too_long():
    assert "no such file" in refused("plan", "--study", f"a/{'b' * 5000}.yaml")


def test_a_pipe_as_weights_is_refused_without_opening_it():
    os.mkfifo("pipe")
    study = convnet(f"{{kind: resnet18, weights: 'file:{Path('pipe').absolute()}'}}")
    assert "cannot be read (no regular file)" in said_of(study)


@pytest.mark.parametrize("raised", ["RuntimeError('no')", "SystemExit(7)"])
def test_a_package_that_raises_on_import_is_refused_with_what_it_raised(raised):
    Path("broken_").mkdir()
    Path("broken_/__init__.py").write_text(f"raise {raised}\n")
    Path("broken_/settings.py").write_text("class Model: ...\n")
    study = OWN.replace("mod:train", "broken_.settings:train") + "settings: 'broken_.settings:Model'\n"
    assert f"cannot be imported ({raised.partition('(')[0]}: " in said_of(study)
    assert "trainer: broken_.settings:Model cannot be imported" in said_of(
        "trainer: {class: 'broken_.settings:Model'}\n"
    )


def test_brackets_in_a_title_are_no_styles(folder):
    Path("s.yaml").write_text(SHAPES + "title: '[/bold] [red]'\n")
    answer = CliRunner().invoke(cli, ["plan", "--study", "s.yaml"], catch_exceptions=False)
    assert "[/bold] [red] (x, profile standard)" in answer.output


@pytest.mark.slow
def test_1000_mutated_studies_and_command_lines_end_without_a_traceback_or_a_gigabyte():
    importlib.import_module("torchvision")  # names of optimizers and models are looked up in it: its size is no input's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = set()
    for number, it in enumerate(fuzz(1000)):
        assert it.is_refused_well, f"{number}: {it}"
        assert it.length < 60_000, f"{number}: {it}"
        codes.add(it.code)
    assert codes == {0, 2}  # some mutations are harmless: the others were refused for what they are
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 500_000_000
