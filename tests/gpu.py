"""`make gpu`: the tests that only a CUDA device can show; exit code 2, with one sentence, where there is none."""

import sys
from pathlib import Path

import pytest

from harness.trainers.images.machine import cuda_problem


def main() -> int:
    problem = cuda_problem()
    if problem:
        print(f"make gpu: there is no CUDA device that torch can use here: {problem}", file=sys.stderr)
        return 2
    tests = str(Path(__file__).with_name("test_on_a_gpu.py"))
    return int(pytest.main([tests, "-m", "gpu", "-v", "--durations=5", "-p", "no:cacheprovider"]))


if __name__ == "__main__":
    sys.exit(main())
