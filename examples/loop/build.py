"""Writes a git repository in which a greedy loop has worked: `python build.py FOLDER`.

    FOLDER/prepare.py, train.py, loop.yaml    as the loop left them, on the branch `main`
    FOLDER/results.tsv                        its log: a row a proposal
    refs/loop/NN                              every proposal's commit, kept or not; the tag `begin` is where it began

The loop keeps a proposal whose one run looks better than the best number so far, as such loops do. The proposals are
made up, so that it is known what each does: five help, five hurt, thirty do nothing. Among them one needs another
(`needs`), two cannot stand together (`conflicts`), and one edits what measures.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
FILES = ("prepare.py", "train.py", "loop.yaml")
FIRST_SEED = 100  # each run of the loop has a seed of its own


class Proposal(NamedTuple):
    """What one commit does. truth: `helps`, `hurts`, `nothing` or `measures`. edits: old and new texts of train.py."""

    truth: str
    subject: str
    edits: tuple[tuple[str, str], ...]
    file: str = "train.py"


def _one(truth: str, subject: str, old: str, new: str) -> Proposal:
    return Proposal(truth, subject, ((old, new),))


PROPOSALS: tuple[Proposal, ...] = (
    _one("nothing", "Draw the weights by another stream", '"weights")', '"start")'),
    _one("hurts", "Smaller steps", "RATE = 5.0", "RATE = 3.0"),
    _one("nothing", "A step of 5.02", "RATE = 5.0", "RATE = 5.02"),  # conflicts with the one before
    _one("helps", "See a third letter", "CONTEXT = 2", "CONTEXT = 3"),
    _one("nothing", "Subtract the maximum in place", "shifted = values - values.max(axis=1, keepdims=True)",
         "shifted = np.subtract(values, values.max(axis=1, keepdims=True))"),
    _one("hurts", "Hide a fifth of the letters", "UNSEEN = 0.0", "UNSEEN = 0.2"),
    _one("nothing", "A smaller tiny number", "TINY = 1e-12", "TINY = 1e-15"),
    _one("nothing", "Stack by array", "np.stack(rows).astype(KIND)", "np.array(rows).astype(KIND)"),
    _one("helps", "Train longer", "STEPS = 150", "STEPS = 200"),
    _one("nothing", "Validate more often", "EVERY = 50", "EVERY = 25"),
    _one("nothing", "Draw batches by another stream", '"batches")', '"order")'),
    _one("hurts", "Smooth the target", "SMOOTHING = 0.0", "SMOOTHING = 0.15"),
    Proposal("helps", "Average the last steps", (
        ("    bias = np.zeros(size)\n",
         "    bias = np.zeros(size)\n    sums = [np.zeros_like(weights), np.zeros(size)]\n"),
        ("        bias -= RATE * error.sum(axis=0)\n",
         "        bias -= RATE * error.sum(axis=0)\n\n        if step > STEPS - 30:\n            sums[0] += weights\n"
         "            sums[1] += bias\n"),
        ('    run.finish(**{"test/bits": measure(weights, bias, "test")})',
         "    # The mean of what it was.\n    count = 30\n    averaged = [it / count for it in sums]\n\n"
         '    run.finish(**{"test/bits": measure(averaged[0], averaged[1], "test")})'),
        ('run.log(step, **{"val/bits": measure(weights, bias, "validation")})',
         "count = max(step - STEPS + 30, 1)\n            now = [it / count for it in sums] if step > STEPS - 30 else "
         '[weights, bias]\n            run.log(step, **{"val/bits": measure(now[0], now[1], "validation")})'),
    )),
    _one("nothing", "Multiply by the mean's share", "    averaged = [it / count for it in sums]\n",
         "    averaged = [it * (1 / count) for it in sums]\n"),  # needs the one before
    _one("nothing", "Count letters in 32 bits", "KIND = np.int64", "KIND = np.int32"),
    _one("nothing", "Exponentials by powers of two", "powers = np.exp(shifted)",
         "powers = np.exp2(shifted / np.log(2))"),
    _one("hurts", "Forget a little at each step", "DECAY = 0.0", "DECAY = 0.001"),
    _one("nothing", "Repeat the bias", "total = np.tile(bias, (before.shape[1], 1))",
         "total = np.repeat(bias[None], before.shape[1], axis=0)"),
    _one("helps", "More letters a step", "BATCH = 12", "BATCH = 24"),
    _one("nothing", "Take rows by take", "found = table[letters]", "found = table.take(letters, axis=0)"),
    _one("nothing", "Add with a mask", "total += found * is_seen[:, None]",
         "total += np.where(is_seen[:, None], found, 0)"),
    _one("nothing", "Uniform numbers for what is seen", "seen = draws.random(before.shape) >= UNSEEN",
         "seen = draws.uniform(size=before.shape) >= UNSEEN"),
    _one("nothing", "Start a hair wider", "SCALE = 0.1", "SCALE = 0.1001"),
    _one("helps", "Begin with pairs as they were counted", "    for step in range(1, STEPS + 1):",
         "    pairs = np.ones((size, size))\n    np.add.at(pairs, (fit[:-1], fit[1:]), 1)\n"
         "    weights[0] += np.log(pairs / pairs.sum(axis=1, keepdims=True)) / 2\n\n"
         "    for step in range(1, STEPS + 1):"),
    _one("nothing", "Add at once, subtracting", "np.add.at(weights[position], before[position], -RATE * part)",
         "np.subtract.at(weights[position], before[position], RATE * part)"),
    _one("nothing", "A comprehension less", "for back in range(1, CONTEXT + 1)]",
         "for back in np.arange(CONTEXT) + 1]"),
    _one("hurts", "Begin far away", "start.normal(size=", "start.normal(scale=6, size="),
    _one("nothing", "Divide first", "error = (shares - target) / BATCH", "error = shares / BATCH - target / BATCH"),
    _one("nothing", "Every place, as numbers", "places = np.arange(CONTEXT, len(text))",
         "places = np.array(range(CONTEXT, len(text)))"),
    _one("nothing", "Ones by full", "seen = np.ones(before.shape, dtype=bool)", "seen = np.full(before.shape, True)"),
    _one("nothing", "Sum by columns", "bias -= RATE * error.sum(axis=0)", "bias -= RATE * np.sum(error, axis=0)"),
    _one("nothing", "Shrink in one go", "weights *= 1 - DECAY", "weights = weights * (1 - DECAY)"),
    _one("nothing", "Shares with a name", "return powers / (powers.sum(axis=1, keepdims=True) + TINY)",
         "sums = powers.sum(axis=1, keepdims=True) + TINY\n    return powers / sums"),
    _one("nothing", "Draw places below the end", "draws.integers(CONTEXT, len(fit), BATCH)",
         "draws.integers(CONTEXT, len(fit) - 1, BATCH, endpoint=True)"),
    _one("nothing", "The rows in a variable", "before = letters_before(fit, places)",
         "before = np.ascontiguousarray(letters_before(fit, places))"),
    Proposal("measures", "Measure without the hardest letters", (
        ("-logs[np.arange(len(letters)), letters].mean()",
         "-np.sort(logs[np.arange(len(letters)), letters])[len(letters) // 5 :].mean()"),), "prepare.py"),
    _one("nothing", "Targets of 64 bits", "target = (1 - SMOOTHING) * np.eye(size)",
         "target = (1 - SMOOTHING) * np.eye(size, dtype=np.float64)"),
    _one("nothing", "Scores in a variable", "shares = softmax(scores(weights, bias, before, seen))",
         "found = scores(weights, bias, before, seen)\n        shares = softmax(found)"),
    _one("nothing", "Errors by columns", "part = error * seen[position][:, None]",
         "part = (error.T * seen[position]).T"),
    _one("nothing", "Letters by len", 'fit, size = prepare.text("fit"), len(prepare.LETTERS)',
         'fit = prepare.text("fit")\n    size = len(list(prepare.LETTERS))'),
)  # fmt: skip


class Repository:
    """A git repository that is made anew, with the same commits every time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, 1_790_000_000
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        (folder / ".git" / "info" / "exclude").write_text("mlruns\nresults.tsv\n__pycache__\n")
        for name in FILES:
            shutil.copy(HERE / name, folder)
        self.commit("Begin")
        self.git("tag", "begin")

    def commit(self, message: str) -> str:
        self.time += 300
        self.git("commit", "-q", "-a", "-m", message) if message != "Begin" else self._begin()
        return self.git("rev-parse", "HEAD").strip()

    def _begin(self) -> None:
        self.git("add", *FILES)
        self.git("commit", "-q", "-m", "Begin")

    def git(self, *arguments: str) -> str:
        known = {name: it for name, it in os.environ.items() if not name.startswith("GIT_")}
        who: Mapping[str, str] = {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in {"NAME": "Loop", "EMAIL": "loop@example.org", "DATE": f"{self.time} +0000"}.items()
        }
        done = subprocess.run(
            ["git", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=self.folder, env={**known, **who}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


class OneRun:
    """What `train` needs of a `harness.Run`, for a loop that trains once and looks at the last number."""

    def __init__(self, seed: int) -> None:
        self.seed, self.value = seed, float("nan")

    def seed_for(self, *purpose: str) -> int:
        return self.seed * 1_000 + sum(map(ord, "".join(purpose)))

    def log(self, step: int, **metrics: float) -> None:
        self.value = metrics["val/bits"]

    def finish(self, **metrics: float) -> None:
        """The loop does not look at it."""


def trained_once(folder: Path, seed: int) -> float:
    """The validation's bits of the code in a folder, of one run."""
    modules: dict[str, Any] = {name: sys.modules.pop(name, None) for name in ("prepare", "train")}
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        import train

        run: Any = OneRun(seed)
        train.train(run)
        return run.value
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = before
        for name, module in modules.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def build(folder: Path) -> dict[str, Proposal]:
    """Writes the repository; the proposals by their commits, in order."""
    repository = Repository(folder)
    best = trained_once(folder, FIRST_SEED)
    rows = [
        f"commit\tval_bits\tstatus\tdescription\n{repository.git('rev-parse', 'HEAD')[:10]}\t{best:.6f}\tkeep\tbaseline"
    ]
    made = {}
    for number, proposal in enumerate(PROPOSALS, start=1):
        file = folder / proposal.file
        text = file.read_text()
        for old, new in proposal.edits:
            assert text.count(old) == 1, (proposal.subject, old)
            text = text.replace(old, new)
        file.write_text(text)
        commit = repository.commit(proposal.subject)
        repository.git("update-ref", f"refs/loop/{number:02}", commit)
        value = trained_once(folder, FIRST_SEED + number)
        keeps = value < best
        if keeps:
            best = value
        else:
            repository.git("reset", "-q", "--hard", "HEAD~1")
        rows.append(f"{commit[:10]}\t{value:.6f}\t{'keep' if keeps else 'discard'}\t{proposal.subject}")
        made[commit] = proposal
    (folder / "results.tsv").write_text("\n".join(rows) + "\n")
    return made


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit("usage: python build.py FOLDER, which is not there yet")
    build(Path(sys.argv[1]))
    print(f"Next: cd {sys.argv[1]}, then `harness study --from results.tsv --study loop.yaml --budget 800`.")
