"""README's map: every module once, each importing only what stands before it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENTRIES = ("__init__", "__main__")


def mapped() -> list[str]:
    rows = (ROOT / "README.md").read_text().partition("| modules |")[2].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def imported(file: Path) -> set[str]:
    """The modules that a file imports when it is imported itself."""
    names: set[str] = set()
    for statement in ast.parse(file.read_text()).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            package, _, module = statement.module.partition(".")
            if package == "adnlib":
                names |= {module.partition(".")[0]} if module else {n.name for n in statement.names}
    return names


def test_every_module_is_named_once() -> None:
    there = {path.stem for path in (ROOT / "adnlib").glob("*.py")} - {*ENTRIES}
    there |= {path.parent.name for path in (ROOT / "adnlib").glob("*/__init__.py")}
    assert sorted(mapped()) == sorted(there)


def test_imports_point_back() -> None:
    order = mapped()
    for place, name in enumerate(order):
        file = ROOT / "adnlib" / f"{name}.py"
        for each in [file] if file.exists() else (ROOT / "adnlib" / name).glob("*.py"):
            later = imported(each) & {*order[place + 1 :]}
            assert not later, f"{name} imports {later}, which README's map has behind it"


def test_a_users_type_checker_is_told_of_the_types() -> None:
    """PEP 561: the marker lies in the package, and is installed like every file beside modules."""
    tomllib = pytest.importorskip("tomllib")  # new in Python 3.11
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "adnlib"
    installed = {
        file for name in setuptools["package-data"]["adnlib"] for file in package.glob(name)
    }
    files = {file for file in package.rglob("*") if file.is_file()}
    assert installed == {file for file in files if file.suffix not in (".py", ".pyc")}
    assert package / "py.typed" in installed
