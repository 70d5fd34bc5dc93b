"""Where a batch's embeddings come from: of views turned anew, or from a bank of kept ones.

Turned anew is DifferNet's procedure: no view is seen twice. A bank embeds a fixed number of views
of each image once, which makes an epoch cost the flow's share alone; but the flow learns these
views by heart, and in a long training that costs AUROC (`benchmarks/README.md`).
"""

from __future__ import annotations

from typing import Protocol

import torch

from adnlib.backbones import TOGETHER, MultiScaleEmbedding
from adnlib.gates import GateMonitor
from adnlib.pixels import Pictures
from adnlib.views import draw_angles


class Source(Protocol):
    """Gives batches of embeddings."""

    def watch(self) -> GateMonitor:
        """To be entered for an epoch: of the attention that its embeddings went through."""
        ...

    def draw(self, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What a batch of the images at these positions (B,) is made of, on the device."""
        ...

    def embed(self, *drawn: torch.Tensor) -> torch.Tensor:
        """Embeddings (B * views, features) of it, without a step that a GPU has to wait for."""
        ...


class FreshViews:
    """Every batch is of new random views."""

    def __init__(
        self,
        embedding: MultiScaleEmbedding,
        images: Pictures,
        views: int,
        max_angle: float,
        generator: torch.Generator,
    ) -> None:
        self.images, self.generator = images, generator
        self._embedding, self._views, self._max_angle = embedding, views, max_angle
        self._gates = GateMonitor(embedding.network)

    def watch(self) -> GateMonitor:
        self._gates.forget()
        return self._gates

    def draw(self, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images and how they are turned."""
        angles = draw_angles(len(chosen), self._views, self.generator, self._max_angle)
        images = self.images[chosen].to(self._embedding.mean.device, non_blocking=True)
        return images, self._embedding.turns(angles, images.shape[-1])

    def embed(self, *drawn: torch.Tensor) -> torch.Tensor:
        return self._embedding.embed_turned(*drawn).flatten(0, 1)


class BankedViews:
    """Every batch is of some of the views that each image has in the bank, none of them twice."""

    def __init__(self, made: FreshViews, views: int) -> None:
        """Embed once the views that `made` draws of each image; a batch then takes `views` of them.

        The bank lies on the embedding's device.
        """
        self._views, self._generator = views, made.generator
        with torch.no_grad(), made.watch() as self._gates:
            self._bank = torch.cat(
                [
                    made.embed(*made.draw(some)).unflatten(0, (len(some), -1))
                    for some in torch.arange(len(made.images)).split(TOGETHER)
                ]
            )

    def watch(self) -> GateMonitor:
        return self._gates

    def draw(self, chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Rows and columns of the bank."""
        lots = torch.rand(len(chosen), self._bank.shape[1], generator=self._generator)
        drawn = lots.argsort(1)[:, : self._views]
        device = self._bank.device
        return tuple(each.to(device, non_blocking=True) for each in (chosen[:, None], drawn))

    def embed(self, *drawn: torch.Tensor) -> torch.Tensor:
        return self._bank[drawn].flatten(0, 1)
