"""A wheel, made of a source distribution, works outside of the repository: nothing that the program needs stays behind."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of an unpacked wheel, built from an unpacked source distribution of the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        if name.startswith(("harness/", "experiments/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(command, cwd=unpacked, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    code = "import harness, sys; from harness.cli import main; print(harness.__file__, file=sys.stderr); main()"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.startswith(str(installed)), "the repository was imported, not the wheel"
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages(installed):
    packed = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    listed = subprocess.run(["git", "ls-files", "harness"], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert set(listed.stdout.split()) <= packed
    assert "harness/experiments/task3.yaml" in packed
    assert [name for name in packed if ".cpython-" in name] == []  # the kernels are for every Python, as the wheel is


def test_the_wheel_lists_and_plans_the_built_in_studies(installed, tmp_path):
    assert "task3" in run(installed, tmp_path, "studies")
    assert "batch-norm" in run(installed, tmp_path, "plan", "--study", "task3", "--profile", "quick")
