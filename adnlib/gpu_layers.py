"""The same layers in fewer and fuller kernels of an NVIDIA GPU than torch's: AlexNet's, and what
is like them.

- A convolution and the ReLU behind it are one kernel of cuDNN
  (https://docs.nvidia.com/deeplearning/cudnn/), which adds the bias before it rounds.
- A convolution of colours sees a square of pixels as one pixel, where its stride is the square's
  side and the channels then come by the eight, as tensor cores multiply them.
- In fp32, which has no tensor cores, maps are in NCHW order, which cuDNN is faster in, and many
  channels go in two halves.
"""

from __future__ import annotations

from collections import deque

import torch
import torch.nn.functional as F
from torch import nn

from adnlib.coupling import is_heard
from adnlib.fast_layers import in_blocks, is_plain
from adnlib.precision import PRECISIONS

_TOGETHER = 8  # channels
_MANY = 256  # channels, beyond which cuDNN 9 transforms maps in fp32 only if as many come at once


def available(device: torch.device) -> bool:
    """Whether the device has these kernels."""
    on_nvidia = device.type == "cuda" and torch.version.cuda is not None
    return on_nvidia and torch.backends.cudnn.is_available() and torch.backends.cudnn.enabled


def run(layers: nn.Sequential, maps: torch.Tensor, precision: str) -> torch.Tensor:
    """What the layers make of maps (N, C, H, H), where no gradient is asked for.

    Hooks are heard. To be within `precision.computing`.
    """
    waiting = deque(layers)
    while waiting:
        layer = waiting.popleft()
        if not is_plain(layer):
            maps = layer(maps)
            continue
        rectified = bool(waiting) and isinstance(waiting[0], nn.ReLU) and not is_heard(waiting[0])
        if rectified:
            waiting.popleft()
        maps = _convolved(layer, maps, precision, rectified)
    return maps


def _convolved(
    layer: nn.Conv2d, maps: torch.Tensor, precision: str, rectified: bool
) -> torch.Tensor:
    dtype = PRECISIONS[precision] or maps.dtype
    order = torch.contiguous_format if precision == "fp32" else torch.channels_last
    maps, weight = maps.to(dtype), layer.weight
    (down, across), padding = layer.stride, [int(side) for side in layer.padding]
    if layer.in_channels % _TOGETHER and layer.in_channels * down * across % _TOGETHER == 0:
        maps, weight = in_blocks(layer, maps, (down, across))
        down, across, padding = 1, 1, [0, 0]
    maps, weight = (each.to(dtype).contiguous(memory_format=order) for each in (maps, weight))
    bias = None if layer.bias is None else layer.bias.to(dtype)
    if precision == "fp32" and layer.in_channels > _MANY > len(maps):
        halves = zip(maps.chunk(2, 1), weight.chunk(2, 1), (None, bias), strict=True)
        one, other = (F.conv2d(*half, (down, across), padding) for half in halves)
        return F.relu_(one.add_(other)) if rectified else one.add_(other)
    if rectified:
        stride, dilation = (down, across), (1, 1)
        return torch.cudnn_convolution_relu(maps, weight, bias, stride, padding, dilation, 1)
    return F.conv2d(maps, weight, bias, (down, across), padding)
