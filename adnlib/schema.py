"""The JSON Schema of a grid file: each key with its type, meaning and default.

Settings are read off their dataclasses, so that a new one is known here at once.
`workflow/grid.schema.json` is this schema, for editors; `python -m adnlib.schema` prints it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import textwrap
from typing import Any

import jsonschema

from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.run_settings import Settings
from adnlib.settings import check_names

ALL = "all"
OUTSIDE = ("dataset", "category", "attention", "seed", "results")
"""Settings that the grid's other keys, or an option, give."""

_TYPES = {
    bool: ("boolean", "true or false"),
    int: ("integer", "a whole number"),
    float: ("number", "a number"),
    str: ("string", "a word"),
}
_NAMES = {"type": "array", "minItems": 1, "items": {"type": "string", "title": "a name"}}


def grid_schema() -> dict[str, Any]:
    """The schema; `title` says what a value must be, in words that fit behind "give"."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a grid of runs: keys with values",
        "description": "Every data set and category with every attention and seed is one run.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "title": {
                "title": "a line of text",
                "description": "What the grid is for. Default: the file's name.",
                "type": "string",
            },
            "datasets": {
                "title": f"data sets with their categories, or {ALL}",
                "description": "For each data set a list of categories or all; or all, for every "
                "set that lies under the data root. What is absent is named and left out.",
                "default": ALL,
                "type": ["object", "string"],
                "minProperties": 1,
                "pattern": f"^{ALL}$",
                "additionalProperties": {
                    "title": f"a list of names in brackets, or {ALL}",
                    **_NAMES,
                    "type": ["array", "string"],
                    "pattern": f"^{ALL}$",
                },
            },
            "attention": {
                "title": "a list of names in brackets",
                "description": f"{', '.join(ATTENTION)}; with _frozen behind it (se_frozen) for "
                "blocks that keep their random values, and _standardized behind that for features "
                "standardised before the flow.",
                "default": ["none"],
                **_NAMES,
            },
            "seeds": {
                "title": "a list of whole numbers in brackets",
                "description": "Each cell of the grid is run once with each.",
                "default": [0],
                "type": "array",
                "minItems": 1,
                "items": {"type": "integer", "title": "a whole number"},
            },
            "settings": {
                "title": "names with their values",
                "description": "What differs from the defaults of adnlib.run_settings.Settings.",
                "default": {},
                "type": "object",
                "additionalProperties": False,
                "properties": _settings(),
            },
        },
    }


def check_grid(content: Any) -> None:
    """Check the content of a grid file against the schema.

    Raises:
        InputError: a key is unknown (the nearest is named) or a value is not of its type.
    """
    schema = grid_schema()
    if isinstance(content, dict):
        check_names(map(str, content), schema["properties"], "key")
        settings = content.get("settings", {})
        if isinstance(settings, dict):
            for name in OUTSIDE:
                if name in settings:
                    raise InputError(
                        f"{name} does not belong under settings: the grid or an option sets it."
                    )
            check_names(map(str, settings), schema["properties"]["settings"]["properties"])
    for error in jsonschema.Draft202012Validator(schema).iter_errors(content):
        where = ".".join(map(str, error.absolute_path)) or "the file"
        raise InputError(f"{where} is {error.instance!r}: give {error.schema['title']}.")


def _settings() -> dict[str, Any]:
    told = meanings(Settings)
    schemas = {}
    for field in dataclasses.fields(Settings):
        if field.name not in OUTSIDE:
            kind, title = _TYPES[type(field.default)]
            schemas[field.name] = {
                "title": title,
                "description": told[field.name],
                "default": field.default,
                "type": kind,
            }
    return schemas


def meanings(cls: type) -> dict[str, str]:
    """The string below each field of a dataclass and of those that it inherits from."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if dataclasses.is_dataclass(base):
            source = ast.parse(textwrap.dedent(inspect.getsource(base)))
            body = source.body[0].body  # type: ignore[attr-defined]
            for field, below in itertools.pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    text = ast.literal_eval(below.value)
                    found.setdefault(ast.unparse(field.target), " ".join(text.split()))
    return found


if __name__ == "__main__":
    print(json.dumps(grid_schema(), indent=2))
