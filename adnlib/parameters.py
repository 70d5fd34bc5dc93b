"""What a notebook is given: parameters by name, and paths as seen from the repository's root."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adnlib.settings import check_names, check_type


def project_path(path: str | Path) -> Path:
    """A relative path as seen from the repository's root (from here, where adnlib is installed)."""
    root = Path(__file__).resolve().parents[1]
    return (root if (root / "notebooks").is_dir() else Path.cwd()) / path


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The parameters of a notebook, from its `globals()`.

    Papermill sets any name that it is given, to what it takes its value for; here a name that the
    notebook does not know is refused, and a value is of the type that the notebook gave it first.

    Raises:
        InputError: a cell before the one that calls this assigns an unknown name, or a value of
            another type.
    """
    cells = itertools.takewhile(lambda cell: "check_parameters" not in cell, namespace["In"])
    first: dict[str, ast.expr] = {}
    for cell in cells:
        for statement in ast.parse(cell).body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    first.setdefault(ast.unparse(target), statement.value)
    known = list(known)
    check_names(first, known, "parameter")
    return {name: _typed(name, namespace[name], first[name]) for name in known}


def _typed(name: str, value: Any, first: ast.expr) -> Any:
    try:
        default = ast.literal_eval(first)
    except ValueError:  # computed, by who changed the notebook
        return value
    if type(default) is str and type(value) in (int, float):  # a folder may be called 2024
        return str(value)
    if type(default) is bool and value in ("true", "false"):  # which papermill takes for words
        return value == "true"
    check_type(name, value, default)
    return value
