"""Numbers from labels and anomaly scores: AUROC, ROC curves, their means over seeds, percentiles.

How sure they are is `significance`'s question.

Pure functions of arrays. They know neither models nor files, and draw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from adnlib.errors import InputError

Array = NDArray[np.float64]


class Roc(TypedDict):
    """One ROC curve, all of it in fractions 0..1; `thresholds` are in the unit of the scores."""

    auroc: float
    fpr: Array
    tpr: Array
    thresholds: Array


class MeanRoc(TypedDict):
    """Several curves as one: true positive rates over a common grid of false positive rates."""

    fpr: Array
    tpr: Array
    low: Array
    high: Array
    auroc_mean: float
    auroc_std: float


def roc(labels: ArrayLike, scores: ArrayLike) -> Roc:
    """ROC curve and the area beneath it.

    Its thresholds are scikit-learn's, which include the score that is equal to them; elsewhere an
    image is called anomalous above a threshold (`misses`).

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one.
        scores: (N,) anomaly scores, higher meaning more anomalous.

    Raises:
        InputError: when one of the two classes is missing, so that AUROC is undefined, or when
            a score is not a finite number.
    """
    truth = np.asarray(labels).astype(int)
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} anomaly scores are not finite: "
            "the training diverged; lower the learning rate."
        )
    for label, name in ((0, "good"), (1, "anomalous")):
        if not (truth == label).any():
            raise InputError(
                f"AUROC is undefined without {name} test images; add some to the test split."
            )
    fpr, tpr, thresholds = roc_curve(truth, values, drop_intermediate=False)
    return Roc(auroc=float(auc(fpr, tpr)), fpr=fpr, tpr=tpr, thresholds=thresholds)


def auroc_between(good: ArrayLike, anomalous: ArrayLike) -> float:
    """AUROC, a fraction, of the scores (M,) of anomalous images against those (N,) of good ones.

    Raises:
        InputError: as `roc` does.
    """
    labels = np.repeat([0, 1], [len(np.asarray(each)) for each in (good, anomalous)])
    return roc(labels, np.concatenate([good, anomalous]))["auroc"]


def measures(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """AUROC and its companions, as fractions.

    `average_precision` and `best_f1` (at the threshold where it is highest, so with the test labels
    at hand) depend on the share of anomalous images; `fpr_at_95_recall` is the share of good images
    called anomalous at the highest threshold that finds 95 % of the anomalous ones.

    Args:
        labels: (N,) as for `roc`.
        scores: (N,) as for `roc`.

    Raises:
        InputError: as `roc` does.
    """
    curve = roc(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return {
        "auroc": curve["auroc"],
        "average_precision": float(average_precision_score(labels, scores)),
        "best_f1": float(f1.max()),
        "fpr_at_95_recall": float(curve["fpr"][np.argmax(curve["tpr"] >= 0.95)]),
    }


def mean_roc(curves: Sequence[Roc], points: int = 501) -> MeanRoc:
    """Vertical average of ROC curves (Fawcett 2006, doi:10.1016/j.patrec.2005.10.010).

    Each curve gives its true positive rate at `points` evenly spaced false positive rates; mean,
    lowest and highest are taken at each of them. `auroc_mean` and `auroc_std` are those of the
    curves' own areas, not of the averaged curve.

    Raises:
        InputError: when there is no curve to average.
    """
    if not curves:
        raise InputError("There is no ROC curve to average; give at least one.")
    grid = np.linspace(0.0, 1.0, points)
    # Where a curve rises vertically its fpr repeats; np.interp then takes the last, the upper end.
    rates = np.stack([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves])
    mean, std = mean_and_std([curve["auroc"] for curve in curves])
    return MeanRoc(
        fpr=grid,
        tpr=rates.mean(axis=0),
        low=rates.min(axis=0),
        high=rates.max(axis=0),
        auroc_mean=mean,
        auroc_std=std,
    )


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1); the latter is NaN for a single value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), std


def percentiles(scores: ArrayLike, reference: ArrayLike) -> Array:
    """Where each score lies among the reference scores, in percent.

    0 is below all of them, 100 above all of them; a score equal to some counts half of those.

    Args:
        scores: (N,) scores to place.
        reference: (M,) scores to place them among, as those of normal test images.

    Raises:
        InputError: when there is no reference score.
    """
    ordered = np.sort(np.asarray(reference, dtype=np.float64))
    if not ordered.size:
        raise InputError("A percentile needs scores of normal test images; there are none.")
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    return np.asarray(100.0 * (below + up_to) / (2.0 * ordered.size), dtype=np.float64)
