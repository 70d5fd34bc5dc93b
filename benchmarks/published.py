"""DifferNet's published procedure, written anew: what the library's speed is measured against.

It keeps what costs the published code (https://github.com/marco-rudolph/differnet, revision
9bdf026) its time: an image is decoded for every batch that it is in, and resized, turned and
normalised by PIL for every one of its views, one after the other, in the main process and without
workers; gradients run through AlexNet's convolutions, which no optimizer updates; the flow computes
its subnets a second time for the log-determinant; Adam is not fused; a test batch is one image. All
in fp32. The mathematics is the library's own, and so are the order of the images and the angles:
the same networks give the same scores. Attention, which the published code has not, learns with the
flow.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import functional as transforms

from adnlib import AttentDifferNet
from adnlib.backbones import MEAN, STD
from adnlib.coupling import Coupled
from adnlib.flow import anomaly_score, negative_log_likelihood
from adnlib.views import draw_angles


class ManyViews(Dataset):
    """(V, 3, S, S) of each image, turned by its angles (V,)."""

    def __init__(self, paths: Sequence[Path], size: int, angles: torch.Tensor) -> None:
        self.paths, self.size, self.angles = paths, size, angles

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = default_loader(self.paths[index])
        return torch.stack([self._view(image, angle) for angle in self.angles[index].tolist()])

    def _view(self, image: Image, angle: float) -> torch.Tensor:
        turned = transforms.rotate(transforms.resize(image, [self.size, self.size]), angle)
        return transforms.normalize(transforms.to_tensor(turned), MEAN, STD)


class PublishedDetector(nn.Module):
    """AlexNet at three scales and the flow, with the weights of a model of ours."""

    def __init__(self, model: AttentDifferNet) -> None:
        super().__init__()
        self.settings, self.device = model.settings, model.device
        self.test_angles = model.test_angles
        self.generator = torch.Generator().manual_seed(model.settings.seed)
        network = copy.deepcopy(model.embedding.network).requires_grad_(True)
        self.features = network.to(memory_format=torch.contiguous_format)
        self.flow = copy.deepcopy(model.flow)

    def forward(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent vectors and log-determinants of normalised views (N, 3, S, S)."""
        size = self.settings.image_size
        scaled = [
            F.interpolate(views, size=size // 2**scale) if scale else views
            for scale in range(self.settings.scales)
        ]
        embedded = torch.cat([self.features(pixels).mean((2, 3)) for pixels in scaled], 1)
        return self.flow(embedded)[0], self.flow(embedded)[1]

    def train_epoch(self, paths: Sequence[Path], optimizer: torch.optim.Optimizer) -> None:
        """Show every image once, at some views."""
        self.train()
        size, views = self.settings.batch_images, self.settings.train_views
        order = torch.randperm(len(paths), generator=self.generator)
        drawn = [
            draw_angles(len(some), views, self.generator, self.settings.max_angle)
            for some in order.split(size)
        ]
        shuffled = [paths[index] for index in order]
        data = ManyViews(shuffled, self.settings.image_size, torch.cat(drawn))
        for batch in DataLoader(data, size, pin_memory=self.device.type == "cuda"):
            optimizer.zero_grad()
            loss = negative_log_likelihood(*self(batch.to(self.device).flatten(0, 1)))
            loss.item()  # it is logged at every step
            loss.backward()
            optimizer.step()

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam of the flow's weights, and of the attention blocks'."""
        settings = self.settings
        coupled = [each for each in self.features.modules() if isinstance(each, Coupled)]
        parts = [self.flow, *(each.attention for each in coupled)]
        return torch.optim.Adam(
            [weight for part in parts for weight in part.parameters()],
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_eps,
            weight_decay=settings.weight_decay,
        )

    @torch.no_grad()
    def score(self, paths: Sequence[Path]) -> torch.Tensor:
        """Anomaly scores (N,)."""
        self.eval()
        data = ManyViews(paths, self.settings.image_size, self.test_angles(len(paths)))
        scores = []
        for batch in DataLoader(data, 1, pin_memory=self.device.type == "cuda"):
            latent, log_det = self(batch.to(self.device).flatten(0, 1))
            negative_log_likelihood(latent, log_det).item()
            scores.append(anomaly_score(latent[None]).cpu())
        return torch.cat(scores)
