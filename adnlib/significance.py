"""How sure an AUROC is, and a difference of two: bootstrap, DeLong's test, Wilcoxon's test.

Pure functions of arrays; they know neither models nor files. All but Wilcoxon's start from one
matrix, the pairs of an anomalous and a good image (`pair_wins`): its mean is AUROC, its row and
column means are DeLong's components, and drawing its rows and columns again is the bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from adnlib.evaluation import Array

DRAWS = 2000
LEVEL = 0.95


class DeLong(NamedTuple):
    """DeLong's test of two AUROCs of the same images; fractions, the second minus the first."""

    difference: float
    standard_error: float
    z: float
    p: float


class Wilcoxon(NamedTuple):
    """Wilcoxon's signed-rank test of paired differences."""

    pairs: int
    p: float
    """Two-sided; NaN where no pair differs."""
    rank_biserial: float
    """Effect: (sum of positive ranks - sum of negative ranks) / sum of ranks, from -1 to 1."""


def pair_wins(labels: ArrayLike, scores: ArrayLike) -> Array:
    """(anomalous, good): 1 where the anomalous image scores higher, 1/2 where equal, else 0.

    Its mean is AUROC (Mann and Whitney 1947, doi:10.1214/aoms/1177730491).

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one.
        scores: (N,) anomaly scores, higher meaning more anomalous.
    """
    truth, values = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    anomalous, good = values[truth, None], values[~truth]
    return (anomalous > good) + 0.5 * (anomalous == good)


def bootstrap(
    wins: ArrayLike, seed: int = 0, over_seeds: bool = False, draws: int = DRAWS
) -> Array:
    """Means of `wins` over images drawn again with replacement, within each class.

    Args:
        wins: (seeds, anomalous, good), `pair_wins` of each seed, or the difference of two
            variants'. The same images are drawn for all seeds.
        seed: of the draws.
        over_seeds: draw the seeds too. With two or three of them that shows less than their true
            spread: by the factor 1/2 or 2/3 in the variance.
        draws: how many times.

    Returns:
        (draws,)
    """
    wins = np.asarray(wins, dtype=np.float64)
    random = np.random.default_rng(seed)
    weights = [drawn_again(size, random, draws) for size in wins.shape[1:]]
    means = np.stack([((weights[0] @ of_seed) * weights[1]).sum(1) for of_seed in wins], axis=1)
    return seeds_drawn_again(means, random) if over_seeds else means.mean(1)


def drawn_again(size: int, random: np.random.Generator, draws: int = DRAWS) -> Array:
    """(draws, size): each one's share of a sample drawn with replacement from so many."""
    return random.multinomial(size, np.full(size, 1 / size), draws) / size


def seeds_drawn_again(of_seeds: Array, random: np.random.Generator) -> Array:
    """(draws,) means of (draws, seeds) over seeds that are drawn anew in each draw."""
    draws, seeds = of_seeds.shape
    return (of_seeds * drawn_again(seeds, random, draws)).sum(1)


def interval(draws: Array) -> tuple[float, float]:
    """The percentile interval that holds `LEVEL` of the draws.

    Where no image is out of order the AUROC is 1 in every draw, and so is the interval: it says
    nothing of images that were not seen.
    """
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def delong(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> DeLong:
    """Test whether two scores of the same images have the same AUROC.

    DeLong, DeLong and Clarke-Pearson 1988 (doi:10.2307/2531595), their equations 4 to 6.

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one; with one of a kind there is no
            error to estimate, and all but the difference is NaN. Nor is there one where each of two
            unlike AUROCs is 0, 0.5 or 1 without an image's part in it: then z and p are NaN.
        first: (N,) scores of the one detector.
        second: (N,) scores of the other.
    """
    wins = np.stack([pair_wins(labels, scores) for scores in (first, second)])
    _, anomalous, good = wins.shape
    difference = float(wins[1].mean() - wins[0].mean())
    if min(anomalous, good) < 2:
        return DeLong(difference, *[float("nan")] * 3)
    covariance = np.cov(wins.mean(2)) / anomalous + np.cov(wins.mean(1)) / good
    contrast = np.array([-1.0, 1.0])
    error = float(np.sqrt(max(contrast @ covariance @ contrast, 0.0)))
    if error < 1e-12:  # the same order of all images; or, of unlike ones, no spread to test by
        same = abs(difference) < 1e-12
        return DeLong(difference, 0.0, *((0.0, 1.0) if same else (float("nan"), float("nan"))))
    z = difference / error
    return DeLong(difference, error, z, float(2 * stats.norm.sf(abs(z))))


def wilcoxon(differences: Sequence[float]) -> Wilcoxon:
    """Test whether paired differences, one per category or seed, lie about zero.

    Pairs without a difference have no rank (Wilcoxon 1945, doi:10.2307/3001968), though they are
    counted among the pairs. Fewer than six pairs cannot reach p < 0.05 whatever they show.
    """
    told = np.asarray(differences, dtype=np.float64)
    told = told[told != 0]
    if not told.size:
        return Wilcoxon(len(differences), float("nan"), 0.0)
    ranks = stats.rankdata(abs(told))
    effect = float((ranks * np.sign(told)).sum() / ranks.sum())
    return Wilcoxon(len(differences), float(stats.wilcoxon(told).pvalue), effect)
