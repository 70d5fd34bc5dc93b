"""Counts at a threshold, the images behind them, and where the threshold begins."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from adnlib.misses import Confusion, count, start, thresholds, worst

SCORES = pd.DataFrame(
    {
        "path": ["g2", "g1", "g0", "a0", "a1", "a2", "a3"],
        "label": [0, 0, 0, 1, 1, 1, 1],
        "score_last": [3.0, 3.0, 1.0, 1.0, 2.0, 3.0, 9.0],
    },
    index=[4, 5, 6, 7, 8, 9, 10],
)


def test_an_image_on_the_threshold_is_not_called_anomalous() -> None:
    counts = count(SCORES["label"], SCORES["score_last"], 3.0)
    assert counts == Confusion(1, 0, 3, 3)
    below = count(SCORES["label"], SCORES["score_last"], np.nextafter(3.0, 0))
    assert below == Confusion(2, 2, 1, 2)
    assert (below.recall, below.false_alarm_rate) == (0.5, pytest.approx(2 / 3))


def test_rates_of_nothing_are_no_number() -> None:
    counts = count([1], [2.0], 1.0)
    assert counts.recall == 1
    assert math.isnan(counts.false_alarm_rate)


def test_the_worst_come_first_and_are_those_that_are_counted() -> None:
    alarms, missed = worst(SCORES, "score_last", 2.5, 10)
    assert alarms["path"].tolist() == ["g1", "g2"]  # equal scores by path
    assert missed["path"].tolist() == ["a0", "a1"]
    assert missed.index.tolist() == [7, 8]
    for threshold in thresholds(SCORES["score_last"], 2.5):
        alarms, missed = worst(SCORES, "score_last", threshold, 10)
        counts = count(SCORES["label"], SCORES["score_last"], threshold)
        assert (len(alarms), len(missed)) == (counts.false_positives, counts.false_negatives)
    assert [len(some) for some in worst(SCORES, "score_last", 2.5, 1)] == [1, 1]


def test_each_threshold_differs_from_the_one_before_by_one_score() -> None:
    values = np.random.default_rng(0).lognormal(sigma=5, size=50)
    for begin in (values.min() / 10, values[7], np.median(values), values.max(), 1e9):
        steps = thresholds(values, begin)
        assert begin in steps
        called = [(values > step).sum() for step in steps]
        assert called == list(range(50, -1, -1))
        assert (np.diff(steps) > 0).all()


def test_a_threshold_is_half_way_by_the_logarithm() -> None:
    assert thresholds([1.0, 100.0], 0.5)[:2] == pytest.approx([0.5, 10.0])


def test_scores_that_are_nearly_or_quite_equal_have_thresholds_too() -> None:
    assert len(thresholds([2.0, 2.0], 2.0)) == 2
    close = np.array([1.0, np.nextafter(1.0, 2)])
    assert [(close > step).sum() for step in thresholds(close, 0.5)] == [2, 1, 0]


def test_it_begins_where_held_out_images_put_it() -> None:
    held = pd.DataFrame({"score_last": np.arange(1.0, 200.0)})
    began = start(SCORES, held, "score_last")
    assert began.value == 198  # one of 199 lies above it: 1 %
    assert began.sentence.startswith("By 199 held-out normal images, about 1 % of new")


def test_without_held_out_images_it_looks_at_no_label() -> None:
    flipped = SCORES.assign(label=1 - SCORES["label"])
    assert start(SCORES, None, "score_last") == start(flipped, None, "score_last")
    began = start(SCORES, None, "score_last")
    assert began.value == 3.0
    assert "promises nothing" in began.sentence
    doubled = SCORES.assign(score_selected=2 * SCORES["score_last"])
    assert start(doubled, None, "score_selected").value == 6.0
