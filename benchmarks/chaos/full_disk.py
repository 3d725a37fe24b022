"""A command on a disk that is full: `python -m benchmarks.chaos.full_disk FOLDER BYTES`, as root of a mount namespace.

Nothing is mounted but in a folder of one's own, which nobody outside the namespace sees, and which ends with it.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.chaos.trial import Trial, Tried

ROOM = "512m"


def on_a_full_disk(num_bytes: int, folder: Path, untroubled: Trial) -> Tried | None:
    """Runs the command on a disk of so many bytes, then again when there is room. None where nothing can be mounted."""
    shutil.copytree(untroubled.folder, folder, ignore=shutil.ignore_patterns("mlruns", "phases"))
    command = ["unshare", "--mount", sys.executable, "-m", "benchmarks.chaos.full_disk"]
    arguments = [str(folder), str(num_bytes), str(untroubled.folder)]
    if shutil.which("unshare") is None:
        return None
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    if done.returncode == 3:
        return None
    if done.returncode:
        return Tried("disk full", f"{num_bytes} bytes", is_same=False, said=done.stdout + done.stderr)
    return Tried(**json.loads(done.stdout.splitlines()[-1]))


def _run(folder: Path, num_bytes: str, untroubled: Path) -> Tried | None:
    trial = Trial(folder)
    trial.store.mkdir()
    disk = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(trial.store)]
    if subprocess.run(disk, capture_output=True).returncode:
        return None
    first = trial.run()
    subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(trial.store)], check=True, capture_output=True)
    is_same = trial.run() == 0
    how = f"{int(num_bytes):,} bytes, then exit code {first}"
    return trial.judged("disk full", how, Trial(untroubled), is_same=is_same)


if __name__ == "__main__":
    tried = _run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    if tried is None:
        sys.exit(3)
    sys.stdout.write(json.dumps(asdict(tried)) + "\n")
