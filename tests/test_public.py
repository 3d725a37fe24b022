import subprocess
import sys

import pytest

import harness


def test_the_public_surface_is_exactly_this():
    assert harness.__all__ == [
        "HarnessError",
        "Run",
        "ablate",
        "confirm",
        "current_run",
        "effects",
        "figures",
        "load_curves",
        "load_results",
        "load_study",
        "read_csv",
        "tune",
    ]
    assert dir(harness) == harness.__all__


@pytest.mark.parametrize("name", harness.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert getattr(harness, name).__doc__
    assert name in harness.__doc__


def test_a_name_that_does_not_exist_is_an_attribute_error_with_those_that_do():
    with pytest.raises(AttributeError, match=r"'load_result'; it has .*load_results"):
        _ = harness.load_result


def test_importing_harness_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import harness; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = {name.partition(".")[0] for name in eval(done.stdout)}
    assert brought - sys.stdlib_module_names == {"harness"}
    assert "harness.store.load" not in eval(done.stdout)
