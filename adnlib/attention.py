"""Attention blocks that reweigh a feature map, and their controls, behind one factory.

A block maps features (N, C, H, W) to the same shape: it multiplies them by gates. What is known of
each kind stands in `ATTENTION`; how a block gets into a network is `coupling`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from adnlib.errors import InputError
from adnlib.gates import FixedGate, SigmoidGate

_LAMBDA = 1e-4  # of SimAM: its authors' value


class CBAM(nn.Module):
    """Convolutional Block Attention Module: channel attention, then spatial attention.

    Woo et al. 2018 (https://arxiv.org/abs/1807.06521), equations 1 to 3:
    F' = Mc(F) * F with Mc = sigmoid(MLP(avgpool F) + MLP(maxpool F)), and F'' = Ms(F') * F' with
    Ms = sigmoid(conv_kxk([mean over channels; maximum over channels])).
    """

    def __init__(self, channels: int, squeezed: int, kernel: int, opened: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1)
        )
        self.channel_gate = SigmoidGate(self.mlp[-1], opened=opened)
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.spatial_gate = SigmoidGate(self.conv, opened=opened)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = features.mean((2, 3), keepdim=True)
        peak = features.amax((2, 3), keepdim=True)
        features = features * self.channel_gate(self.mlp(mean) + self.mlp(peak))
        pooled = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], 1)
        return features * self.spatial_gate(self.conv(pooled))


class ECA(nn.Module):
    """Efficient Channel Attention: a convolution over neighbouring channels' means.

    Wang et al. 2020 (https://arxiv.org/abs/1910.03151), section 3.2: gates = sigmoid(conv1d_k(mean
    over space)), where k is the odd number nearest to log2(C) / 2 + 1 / 2 (equation 12).
    """

    def __init__(self, channels: int, opened: bool) -> None:
        super().__init__()
        kernel = int(math.log2(channels) / 2 + 0.5) | 1
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.gate = SigmoidGate(self.conv, opened=opened)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        means = features.mean((2, 3))
        return features * self.gate(self.conv(means[:, None])).mT[..., None]


class CoordinateAttention(nn.Module):
    """Gates for each row and each column of each channel, from the means along the other side.

    Hou et al. 2021 (https://arxiv.org/abs/2103.02907), equations 4 to 9: z_h and z_w are the means
    over columns and over rows; f = h_swish(conv([z_h; z_w])); gates are sigmoid(conv_h(f_h)) and
    sigmoid(conv_w(f_w)). The batch norm of its figure 2 is in none of the equations, and is left
    out: its statistics would mix the embedding's scales.
    """

    def __init__(self, channels: int, squeezed: int, opened: bool) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.Hardswish())
        self.conv_h = nn.Conv2d(squeezed, channels, 1)
        self.conv_w = nn.Conv2d(squeezed, channels, 1)
        self.gate_h = SigmoidGate(self.conv_h, opened=opened)
        self.gate_w = SigmoidGate(self.conv_w, opened=opened)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        height, width = features.shape[2:]
        rows, columns = features.mean(3, keepdim=True), features.mean(2, keepdim=True).mT
        rows, columns = self.squeeze(torch.cat([rows, columns], 2)).split([height, width], 2)
        return features * self.gate_h(self.conv_h(rows)) * self.gate_w(self.conv_w(columns.mT))


class SimAM(nn.Module):
    """Gates without parameters, the higher the more a value differs from its channel's mean.

    Yang et al. 2021 (https://proceedings.mlr.press/v139/yang21o.html), equations 5 and 6: gates =
    sigmoid(1 / e) with the least energy e = 4 (v + lambda) / ((x - m)^2 + 2 v + 2 lambda), where m
    and v are a channel's mean and variance over all M places, as in the text. The paper's listing
    divides by M - 1, which a map of one place does not survive.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = SigmoidGate()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        squares = (features - features.mean((2, 3), keepdim=True)).square()
        variance = squares.mean((2, 3), keepdim=True)
        return features * self.gate(squares / (4 * (variance + _LAMBDA)) + 0.5)


class Constant(nn.Module):
    """The control that scales features as gates do, and chooses nothing: all gates one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.gate = FixedGate(number)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.gate(features)


class Residual(nn.Module):
    """A block whose output is added to its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.block(features)


class Kind(NamedTuple):
    """What is known of a kind of attention."""

    title: str
    """In tables and figures."""
    build: Callable[[_Options], nn.Module] | None
    learns: bool = True
    """Whether it has parameters."""
    fixed: bool = False
    """Whether it has gates whose beginning cannot be set."""
    attends: bool = True
    """Whether it weighs features by what they are; controls do not."""


def create_attention(
    name: str,
    channels: int,
    reduction: int,
    kernel: int,
    number: float,
    *,
    residual: bool = False,
    opened: bool = False,
) -> nn.Module | None:
    """One attention block for `channels` channels, or None for "none".

    Args:
        name: one of `ATTENTION`.
        channels: channels of the feature map.
        reduction: squeeze ratio of SE, coordinate attention and CBAM's channel attention.
        kernel: side of CBAM's spatial convolution, odd.
        number: the gate of "constant".
        residual: add the block's output to its input; the identity stays one.
        opened: let the gates begin at almost 1.

    Raises:
        InputError: the name is unknown, the reduction is not in 1..channels, the kernel is even, or
            the gates cannot be opened.
    """
    if name not in ATTENTION:
        raise InputError(f"attention is {name!r}: choose one of {', '.join(ATTENTION)}.")
    if name == "cbam" and kernel % 2 == 0:
        raise InputError(f"attention_kernel is {kernel}: give an odd number, such as 7.")
    if opened and ATTENTION[name].fixed:
        raise InputError(
            f"attention_open is true, but the gates of {name} have no beginning to be set: leave "
            "it false."
        )
    build = ATTENTION[name].build
    if build is None:
        return None
    block = build(_Options(channels, reduction, kernel, opened, number))
    return Residual(block) if residual and name != "identity" else block


@dataclass(frozen=True)
class _Options:
    """What a block may be made of; each kind takes what it needs."""

    channels: int
    reduction: int
    kernel: int
    opened: bool
    number: float

    @property
    def squeezed(self) -> int:
        if not 1 <= self.reduction <= self.channels:
            raise InputError(
                f"attention_reduction is {self.reduction}: give a number from 1 to "
                f"{self.channels}, the channels of the narrowest site."
            )
        return self.channels // self.reduction


def _squeeze_excitation(options: _Options) -> nn.Module:
    """Hu et al. 2018 (https://arxiv.org/abs/1709.01507), equations 2 to 4."""
    block = SqueezeExcitation(options.channels, options.squeezed)
    block.scale_activation = SigmoidGate(block.fc2, opened=options.opened)
    return block


ATTENTION: dict[str, Kind] = {
    "none": Kind("DifferNet", None, learns=False, attends=False),
    "se": Kind("AttentDifferNet (SE)", _squeeze_excitation),
    "cbam": Kind(
        "AttentDifferNet (CBAM)", lambda o: CBAM(o.channels, o.squeezed, o.kernel, o.opened)
    ),
    "eca": Kind("AttentDifferNet (ECA)", lambda o: ECA(o.channels, o.opened)),
    "coordinate": Kind(
        "AttentDifferNet (coordinate)",
        lambda o: CoordinateAttention(o.channels, o.squeezed, o.opened),
    ),
    "simam": Kind("AttentDifferNet (SimAM)", lambda o: SimAM(), learns=False, fixed=True),
    "identity": Kind("DifferNet, identity", lambda o: nn.Identity(), learns=False, attends=False),
    "constant": Kind(
        "DifferNet, constant gate",
        lambda o: Constant(o.number),
        learns=False,
        fixed=True,
        attends=False,
    ),
}
"""Every kind by its name in settings and folders, in the order of tables; the last two are
controls, and a third one is any kind that learns but is never trained."""
