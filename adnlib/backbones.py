"""The embedding: a frozen network over several scales of a view, with attention coupled in.

uint8 views go in, one vector of pooled features per view comes out. The network of ImageNet
is frozen; the attention blocks may be trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from adnlib import fast_layers, gpu_layers, networks
from adnlib.attention import ATTENTION, create_attention
from adnlib.coupling import Coupled, apart, couple, learns
from adnlib.errors import InputError
from adnlib.precision import PRECISIONS, computing
from adnlib.settings import check_choice, check_positive
from adnlib.views import pixel_table, turns, views_from

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images, by colour, in 0..1."""
TOGETHER = 16
"""Images whose views are embedded in one call, where none of them learns."""
_ON_CPU = 96  # views for which kernels are transformed once
_IN_CACHE = 8  # views


@dataclass(frozen=True)
class EmbeddingSettings:
    """What the flow sees; the defaults are the paper's where it is known.

    The paper gives neither squeeze ratio nor kernel: SENet's and CBAM's own are taken.
    """

    attention: str = "none"
    """"none" (DifferNet); "se" or "cbam" (AttentDifferNet); "eca", "coordinate" or "simam"; or a
    control: "identity" changes nothing, "constant" multiplies by attention_gate."""
    attention_reduction: int = 16
    """Squeeze ratio of SE, of coordinate attention and of CBAM's channel attention."""
    attention_kernel: int = 7
    """Side of CBAM's spatial convolution."""
    attention_residual: bool = False
    """Whether a block's output is added to its input."""
    attention_open: bool = False
    """Whether gates begin at almost 1, so that training begins from plain DifferNet, and not at
    about 0.5 by chance."""
    attention_gate: float = 0.5
    """What the control "constant" multiplies by; 0.5 is the mean gate of an untrained SE. What the
    gates of others are, the history.csv of a run with frozen attention says."""
    attention_place: str = "figure"
    """"figure": behind max-pools 1 and 2 and the last ReLU of AlexNet, or behind each stage of the
    others; "relu" or "pool": before or behind all three of AlexNet's pools."""
    attention_stages: str = "all"
    """The stages that have a block: "all", or some of them, such as "1,5". AlexNet's are 1, 2, 5,
    the others' 1 to 4."""
    backbone: str = "alexnet"
    """"alexnet" (the paper's), "resnet18", "wide_resnet50_2" or "efficientnet_b0"."""
    image_size: int = 448
    """Side of the square that images are resized to, px."""
    scales: int = 3
    """The network sees the image at image_size, image_size / 2, image_size / 4, ... px."""
    weights: str = "imagenet"
    """"imagenet", a weights file, or "random" (seeded; a control, never the paper's)."""
    precision: str = "fp32"
    """Of the backbone's convolutions, in training and scoring: "fp32", "tf32" (NVIDIA GPUs), "fp16"
    or "bf16". What the fast ones cost in AUROC: benchmarks/README.md."""

    def __post_init__(self) -> None:
        check_choice(vars(self), "attention", ATTENTION)
        check_choice(vars(self), "backbone", networks.NETWORKS)
        check_choice(vars(self), "precision", PRECISIONS)
        check_positive(
            vars(self), "scales", "attention_reduction", "attention_kernel", "attention_gate"
        )
        smallest = networks.layout(self.backbone).smallest * 2 ** (self.scales - 1)
        if self.image_size < smallest:
            raise InputError(
                f"image_size is {self.image_size}: {self.backbone} at {self.scales} scales needs "
                f"at least {smallest} px."
            )
        with torch.device("meta"):  # says at once what cannot be built, and draws no numbers
            self.attention_blocks()

    def attention_sites(self) -> dict[str, str]:
        """The layers that attention is set behind, by stage."""
        return networks.sites(self.backbone, self.attention_place, self.attention_stages)

    def attention_blocks(self) -> dict[str, nn.Module]:
        """A new block for each of these layers, none for "none"."""
        channels = networks.layout(self.backbone).channels
        blocks = {
            layer: create_attention(
                self.attention,
                channels[layer],
                self.attention_reduction,
                self.attention_kernel,
                self.attention_gate,
                residual=self.attention_residual,
                opened=self.attention_open,
            )
            for layer in self.attention_sites().values()
        }
        return {layer: block for layer, block in blocks.items() if block}

    @property
    def features(self) -> int:
        """Values of one embedding."""
        return networks.layout(self.backbone).features * self.scales


