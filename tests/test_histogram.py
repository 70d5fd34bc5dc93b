"""The histogram's picture: it follows the threshold and nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from adnlib.errors import InputError
from adnlib.histogram import Histogram

LABELS, VALUES = [0, 0, 1, 1], [1.0, 2.0, 3.0, 1e6]


def pixels(histogram: Histogram, threshold: float) -> np.ndarray:
    with Image.open(io.BytesIO(histogram.png(threshold))) as image:
        return np.asarray(image.convert("L"), dtype=int)


def test_a_move_moves_the_line_alone() -> None:
    histogram = Histogram(LABELS, VALUES)
    left, right = pixels(histogram, 10.0), pixels(histogram, 1000.0)
    changed = np.flatnonzero((left != right).any(axis=0))
    assert changed.size
    groups = np.split(changed, np.flatnonzero(np.diff(changed) > 1) + 1)
    assert len(groups) == 2
    assert max(len(group) for group in groups) < 12
    np.testing.assert_array_equal(pixels(histogram, 10.0), left)


def test_all_scores_lie_on_the_axis() -> None:
    low, high = Histogram(LABELS, VALUES, held_out=[0.5]).limits
    assert low < 0.5
    assert high > 1e6
    low, high = Histogram([0, 1], [2.0, 2.0]).limits
    assert low < 2 < high


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_scores_that_have_no_place_on_it_are_refused(bad: float) -> None:
    for values, held in (([1.0, 2.0, 3.0, bad], []), (VALUES, [bad])):
        with pytest.raises(InputError, match="cannot be drawn"):
            Histogram(LABELS, values, held)
