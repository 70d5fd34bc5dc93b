"""The settings of a detector, and the device that it is on."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adnlib.attention import ATTENTION
from adnlib.backbones import EmbeddingSettings
from adnlib.errors import InputError
from adnlib.flow import FlowSettings
from adnlib.precision import check_precision
from adnlib.settings import (
    check_choice,
    check_from_zero,
    check_names,
    check_positive,
    check_types,
)
from adnlib.training import TrainingSettings

TEST_ANGLES = ("random", "even", "grid")

MOST = {
    "attention_kernel": 101,
    "flow_blocks": 256,
    "flow_width": 1 << 15,
    "image_size": 1 << 13,
    "scales": 8,
    "test_views": 1 << 12,
}
"""Bounds, so that a forged file cannot exhaust memory or time before its tensors' shapes give it
away."""

_SEEDS = 1 << 32
_TOO_OLD = "this build of torch has no code for a GPU as old as this machine's"


@dataclass(frozen=True)
class ModelSettings(EmbeddingSettings, FlowSettings, TrainingSettings):
    """Everything that makes a detector; the defaults are DifferNet's, where these are published."""

    test_views: int = 64
    """Rotations of each image that a score is the mean of."""
    test_angles: str = "random"
    """"random": drawn like the training's angles, from the seed; "even": the middles of equal parts
    of +- max_angle, the same for every image; "grid": i * 360 / test_views."""
    seed: int = 0
    """Of the initial weights, the images held out, the order of the others, and all angles."""
    device: str = "auto"
    """"auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1"."""
    memory_budget: float = 0.0
    """GB of memory for decoded images; more lies in a file while it is used. 0: a quarter of the
    machine's."""

    def __post_init__(self) -> None:
        check_types(self)
        for name, most in MOST.items():
            if getattr(self, name) > most:
                raise InputError(f"{name} is {getattr(self, name)}: give at most {most}.")
        EmbeddingSettings.__post_init__(self)
        FlowSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        check_positive(vars(self), "test_views")
        check_from_zero(vars(self), "memory_budget")
        check_choice(vars(self), "test_angles", TEST_ANGLES)
        learns = ATTENTION[self.attention].learns and self.attention_training == "joint"
        if self.view_bank and learns:
            raise InputError(
                "view_bank keeps embeddings, which attention that is trained changes: set it to 0, "
                "or attention_training to 'frozen'."
            )
        if self.device == "cpu":  # known before anything is built
            check_precision(self.precision, torch.device("cpu"))
        if not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed is {self.seed}: give a whole number from 0 to 2^32 - 1.")

    @property
    def changed(self) -> str:
        """The settings that are not the defaults, as they are written in a call."""
        return ", ".join(
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        )

    def described(self) -> dict[str, Any]:
        """As a file holds them, of weights the name alone; `stored_settings` reads them."""
        return dataclasses.asdict(self) | {"weights": Path(self.weights).name}


SETTING_NAMES = tuple(field.name for field in dataclasses.fields(ModelSettings))
"""Of these settings."""


def stored_settings(stored: Mapping[str, Any], where: Path, **instead: Any) -> ModelSettings:
    """The settings that lie in a file, with others instead of some.

    Raises:
        InputError: a name is unknown, or a value cannot be used.
    """
    values = {**stored, **instead}
    try:
        check_names(values, SETTING_NAMES)
        return ModelSettings(**values)
    except InputError as error:
        raise InputError(f"the model in {str(where)!r} cannot be used: {error}") from None


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is a GPU that this torch has code for.

    Raises:
        InputError: the name is none of a device, or a GPU is asked for that is absent or too old.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and _is_too_old(torch.device(name)):
            warnings.warn(f"{_TOO_OLD}: the CPU is used.", stacklevel=1)
            name = "cpu"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", name):
        raise InputError(f"device is {name!r}: choose auto, cpu, cuda or cuda:<index>.")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices: "
            "choose cpu, or install a CUDA build of torch and its driver."
        )
    if device.type == "cuda" and _is_too_old(device):
        raise InputError(f"device is {name!r}: {_TOO_OLD}. Choose cpu, or install an older torch.")
    return device


def _is_too_old(device: torch.device) -> bool:
    """Whether torch, which itself only warns of it, was built for newer NVIDIA GPUs alone."""
    built_for = [re.match(r"sm_(\d+)", name) for name in torch.cuda.get_arch_list()]
    oldest = min((int(found[1]) for found in built_for if found), default=0)
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor < oldest
