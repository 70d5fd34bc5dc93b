"""Numbers from labels and scores, against hand counts."""

from __future__ import annotations

import numpy as np
import pytest

from adnlib.errors import InputError
from adnlib.evaluation import mean_and_std, mean_roc, measures, percentiles, roc


def test_auroc_counts_the_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 60)
    scores = random.integers(0, 10, 60) + labels  # with ties
    good, bad = scores[labels == 0], scores[labels == 1]
    pairs = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    assert roc(labels, scores)["auroc"] == pytest.approx(pairs.mean())


def test_curve_runs_from_none_to_all_called_anomalous() -> None:
    curve = roc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    assert curve["fpr"].tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve["tpr"].tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve["thresholds"][1:].tolist() == [0.8, 0.4, 0.35, 0.1]
    assert curve["auroc"] == 0.75


@pytest.mark.parametrize(("labels", "missing"), [([0, 0], "anomalous"), ([1, 1], "good")])
def test_a_missing_class_is_an_input_error(labels: list[int], missing: str) -> None:
    with pytest.raises(InputError, match=f"without {missing} test images"):
        roc(labels, [1.0, 2.0])


def test_scores_of_a_diverged_training_are_an_input_error() -> None:
    with pytest.raises(InputError, match="2 of 3 anomaly scores are not finite"):
        roc([0, 1, 1], [1.0, float("nan"), float("inf")])


def test_mean_curve_takes_the_upper_end_of_a_vertical_rise() -> None:
    mean = mean_roc([roc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])], points=5)
    assert mean["fpr"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert mean["tpr"].tolist() == [0.5, 0.5, 1, 1, 1]


def test_mean_curve_lies_between_its_seeds_and_has_their_mean_area() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], 40)
    curves = [roc(labels, random.normal(size=80) + labels * shift) for shift in (0.5, 1.5, 2.5)]
    mean = mean_roc(curves)
    assert (mean["low"] <= mean["tpr"]).all()
    assert (mean["tpr"] <= mean["high"]).all()
    assert mean["low"].mean() < mean["high"].mean() - 0.1
    areas = [curve["auroc"] for curve in curves]
    assert mean["auroc_mean"] == pytest.approx(np.mean(areas))
    assert mean["auroc_std"] == pytest.approx(np.std(areas, ddof=1))
    trapezoids = (mean["tpr"][1:] + mean["tpr"][:-1]) / 2 * np.diff(mean["fpr"])
    assert trapezoids.sum() == pytest.approx(np.mean(areas), abs=0.005)


def test_no_curve_gives_no_mean() -> None:
    with pytest.raises(InputError, match="no ROC curve"):
        mean_roc([])


def test_standard_deviation_is_the_samples_and_undefined_for_one() -> None:
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    mean, std = mean_and_std([0.7])
    assert mean == 0.7
    assert np.isnan(std)


def test_percentiles_count_ties_half() -> None:
    assert percentiles([0, 1, 2, 2.5, 9], [1, 2, 2, 3]).tolist() == [0, 12.5, 50, 75, 100]


def test_percentiles_need_a_reference() -> None:
    with pytest.raises(InputError, match="normal test images"):
        percentiles([1.0], [])


def test_the_rate_at_95_percent_recall_counts_exactly_95():
    labels, scores = [0, 0] + [1] * 20, [0.5, 1.5, 1] + [2] * 19
    assert measures(labels, scores)["fpr_at_95_recall"] == 0


def test_the_rate_at_95_percent_recall_knows_points_on_a_straight_line():
    """Two ties of a good and an anomalous image, the first of which reaches 95 %."""
    labels, scores = [1] * 18 + [1, 0, 1, 0] + [0] * 8, [3] * 18 + [2, 2, 1, 1] + [0] * 8
    assert measures(labels, scores)["fpr_at_95_recall"] == 0.1


def test_the_band_reaches_from_the_lowest_to_the_highest_curve():
    curves = [roc([0, 0, 1, 1], scores) for scores in ([0, 1, 2, 3], [2, 1, 0, 3], [3, 2, 1, 0])]
    mean = mean_roc(curves, 5)
    assert mean["low"].tolist() == [0, 0, 0, 0, 1]
    assert mean["high"].tolist() == [1] * 5
