"""What attention blocks multiply features by, and the watch over it in a network."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from adnlib.coupling import Coupled

OPEN = 5.0
"""What open gates add to the sigmoid's input: they begin at 0.993, with a slope of 0.0066 to learn
by."""


class Gate(nn.Module):
    """Gives what a block multiplies features by; `GateMonitor` hears every one."""


class SigmoidGate(Gate):
    """A sigmoid, with a fixed number added to its input where gates begin open.

    The layers before an open gate begin at zero, since ImageNet's features are so large that random
    weights alone shut many of CBAM's gates, whatever is added. Unlike a bias that begins high,
    which only some of the modules have, the number is the same for all of them, adds no parameter
    to their published counts, and weight decay does not draw it back.
    """

    def __init__(self, *layers: nn.Module, opened: bool = False) -> None:
        """`layers` are those whose outputs it gets."""
        super().__init__()
        self.offset = OPEN if opened else 0.0
        if opened:
            for layer in layers:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits + self.offset if self.offset else logits)


class FixedGate(Gate):
    """One number, whatever the features are."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.new_full((1,), self.number)


class Gates(NamedTuple):
    """What gates were, NaN where there were none."""

    mean: float
    std: float


class GateMonitor:
    """Mean and standard deviation of the gates of all attention blocks, while it is open.

    Shrinking features lower the flow's loss without making it a better detector, so training
    reports what the gates do.
    """

    def __init__(self, network: nn.Module) -> None:
        self._heard = [
            (site, module)
            for site, block in network.named_modules()
            if isinstance(block, Coupled)
            for module in block.attention.modules()
            if isinstance(module, Gate)
        ]
        self._moments: dict[str, torch.Tensor] = {}

    def forget(self) -> None:
        """Forget what was seen so far; in place, since a recorded step goes on adding to it."""
        for moments in self._moments.values():
            moments.zero_()

    def __enter__(self) -> GateMonitor:
        self._handles = [
            module.register_forward_hook(partial(self._record, site))
            for site, module in self._heard
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def mean_and_std(self) -> Gates:
        """Over all gates seen."""
        if not self._moments:
            return Gates(math.nan, math.nan)
        return _gates(torch.stack(list(self._moments.values())).sum(0))

    def by_site(self) -> dict[str, Gates]:
        """Over the gates seen behind each layer, by its name."""
        return {site: _gates(moments) for site, moments in self._moments.items()}

    def _record(self, site: str, _: nn.Module, __: object, gates: torch.Tensor) -> None:
        gates = gates.detach().double()
        count = gates.new_full((), gates.numel())
        moments = torch.stack([count, gates.sum(), gates.square().sum()])
        self._moments.setdefault(site, torch.zeros_like(moments)).add_(moments)


def _gates(moments: torch.Tensor) -> Gates:
    """From number, sum and sum of squares."""
    count, total, squares = moments.tolist()
    if not count:
        return Gates(math.nan, math.nan)
    mean = total / count
    return Gates(mean, math.sqrt(max(squares / count - mean**2, 0.0)))
