"""From scores of held-out normal images to a threshold, and how far it can be trusted.

Pure functions of arrays; they know neither models nor files. An image is called anomalous when its
score is above the threshold. A threshold is an order statistic of the normal scores, so what it
promises rests on one assumption alone: new normal images are like the held-out ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from adnlib.errors import InputError
from adnlib.settings import check_share
from adnlib.words import counted

FPR = 0.01
"""Default share of normal images that may be called anomalous."""
CONFIDENCE = 0.95
SMALLEST_FPR = 1e-9
RULES = ("fpr", "balance")


@dataclass(frozen=True)
class Threshold:
    """A threshold with all that it was made from; rates are fractions 0..1."""

    value: float
    """Scores above it are called anomalous."""
    rule: str
    """"fpr": from normal images alone; "balance": from labelled anomalies, too."""
    fpr: float
    """False-positive rate that was asked for."""
    normal_scores: tuple[float, ...]
    """Scores of the held-out normal images, rising."""
    anomalies: int = 0
    """Labelled anomalies that were looked at."""
    found: int = 0
    """How many of them are above the threshold."""

    def __repr__(self) -> str:
        above = f"{self.false_alarms} of {self._images} above it"
        found = f", {self.found} of {self.anomalies} anomalies" if self.anomalies else ""
        return f"Threshold({self.value:.4g}, rule {self.rule!r}: {above}{found})"

    @property
    def false_alarms(self) -> int:
        """Held-out normal images above the threshold."""
        return sum(score > self.value for score in self.normal_scores)

    @property
    def expected_fpr(self) -> float | None:
        """Share of new normal images above the threshold, mean over draws of the held-out ones.

        None for "balance", which chose the threshold on these very scores.
        """
        if self.rule == "balance":
            return None
        return (self.false_alarms + 1) / (len(self.normal_scores) + 1)

    @property
    def fpr_bound(self) -> float | None:
        """What that share stays below with 95 % confidence (Clopper and Pearson's upper bound), or
        None, as above."""
        if self.rule == "balance":
            return None
        return clopper_pearson(self.false_alarms, len(self.normal_scores))[1]

    @property
    def sentence(self) -> str:
        """What the threshold promises."""
        if self.expected_fpr is None or self.fpr_bound is None:
            return (
                f"The threshold balances {self.found} of {self.anomalies} anomalies found against "
                f"{self.false_alarms} false alarms in {self._images}; it was "
                "chosen on these very images, so new ones will fare worse."
            )
        promise = (
            f"about {_percent(self.expected_fpr)} of new normal images lie above it, and with "
            f"{_percent(CONFIDENCE)} confidence at most {_percent(self.fpr_bound)}"
        )
        if self.expected_fpr <= self.fpr:
            return f"By {self._images}, {promise}."
        return (
            f"{self._images} cannot resolve a false-positive rate of "
            f"{_percent(self.fpr)}, which takes {needed(self.fpr)}: the threshold is the highest "
            f"score, {promise}."
        )

    @property
    def told(self) -> str:
        """Where it lies, and its sentence."""
        return f"threshold {self.value:.6g}. {self.sentence}"

    def at(self, fpr: float) -> Threshold:
        """Of the same held-out images for another rate; anomalies are counted anew by whoever has
        them.

        Raises:
            InputError: see `threshold_for_fpr`.
        """
        return threshold_for_fpr(self.normal_scores, fpr)

    def described(self) -> dict[str, Any]:
        """All of it as plain values, with what follows from them."""
        derived = ("expected_fpr", "fpr_bound", "sentence")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived}

    @classmethod
    def from_description(cls, values: Mapping[str, Any]) -> Threshold:
        """The threshold that was described so; what follows from its values is not believed."""
        own = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        return cls(**own | {"normal_scores": tuple(sorted(own["normal_scores"]))})

    @property
    def _images(self) -> str:
        return counted(len(self.normal_scores), "held-out normal image")


def check_shares(holdout: float, fpr: float) -> None:
    """Raise InputError unless these are a share to hold out and a false-positive rate."""
    check_share({"holdout": holdout}, "holdout")
    if not SMALLEST_FPR <= fpr < 1:
        raise InputError(
            f"fpr is {fpr}: give a false-positive rate between 0 and 1, such as 0.01 for 1 %."
        )


def threshold_for_fpr(normal_scores: ArrayLike, fpr: float) -> Threshold:
    """The lowest order statistic which new normal images exceed at a rate of at most `fpr`.

    Above the k-th lowest of n scores lies, in the mean over draws, (n + 1 - k) / (n + 1) of new
    ones, whatever their distribution. Where n is too small for `fpr` the highest score is taken.

    Args:
        normal_scores: (N,) scores of normal images that training has not seen.
        fpr: wanted rate, between 0 and 1.

    Raises:
        InputError: no scores, one that is not finite, or a rate that is none.
    """
    check_shares(0, fpr)
    scores = _rising(normal_scores)
    beyond = max(math.floor((scores.size + 1) * fpr + 1e-9), 1)
    return Threshold(float(scores[scores.size - beyond]), "fpr", fpr, tuple(scores.tolist()))


def threshold_for_balance(
    normal_scores: ArrayLike, anomalous_scores: ArrayLike, fpr: float
) -> Threshold:
    """The threshold with the highest mean of true positive and true negative rate.

    Of equally good ones that with the fewest false alarms; it lies half-way to the next score.

    Args:
        normal_scores: (N,) as for `threshold_for_fpr`.
        anomalous_scores: (M,) scores of labelled anomalies.
        fpr: kept with the result, and not used.

    Raises:
        InputError: as `threshold_for_fpr`; or there is no anomaly.
    """
    normal, anomalous = _rising(normal_scores), _rising(anomalous_scores, "labelled anomalies")
    scores = np.unique(np.concatenate([normal, anomalous]))
    alarms = 1 - np.searchsorted(normal, scores, side="right") / normal.size
    finds = 1 - np.searchsorted(anomalous, scores, side="right") / anomalous.size
    best = np.flatnonzero(np.isclose(finds - alarms, (finds - alarms).max()))[-1]
    value = scores[best : best + 2].mean()
    chosen = Threshold(float(value), "balance", fpr, tuple(normal.tolist()))
    return with_anomalies(chosen, anomalous)


def with_anomalies(threshold: Threshold, anomalous_scores: ArrayLike) -> Threshold:
    """The same threshold, knowing how many of (M,) scores of labelled anomalies it finds."""
    scores = _rising(anomalous_scores, "labelled anomalies")
    found = int((scores > threshold.value).sum())
    return dataclasses.replace(threshold, anomalies=scores.size, found=found)


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """One-sided 95 % bounds, lower and upper, of a rate of which `hits` of `count` were seen."""
    low = stats.beta.ppf(1 - CONFIDENCE, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(CONFIDENCE, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def needed(fpr: float) -> int:
    """The fewest held-out normal images that resolve a false-positive rate."""
    return math.ceil(1 / fpr - 1e-9) - 1


def _rising(scores: ArrayLike, what: str = "held-out normal images") -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not values.size:
        raise InputError(f"a threshold needs scores of {what}: give at least one.")
    if not np.isfinite(values).all():
        raise InputError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} scores of {what} are not "
            "finite: fit again with a smaller learning_rate."
        )
    return values


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"
