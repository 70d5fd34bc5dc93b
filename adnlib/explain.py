"""Grad-CAM of the anomaly score: where in an image the detector looks.

pytorch-grad-cam does the work. Two things are ours: the network sees an image at several scales, so
every scale gets a network object of its own (with the same weights) that the library's hooks can
tell apart; and maps keep the score's unit, so that the map of a good image can be laid beside an
anomalous one without being stretched to the same brightness.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM
from torch import nn

from adnlib.flow import anomaly_score
from adnlib.model import AttentDifferNet
from adnlib.views import rotate


def gradcam(
    model: AttentDifferNet, images: torch.Tensor, views: int = 4, layer: str | None = None
) -> torch.Tensor:
    """Grad-CAM of the anomaly score, over all scales, mean over some of the model's test views.

    Selvaraju et al. 2017 (https://arxiv.org/abs/1610.02391), equations 1 and 2, with the anomaly
    score of a view as target. The map of a scale is ReLU(sum_k a_k A_k) where a_k is the gradient
    by the spatial mean of feature map k, so that scales of different resolution count alike. The
    maps of rotated views are turned back.

    Args:
        model: a fitted model.
        images: uint8 (N, 3, S, S).
        views: how many of the model's test angles are used.
        layer: of the backbone; the default is its last convolution (AlexNet) or stage, behind its
            attention block (with `attention_place="pool"` before it).

    Returns:
        float32 (N, h, w) on the CPU, not negative, in units of the score; h and w are the layer's
        size at the largest scale.
    """
    angles = model.test_angles(len(images))[:, :views]
    with _DetectorOfViews(model) as detector:
        cam = _ScoreGradCAM(detector, detector.layers(layer or model.embedding.last_layer))
        try:
            maps = [
                _of_image(cam, image.to(model.device), turns)
                for image, turns in zip(images, angles, strict=True)
            ]
        finally:
            cam.activations_and_grads.release()
    return torch.stack(maps)


def upsample(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Maps (N, h, w) as (N, size, size), bilinear."""
    return F.interpolate(maps[:, None].float(), size=(size, size), mode="bilinear")[:, 0]


class _DetectorOfViews(nn.Module):
    """The detector as one differentiable function of views, with a network of its own for each
    scale.

    Within `with`, no weight asks for a gradient: only the maps do.
    """

    def __init__(self, model: AttentDifferNet) -> None:
        super().__init__()
        self.model = model
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
        return [network.get_submodule(name) for network in self.networks]

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Anomaly score (N,) of each uint8 view (N, 3, S, S)."""
        scaled = self.model.embedding.normalized_scales(views)
        embedded = torch.cat(
            [
                # Without an input that asks for gradients, frozen convolutions give none.
                network(pixels.requires_grad_()).mean((2, 3))
                for network, pixels in zip(self.networks, scaled, strict=True)
            ],
            1,
        )
        latent, _ = self.model.flow(embedded)
        return anomaly_score(latent[:, None])


class _ScoreGradCAM(GradCAM):
    """Grad-CAM whose maps are not stretched to 0..1, image by image and layer by layer."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        taken = self.activations_and_grads
        maps = []
        for layer, activations, grads in zip(
            self.target_layers, taken.activations, taken.gradients, strict=True
        ):
            activations, grads = activations.numpy(), grads.numpy()
            pixels = grads.shape[-2] * grads.shape[-1]
            cam = self.get_cam_image(input_tensor, layer, targets, activations, grads)
            maps.append(torch.from_numpy(np.maximum(cam * pixels, 0)))
        size = max(cam.shape[-1] for cam in maps)
        return [upsample(cam, size) for cam in maps]

    def aggregate_multi_layers(self, cam_per_target_layer):
        return torch.stack(cam_per_target_layer).mean(0)


def _of_image(cam: _ScoreGradCAM, image: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """The mean over views of the maps of one image, each turned back."""
    views = rotate(image.expand(len(angles), -1, -1, -1), angles)
    maps = cam(views, targets=[lambda score: score] * len(angles))
    turned_back = _turn(maps, -angles)
    covered = _turn(torch.ones_like(maps), -angles)
    return turned_back.sum(0) / covered.sum(0).clamp(min=1e-6)


def _turn(maps: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn maps (N, h, w) counter-clockwise about their centres, bilinear, 0 outside."""
    turns = torch.deg2rad(angles).float()
    cos, sin, zero = turns.cos(), turns.sin(), torch.zeros_like(turns)
    matrices = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grid = F.affine_grid(matrices, [len(maps), 1, *maps.shape[1:]], align_corners=False)
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0]
