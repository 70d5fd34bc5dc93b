"""What a notebook is given: parameters by name, and paths as seen from the repository's root."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adnlib.errors import InputError
from adnlib.settings import check_names, check_type


def project_path(path: str | Path) -> Path:
    """A relative path as seen from the repository's root (from here, where adnlib is installed)."""
    root = Path(__file__).resolve().parents[1]
    return (root if (root / "notebooks").is_dir() else Path.cwd()) / path


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The parameters of a notebook, from its `globals()`.

    Papermill sets any name it is given and guesses the value's type; here a name that the notebook
    does not know is refused, and a value is of the type that the notebook gave it first. Of the
    cells run since the last check, those count that hold plain values only or assign a known name:
    a mistake can be mended and its cell run again. A Python program has no cells, and gives what it
    holds.

    Raises:
        InputError: one of these cells assigns an unknown name, or a value of another type; or a
            known name has none.
    """
    known = list(known)
    before: dict[str, ast.expr] = {}
    latest: dict[str, ast.expr] = {}
    *cells, _ = namespace.get("In", [""])  # but for the one that calls this
    for cell in cells:
        if "check_parameters" in cell:
            before |= latest
            latest = {}
        else:
            latest = _assigned(cell, known) | latest
    check_names(latest, known, "parameter")
    if lacking := [name for name in known if name not in namespace]:
        raise InputError(f"{lacking[0]} has no value: run the cell of parameters first.")
    first = before | latest
    return {
        name: _typed(name, namespace[name], first[name]) if name in first else namespace[name]
        for name in known
    }


def _assigned(cell: str, known: Iterable[str]) -> dict[str, ast.expr]:
    """The first value that a cell of parameters gives each name; {} for other cells, and for one
    with a syntax error, which cannot have run."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:
        return {}
    given = [each for each in statements if isinstance(each, ast.Assign)]
    first = {ast.unparse(to): each.value for each in reversed(given) for to in each.targets}
    only_values = given == statements and all(map(_is_literal, first.values()))
    return first if only_values or first.keys() & set(known) else {}


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return True


def _typed(name: str, value: Any, first: ast.expr) -> Any:
    if not _is_literal(first):  # computed, by who changed the notebook
        return value
    default = ast.literal_eval(first)
    if type(default) is str and type(value) in (int, float):  # a folder may be called 2024
        return str(value)
    if type(default) is bool and value in ("true", "false"):  # which papermill takes for words
        return value == "true"
    check_type(name, value, default)
    return value
