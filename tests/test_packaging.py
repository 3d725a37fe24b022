"""What the project says that it needs is what it imports; the metadata is whole."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Needed without an import of ours: by which library, and for what.
COMPANIONS = {"pydantic-core": "a part of pydantic"}
INDIRECT = {
    "pyarrow": "pandas writes parquet with it",
    "psycopg": "SQLAlchemy's driver of PostgreSQL",
}


def distribution(requirement):
    """`psycopg[binary]>=3.2` -> `psycopg`."""
    name = requirement
    for sign in "[<>=! ;":
        name = name.partition(sign)[0]
    return name.lower().replace("_", "-")


def imported(folder):
    """For each library that the code below a folder imports anywhere, the distributions that may bring it."""
    known = packages_distributions()
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {it.name.partition(".")[0] for it in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.partition(".")[0])
    others = modules - set(sys.stdlib_module_names) - {"harness"}
    found = {name: known.get(name, [name]) for name in others}  # of an extra that is not installed: its own name
    return {name: {it.lower().replace("_", "-") for it in packages} for name, packages in found.items()}


def test_every_dependency_is_declared_and_none_is_unused():
    declared = {distribution(it) for it in PROJECT["dependencies"]}
    needed = imported(ROOT / "harness")
    assert len(needed) > 15
    extras = PROJECT["optional-dependencies"]
    optional = {distribution(it) for name, found in extras.items() if name != "dev" for it in found}
    allowed = declared | optional | set(COMPANIONS)
    assert {name for name, it in needed.items() if not it & allowed} == set(), "imported, and not declared"
    assert declared - set().union(*needed.values()) == set(INDIRECT), "declared, and not imported"


def test_the_metadata_is_whole():
    assert {"authors", "classifiers", "description", "keywords", "license", "readme", "requires-python"} <= set(PROJECT)
    versions = [it.rpartition(" ")[2] for it in PROJECT["classifiers"] if "Python :: 3." in it]
    makefile = (ROOT / "Makefile").read_text()
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert all(f"python{version}" in makefile for version in versions)


def test_every_package_is_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "harness").rglob("__init__.py")}
    assert there <= set(listed)
