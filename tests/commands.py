"""`harness` commands, each in a process of its own that is forked from one which has imported what commands import."""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

LONGEST_SECONDS = 240
# Reads a request a line; the fork is the command. Imported before: what takes long, and starts no thread.
SERVER = """
import atexit, importlib, json, os, signal, sys, time
for name in ("harness.api.ablation", "harness.cli.ablate", "harness.cli.results", "harness.report.tables",
             "mlflow.store.tracking.sqlalchemy_store", "torchvision"):
    importlib.import_module(name)
from harness.cli import main
for line in sys.stdin:
    request = json.loads(line)
    if (child := os.fork()) == 0:
        os.setsid()
        signal.alarm(request["seconds"])  # a command that hangs dies, and its exit code says of what
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_TRUNC), number)
        if request["is_closed"]:
            os.close(1)
            sys.stdout = None
        sys.path[0], sys.argv = "", ["harness", *request["words"]]
        code = 70
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
            code = 1
        finally:
            sys.stderr.flush()
            atexit._run_exitfuncs()  # as at the end of any interpreter
            os._exit(code)
    if request["killed_after"] is not None:
        ends = time.monotonic() + request["killed_after"]
        while time.monotonic() < ends and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)  # alone: whatever it has started must end by itself
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Commands:
    """Runs commands one after another in one environment, which the interpreter sees from its start."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = dict(os.environ if env is None else env)
        self._server: subprocess.Popen[str] | None = None

    def run(
        self,
        *words: object,
        cwd: str | Path,
        env: Mapping[str, str] | None = None,
        is_closed: bool = False,
        killed_after: float | None = None,
    ) -> "subprocess.CompletedProcess[bytes]":
        """`harness WORDS`. `env` is added to the environment; `is_closed`: standard output is (`>&-`); `killed_after`:
        seconds until SIGKILL, if it still runs."""
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-c", SERVER], env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            atexit.register(self.close)
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.NamedTemporaryFile() as stdout, tempfile.NamedTemporaryFile() as stderr:
            request = {
                "words": [str(word) for word in words],
                "cwd": str(cwd),
                "env": self._env | dict(env or {}),
                "stdout": stdout.name,
                "stderr": stderr.name,
                "is_closed": is_closed,
                "seconds": LONGEST_SECONDS,
                "killed_after": killed_after,
            }
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            code = self._server.stdout.readline()
            assert code, "the process that commands are forked from has died"
            return subprocess.CompletedProcess(request["words"], int(code), stdout.read(), stderr.read())

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()
            self._server = None


COMMANDS = Commands()


def harness(
    *words: object, cwd: str | Path, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """A command in the tests' environment, with its output as text."""
    done = COMMANDS.run(*words, cwd=cwd, env=env)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
