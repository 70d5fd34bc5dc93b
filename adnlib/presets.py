"""The settings of a fit: a preset, a settings file over it, single settings over both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adnlib.errors import InputError
from adnlib.grid import read_value, read_yaml, typed
from adnlib.model_settings import SETTING_NAMES, ModelSettings
from adnlib.settings import check_names

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"epochs": 8, "test_views": 16, "test_angles": "even"},
    "standard": {"epochs": 48},
    "paper": {},
}
"""What each preset changes in the defaults, which are DifferNet's (192 epochs, 64 test views). Of
as few as 16 views the draw of angles would decide: benchmarks/README.md."""
_OPTIONS = ("holdout", "fpr", "on_bad_image", "balance", "self_contained", "anomalies")
"""Of `adnlib fit`, which are no settings of a model."""


def fit_settings(
    preset: str, config: Path | None = None, single: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The settings that differ from the defaults, checked.

    Args:
        preset: one of `PRESETS`.
        config: a YAML file, keys are fields of `ModelSettings`.
        single: values as typed, by name.

    Raises:
        InputError: a name is unknown (the nearest is named), or a value cannot be used.
    """
    check_names([preset], PRESETS, "preset")
    settings = PRESETS[preset] | (_read(config) if config else {})
    single = single or {}
    _check(single)
    settings |= typed({name: read_value(text) for name, text in single.items()})
    ModelSettings(**settings)
    return settings


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "settings file")
    if content is None:
        return {}
    try:
        if not isinstance(content, dict):
            raise InputError(f"it holds a {type(content).__name__}: give name: value lines.")
        _check(map(str, content))
        settings = typed(content)
        ModelSettings(**settings)
    except InputError as error:
        raise InputError(f"in the settings file {path}: {error}") from error
    return settings


def _check(names: Iterable[str]) -> None:
    names = list(names)
    for name in names:
        if name in _OPTIONS:
            raise InputError(f"{name} is no setting of the model: give --{name.replace('_', '-')}.")
    check_names(names, SETTING_NAMES)
