"""Words that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 view" and "4 views"."""
    return f"{number} {noun}" + "s" * (number != 1)
