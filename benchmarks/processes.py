"""Fresh processes with a synchronised start: no contender inherits another one's memory, threads or switches."""

import importlib
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

Facts = dict[str, Any]
Ready = Callable[[], None]
Work = Callable[..., Facts] | str
START_METHOD = "spawn"  # nothing is inherited; tests, which measure nothing, fork what has imported PyTorch
LONGEST_PREPARATION_SECONDS = 900.0  # importing a large library from a cold disk


@dataclass(frozen=True)
class Together:
    """What processes did between their common start and the end of the last one.

    Attributes:
        seconds: wall time.
        facts: what each process returned, with `peak_rss_bytes` and `cpu_seconds` of that process added.
    """

    seconds: float
    facts: Sequence[Facts]

    def total(self, fact: str) -> float:
        return sum(each[fact] for each in self.facts)

    def largest(self, fact: str) -> float:
        return max(each[fact] for each in self.facts)


def together(work: Work, arguments: Sequence[Any], *, processes: int, threads: int | None) -> Together:
    """Runs `work(ready, *arguments)` in so many new processes at once.

    `work` prepares itself, calls `ready()` once, which returns in all processes at the same moment, and does what is to
    be timed.

    Args:
        work: a function at the top of a module, or its name as `module:function`, so that only the new processes import
            PyTorch: the peak memory of what starts a process counts as that process's own in `getrusage`.
        threads: PyTorch threads of each process; None leaves PyTorch alone (and not imported).

    Raises:
        RuntimeError: a process failed; with its traceback.
    """
    context = multiprocessing.get_context(START_METHOD)
    barrier = context.Barrier(processes)
    pipes, children = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_live, args=(theirs, barrier, threads, work, tuple(arguments)))
        child.start()  # no daemon: some contenders have worker processes of their own
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        answers = [_answer(pipe, barrier) for pipe in pipes]
    except BaseException:
        for child in children:
            child.terminate()
        raise
    finally:
        for child in children:
            child.join()
    problems = [problem for problem, *_ in answers if problem]
    if problems:
        raise RuntimeError("\n".join(problems))
    return Together(max(end for _, _, end, _ in answers) - min(start for _, start, _, _ in answers), _facts(answers))


Answer = tuple[str, float, float, Facts]  # problem, start, end, facts


def _facts(answers: Sequence[Answer]) -> list[Facts]:
    return [facts for *_, facts in answers]


def _answer(pipe: Connection, barrier: Barrier) -> Answer:
    try:
        answer: Answer = pipe.recv()
    except EOFError:
        barrier.abort()  # the others would wait for it
        return "a process ended without an answer; the machine may be out of memory", 0.0, 0.0, {}
    return answer


def _live(pipe: Connection, barrier: Barrier, threads: int | None, work: Work, arguments: tuple[Any, ...]) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    started: list[tuple[float, float]] = []

    def ready() -> None:
        barrier.wait(LONGEST_PREPARATION_SECONDS)
        started.append((time.monotonic(), time.process_time()))  # monotonic: one clock for all processes

    try:
        facts = _function(work)(ready, *arguments)
        (start, cpu_start), end = started[0], time.monotonic()
        facts |= {"peak_rss_bytes": peak_rss_bytes(), "cpu_seconds": time.process_time() - cpu_start}
        pipe.send(("", start, end, facts))
    except threading.BrokenBarrierError:
        pipe.send(("another process failed", 0.0, 0.0, {}))
    except Exception:
        barrier.abort()
        pipe.send((traceback.format_exc(), 0.0, 0.0, {}))


def _function(work: Work) -> Callable[..., Facts]:
    if not isinstance(work, str):
        return work
    module, _, name = work.partition(":")
    function: Callable[..., Facts] = getattr(importlib.import_module(module), name)
    return function


def peak_rss_bytes() -> int:
    """Peak resident memory of this process; -1 where there is no /proc.

    Not `getrusage`: Linux hands a parent's peak on to what it starts.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return -1
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024
