"""The backbones: torchvision's networks without their classifiers, and where attention may stand.

What can be read off a network (channels, smallest image) is read off it, by a pass without numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torchvision.models import get_model

from adnlib.errors import InputError
from adnlib.weights import Weights, load_alexnet, load_torchvision

ALL = "all"
"""Every stage that a network has attention sites for."""


@dataclass(frozen=True)
class Network:
    """What is written down of a network, and cannot be read off it."""

    places: Mapping[str, Mapping[str, str]]
    """By the name of a placement: for each stage, the layer that attention is set behind."""
    last: str
    """The layer that Grad-CAM explains: the last one, but for a pool behind it."""
    cut: Callable[[nn.Module], nn.Sequential]
    """Its convolutional part, which gives (N, C, H, W)."""
    prefix: str
    """What torchvision's names of weights begin with."""
    together: int = 96
    """Views that a GPU embeds at once, where nothing learns: a batch of training. The wide ResNet's
    take 5 GB."""


@dataclass(frozen=True)
class Layout:
    """What is read off a network."""

    channels: Mapping[str, int]
    """Of the layers that attention may be set behind."""
    features: int
    """Channels of the map that is pooled: features of one scale."""
    smallest: int
    """Side of the smallest square image, px."""


def _features(model: nn.Module) -> nn.Sequential:
    return model.get_submodule("features")  # type: ignore[return-value]


def _without_head(model: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(list(model.named_children())[:-2]))  # no pool, no classifier


_RESNET = Network(
    places={"figure": {str(stage): f"layer{stage}" for stage in (1, 2, 3, 4)}},
    last="layer4",
    cut=_without_head,
    prefix="",
)

NETWORKS: dict[str, Network] = {
    "alexnet": Network(
        places={
            "figure": {"1": "2", "2": "5", "5": "11"},
            "relu": {"1": "1", "2": "4", "5": "11"},
            "pool": {"1": "2", "2": "5", "5": "12"},
        },
        last="11",
        cut=_features,
        prefix="features.",
        together=256,  # 4 GB; its kernels are fuller then
    ),
    "resnet18": _RESNET,
    "wide_resnet50_2": _RESNET,
    "efficientnet_b0": Network(
        # The last block of each resolution from 1/4 to 1/32, as a ResNet's stages are.
        places={"figure": {"1": "2", "2": "3", "3": "5", "4": "8"}},
        last="8",
        cut=_features,
        prefix="features.",
    ),
}
"""The backbones by their names in torchvision.models, all trained on ImageNet there.

AlexNet's placements: "figure" is where the paper's figure draws the blocks, behind max-pools 1 and
2 and behind the last ReLU; "relu" is before the pools of stages 1, 2 and 5, where the sizes in that
figure belong; "pool" is behind them. Two independent writings of the paper differ in just this.
"""


def build(name: str) -> nn.Sequential:
    """The network with random weights, drawn from torch's generator, ready for inference."""
    return NETWORKS[name].cut(get_model(name, weights=None)).eval()


def sites(name: str, place: str, stages: str) -> dict[str, str]:
    """The layers that attention is set behind, by stage.

    Args:
        name: one of `NETWORKS`.
        place: the name of a placement.
        stages: "all", or some of the stages, such as "1,5".

    Raises:
        InputError: the network has no such placement or stage.
    """
    places = NETWORKS[name].places
    if place not in places:
        raise InputError(f"attention_place is {place!r}: for {name}, choose {', '.join(places)}.")
    known = places[place]
    chosen = list(known) if stages == ALL else stages.replace(",", " ").split()
    if not chosen or not set(chosen) <= set(known):
        raise InputError(
            f"attention_stages is {stages!r}: for {name}, give {ALL} or some of {','.join(known)}."
        )
    return {stage: layer for stage, layer in known.items() if stage in chosen}


@cache
def layout(name: str) -> Layout:
    """Shapes by a dry pass: on the meta device, weights and images have shapes and no numbers.

    The smallest image is the smallest power of two, px, that still makes a difference: below it
    AlexNet's last pool has nothing to pool, and the others see mostly their own padding.
    """
    with torch.device("meta"):
        network = build(name)
    layers = {layer for place in NETWORKS[name].places.values() for layer in place.values()}
    channels: dict[str, int] = {}
    for layer in layers:

        def note(_: nn.Module, __: object, output: torch.Tensor, layer: str = layer) -> None:
            channels[layer] = output.shape[1]

        network.get_submodule(layer).register_forward_hook(note)

    def output(side: int) -> torch.Size:
        try:
            return network(torch.empty(1, 3, side, side, device="meta")).shape
        except RuntimeError:  # a map became empty
            return torch.Size([1, 0, 0, 0])

    powers = [2**exponent for exponent in range(10)]
    smallest = next(side for side in powers if 0 < output(side)[-1] < output(2 * side)[-1])
    return Layout(channels, output(smallest)[1], smallest)


def find_weights(name: str, source: str) -> Weights:
    """ImageNet's weights of a network, kept in a cache, or those of a file; torchvision's names.

    Raises:
        InputError: they cannot be had (see `weights`).
    """
    if name == "alexnet":  # it has more sources than the others
        return load_alexnet(source)
    with torch.device("meta"):
        network = build(name)
    shapes = {
        NETWORKS[name].prefix + key: tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # batch norm's counter of batches is of no use here
    }
    return load_torchvision(name, shapes, source)


def load_weights(name: str, network: nn.Module, source: str) -> str:
    """Give the network what `find_weights` finds; returns its SHA-256.

    Raises:
        InputError: the weights cannot be had.
    """
    weights = find_weights(name, source)
    prefix = NETWORKS[name].prefix
    found = {key.removeprefix(prefix): tensor for key, tensor in weights.tensors.items()}
    network.load_state_dict({**network.state_dict(), **found})
    return weights.sha256
