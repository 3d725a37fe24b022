"""`--notify`: a command or an address that is called when a study ends, fails or is stopped. Never a reason to fail."""

import functools
import json
import os
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

import click

from harness.cli.progress import duration
from harness.errors import HarnessError
from harness.execution.provenance import NOTIFY
from harness.urls import masked

VARIABLE = (
    "HARNESS_NOTIFY"  # for addresses that are secrets: they stand in no history of a shell and no list of processes
)
SECONDS_TO_ANSWER = 20.0
LONGEST_TEXT = 1_000  # characters
ENDED = "ended"
FAILED_CELLS = "ended with failed cells"

Command = TypeVar("Command", bound=Callable[..., Any])


def notifying(command: Command) -> Command:
    """Gives a command the option `--notify`, and calls what it names when the command is over, however."""

    @click.option(
        NOTIFY,
        "target",
        envvar=VARIABLE,
        metavar="COMMAND|URL",
        help=f"Called when it ends, fails or is stopped; an address gets JSON. Or set ${VARIABLE}. Never recorded.",
    )
    @functools.wraps(command)
    def wrapped(*arguments: Any, target: str | None, **request: Any) -> Any:
        if not target:
            return command(*arguments, **request)
        started, outcome = time.monotonic(), "failed"
        reason = ""
        try:
            answer = command(*arguments, **request)
            outcome = ENDED
            return answer
        except click.exceptions.Exit as leaving:
            outcome = FAILED_CELLS if leaving.exit_code else ENDED
            raise
        except KeyboardInterrupt:
            outcome = "was stopped"
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, HarnessError) else type(error).__name__
            raise
        finally:
            context = click.get_current_context()
            words = {
                "command": str(context.info_name),
                "study": str(request.get("study", "")),
                "outcome": outcome,
                "reason": masked(reason)[:LONGEST_TEXT],
                "store": str(request.get("store", "")),
            }
            text = f"harness {words['command']} {words['study']} {outcome} after {duration(time.monotonic() - started)}"
            problem = notify(target, words | {"text": f"{text}: {words['reason']}" if reason else f"{text}."})
            if problem:
                click.secho(f"{NOTIFY}: {problem}", fg="yellow", err=True)

    return wrapped  # type: ignore[return-value]


def notify(target: str, said: dict[str, str]) -> str:
    """Calls a command, or posts to an http or https address; why it could not be, or nothing.

    A command is split into words, no shell sees it; it gets `said` as JSON on its standard input, and each part in its
    environment, such as $HARNESS_NOTIFY_TEXT. An address gets the JSON. What is returned shows neither.
    """
    body = json.dumps(said).encode()
    if target.startswith(("http://", "https://")):
        request = urllib.request.Request(target, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER):
                return ""
        except (OSError, ValueError) as error:
            code = getattr(error, "code", None)
            why = f"HTTP {code}" if code else type(getattr(error, "reason", error)).__name__
            return f"the address could not be called ({why})."
    named = {f"{VARIABLE}_{name.upper()}": text for name, text in said.items()}
    try:
        done = subprocess.run(
            shlex.split(target),
            input=body,
            env={**os.environ, **named},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS_TO_ANSWER,
        )
    except subprocess.TimeoutExpired:
        return f"the command did not end within {SECONDS_TO_ANSWER:g} s."
    except (OSError, ValueError) as error:
        return f"the command could not be started ({getattr(error, 'strerror', None) or error})."
    return f"the command ended with exit code {done.returncode}." if done.returncode else ""
