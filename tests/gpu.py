"""`make gpu`: the tests that only a CUDA device can show, and a table of them; exit code 2, with one sentence, where
there is none."""

import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from harness.cuda import cuda_capabilities
from harness.trainers.images.machine import cuda_refusal


class Table:
    """A plugin of pytest: a line a test, its cases counted, at the end."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("::")[2].partition("[")[0]
        self.seconds[name] += report.duration
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[name][report.outcome] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.write_sep("=", "what this device shows")
        terminalreporter.write_line(f"{'passed':>7}{'failed':>7}{'skipped':>8}{'seconds':>9}  test")
        for name, counts in self.outcomes.items():
            numbers = f"{counts['passed']:7}{counts['failed']:7}{counts['skipped']:8}{self.seconds[name]:9.1f}"
            terminalreporter.write_line(f"{numbers}  {name.removeprefix('test_').replace('_', ' ')}")


def main() -> int:
    if not cuda_capabilities():
        print("make gpu: the driver shows no CUDA device here; run it on a machine that has one.", file=sys.stderr)
        return 2
    if problem := cuda_refusal():
        print(f"make gpu: the driver shows a CUDA device, but {problem}", file=sys.stderr)
        return 2
    tests = str(Path(__file__).with_name("test_on_a_gpu.py"))
    return int(pytest.main([tests, "-m", "gpu", "-q", "-p", "no:cacheprovider"], plugins=[Table()]))


if __name__ == "__main__":
    sys.exit(main())
