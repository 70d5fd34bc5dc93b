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
from collections.abc import Iterator
from functools import reduce
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from adnlib.coupling import Coupled
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
    """What the layers make of float32 maps (N, C, H, H), where no gradient is asked for.

    Hooks are heard.

    Returns:
        In NCHW order in memory, which transforms take.
    """
    with SWITCHES:
        for layer in apart(layers):
            if _is_transformable(layer) and _saves(layer, maps):
                maps = _transformed(layer, maps)
            elif _has_long_stride(layer):
                maps = _by_columns(layer, maps)
            elif _is_plain_pool(layer) and maps.is_contiguous():
                maps = _by_rows(layer, maps)
            else:
                maps = layer(maps)
        return maps.contiguous()


def apart(layers: nn.Sequential) -> Iterator[nn.Module]:
    """The layers, with attention behind the one that it is coupled to."""
    for layer in layers:
        yield from layer if isinstance(layer, Coupled) and not is_heard(layer) else (layer,)


def is_heard(layer: nn.Module) -> bool:
    """Whether hooks wait for the layer itself to be called."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _is_transformable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(layer, nn.Conv2d) or layer.stride != (1, 1) or layer.dilation != (1, 1):
        return False
    kernel = layer.kernel_size[0]
    return kernel > 1 and layer.padding == (kernel // 2, kernel // 2) and layer.groups == 1


def _saves(layer: nn.Conv2d, maps: torch.Tensor) -> bool:
    side, kernel = maps.shape[-1], layer.kernel_size[0]
    tiles = {tile: math.ceil(side / (tile - kernel + 1)) for tile in _TILES}
    transformed = min((tile * number) ** 2 for tile, number in tiles.items())
    return len(maps) >= _FEWEST and (side * kernel) ** 2 >= _WORTHWHILE * transformed


def _transformed(layer: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    before = _MKLDNN.enabled
    with torch.backends.nnpack.flags(enabled=True):
        try:
            _MKLDNN.enabled = False
            return layer(maps)
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
