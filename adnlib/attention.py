"""Attention blocks that reweigh a feature map, behind one factory, and their coupling to a network.

A block maps (N, C, H, W) to the same shape. `couple` sets blocks behind named layers of any network
without touching its code; `uncouple` takes them out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from adnlib.errors import InputError


class CBAM(nn.Module):
    """Convolutional Block Attention Module: channel attention, then spatial attention.

    Woo et al. 2018 (https://arxiv.org/abs/1807.06521), equations 1 to 3:
    F' = Mc(F) * F with Mc = sigmoid(MLP(avgpool F) + MLP(maxpool F)), and F'' = Ms(F') * F' with
    Ms = sigmoid(conv_kxk([mean over channels; maximum over channels])).
    """

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7) -> None:
        super().__init__()
        squeezed = _squeezed(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1)
        )
        self.channel_gate = nn.Sigmoid()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.spatial_gate = nn.Sigmoid()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = features.mean((2, 3), keepdim=True)
        peak = features.amax((2, 3), keepdim=True)
        features = features * self.channel_gate(self.mlp(mean) + self.mlp(peak))
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * self.spatial_gate(self.conv(pooled))


def create_attention(
    name: str, channels: int, reduction: int = 16, kernel: int = 7
) -> nn.Module | None:
    """One attention block for `channels` channels, or None for "none".

    Args:
        name: one of `ATTENTION`.
        channels: channels of the feature map.
        reduction: squeeze ratio of SE and of CBAM's channel attention (16 in both papers).
        kernel: side of CBAM's spatial convolution (7 in its paper), odd.

    Raises:
        InputError: the name is unknown, the reduction is not in 1..channels, or the kernel is even.
    """
    if name not in ATTENTION:
        raise InputError(f"attention is {name!r}: choose one of {', '.join(ATTENTION)}.")
    if name == "cbam" and kernel % 2 == 0:
        raise InputError(f"attention_kernel is {kernel}: give an odd number, such as 7.")
    build = ATTENTION[name]
    return build(channels, reduction, kernel) if build else None


class Coupled(nn.Sequential):
    """A layer of the network with an attention block behind it."""

    def __init__(self, layer: nn.Module, attention: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.attention = attention


def couple(network: nn.Module, blocks: Mapping[str, nn.Module]) -> None:
    """Set each attention block behind the layer of that name, in place.

    Raises:
        InputError: the network has no layer of that name.
    """
    for site, block in blocks.items():
        try:
            layer = network.get_submodule(site)
        except AttributeError:
            raise InputError(
                f"attention site {site!r} is no layer of {type(network).__name__}: "
                "choose from network.named_modules()."
            ) from None
        network.set_submodule(site, Coupled(layer, block))


def uncouple(network: nn.Module) -> None:
    """Take out what `couple` put in, in place."""
    for site, module in list(network.named_modules()):
        if isinstance(module, Coupled):
            network.set_submodule(site, module.layer)


class GateMonitor:
    """Mean and standard deviation of the gates of all attention blocks, while it is open.

    The gates are the outputs of the blocks' sigmoids. Shrinking features lower the flow's loss
    without making it a better detector, so training reports what the gates do.
    """

    def __init__(self, network: nn.Module) -> None:
        self._sigmoids = [
            module
            for block in network.modules()
            if isinstance(block, Coupled)
            for module in block.attention.modules()
            if isinstance(module, nn.Sigmoid)
        ]
        self._moments: torch.Tensor | float = 0.0

    def __enter__(self) -> GateMonitor:
        self._handles = [s.register_forward_hook(self._record) for s in self._sigmoids]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def mean_and_std(self) -> tuple[float, float]:
        """Over all gates seen, NaN where there is no attention."""
        if isinstance(self._moments, float):
            return math.nan, math.nan
        count, total, squares = self._moments.tolist()
        mean = total / count
        return mean, math.sqrt(max(squares / count - mean**2, 0.0))

    def _record(self, _: nn.Module, __: object, gates: torch.Tensor) -> None:
        gates = gates.detach().double()
        count = torch.tensor(gates.numel(), dtype=torch.float64, device=gates.device)
        self._moments = self._moments + torch.stack([count, gates.sum(), gates.square().sum()])


def _squeeze_excitation(channels: int, reduction: int, kernel: int) -> nn.Module:
    """Hu et al. 2018 (https://arxiv.org/abs/1709.01507), equations 2 to 4."""
    return SqueezeExcitation(channels, _squeezed(channels, reduction))


def _squeezed(channels: int, reduction: int) -> int:
    if not 1 <= reduction <= channels:
        raise InputError(
            f"attention_reduction is {reduction}: give a number from 1 to {channels}, "
            "the channels of the narrowest site."
        )
    return channels // reduction


ATTENTION: dict[str, Callable[[int, int, int], nn.Module] | None] = {
    "none": None,
    "se": _squeeze_excitation,
    "cbam": CBAM,
}
"""Every block by its name in settings, tables and folders."""