class MultiScaleEmbedding(nn.Module):
    """DifferNet's feature extractor (section 4.2): pooled feature maps of all scales, side by side.

    Attributes:
        network: the backbone's convolutional part with the attention blocks.
        features: values of one embedding.
        last_layer: of the network, with its attention block: what Grad-CAM explains.
        weights_sha256: hash of the backbone's weights, or "random".
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, settings: EmbeddingSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.features = settings.features
        self.last_layer = networks.NETWORKS[settings.backbone].last
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)  # a GPU's generators stay as they are
            self.network = networks.build(settings.backbone)
            blocks = settings.attention_blocks()
        self.weights_sha256 = "random"
        if settings.weights != "random":
            self.weights_sha256 = networks.load_weights(
                settings.backbone, self.network, settings.weights
            )
        couple(self.network, blocks)
        self.network.requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> MultiScaleEmbedding:
        """As of any module, but the backbone stays as in inference: batch norm keeps ImageNet's
        statistics."""
        super().train(mode)
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, Coupled):
                module.attention.train(mode)
        return self

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        """Embed uint8 views (N, 3, S, S) as float32 (N, features)."""
        return self._of_pixels(self.normalized(views))

    def embed(self, images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Embed every image at its angles.

        Args:
            images: uint8 (N, 3, S, S) on the embedding's device.
            angles: (N, V), degrees.

        Returns:
            float32 (N, V, features).
        """
        return self.embed_turned(images, self.turns(angles, images.shape[-1]))

    def turns(self, angles: torch.Tensor, size: int) -> torch.Tensor:
        """What `embed_turned` takes for angles (N, V) and images of that size, on its device."""
        maps = turns(angles.flatten(), size)
        return maps.unflatten(0, angles.shape).to(self.mean.device, non_blocking=True)

    def embed_turned(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """As `embed`, without a step that a GPU has to wait for.

        An image is standardised once and then turned, black being a colour like any other. Where
        no gradient is asked for, views are made and embedded a few at a time, so that memory does
        not grow with their number.

        Args:
            images: uint8 (N, 3, S, S) on the embedding's device.
            maps: (N, V, 2, 3), what `turns` gives.
        """
        count, views = maps.shape[:2]
        index = torch.arange(count, device=images.device).repeat_interleave(views)
        maps, size = maps.flatten(0, 1), images.shape[-1]
        black = torch.zeros_like(images[:1, :, :1, :1])
        # In the format of the first convolution, which would round each view to it.
        dtype = PRECISIONS[self.settings.precision] or self.mean.dtype
        pixels, black = (self.normalized(each).to(dtype) for each in (images, black))
        table = pixel_table(pixels, black.flatten())
        group = len(maps) if learns(self.network) else self._together(images.device)
        groups = zip(index.split(group), maps.split(group), strict=True)
        embedded = torch.cat([self._of_group(table, some, turned, size) for some, turned in groups])
        return embedded.view(count, views, -1)

    def normalized(self, views: torch.Tensor) -> torch.Tensor:
        """uint8 views (N, 3, S, S) as float32, standardised by ImageNet's mean and deviation."""
        pixels = (views / 255 - self.mean) / self.std
        return pixels.contiguous(memory_format=torch.channels_last)

    def scaled(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Normalized views (N, 3, S, S) at each scale, the largest first: by nearest pixels."""
        size = self.settings.image_size
        return [
            F.interpolate(pixels, size=size // step) if size % step else pixels[..., ::step, ::step]
            for step in (2**scale for scale in range(self.settings.scales))
        ]

    def train_attention(self) -> None:
        """Let the attention blocks learn; they are made frozen, like the backbone."""
        for module in self.network.modules():
            if isinstance(module, Coupled):
                module.attention.requires_grad_(True)

    @property
    def trained(self) -> bool:
        """Whether any part of the embedding learns."""
        return any(parameter.requires_grad for parameter in self.parameters())

    def _of_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed normalized views (N, 3, S, S) as float32 (N, features)."""
        with computing(self.settings.precision, pixels.device):
            return _pooled(self.network(each) for each in self.scaled(pixels))

    def _together(self, device: torch.device) -> int:
        """Views that are embedded at once, where nothing learns."""
        if device.type == "cpu":
            return _ON_CPU
        return networks.NETWORKS[self.settings.backbone].together

    def _of_group(
        self, table: torch.Tensor, chosen: torch.Tensor, maps: torch.Tensor, size: int
    ) -> torch.Tensor:
        """Embed the views that `views_from` makes of these (V, features).

        On a CPU the first layers, whose maps are large, see a few of them at a time. Those that may
        be transformed see the group, for which their kernels are transformed once, and so do those
        that learn; before the first of these none has a gradient.
        """
        device, layers = table.device, apart(self.network)
        start = next((n for n, layer in enumerate(layers) if learns(layer)), len(layers))
        run = then = nn.Module.__call__
        if gpu_layers.available(device):
            run = partial(gpu_layers.run, precision=self.settings.precision)
        transformed = fast_layers.first(layers, device)
        if PRECISIONS[self.settings.precision] is None and transformed < len(layers):
            start, run, then = min(start, transformed), fast_layers.run, fast_layers.run
        head, rest = layers[:start], layers[start:]
        piece = _IN_CACHE if device.type == "cpu" else len(chosen)
        with computing(self.settings.precision, device):
            with torch.no_grad():
                begun = [
                    [run(head, each) for each in self.scaled(views_from(table, some, turned, size))]
                    for some, turned in zip(chosen.split(piece), maps.split(piece), strict=True)
                ]
            return _pooled(then(rest, _joined(of_scale)) for of_scale in zip(*begun, strict=True))


def _joined(parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # which would copy it


def _pooled(maps: Iterable[torch.Tensor]) -> torch.Tensor:
    """Means (N, features) in float32 of the maps (N, C, H, W) of all scales, side by side."""
    return torch.cat([each.mean((2, 3), dtype=torch.float32) for each in maps], 1)
