"""Where a threshold errs: counts, the worst false alarms and missed anomalies, where it begins.

Pure functions of score tables as `scores.csv` has them; they read no files and draw nothing. An
image is called anomalous when its score is above the threshold, as everywhere (`threshold`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from adnlib.folders import HELD_OUT_SCORES
from adnlib.threshold import FPR, threshold_for_fpr

_BEYOND = 1.01  # times the highest score, or below the lowest


@dataclass(frozen=True)
class Confusion:
    """Images by what they are and what a threshold calls them; positive means anomalous."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def recall(self) -> float:
        """Share 0..1 of the anomalous images that are called so; NaN where there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_alarm_rate(self) -> float:
        """Share 0..1 of the good images that are called anomalous; NaN where there are none."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)


@dataclass(frozen=True)
class Start:
    """Where a threshold begins, and what that promises."""

    value: float
    sentence: str


def count(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
    """Images at a threshold.

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one.
        scores: (N,) anomaly scores.
        threshold: in the unit of the scores.
    """
    anomalous = np.asarray(labels) == 1
    called = np.asarray(scores) > threshold
    return Confusion(
        true_positives=int((anomalous & called).sum()),
        false_positives=int((~anomalous & called).sum()),
        true_negatives=int((~anomalous & ~called).sum()),
        false_negatives=int((anomalous & ~called).sum()),
    )


def worst(
    scores: pd.DataFrame, column: str, threshold: float, most: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The worst false alarms and the worst missed anomalies at a threshold.

    Args:
        scores: one row per test image, with path, label and the column of scores.
        column: such as "score_last".
        threshold: in the unit of the scores.
        most: how many rows of each, at most.

    Returns:
        Good images above the threshold, the highest score first; anomalous ones that are not, the
        lowest first. Equal scores are ordered by path. Both keep the index of `scores`.
    """
    called = scores[column] > threshold
    alarms = scores[(scores["label"] == 0) & called]
    missed = scores[(scores["label"] == 1) & ~called]
    return (
        alarms.sort_values([column, "path"], ascending=[False, True]).head(most),
        missed.sort_values([column, "path"]).head(most),
    )


def thresholds(scores: ArrayLike, begin: float) -> np.ndarray:
    """Every threshold that makes a difference, rising; from each to the next one image changes.

    They lie half-way between neighbouring scores on a logarithmic axis, the first below all scores,
    the last above them. `begin` is one of them: it stands for the gap that it lies in. Images with
    the same score change together.

    Args:
        scores: (N,) anomaly scores, above 0.
        begin: a threshold, above 0.

    Returns:
        (distinct scores + 1,) thresholds in the unit of the scores.
    """
    values = np.unique(np.asarray(scores, dtype=np.float64))
    between = np.sqrt(values[:-1]) * np.sqrt(values[1:])
    gaps = np.concatenate([values[:1] / _BEYOND, between, values[-1:] * _BEYOND])
    gaps[np.searchsorted(values, begin, side="right")] = begin
    return gaps


def start(scores: pd.DataFrame, held_out: pd.DataFrame | None, column: str) -> Start:
    """Where the threshold begins, without a look at a label of the test images.

    Args:
        scores: one row per test image.
        held_out: one row per held-out good image, or None.
        column: such as "score_last".

    Raises:
        InputError: a held-out score is not finite.
    """
    if held_out is not None:
        threshold = threshold_for_fpr(held_out[column], FPR)
        return Start(threshold.value, threshold.sentence)
    return Start(
        float(scores[column].median()),
        f"This run kept no scores of held-out good images ({HELD_OUT_SCORES}), so the threshold "
        "begins at the median score of all test images: it looks at no label, and promises "
        "nothing.",
    )


def _share(hits: int, of: int) -> float:
    return hits / of if of else math.nan
