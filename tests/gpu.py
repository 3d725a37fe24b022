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
    return int(pytest.main([str(Path(__file__).parent), "-m", "gpu", "-v", "-rA", "-p", "no:cacheprovider"]))


if __name__ == "__main__":
    sys.exit(main())
