"""Which harness this is."""

from importlib.metadata import PackageNotFoundError, version


def harness_version() -> str:
    """The installed version; `not installed` where the package runs from its sources alone, as by PYTHONPATH."""
    try:
        return version("harness")
    except PackageNotFoundError:
        return "not installed"
