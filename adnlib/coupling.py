"""The coupling of attention blocks to a network.

`couple` sets blocks behind named layers of any network without touching its code; `uncouple` takes
them out again. `apart` has a network's layers and blocks one by one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from adnlib.errors import InputError


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


def apart(network: nn.Sequential) -> nn.Sequential:
    """The same modules, with attention behind the layer that it is coupled to, not in one with it.

    Where hooks wait for the two, they stay one.
    """
    layers: list[nn.Module] = []
    for layer in network:
        layers += layer if isinstance(layer, Coupled) and not is_heard(layer) else [layer]
    return nn.Sequential(*layers)


def is_heard(layer: nn.Module) -> bool:
    """Whether hooks wait for the layer itself to be called, or for its gradients."""
    forward = layer._forward_hooks or layer._forward_pre_hooks
    return bool(forward or layer._backward_hooks or layer._backward_pre_hooks)


def learns(module: nn.Module) -> bool:
    """Whether a pass through it now is to give gradients of its weights."""
    return torch.is_grad_enabled() and any(each.requires_grad for each in module.parameters())
