"""AlexNet's layers on an x86 CPU, by routes faster than torch's own.

The numbers are the same but for their last digits.

- A convolution without stride goes through NNPACK (https://github.com/Maratyszcza/NNPACK), which
  transforms tiles of the maps and the kernels (Fourier's transform, or Winograd's,
  https://arxiv.org/abs/1509.09308), multiplies, and transforms back. torch carries it, and takes it
  where oneDNN is switched off (https://docs.pytorch.org/docs/stable/backends.html).
- A convolution of colours with a long stride sees a stride's columns as channels of one column,
  where these fill a vector, which three channels do not.
- A max-pool of maps in NCHW order, in which NNPACK leaves them, is a maximum over rows, then over
  columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from adnlib.coupling import is_heard, learns
from adnlib.precision import SWITCHES

_TILES = (8, 16)  # sides of NNPACK's tiles; it takes those that give fewer numbers
_WORTHWHILE = 3.5  # times fewer multiplications pay for the transforms' own work (measured)
_FEWEST = 16  # maps; for fewer torch does not take NNPACK, since kernels are transformed each time
_LANES = {"AVX2": 8, "AVX512": 16}  # float32 numbers of a vector, where NNPACK runs
_IN_CACHE = 8  # maps
_MKLDNN: Any = torch.backends.mkldnn  # whose parts mypy does not see


def first(network: nn.Sequential, device: torch.device) -> int:
    """How many layers come before the first that `run` may transform; all, where none is."""
    if device.type == "cpu" and _lanes() and torch.backends.nnpack.is_available():
        for number, layer in enumerate(network):
            if _is_transformable(layer):
                return number
    return len(network)


def _lanes() -> int:
    return _LANES.get(torch.backends.cpu.get_cpu_capability(), 0)


def run(layers: nn.Sequential, maps: torch.Tensor) -> torch.Tensor:
    """What the layers make of float32 maps (N, C, H, H).

    Hooks are heard, and gradients go where torch's own would.

    Returns:
        In NCHW order in memory, which transforms take.
    """
    with SWITCHES:
        for layer in layers:
            if _is_transformable(layer) and _saves(layer, maps):
                maps = _Transformed.apply(maps, layer.weight, layer.bias, layer.padding)
            elif _has_long_stride(layer):
                maps = _by_columns(layer, maps)
            elif _is_plain_pool(layer) and maps.is_contiguous() and not maps.requires_grad:
                maps = _by_rows(layer, maps)
            else:
                maps = layer(maps)
        return maps.contiguous()


def _is_transformable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not is_plain(layer) or layer.stride != (1, 1):
        return False
    kernel = layer.kernel_size[0]
    return kernel > 1 and layer.padding == (kernel // 2, kernel // 2)


def _saves(layer: nn.Conv2d, maps: torch.Tensor) -> bool:
    if learns(layer):
        return False
    side, kernel = maps.shape[-1], layer.kernel_size[0]
    tiles = {tile: math.ceil(side / (tile - kernel + 1)) for tile in _TILES}
    transformed = min((tile * number) ** 2 for tile, number in tiles.items())
    return len(maps) >= _FEWEST and (side * kernel) ** 2 >= _WORTHWHILE * transformed


class _Transformed(torch.autograd.Function):
    """A convolution that does not learn, without stride."""

    @staticmethod
    def forward(
        ctx: Any,
        maps: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        padding: Sequence[int],
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.padding = padding
        return _by_transform(maps, weight, bias, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        turned = weight.flip(2, 3).transpose(0, 1)
        sides = zip(weight.shape[2:], ctx.padding, strict=True)
        padding = [kernel - 1 - before for kernel, before in sides]
        return _by_transform(gradient, turned, None, padding), None, None, None


def _by_transform(
    maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, padding: Sequence[int]
) -> torch.Tensor:
    with SWITCHES, torch.backends.nnpack.flags(enabled=True):
        before = _MKLDNN.enabled
        try:
            _MKLDNN.enabled = False
            return F.conv2d(maps, weight, bias, padding=padding)
        finally:
            _MKLDNN.enabled = before


def _has_long_stride(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not is_plain(layer) or layer.in_channels >= _lanes():
        return False
    stride = layer.stride[1]
    return layer.in_channels * stride >= _lanes() and layer.kernel_size[1] > stride


def is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution that F.conv2d does the whole of, with numbers for padding."""
    if not isinstance(layer, nn.Conv2d) or layer.padding_mode != "zeros" or is_heard(layer):
        return False
    return layer.dilation == (1, 1) and layer.groups == 1 and not isinstance(layer.padding, str)


def _by_columns(layer: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) seen as (N, 3 * stride, H, W / stride), and the kernels likewise."""
    down, across = layer.stride
    maps, weight = in_blocks(layer, maps, (1, across))
    return F.conv2d(maps, weight, layer.bias, (down, 1))


def in_blocks(
    layer: nn.Conv2d, maps: torch.Tensor, block: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded maps and kernels for the same convolution, with blocks of pixels seen as one pixel.

    Args:
        maps: (N, C, H, W).
        block: rows and columns, each 1 or the layer's stride, which it then no longer has.

    Returns:
        (N, C * rows * columns, H / rows, W / columns) and kernels likewise, in channels-last order.
    """
    around_maps, around_kernels = [], []
    for axis in (1, 0):  # F.pad begins with the last
        side, stride, before = block[axis], layer.stride[axis], int(layer.padding[axis])
        size, kernel = maps.shape[2 + axis], layer.kernel_size[axis]
        wide = math.ceil(kernel / side) * side
        seen = (size + 2 * before - kernel) // stride * stride + wide
        around_maps += [before, seen - size - before]
        around_kernels += [0, wide - kernel]
    weight = F.pad(layer.weight, around_kernels)
    return _as_channels(F.pad(maps, around_maps), block), _as_channels(weight, block)


def _as_channels(maps: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    rows, columns = block
    split = maps.permute(0, 2, 3, 1).unflatten(2, (-1, columns)).unflatten(1, (-1, rows))
    return split.transpose(2, 3).flatten(3).contiguous().permute(0, 3, 1, 2)


def _is_plain_pool(layer: nn.Module) -> TypeGuard[nn.MaxPool2d]:
    if not isinstance(layer, nn.MaxPool2d) or is_heard(layer):
        return False
    one_number = isinstance(layer.kernel_size, int) and isinstance(layer.stride, int)
    return one_number and layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode


def _by_rows(layer: nn.MaxPool2d, maps: torch.Tensor) -> torch.Tensor:
    pooled = []
    for some in maps.split(_IN_CACHE):
        for dimension in (2, 3):
            windows = some.unfold(dimension, layer.kernel_size, layer.stride)
            some = reduce(torch.maximum, windows.unbind(-1))
        pooled.append(some)
    return torch.cat(pooled)
