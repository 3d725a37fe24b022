"""Mutated studies and command lines: each is done or refused with a sentence, in little time and memory.

The commands run in this process, for there are a thousand of them; nothing is trained.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from harness.cli import cli
from harness.study.load import studies

# Pieces that a mutation puts in: of YAML, of Python, of paths, of terminals.
PIECES = [
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: *a",
    "!!int ",
    "!!python/name:os.system ",
    "|",
    ">",
    "'",
    '"',
    "\\",
    "\t",
    "\n",
    "- ",
    ": ",
    "#",
    "---\n",
    "...",
    "0b_",
    "0x",
    "1e999",
    ".nan",
    "-.inf",
    "2026-13-45",
    "9" * 5000,
    "1_",
    "~",
    "null",
    "yes",
    "é",
    "\u202e",
    "\ud800",
    "\0",
    "\x1b[31m",
    "a" * 300,
    "../",
    "/dev/null",
    "file:",
    "__main__:x",
    "%s",
    "{}",
    "[/b]",
    "=1+1",
]
EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = ["--seeds", "--set", "--only", "--skip", "--design", "--profile", "--data", "--jobs", "--mde", "--device"]
VALUES = [
    "3",
    "0,1",
    "4,",
    "auto",
    "optimizer.learning_rate=0.1",
    "adam",
    "pairs",
    "fractional:8",
    "quick",
    "shapes",
    "cpu",
]


def mutated(text: str, draw: random.Random) -> str:
    """The text with one to four pieces cut out, doubled, or put in."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.choice([0, 1, 3, 20, 200]))
        piece = draw.choice([*PIECES, text[start:end] * 2, ""])
        text = text[:start] + piece + text[end:]
    return text


def small(path: Path) -> str:
    """A study's text with its first changes only, so that 1,000 of them are read in seconds."""
    return path.read_text() if path.stat().st_size < 8_000 else path.read_text()[:8_000]


SHAPES = """\
name: x
baseline: {model: {kind: convnet}, data: {kind: shapes}}
changes:
  - {name: a, overrides: {optimizer.learning_rate: 0.1}}
"""
OWN = """\
name: x
trainer: {function: 'mod:train'}
metrics: {val/loss: {goal: minimize}, test/loss: {goal: minimize}}
select: val/loss
report: test/loss
baseline: {lr: 0.1}
changes:
  - {name: a, overrides: {lr: 0.2}}
"""


@dataclass(frozen=True)
class Fuzzed:
    """One command: its line, exit code, exception (None, or the exit), characters of its output, and seconds."""

    arguments: tuple[str, ...]
    code: int
    exception: BaseException | None
    length: int
    seconds: float

    @property
    def is_refused_well(self) -> bool:
        return (self.exception is None or isinstance(self.exception, SystemExit)) and self.code in (0, 2)


def fuzz(count: int, seed: int = 20261125) -> Iterator[Fuzzed]:
    """So many commands in the working folder, which gets a file `s.yaml` and a module `mod`."""
    draw = random.Random(seed)
    Path("mod.py").write_text("def train(run): pass\n")
    originals = [SHAPES, OWN, *map(small, [*studies().values(), *sorted(EXAMPLES.rglob("*.yaml"))])]
    for number in range(count):
        command = draw.choice(["validate", "plan"])
        text = draw.choice(originals)
        Path("s.yaml").write_bytes((text if number % 3 == 0 else mutated(text, draw)).encode("utf-8", "surrogatepass"))
        more = [draw.choice(OPTIONS), draw.choice(VALUES)] if command == "plan" else []
        more = [mutated(it, draw) if number % 3 == 0 else it for it in more]
        arguments = ("validate", "s.yaml") if command == "validate" else ("plan", "--study", "s.yaml", *more)
        began = time.monotonic()
        answer = CliRunner().invoke(cli, arguments)
        seconds = time.monotonic() - began
        yield Fuzzed(arguments, answer.exit_code, answer.exception, len(answer.output), seconds)
