"""Saliency maps: where in an image the detector looks.

pytorch-grad-cam does the work. Two things are ours: the network sees an image at several scales, so
every scale gets a network object of its own (with the same weights) that the library's hooks can
tell apart; and maps keep their unit, so that the map of a good image can be laid beside an
anomalous one without being stretched to the same brightness.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam.base_cam import BaseCAM
from torch import nn
from torchvision.transforms.functional import gaussian_blur

from adnlib.coupling import Coupled
from adnlib.errors import InputError
from adnlib.map_kinds import BEFORE, LAST, METHODS, TARGETS, USUAL, Saliency
from adnlib.model import AttentDifferNet
from adnlib.pixels import Pictures
from adnlib.precision import rounding
from adnlib.settings import check_positive, check_whole
from adnlib.views import rotate

_TOGETHER = 16  # views: the flow's weights are read once for all of them
_SIGMA = 3.0  # px, of the gradient maps in DifferNet's published code


def saliency(
    model: AttentDifferNet,
    images: Pictures,
    views: int = 4,
    kind: Saliency = USUAL,
    scale: int | None = None,
) -> torch.Tensor:
    """Maps of images, mean over some of the model's test views, each turned back.

    Grad-CAM's map of one scale is ReLU(sum_k a_k A_k), its equations 1 and 2, where a_k is the
    gradient by the spatial *mean* of feature map k, so that scales of different resolution count
    alike; the map is the mean over scales. The others take the same gradient.

    The gradient map is DifferNet's: gradients by the pixels, turned back and smoothed (Gaussian, 3
    px), their absolute values averaged over views and colours, and squared. The two scales below
    are reached through the pixels that they are sampled from.

    Half precision is left out: it rounds a score, and not where the score comes from.

    Args:
        model: a fitted model.
        images: uint8 (N, 3, S, S).
        views: how many of the model's test angles are used, at most all of them.
        kind: which map.
        scale: of this scale alone, 0 being the largest; None for all.

    Returns:
        float32 (N, h, w) on the CPU, not negative, in units of the target (EigenCAM: of the
        features; gradient map: of the target's squared gradient); h and w are the layer's size at
        the largest scale asked for, or S.

    Raises:
        InputError: the network has no such layer or scale, or no view is asked for.
    """
    asked = {"views": views, "scale": scale or 0}
    check_whole(asked, "views", "scale")
    check_positive(asked, "views")
    if scale is not None and not 0 <= scale < model.settings.scales:
        raise InputError(f"scale is {scale}: give a number from 0 to {model.settings.scales - 1}.")
    scales = range(model.settings.scales) if scale is None else [scale]
    model.eval()
    angles = model.test_angles(len(images))[:, :views]
    group = max(_TOGETHER // angles.shape[1], 1)
    maps = []
    with (
        torch.enable_grad(),
        rounding(model.settings.precision, model.device),
        _DetectorOfViews(model, kind.target, scales) as detector,
        _mapping(detector, kind) as map_,
    ):
        for some in torch.arange(len(images)).split(group):
            turns = angles[some]
            repeated = images[some].to(model.device).repeat_interleave(turns.shape[1], dim=0)
            maps.append(map_(rotate(repeated, turns.flatten()), turns).cpu())
    return torch.cat(maps)


def upsample(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Maps (N, h, w) as (N, size, size), bilinear."""
    return F.interpolate(maps[:, None].float(), size=(size, size), mode="bilinear")[:, 0]


class _DetectorOfViews(nn.Module):
    """A target as one differentiable function of views, with a network of its own for each scale.

    Within `with`, no weight asks for a gradient: only the maps do.
    """

    def __init__(self, model: AttentDifferNet, target: str, scales: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self._target = TARGETS[target].of
        self._scales = scales  # those that a gradient goes through
        network = model.embedding.network
        shared = {id(t): t for t in itertools.chain(network.parameters(), network.buffers())}
        self.networks = nn.ModuleList(
            copy.deepcopy(network, dict(shared)) for _ in range(model.settings.scales)
        )
        for module in self.networks.modules():
            if isinstance(module, (nn.ReLU, nn.SiLU)):
                module.inplace = False  # it would overwrite what the hooks have taken

    def __enter__(self) -> _DetectorOfViews:
        self._learned = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self._learned:
            parameter.requires_grad_(False)
        return self

    def __exit__(self, *_: object) -> None:
        for parameter in self._learned:
            parameter.requires_grad_(True)

    def layers(self, name: str) -> list[nn.Module]:
        """The layer of that name, or "last" or "before", of each scale that is asked for."""
        last = self.model.embedding.last_layer
        if name == BEFORE:
            coupled = isinstance(self.networks[0].get_submodule(last), Coupled)
            name = f"{last}.layer" if coupled else last
        elif name == LAST:
            name = last
        try:
            return [self.networks[scale].get_submodule(name) for scale in self._scales]
        except AttributeError:
            known = [known for known, _ in self.networks[0].named_modules() if known]
            raise InputError(
                f"layer is {name!r}: choose {LAST!r}, {BEFORE!r} or one of {', '.join(known)}."
            ) from None

    def normalized(self, views: torch.Tensor) -> torch.Tensor:
        """Views (N, 3, S, S) that ask for gradients: without, frozen convolutions give none."""
        return self.model.embedding.normalized(views).requires_grad_()

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """The target (N,) of each uint8 view (N, 3, S, S)."""
        return self.of_pixels(self.normalized(views))

    def of_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """The target (N,) of views as `normalized` gives them."""
        embedded = [
            network(scaled if scale in self._scales else scaled.detach()).mean((2, 3))
            for scale, (network, scaled) in enumerate(
                zip(self.networks, self.model.embedding.scaled(pixels), strict=True)
            )
        ]
        return self._target(torch.cat(embedded, 1), self.model.flow)


_Map = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(N, h, w) of N images from their views (N V, 3, S, S) and angles (N, V)."""


@contextmanager
def _mapping(detector: _DetectorOfViews, kind: Saliency) -> Iterator[_Map]:
    base = METHODS[kind.method].cam
    if base is None:
        yield lambda views, angles: _gradient_map(detector, views, angles)
        return
    cam = type("Cam", (_InItsUnit, base), {})(detector, detector.layers(kind.layer))
    try:
        yield lambda views, angles: _activation_map(cam, views, angles)
    finally:
        cam.activations_and_grads.release()


class _InItsUnit(BaseCAM):
    """A class of pytorch-grad-cam whose maps are not stretched to 0..1, image by image and layer by
    layer."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        taken = self.activations_and_grads
        maps = []
        for layer, activations, grads in itertools.zip_longest(
            self.target_layers, taken.activations, taken.gradients
        ):
            activations = activations.double().numpy()  # Grad-CAM++ takes gradients to the third
            if self.uses_gradients:  # by the spatial mean, so that no map's size counts
                grads = grads.double().numpy() * (grads.shape[-2] * grads.shape[-1])
            cam = self.get_cam_image(input_tensor, layer, targets, activations, grads, eigen_smooth)
            maps.append(torch.from_numpy(np.maximum(self.signed(cam), 0)))
        size = max(cam.shape[-1] for cam in maps)
        return [upsample(cam, size) for cam in maps]

    def signed(self, cam):
        """A principal component has no sign: it gets that of its largest magnitude."""
        if self.uses_gradients:
            return cam
        flat = cam.reshape(len(cam), -1)
        return cam * np.sign(flat.max(1) + flat.min(1))[:, None, None]

    def aggregate_multi_layers(self, cam_per_target_layer):
        return torch.stack(cam_per_target_layer).mean(0)


def _activation_map(cam: Any, views: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The mean of an image's views' maps, each turned back.

    A place that a view does not see has added nothing to that view's score: it counts as 0 there.
    Over the views that see it, a corner would glow with the edge of the few that do.
    """
    maps = cam(views, targets=[lambda target: target] * len(views))
    return _turn(maps, -angles.flatten()).unflatten(0, angles.shape).mean(1)


def _gradient_map(
    detector: _DetectorOfViews, views: torch.Tensor, angles: torch.Tensor
) -> torch.Tensor:
    pixels = detector.normalized(views)
    (gradients,) = torch.autograd.grad(detector.of_pixels(pixels).sum(), pixels)
    turned_back = _turn(gradients.flatten(0, 1), -angles.flatten().repeat_interleave(3))
    radius = round(4 * _SIGMA)
    smooth = gaussian_blur(turned_back[None], [2 * radius + 1] * 2, [_SIGMA] * 2)[0]
    return smooth.abs().unflatten(0, (len(angles), -1)).mean(1).square()


def _turn(maps: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn maps (N, h, w) counter-clockwise about their centres, bilinear, 0 outside."""
    turns = torch.deg2rad(angles).float().to(maps.device)
    cos, sin, zero = turns.cos(), turns.sin(), torch.zeros_like(turns)
    matrices = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrices, [len(maps), 1, *maps.shape[1:]], align_corners=False)
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
