"""What the simplest numbers of a test image tell of its label.

Where one of them alone tells good images from anomalous ones, a high AUROC need not mean that a
detector saw a defect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from adnlib.evaluation import Array, roc

STATISTICS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "brightness": torch.mean,
    "contrast": torch.std,
}
"""Of all values of an image, 0..255, the colours together."""
_CLEAR = 0.9


def told_by(labels: ArrayLike, images: Iterable[torch.Tensor]) -> dict[str, float]:
    """AUROC, a fraction, of each of `STATISTICS` in place of an anomaly score.

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one.
        images: N of uint8 (3, S, S).

    Raises:
        InputError: there are images of one label alone.
    """
    return _aurocs(labels, _measured(images))


def clear(told: Mapping[str, float]) -> dict[str, float]:
    """Those of `told_by` that tell nearly all: at least 0.9, or at most 0.1."""
    return {name: auroc for name, auroc in told.items() if abs(auroc - 0.5) >= _CLEAR - 0.5}


def shortcut_table(samples: pd.DataFrame, images: Iterable[torch.Tensor]) -> pd.DataFrame:
    """A row for each of `STATISTICS`: its means over the kinds of images, and its AUROC in percent.

    Args:
        samples: as `datasets.read_samples` gives, of one category.
        images: those of the samples, uint8 (3, S, S).
    """
    found = samples.assign(**_measured(images))
    test = found[found["split"] == "test"]
    means = (
        found.groupby(["split", "label"])[[*STATISTICS]].mean().sort_index(ascending=[False, True])
    )
    kinds = [f"{split} {'anomalous' if label else 'good'}" for split, label in means.index]
    table = means.set_axis(kinds).T
    if test["label"].nunique() == 2:
        table["AUROC"] = 100 * pd.Series(_aurocs(test["label"], test[[*STATISTICS]]))
    return table


def _aurocs(labels: ArrayLike, measured: Mapping[str, Array] | pd.DataFrame) -> dict[str, float]:
    return {name: roc(labels, measured[name])["auroc"] for name in STATISTICS}


def _measured(images: Iterable[torch.Tensor]) -> dict[str, Array]:
    """(N,) of each of `STATISTICS`."""
    rows = [[of(image.float()).item() for of in STATISTICS.values()] for image in images]
    return dict(zip(STATISTICS, np.array(rows).T, strict=True))
