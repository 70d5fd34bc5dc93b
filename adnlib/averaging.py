"""A moving average of weights, for scores that swing less from one step to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """A moving average of a module's weights, in their place while it is entered.

    Polyak averaging evens out the swing between steps. A decay of 0 leaves the weights alone.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        # FrEIA holds its fixed permutations as parameters too.
        self._weights = [p for p in module.parameters() if p.requires_grad] if decay else []
        self._average = [weight.detach().clone() for weight in self._weights]
        self._decay = decay
        self._steps = 0

    def update(self) -> None:
        """Take a step's weights in."""
        self._steps += 1
        # At first less than the decay, so that the initial weights are soon forgotten.
        decay = min(self._decay, self._steps / (self._steps + 10))
        for average, weight in zip(self._average, self._weights, strict=True):
            average.lerp_(weight.detach(), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """As of a module; its tensors are no copies."""
        return {"average": self._average, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As of a module, in place."""
        self._steps = state["steps"]
        for average, kept in zip(self._average, state["average"], strict=True):
            average.copy_(kept)

    def __enter__(self) -> None:
        self.swap()

    def __exit__(self, *_: object) -> None:
        self.swap()

    def swap(self) -> None:
        """Exchange the weights and their average."""
        with torch.no_grad():
            for average, weight in zip(self._average, self._weights, strict=True):
                kept = weight.clone()
                weight.copy_(average)
                average.copy_(kept)
