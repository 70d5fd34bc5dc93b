"""What all settings share: names that exist, values of the right type, `name=value` as typed."""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from adnlib.errors import InputError

_NEAR = 0.5  # of difflib's ratio
_LONGEST = 400  # characters of a list of names


def check_names(given: Iterable[str], known: Iterable[str], what: str = "setting") -> None:
    """Raise InputError for the first name that is not known, with one that is near, or with all."""
    known = sorted(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
            every = textwrap.shorten(", ".join(known), _LONGEST, placeholder=" ...")
            advice = f"did you mean {near[0]!r}?" if near else f"choose one of {every}."
            raise InputError(f"there is no {what} {name!r}: {advice}")


def check_types(settings: Any) -> None:
    """Raise InputError for the first field whose value is not of its default's type."""
    for field in dataclasses.fields(settings):
        check_type(field.name, getattr(settings, field.name), field.default)


def check_type(name: str, value: Any, default: Any) -> None:
    """Raise InputError for a value not of its default's type; an int may stand for a float."""
    wanted = type(default)
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise InputError(
            f"{name} is {value!r}, which is no {wanted.__name__}: give one like {default!r}."
        )


def check_positive(values: Mapping[str, Any], *names: str) -> None:
    """Raise InputError for the first of these values that is not above 0."""
    for name in names:
        if not 0 < values[name] < math.inf:
            raise InputError(f"{name} is {values[name]}: give a number above 0.")


def check_from_zero(values: Mapping[str, Any], *names: str) -> None:
    """Raise InputError for the first of these values that is below 0."""
    for name in names:
        if not 0 <= values[name] < math.inf:
            raise InputError(f"{name} is {values[name]}: give a number from 0 up.")


def check_share(values: Mapping[str, Any], *names: str) -> None:
    """Raise InputError for the first of these values that is not from 0 to below 1."""
    for name in names:
        if not 0 <= values[name] < 1:
            raise InputError(f"{name} is {values[name]}: give a number from 0 to below 1.")


def check_whole(values: Mapping[str, Any], *names: str) -> None:
    """Raise InputError for the first of these values that is no whole number."""
    for name in names:
        if not isinstance(values[name], numbers.Integral):
            raise InputError(f"{name} is {values[name]!r}: give a whole number.")


def check_choice(values: Mapping[str, Any], name: str, choices: Iterable[str]) -> None:
    """Raise InputError if this value is none of the choices."""
    if values[name] not in choices:
        raise InputError(f"{name} is {values[name]!r}: choose one of {', '.join(choices)}.")


def assignment(text: str) -> tuple[str, str]:
    """Name and value of `name=value`, as typed."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{text!r} is no assignment: give name=value, such as --set epochs=48.")
    return name.strip(), value.strip()
