"""Which saliency map is made: its method, its target, and the layer that it is made at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pytorch_grad_cam import EigenCAM, GradCAM, GradCAMPlusPlus, LayerCAM
from torch import nn

from adnlib.flow import anomaly_score, negative_log_likelihood
from adnlib.settings import check_choice

LAST, BEFORE = "last", "before"


class Method(NamedTuple):
    """A way to make a map."""

    title: str
    cam: type | None
    """pytorch-grad-cam's class, or None for the gradient by the pixels."""


class Target(NamedTuple):
    """What a map explains."""

    title: str
    of: Callable[[torch.Tensor, nn.Module], torch.Tensor]
    """(N,) from embeddings (N, features) and the flow."""


METHODS = {
    "gradcam": Method("Grad-CAM", GradCAM),
    "gradcam++": Method("Grad-CAM++", GradCAMPlusPlus),
    "layercam": Method("LayerCAM", LayerCAM),
    "eigencam": Method("EigenCAM", EigenCAM),
    "gradient": Method("gradient map", None),
}
"""Grad-CAM (https://arxiv.org/abs/1610.02391), Grad-CAM++ (https://arxiv.org/abs/1710.11063),
LayerCAM (https://doi.org/10.1109/TIP.2021.3089943), EigenCAM (https://arxiv.org/abs/2008.00299; the
first principal component of a layer, which has no target), and DifferNet's own gradient maps
(section 3.5 of https://arxiv.org/abs/2008.12577), with "loss" as their target there."""
TARGETS = {
    "score": Target("the anomaly score", lambda e, flow: anomaly_score(flow(e)[0][:, None])),
    "loss": Target(
        "the negative log-likelihood",
        lambda e, flow: torch.stack(
            [
                negative_log_likelihood(*one)
                for one in zip(*(o.split(1) for o in flow(e)), strict=True)
            ]
        ),
    ),
    "energy": Target("the embedding's energy", lambda e, flow: e.square().mean(1)),
}
"""The "energy", the mean square of the features, asks the backbone alone."""


@dataclass(frozen=True)
class Saliency:
    """Which map is made."""

    method: str = "gradcam"
    """One of `METHODS`."""
    target: str = "score"
    """One of `TARGETS`."""
    layer: str = LAST
    """Of the backbone: "last", its last convolution (AlexNet) or stage, behind its attention block
    (with attention_place="pool" before it); "before", the same before the block; or one of
    `model.embedding.network.named_modules()`. The gradient map has none."""

    def __post_init__(self) -> None:
        check_choice(vars(self), "method", METHODS)
        check_choice(vars(self), "target", TARGETS)

    @property
    def name(self) -> str:
        """For a file's name."""
        return f"{self.method}_{self.target}_{self.layer}"

    @property
    def title(self) -> str:
        """For people."""
        words = METHODS[self.method].title
        words += "" if self.method == "eigencam" else f" of {TARGETS[self.target].title}"
        where = {LAST: "", BEFORE: ", before attention"}.get(self.layer, f", layer {self.layer}")
        return words + where * (self.method != "gradient")


USUAL = Saliency()
"""What runs keep maps of, and figures show where nothing else is asked for."""
