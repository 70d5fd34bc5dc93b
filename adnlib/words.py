"""Numbers in words."""

from __future__ import annotations

from collections.abc import Collection


def counted(number: int, noun: str) -> str:
    """A number of things, such as "1 view" and "4 views"."""
    return f"{number} {noun}" + "s" * (number != 1)


def span(numbers: Collection[float]) -> str:
    """From the least to the most of numbers: "3" and "2 to 3"."""
    fewest, most = min(numbers), max(numbers)
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def duration(seconds: float) -> str:
    """A length of time: "28 s", "4 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
