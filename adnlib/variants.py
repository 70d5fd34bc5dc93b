"""Variants by name: an attention, how it is trained, and what is done to the features behind it."""

from __future__ import annotations

from typing import Any

from adnlib.attention import ATTENTION

FROZEN = "_frozen"
"""Behind the name of an attention: its blocks keep their random values."""
STANDARDIZED = "_standardized"
"""Behind that: features are standardised before the flow."""


def variant_settings(variant: str) -> dict[str, Any]:
    """The settings that the name of a variant tells, the reverse of `Settings.variant`."""
    told: dict[str, Any] = {}
    if variant.endswith(STANDARDIZED):
        variant, told["standardize"] = variant.removesuffix(STANDARDIZED), True
    attention = variant.removesuffix(FROZEN)
    if attention != variant and attention in ATTENTION and ATTENTION[attention].learns:
        variant, told["attention_training"] = attention, "frozen"
    return {"attention": variant, **told}


def variant_title(variant: str) -> str:
    """The name under which a variant stands in every table and figure."""
    told = variant_settings(variant)
    untrained = ", untrained" if "attention_training" in told else ""
    standardized = ", standardised features" if "standardize" in told else ""
    return ATTENTION[told["attention"]].title + untrained + standardized


def variant_order(variant: str) -> tuple[bool, bool, int]:
    """Sorting key: DifferNet, attention in `ATTENTION`'s order, untrained; then standardised."""
    told = variant_settings(variant)
    order = list(ATTENTION).index(told["attention"])
    return "standardize" in told, "attention_training" in told, order
