"""What commands cost: seconds of processor time, with the code that stands first on $PYTHONPATH.

Standard library alone, so that it runs beside every commit. The commands share no state: each gets a copy of a store
that the oldest commit wrote, and which every later one must read.
"""

import compileall
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

STORE = Path("docs/results/history/store.tar.gz").absolute()
COMMANDS = {
    "help/seconds": ["--help"],
    "plan/seconds": ["plan", "--study", "task3", "--data", "shapes", "--device", "cpu", "--seeds", "100"],
    "results/seconds": ["results", "--study", "task3"],
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(STORE) as packed:
            packed.extractall(folder, filter="data")
        os.chdir(folder)  # with -m Python looks here first, and then on $PYTHONPATH
        environment = os.environ | {"HARNESS_STORE": f"{folder}/store", "HARNESS_CACHE": f"{folder}/cache"}
        python = [sys.executable, "-m", "harness"]
        # To bytecode beside the snapshot, once: no command of it is measured with that.
        compileall.compile_dir(os.environ["PYTHONPATH"].partition(os.pathsep)[0], quiet=1)
        found = {name: seconds_of([*python, *words], environment) for name, words in COMMANDS.items()}
    told = {"all/seconds": sum(found.values())} | found
    with open(os.environ["HARNESS_METRICS"], "a") as lines:
        lines.write(json.dumps({"step": 1} | told) + "\n" + json.dumps({"final": True} | told) + "\n")


def seconds_of(command: list[str], environment: dict[str, str]) -> float:
    """Processor time of a command and its children: the time on the wall is that of everybody on the machine."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


main()
