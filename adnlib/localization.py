"""How well maps lie on what they should lie on: a defect by its mask, the object by its own.

Pure functions of arrays; they know neither runs nor files. Without the same numbers of a map that
has seen nothing (`random_maps`, `centre_prior`), none of them means anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pyaupro import PerRegionOverlap, auc_compute
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from adnlib.evaluation import Array

SIZE = 256  # px; maps and masks are compared at this size
FPR_LIMIT = 0.3
_LEVELS, _DECADES = 2**15, 20
_COARSE = 2**9
_CENTRE = 0.25  # of the side: deviation of the centre prior

Bools = NDArray[np.bool_]
Levels = NDArray[np.int16]
Maps = NDArray[np.float32]


def energy_inside(maps: Maps, masks: Bools) -> Array:
    """The share of each map's sum that lies inside its mask, (N,) from 0 to 1.

    Wang et al. 2020, section 4.3 (https://arxiv.org/abs/1910.01279). A map that is 0 everywhere has
    none of it inside.

    Args:
        maps: (N, S, S), not negative.
        masks: (N, S, S).
    """
    total = maps.sum((1, 2))
    return np.where(masks, maps, 0).sum((1, 2)) / np.where(total > 0, total, 1)


def pointing(maps: Maps, masks: Bools) -> Array:
    """1 where a map's highest pixel lies inside its mask, else 0, (N,).

    The pointing game of Zhang et al. 2018 (https://arxiv.org/abs/1608.00507), without its margin of
    15 px.

    Args:
        maps: (N, S, S).
        masks: (N, S, S).
    """
    highest = maps.reshape(len(maps), -1).argmax(1)
    return masks.reshape(len(masks), -1)[np.arange(len(masks)), highest].astype(float)


def as_levels(maps: Maps) -> Levels:
    """Maps in whole numbers of the same order, of which a sort and a count are many times faster.

    Equal steps of the logarithm, 0.14 % each, over the 20 decades below the highest value: maps of
    a flow's score differ by ten and more from image to image.

    Args:
        maps: (N, S, S), not negative.

    Returns:
        (N, S, S), 0 to 2^15 - 1.
    """
    highest = max(float(maps.max()), 1e-30)  # all maps may be 0
    decades = np.log10(np.maximum(maps / np.float32(highest), np.float32(10.0**-_DECADES)))
    return ((1 + decades / _DECADES) * (_LEVELS - 1)).astype(np.int16)


def pixel_auroc(levels: Levels, masks: Bools) -> float:
    """AUROC of pixels, those inside masks being the anomalous ones, all images together.

    Args:
        levels: (N, S, S), good images among them.
        masks: (N, S, S), all False in a good image.
    """
    counts = [np.bincount(levels[where], minlength=_LEVELS) for where in (~masks, masks)]
    truth = np.repeat([0, 1], _LEVELS)
    values = np.tile(np.arange(_LEVELS), 2)
    return float(roc_auc_score(truth, values, sample_weight=np.concatenate(counts)))


def per_region_overlap(levels: Levels, masks: Bools) -> float:
    """Area under the curve of PRO against the false positive rate of pixels up to 0.3, over 0.3.

    Bergmann et al. 2021, section 5.3 (https://doi.org/10.1007/s11263-020-01400-4): the mean over
    connected regions of the masks of the share of a region that lies above a threshold.

    Args:
        levels: (N, S, S), good images among them.
        masks: (N, S, S), all False in a good image.
    """
    metric = PerRegionOverlap()
    metric.update(torch.from_numpy(levels), torch.from_numpy(masks))
    return float(auc_compute(*metric.compute(), limit=FPR_LIMIT, reorder=True))


@dataclass(frozen=True)
class LevelCounts:
    """How each image's pixels spread over coarse levels: enough to draw images again quickly.

    The levels hold about as many pixels each, of all images together.
    """

    outside: Array
    """(N, levels) pixels outside the mask."""
    inside: Array
    """(N, levels) pixels inside it."""
    overlap: Array
    """(N, levels) sum over the mask's regions of the share of a region's pixels."""
    regions: Array
    """(N,) how many there are."""

    @classmethod
    def of(cls, levels: Levels, masks: Bools) -> LevelCounts:
        """Count maps (N, S, S) and masks (N, S, S)."""
        below = np.bincount(levels.ravel(), minlength=_LEVELS).cumsum() - 1
        coarse = (below * _COARSE // levels.size)[levels]
        rows = [_counted(level, mask) for level, mask in zip(coarse, masks, strict=True)]
        outside, inside, overlap, regions = (np.array(column) for column in zip(*rows, strict=True))
        return cls(outside, inside, overlap, regions)

    def pixel_auroc(self, weights: Array) -> Array:
        """(draws,) what `pixel_auroc` gives where images count by their weights (draws, N)."""
        positive, negative = weights @ self.inside, weights @ self.outside
        below = negative.cumsum(1) - negative / 2
        return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))

    def per_region_overlap(self, weights: Array) -> Array:
        """(draws,) what `per_region_overlap` gives where images count by weights (draws, N)."""
        fpr = _share_from_above(weights @ self.outside)
        overlap = (weights @ self.overlap)[:, ::-1].cumsum(1) / (weights @ self.regions)[:, None]
        overlap = np.pad(overlap, ((0, 0), (1, 0)))
        grid = np.linspace(0, FPR_LIMIT, 601)
        curves = [np.interp(grid, x, y) for x, y in zip(fpr, overlap, strict=True)]
        return np.trapezoid(curves, grid, axis=1) / FPR_LIMIT


def random_maps(count: int, side: int, seed: int) -> Maps:
    """Maps (count, side, side) of uniform noise, to be enlarged as a detector's are."""
    return np.random.default_rng(seed).random((count, side, side), dtype=np.float32)


def centre_prior(side: int) -> Maps:
    """One map (side, side) that says that what matters lies in the middle: a Gaussian, 1/4 wide."""
    line = (np.arange(side) + 0.5) / side - 0.5
    curve = np.exp(-0.5 * (line / _CENTRE) ** 2)
    return np.outer(curve, curve).astype(np.float32)


def _counted(levels: Levels, mask: Bools) -> tuple[np.ndarray, ...]:
    regions, number = ndimage.label(mask, np.ones((3, 3)))
    overlap = np.zeros(_COARSE)
    for region in range(1, number + 1):
        counts = np.bincount(levels[regions == region], minlength=_COARSE)
        overlap += counts / counts.sum()
    outside, inside = (np.bincount(levels[w], minlength=_COARSE) for w in (~mask, mask))
    return outside, inside, overlap, np.array(number)


def _share_from_above(counts: Array) -> Array:
    """(draws, levels + 1): from 0 to 1, the share of counts at the highest levels."""
    shares = counts[:, ::-1].cumsum(1) / counts.sum(1, keepdims=True)
    return np.pad(shares, ((0, 0), (1, 0)))
