"""What a notebook is given: parameters by name, and paths as seen from the repository's root."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adnlib.settings import check_names


def project_path(path: str | Path) -> Path:
    """A relative path as seen from the repository's root (from here, where adnlib is installed)."""
    root = Path(__file__).resolve().parents[1]
    return (root if (root / "notebooks").is_dir() else Path.cwd()) / path


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The parameters of a notebook, from its `globals()`.

    Papermill sets any name that it is given; here a name that the notebook does not know is
    refused.

    Raises:
        InputError: a cell before the one that calls this assigns an unknown name.
    """
    known = list(known)
    cells = itertools.takewhile(lambda cell: "check_parameters" not in cell, namespace["In"])
    assigned = [
        target.id
        for cell in cells
        for statement in ast.parse(cell).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
    check_names(assigned, known, "parameter")
    return {name: namespace[name] for name in known}
