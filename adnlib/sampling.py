"""Where a batch's embeddings come from: of views turned anew, or from a bank of kept ones.

Turned anew is DifferNet's procedure: no view is seen twice. A bank embeds a fixed number of views
of each image once, which makes an epoch cost the flow's share alone; but the flow learns these
views by heart, and in a long training that costs AUROC (`benchmarks/README.md`).
"""

from __future__ import annotations

from typing import Protocol

import torch

from adnlib.backbones import MultiScaleEmbedding
from adnlib.gates import GateMonitor
from adnlib.pixels import Pictures
from adnlib.views import draw_angles

_TOGETHER = 16  # images, of which a bank is made at a time


class Source(Protocol):
    """Gives batches of embeddings."""

    @property
    def gates(self) -> GateMonitor:
        """To be entered for each epoch: of the attention that these embeddings went through."""
        ...

    def batch(self, chosen: torch.Tensor) -> torch.Tensor:
        """Embeddings (B * views, features) of the images at these positions (B,)."""
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

    @property
    def gates(self) -> GateMonitor:
        """A new one at each look."""
        return GateMonitor(self._embedding.network)

    def batch(self, chosen: torch.Tensor) -> torch.Tensor:
        angles = draw_angles(len(chosen), self._views, self.generator, self._max_angle)
        images = self.images[chosen].to(self._embedding.mean.device, non_blocking=True)
        return self._embedding.embed(images, angles).flatten(0, 1)


class BankedViews:
    """Every batch is of some of the views that each image has in the bank, none of them twice."""

    def __init__(self, made: FreshViews, views: int) -> None:
        """Embed the views of each image that a batch of `made` would be of; draw so many of them.

        The bank lies on the embedding's device.
        """
        self._views, self._generator = views, made.generator
        self.gates = made.gates
        with torch.no_grad(), self.gates:
            self._bank = torch.cat(
                [
                    made.batch(some).unflatten(0, (len(some), -1))
                    for some in torch.arange(len(made.images)).split(_TOGETHER)
                ]
            )

    def batch(self, chosen: torch.Tensor) -> torch.Tensor:
        lots = torch.rand(len(chosen), self._bank.shape[1], generator=self._generator)
        drawn = lots.argsort(1)[:, : self._views]
        device = self._bank.device
        rows, columns = (each.to(device, non_blocking=True) for each in (chosen, drawn))
        return self._bank[rows[:, None], columns].flatten(0, 1)
