"""Decoded images, kept once and taken out some at a time: in memory, in a file, or on a GPU.

A tensor of all images is in the way where there are many: 9,000 of 448 px are 5.4 GB, and every
selection of them is a copy. It reads no image file and knows no folder layout.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch

from adnlib import machine
from adnlib.cache import cache_folder
from adnlib.errors import InputError

_SHARE = 4  # of the machine's memory, where no budget is given: a run has more to keep than images
_GPU_SHARE = 3  # of what a GPU has free; the rest is for the flow and for activations
_MOVED = 256  # images moved to a GPU at a time


class Pixels:
    """uint8 images (N, 3, S, S); `pixels[chosen]` gives those as a tensor.

    `len` and iteration are as a tensor's, and `chosen` may be what a tensor is indexed with along
    its first axis: a number, slice, mask, or tensor of positions on the CPU.
    """

    def __init__(
        self,
        stored: torch.Tensor,
        positions: torch.Tensor | None = None,
        mapped: mmap.mmap | None = None,
    ) -> None:
        """Keep a tensor (M, 3, S, S); or only what lies at the positions (N,) in it.

        Args:
            mapped: what the tensor's memory is a part of, where it is a file's.
        """
        self._stored = stored
        self._positions = torch.arange(len(stored)) if positions is None else positions
        self._mapped = mapped

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, chosen: int | slice | torch.Tensor) -> torch.Tensor:
        positions = self._positions[chosen].to(self._stored.device, non_blocking=True)
        found = self._stored[positions]
        self._let_go()
        return found

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[i] for i in range(len(self)))

    def put(self, position: int, image: np.ndarray) -> None:
        """Store an image (3, S, S) at a position; safe from several threads."""
        self._stored[int(self._positions[position])].numpy()[:] = image  # torch would start threads
        self._let_go()

    def digest(self) -> str:
        """SHA-256 of all of them in their order: whether others are the same."""
        found = hashlib.sha256()
        for image in self:
            found.update(image.cpu().numpy().data)
        return found.hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, 3, S, S)."""
        return (len(self), *self._stored.shape[1:])

    @property
    def on_disk(self) -> bool:
        """Whether they lie in a file."""
        return self._mapped is not None

    def part(self, chosen: slice | torch.Tensor) -> Pixels:
        """Some of them, without a copy."""
        return Pixels(self._stored, self._positions[chosen], self._mapped)

    def near(self, device: torch.device) -> Pixels:
        """A copy on that GPU if a third of its free memory holds it; else self."""
        if device.type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if _bytes(self.shape) > free // _GPU_SHARE:
            return self
        moved = torch.empty(self.shape, dtype=torch.uint8, device=device)
        for some in torch.arange(len(self)).split(_MOVED):
            moved[some] = self[some].to(device)
        return Pixels(moved)

    def _let_go(self) -> None:
        """Release the pages just touched; they stay in the system's cache, which shrinks when
        memory is short."""
        if self._mapped:
            self._mapped.madvise(mmap.MADV_DONTNEED)


Pictures: TypeAlias = "torch.Tensor | Pixels"
"""uint8 images (N, 3, S, S)."""


def allocate(count: int, size: int, budget: float = 0) -> Pixels:
    """Room for images, to be put in.

    Args:
        budget: GB of memory; more than that goes into a file without a name in adnlib's cache
            folder, which is gone when nobody looks at it any more, however the process ends. 0: a
            quarter of the machine's memory.

    Raises:
        InputError: neither memory nor disk holds so much.
    """
    shape = (count, 3, size, size)
    allowed = 1e9 * budget or machine.memory() / _SHARE
    if _bytes(shape) > allowed:
        mapped = _file(_bytes(shape), allowed)
        return Pixels(torch.frombuffer(mapped, dtype=torch.uint8).view(shape), mapped=mapped)
    try:
        return Pixels(torch.empty(shape, dtype=torch.uint8))
    except RuntimeError:
        raise InputError(
            f"{count} images of {size} x {size} px take {_bytes(shape) / 1e9:.0f} GB, more than "
            "there is memory: set memory_budget or image_size lower."
        ) from None


def _file(size: int, allowed: float) -> mmap.mmap:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file with holes would end the process at the first write that the disk has no room for.
        if size > shutil.disk_usage(folder).free:
            raise OSError("too little is free")
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return mmap.mmap(file.fileno(), size)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"the images take {size / 1e9:.1f} GB, more than memory_budget's {allowed / 1e9:.1f} "
            f"GB, and {str(folder)!r} cannot keep them ({error}): make room there, set "
            "ADNLIB_CACHE to a folder on another disk, or set memory_budget higher or image_size "
            "lower."
        ) from None


def _bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=object))
