"""A GPU's work, recorded once and played again and again.

A step of training is a thousand small kernels, and a CPU takes longer to launch them one by one
than a GPU to run them. A recording launches them together (CUDA graphs,
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from threading import Lock, get_ident
from typing import Any, TypeAlias

import torch

Work: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]
"""Of tensors on one device, without a step that waits for it; it may change others in place."""
Shapes: TypeAlias = tuple[torch.Size, ...]

_ROOM = 2  # times what the work may need: a recording keeps it, and pieces lie between
_FEW = 8  # calls take about as long as a recording
_RECORDING = Lock()  # a process can make one recording at a time
_IDLE: defaultdict[torch.device, list[Any]] = defaultdict(list)  # streams that none is using


class Replayed:
    """Work that a GPU with enough free memory replays from a recording.

    A few calls for inputs of some shapes do the work, the next one records it, and from then on it
    is played. On other devices it is the work itself.
    """

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work, self._device = work, device
        self._calls: Counter[tuple[int, Shapes]] = Counter()
        self._recordings: dict[Shapes, _Recording | None] = {}
        self._turn = Lock()  # a recording has one place for its inputs
        # Not the default stream: nodes of a backward pass that are bound to it break a recording.
        self._stream: Any = _lend_stream(device, self) if device.type == "cuda" else None

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._stream is None:
            return self._work(*inputs)
        with self._turn, torch.cuda.device(self._device):
            return self._launched(inputs)

    def _launched(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        shapes = tuple(each.shape for each in inputs)
        # Of this thread: in its first ones it loads libraries, which breaks a recording.
        calls = self._calls[get_ident(), shapes] = self._calls[get_ident(), shapes] + 1
        if calls > _FEW and shapes not in self._recordings and self._has_room():
            self._recordings[shapes] = self._recorded(inputs)
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            outputs = (self._recordings.get(shapes) or self._work)(*inputs)
        now.wait_stream(self._stream)
        return outputs

    def _recorded(self, inputs: Sequence[torch.Tensor]) -> _Recording | None:
        """None where it cannot be had, such as beside another program's waiting for the GPU."""
        pool = next((each.pool for each in self._recordings.values() if each), None)
        try:
            with _RECORDING:
                return _Recording(self._work, inputs, self._stream, pool)
        except RuntimeError as error:
            warnings.warn(
                f"a GPU's work could not be recorded, and takes longer: {error}", stacklevel=2
            )
            return None

    def _has_room(self) -> bool:
        """Whether twice what the work needs can be had; it needs no more than the peak so far."""
        free, _ = torch.cuda.mem_get_info(self._device)
        taken = torch.cuda.memory_allocated(self._device)
        kept = torch.cuda.memory_reserved(self._device) - taken  # by torch, for what comes
        return free + kept > _ROOM * (torch.cuda.max_memory_allocated(self._device) - taken)


def _lend_stream(device: torch.device, borrower: Replayed) -> Any:
    """A stream that no other living `Replayed` has: on one stream they would share memory of cuBLAS
    that goes with the first recording that does (https://github.com/pytorch/pytorch/issues/193402).
    """
    idle = _IDLE[device]
    stream = idle.pop() if idle else torch.cuda.Stream(device)
    weakref.finalize(borrower, idle.append, stream)
    return stream


class _Recording:
    """A work on inputs of certain shapes; what it needs in between, all recordings of a pool share.

    That is safe, since only one plays at a time and nothing of it is read behind its end.
    """

    def __init__(
        self, work: Work, inputs: Sequence[torch.Tensor], stream: Any, pool: Any | None
    ) -> None:
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on: what they do on other streams is no part of it.
        with torch.cuda.graph(self._graph, pool, stream, capture_error_mode="thread_local"):
            self._outputs = work(*self._inputs)
        self.pool = self._graph.pool()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return tuple(each.clone() for each in self._outputs)
