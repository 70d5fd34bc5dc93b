"""Convolutions by transform, which a CPU with AVX2 alone does sooner than direct ones.

torch carries NNPACK (https://github.com/Maratyszcza/NNPACK), which transforms tiles of the maps and
the kernels (Fourier's transform, or Winograd's, https://arxiv.org/abs/1509.09308), multiplies, and
transforms back; torch takes it for a convolution without stride where oneDNN is switched off
(https://docs.pytorch.org/docs/stable/backends.html). Where a CPU has AVX-512, oneDNN's direct way
uses it and NNPACK does not: there the direct way stays.
"""

from __future__ import annotations

import math
from typing import Any, TypeGuard

import torch
from torch import nn

_TILES = (8, 16)  # sides of NNPACK's tiles; it takes those that give fewer numbers
_SAVED = 3.5  # times fewer multiplications, from which on the transforms' own work pays (measured)
_FEWEST = 16  # maps; for fewer torch does not take NNPACK, since kernels are transformed each time
_MKLDNN: Any = torch.backends.mkldnn  # whose parts mypy does not see


def first(network: nn.Sequential, device: torch.device) -> int:
    """How many layers come before the first that `run` may transform; all, where none is."""
    only_avx2 = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    if only_avx2 and torch.backends.nnpack.is_available():
        for number, layer in enumerate(network):
            if _is_transformable(layer):
                return number
    return len(network)


def run(layers: nn.Sequential, maps: torch.Tensor) -> torch.Tensor:
    """What the layers make of float32 maps (N, C, H, H), where no gradient is asked for.

    Convolutions are transformed where the shapes say that it saves time.
    """
    before = _MKLDNN.enabled
    with torch.backends.nnpack.flags(enabled=True):
        for layer in layers:
            try:
                _MKLDNN.enabled = before and not (_is_transformable(layer) and _saves(layer, maps))
                maps = layer(maps)
            finally:
                _MKLDNN.enabled = before
    return maps


def _is_transformable(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    if not isinstance(layer, nn.Conv2d) or layer.stride != (1, 1) or layer.dilation != (1, 1):
        return False
    kernel = layer.kernel_size[0]
    return kernel > 1 and layer.padding == (kernel // 2, kernel // 2) and layer.groups == 1


def _saves(layer: nn.Conv2d, maps: torch.Tensor) -> bool:
    side, kernel = maps.shape[-1], layer.kernel_size[0]
    tiles = {tile: math.ceil(side / (tile - kernel + 1)) for tile in _TILES}
    transformed = min((tile * number) ** 2 for tile, number in tiles.items())
    return len(maps) >= _FEWEST and (side * kernel) ** 2 >= _SAVED * transformed
