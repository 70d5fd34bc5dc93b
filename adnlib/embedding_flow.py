"""An embedding and the flow that reads it: from images to embeddings, from these to scores.

It knows nothing of files, folders, thresholds or how it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from adnlib.backbones import TOGETHER, MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.flow import anomaly_score, build_flow, negative_log_likelihood
from adnlib.model_settings import ModelSettings, find_device
from adnlib.pixels import Pictures, Pixels
from adnlib.precision import check_precision, plainly, rounding
from adnlib.replay import Replayed
from adnlib.views import draw_angles, even_angles, grid_angles

_TEST_SEED = 1 << 31  # added, it keeps the test angles apart from the training's; torch's CPU
# generator takes the low 32 bits of a seed, so that a greater power of two would change nothing
_ON_DEVICE = 512  # images whose embeddings wait there for the others: 0.1 GB of 64 views each
_IN_FLOW = 1024  # views that go through the flow together: fewer read its weights more often


class EmbeddingFlow(nn.Module):
    """A new pair by the settings, on their device.

    Raises:
        InputError: the device lacks the precision, or the weights cannot be had.
    """

    @plainly()
    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        device = find_device(settings.device)
        check_precision(settings.precision, device)
        self.embedding = MultiScaleEmbedding(settings, settings.seed)
        self.flow = build_flow(self.embedding.features, settings, settings.seed)
        self.to(device)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Move it, as all of torch's own methods do that also change the type of numbers."""
        if fn(torch.empty(0, dtype=torch.float32, device=self.device)).dtype != torch.float32:
            raise InputError(
                "a model's weights are float32: for faster convolutions make it with "
                "precision='fp16' or 'bf16'."
            )
        return super()._apply(fn, recurse)

    @property
    def device(self) -> torch.device:
        """Where the model is, wherever it was made."""
        return self.embedding.mean.device

    def test_angles(self, images: int) -> torch.Tensor:
        """The angles (images, test_views) of test views, the same at every call."""
        views, max_angle = self.settings.test_views, self.settings.max_angle
        if self.settings.test_angles == "grid":
            return grid_angles(images, views)
        if self.settings.test_angles == "even":
            return even_angles(images, views, max_angle)
        generator = torch.Generator().manual_seed(_TEST_SEED + self.settings.seed)
        return draw_angles(images, views, generator, max_angle)

    @torch.no_grad()
    def embed(self, images: Pictures, angles: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, V, features) of uint8 (N, 3, S, S) at angles (N, V), on the CPU."""
        self.eval()
        near = images.near(self.device) if isinstance(images, Pixels) else images
        return torch.cat(
            [
                torch.cat(
                    [self._embedded(near, angles, some) for some in part.split(TOGETHER)]
                ).cpu()
                for part in torch.arange(len(near)).split(_ON_DEVICE)
            ]
        )

    @torch.no_grad()
    def score_embeddings(self, embedded: torch.Tensor) -> torch.Tensor:
        """Anomaly scores (N,) of embeddings (N, V, features)."""
        scores = [
            anomaly_score(latent.view(some.shape))
            for some, (latent, _) in self._through_flow(embedded)
        ]
        return torch.cat(scores).cpu()

    @torch.no_grad()
    def loss_embeddings(self, embedded: torch.Tensor) -> float:
        """Mean negative log-likelihood of embeddings (N, V, features), nats per feature."""
        losses = [
            negative_log_likelihood(*passed) * len(some)
            for some, passed in self._through_flow(embedded)
        ]
        return (torch.stack(losses).sum() / len(embedded)).item()

    @plainly()
    def scorer(self) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """What `score` does with each image, for a stream of them.

        It takes a uint8 tensor (3, S, S) of the model's image_size, and gives its score (1,) and
        embeddings (1, V, features), on the CPU. The model stays as it is while it is in use, and on
        a GPU its hooks hear the first images alone. Threads may share it.
        """
        self.eval()
        maps = self.embedding.turns(self.test_angles(1), self.settings.image_size)

        def look(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            embedded = self.embedding.embed_turned(image, maps)
            latent, _ = self._passed(embedded)
            return anomaly_score(latent.view(embedded.shape)), embedded

        replayed = Replayed(look, self.device)

        @plainly()
        @torch.no_grad()
        def looked(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            # One by one: in a larger matrix product the same image has other last digits.
            score, embedded = replayed(image[None].to(self.device, non_blocking=True))
            return score.cpu(), embedded.cpu()

        return looked

    def _embedded(self, images: Pictures, angles: torch.Tensor, some: torch.Tensor) -> torch.Tensor:
        """Of the images at these positions, on the device."""
        moved = images[some].to(self.device, non_blocking=True)
        return self.embedding.embed(moved, angles[some])

    def _through_flow(
        self, embedded: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]]:
        """Some of the embeddings (N, V, features), and the flow's output for their views."""
        self.eval()
        for some in embedded.split(max(1, _IN_FLOW // embedded.shape[1])):
            yield some, self._passed(some.to(self.device))

    def _passed(self, embedded: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The flow's output for each view of embeddings (N, V, features) on its device."""
        with rounding(self.settings.precision, self.device):
            return self.flow(embedded.flatten(0, 1))
