"""The embedding: AlexNet's convolutions over several scales of a view, with attention coupled in.

uint8 views go in, one vector of pooled features a view comes out. The convolutions are frozen; the
attention blocks may be trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import alexnet

from adnlib.attention import ATTENTION, Coupled, couple, create_attention
from adnlib.errors import InputError
from adnlib.settings import check_choice, check_positive
from adnlib.views import rotate
from adnlib.weights import load_alexnet

ATTENTION_SITES = {"2": 64, "5": 192, "11": 256}
"""Layers of AlexNet's convolutional part (and their channels) that attention is set behind:
max-pool 1, max-pool 2 and the ReLU of the last convolution, where the paper's figure draws the
blocks."""

LAST_SITE = "11"
"""The last convolution with its ReLU and, where there is one, its attention block."""

EMBEDDING_CHANNELS = 256
"""Features of one scale."""

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_CHUNK = {"cpu": 8, "accelerator": 256}  # views
_SMALLEST_SCALE = 64  # px; below it, AlexNet's last max-pool has nothing to pool


@dataclass(frozen=True)
class EmbeddingSettings:
    """What the flow sees; the defaults are the paper's where it is known.

    The paper gives neither squeeze ratio nor kernel: SENet's and CBAM's own are taken.
    """

    attention: str = "none"
    """"none" (DifferNet), "se" or "cbam" (AttentDifferNet)."""
    attention_reduction: int = 16
    """Squeeze ratio of SE and of CBAM's channel attention."""
    attention_kernel: int = 7
    """Side of CBAM's spatial convolution."""
    image_size: int = 448
    """Side of the square that images are resized to, px."""
    scales: int = 3
    """The network sees the image at image_size, image_size / 2, image_size / 4, ... px."""
    weights: str = "imagenet"
    """"imagenet", a weights file, or "random" (seeded; a control, never the paper's)."""

    def __post_init__(self) -> None:
        check_choice(self, "attention", ATTENTION)
        check_positive(self, "scales", "attention_reduction", "attention_kernel")
        smallest = _SMALLEST_SCALE * 2 ** (self.scales - 1)
        if self.image_size < smallest:
            raise InputError(
                f"image_size is {self.image_size}: AlexNet at {self.scales} scales needs at least "
                f"{smallest} px."
            )


class MultiScaleEmbedding(nn.Module):
    """DifferNet's feature extractor (section 4.2): pooled feature maps of all scales, side by side.

    Attributes:
        network: AlexNet's convolutional part with the attention blocks.
        features: values of one embedding, 256 a scale.
        weights_sha256: hash of the convolutions' weights, or "random".
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: EmbeddingSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.features = EMBEDDING_CHANNELS * settings.scales
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = alexnet(weights=None).features
            blocks = {
                site: create_attention(
                    settings.attention,
                    channels,
                    settings.attention_reduction,
                    settings.attention_kernel,
                )
                for site, channels in ATTENTION_SITES.items()
            }
        self.weights_sha256 = self._load_convolutions()
        couple(self.network, {site: block for site, block in blocks.items() if block})
        self.network.requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Embed uint8 views (N, 3, S, S) as float32 (N, features)."""
        scaled = self.normalized_scales(views)
        return torch.cat([self.network(pixels).mean((2, 3)) for pixels in scaled], 1)

    def embed(self, images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Embed every image at its angles.

        Where no gradient is asked for, views are made and embedded a few at a time: on a CPU a
        small chunk stays in the cache, and memory does not grow with the number of images.

        Args:
            images: uint8 (N, 3, S, S) on the embedding's device.
            angles: (N, V), degrees.

        Returns:
            float32 (N, V, features).
        """
        count, views = angles.shape
        index = torch.arange(count, device=images.device).repeat_interleave(views)
        turns = angles.flatten()
        if self.trained and torch.is_grad_enabled():
            embedded = self(rotate(images[index], turns))
        else:
            chunk = _CHUNK["cpu" if images.device.type == "cpu" else "accelerator"]
            with torch.no_grad():
                embedded = torch.cat(
                    [
                        self(rotate(images[some], turn))
                        for some, turn in zip(index.split(chunk), turns.split(chunk), strict=True)
                    ]
                )
        return embedded.view(count, views, -1)

    def normalized_scales(self, views: torch.Tensor) -> list[torch.Tensor]:
        """The views at each scale, float32, standardised by ImageNet's mean and deviation."""
        pixels = ((views / 255 - self.mean) / self.std).contiguous(
            memory_format=torch.channels_last
        )
        return [
            F.interpolate(pixels, size=self.settings.image_size // 2**scale) if scale else pixels
            for scale in range(self.settings.scales)
        ]

    def train_attention(self) -> None:
        """Let the attention blocks learn; they are made frozen, like the convolutions."""
        for module in self.network.modules():
            if isinstance(module, Coupled):
                module.attention.requires_grad_(True)

    @property
    def trained(self) -> bool:
        """Whether any part of the embedding learns."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def _load_convolutions(self) -> str:
        if self.settings.weights == "random":
            return "random"
        weights = load_alexnet(self.settings.weights)
        self.network.load_state_dict(
            {name.removeprefix("features."): tensor for name, tensor in weights.tensors.items()}
        )
        return weights.sha256
