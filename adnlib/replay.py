"""A GPU's work, recorded once and played again and again.

A step of training is a thousand small kernels, and a CPU takes longer to launch them one by one
than a GPU to run them. A recording launches them together (CUDA graphs,
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, TypeAlias

import torch

Work: TypeAlias = Callable[..., tuple[torch.Tensor, ...]]
"""Of tensors on one device, without a step that waits for it; it may change others in place."""

_ROOM = 2  # times the memory that is taken must be free: a recording keeps what the work needs
_FEW = 8  # calls take about as long as a recording


class Replayed:
    """A work that a GPU with room for it does by a recording.

    A few calls for inputs of some shapes do the work, the next one records it, and from then on it
    is played. On other devices it is the work itself.
    """

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work, self._device = work, device
        self._calls: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self._turn = Lock()  # a recording has one place for its inputs
        # Not the default stream: nodes of a backward pass that are bound to it break a recording.
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self._stream is None:
            return self._work(*inputs)
        with self._turn:
            return self._launched(inputs)

    def _launched(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        shapes = tuple(each.shape for each in inputs)
        self._calls[shapes] += 1
        is_due = self._calls[shapes] > _FEW and shapes not in self._recordings
        if is_due and self._has_room():
            pool = next((each.pool for each in self._recordings.values()), None)
            self._recordings[shapes] = _Recording(self._work, inputs, self._stream, pool)
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            outputs = self._recordings.get(shapes, self._work)(*inputs)
        now.wait_stream(self._stream)
        return outputs

    def _has_room(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self._device)
        return free > _ROOM * torch.cuda.memory_reserved(self._device)


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
