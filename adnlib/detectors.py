"""Detectors beside the flow: what scores embeddings without being a flow, to couple attention to.

Both take what `AttentDifferNet.embed` gives, so they stand where the flow stands; neither has a
gradient, so attention keeps its random values under them. They know nothing of images.

Example:
    >>> from adnlib import AttentDifferNet
    >>> tiny = {"weights": "random", "image_size": 64, "scales": 1, "flow_width": 16}
    >>> model = AttentDifferNet(attention="se", test_views=2, **tiny)
    >>> good = torch.randint(256, (10, 3, 64, 64), dtype=torch.uint8)
    >>> embedded = model.embed(good, model.test_angles(len(good)))
    >>> Neighbours().fit(embedded[:7]).score(embedded[7:]).shape
    torch.Size([3])
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from adnlib.errors import InputError


class Gaussian:
    """Squared Mahalanobis distance to the good images' embeddings, per feature.

    Rippel et al. 2020 (https://arxiv.org/abs/2005.14140), section III; the covariance is shrunk
    after Ledoit and Wolf 2004, as there, since there are fewer images than features. Its unit is
    the flow's score: the mean of squares of what is standard normal for good images.
    """

    def fit(self, embeddings: torch.Tensor) -> Gaussian:
        """Learn from good images: (N, V, F), every view an example."""
        self._gaussian = LedoitWolf().fit(_views(embeddings))
        return self

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Anomaly scores (N,) of (N, V, F), mean over views."""
        squares = self._gaussian.mahalanobis(_views(embeddings)) / embeddings.shape[2]
        return torch.from_numpy(squares).view(embeddings.shape[:2]).mean(1)


class Neighbours:
    """Mean Euclidean distance to the nearest of the good images' embeddings.

    Bergman et al. 2020 (https://arxiv.org/abs/2002.10445), section 3, with the distance
    instead of its square.

    Args:
        neighbours: how many of the nearest embeddings are taken.
    """

    def __init__(self, neighbours: int = 2) -> None:
        self.neighbours = neighbours

    def fit(self, embeddings: torch.Tensor) -> Neighbours:
        """Remember good images: (N, V, F), every view an example.

        Raises:
            InputError: there are fewer examples than neighbours.
        """
        examples = _views(embeddings)
        if not 1 <= self.neighbours <= len(examples):
            raise InputError(
                f"neighbours is {self.neighbours}: give a number from 1 to {len(examples)}, the "
                "training embeddings."
            )
        self._memory = NearestNeighbors(n_neighbors=self.neighbours).fit(examples)
        return self

    def score(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Anomaly scores (N,) of (N, V, F), mean over views."""
        distances, _ = self._memory.kneighbors(_views(embeddings))
        return torch.from_numpy(distances.mean(1)).view(embeddings.shape[:2]).mean(1)


def _views(embeddings: torch.Tensor) -> np.ndarray:
    """(N, V, F) as float64 (N * V, F)."""
    return embeddings.flatten(0, 1).double().cpu().numpy()
