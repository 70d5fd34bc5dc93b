"""Where a training that was stopped goes on from: all of its state, in one file of a folder."""

from __future__ import annotations

import os
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from adnlib.errors import one_line
from adnlib.folders import whole
from adnlib.provenance import code_digest, versions

CHECKPOINT = "checkpoint.pt"
_EVERY = 600.0  # seconds: the paper's flow and its optimizer are 2 GB


class Part(Protocol):
    """What goes on from the state that another like it had."""

    def state(self) -> Mapping[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Checkpoint:
    """The state of a training, kept every ten minutes.

    Args:
        folder: where it lies; made with the first.
        made_with: gives, by the name of each, in the plural, what must be the same for a training
            to go on, beside the versions of this code and of its packages. Asked once, and only
            where there is a checkpoint to be read or written.
        **parts: of which the state is, by name.
    """

    def __init__(
        self, folder: Path, made_with: Callable[[], Mapping[str, Any]], **parts: Part
    ) -> None:
        self._path = folder / CHECKPOINT
        running = versions() | {"code": code_digest()}  # which may be others when it is written
        self._made_with = cache(lambda: {**made_with(), "versions": running})
        self._parts = parts
        self._kept = time.monotonic()

    def restore(self) -> bool:
        """Have the parts go on from what such a training left; whether it left anything."""
        state = self.read()
        if state is None:
            return False
        for name, part in self._parts.items():
            part.restore(state[name])
        return True

    def keep(self) -> None:
        """Write the parts' states, where the last time is ten minutes ago."""
        if time.monotonic() - self._kept > _EVERY:
            self.write({name: part.state() for name, part in self._parts.items()})

    def read(self) -> dict[str, Any] | None:
        """What such a training left, on the CPU; None without a state that can be used."""
        if not self._path.is_file():
            return None
        try:
            with zipfile.ZipFile(self._path) as file:
                if damaged := file.testzip():  # torch reads without a look at the checksums
                    raise zipfile.BadZipFile(f"{damaged} is not what was written")
            state = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # of a damaged file any; raised, it would end every later try
            warnings.warn(
                f"{self._path} cannot be read ({one_line(error)}): training begins anew.",
                stacklevel=2,
            )
            return None
        if other := _other(state.pop("made_with"), self._made_with()):
            warnings.warn(
                f"{self._path} was made with other {other}: training begins anew.", stacklevel=2
            )
            return None
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Keep a state in the older one's place; where it cannot be kept, training goes on."""
        self._kept = time.monotonic()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole(self._path) as beside, beside.open("wb") as file:
                torch.save({"made_with": self._made_with(), **state}, file)
                file.flush()
                os.fsync(file.fileno())  # before the older one goes: a node may fail
        except (OSError, RuntimeError) as error:
            # torch's own error hides the system's, which says why.
            reason = error if isinstance(error, OSError) else error.__context__ or error
            warnings.warn(
                f"{self._path} could not be written, and what is stopped now begins anew: "
                f"{one_line(reason)}",
                stacklevel=2,
            )


def _other(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first that is not the same, and what of it; "" where all are."""
    for name in {**was, **now}:
        before, made = was.get(name), now.get(name)
        if before != made:
            if isinstance(made, dict) and isinstance(before, dict):
                return f"{name} ({_other(before, made)})"
            return name
    return ""


def remove(folder: Path) -> None:
    """Take away what `left_in` finds."""
    for left in left_in(folder):
        left.unlink(missing_ok=True)  # another fit may have moved or removed it


def left_in(folder: Path) -> list[Path]:
    """The checkpoint in a folder, and parts of one whose writing was stopped."""
    return [*folder.glob("checkpoint*.pt")]
