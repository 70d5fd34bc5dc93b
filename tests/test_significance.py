"""Intervals and tests against scipy, scikit-learn and a published example."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from adnlib.significance import bootstrap, delong, interval, pair_wins, wilcoxon

# Albumin, total protein, K-G score and outcome of 43 patients: DeLong, DeLong and Clarke-Pearson
# 1988 (doi:10.2307/2531595), as printed in SAS/STAT's example "Comparing Receiver Operating
# Characteristic Curves" of the LOGISTIC procedure, from which the results are too.
PATIENTS = np.fromstring(
    """
    3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0
    1.6 5.6 5 1  3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1
    4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1
    3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1
    3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1
    3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1
    3.6 6.6 5 1
    """,
    sep=" ",
).reshape(-1, 4)
ALBUMIN, PROTEIN, KG, OUTCOME = PATIENTS.T * [[1], [1], [-1], [1]]


@pytest.fixture
def images():
    random = np.random.default_rng(3)
    labels = np.repeat([0, 1], [25, 40])
    scores = random.normal(size=(3, 65)) + labels * [[0.8], [1.0], [1.2]]
    return labels, scores.round(1)  # with ties


def test_delong_gives_the_published_example() -> None:
    areas = [pair_wins(OUTCOME, scores).mean() for scores in (KG, PROTEIN, ALBUMIN)]
    assert np.round(areas, 4).tolist() == [0.7258, 0.6478, 0.7366]
    protein, albumin = delong(OUTCOME, KG, PROTEIN), delong(OUTCOME, KG, ALBUMIN)
    assert (round(protein.difference, 4), round(protein.standard_error, 4)) == (-0.0780, 0.1046)
    assert (round(albumin.difference, 4), round(albumin.standard_error, 4)) == (0.0108, 0.0953)


def test_delong_on_a_score_that_says_nothing_is_the_first_ones_own_error() -> None:
    constant = np.zeros(len(OUTCOME))
    assert delong(OUTCOME, constant, KG).standard_error == pytest.approx(0.1028, abs=5e-5)


def test_delong_is_right_about_chance() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    values = [
        delong(labels, *(random.normal(size=(2, 60)) + random.normal(size=60) + labels)).p
        for _ in range(400)
    ]
    assert stats.kstest(values, "uniform").pvalue > 0.01


def test_delong_of_equal_orders_finds_nothing(images) -> None:
    labels, scores = images
    assert delong(labels, scores[0], 3 * scores[0] + 1) == (0, 0, 0, 1)


@pytest.mark.filterwarnings("error")
def test_delong_needs_two_images_of_each_kind() -> None:
    for labels in ([0, 0, 1], [0, 1, 1]):
        found = delong(labels, [1, 2, 3], [3, 2, 1])
        assert found.difference == -1
        assert np.isnan(found[1:]).all()
    found = delong([0, 0, 1, 1], [1, 3, 2, 4], [1, 2, 3, 4])
    # Of either kind one image wins against both others and one against one: shares 1 and 1/2.
    variance = np.var([1, 0.5], ddof=1)
    assert found[:2] == pytest.approx((0.25, np.sqrt(variance / 2 + variance / 2)))


def test_the_mean_of_the_pairs_is_auroc(images) -> None:
    labels, scores = images
    for of_seed in scores:
        assert pair_wins(labels, of_seed).mean() == pytest.approx(roc_auc_score(labels, of_seed))


def test_bootstrap_agrees_with_scipys(images) -> None:
    labels, scores = images

    def auroc(good, bad, axis):
        both = np.concatenate([good, bad], axis=axis)
        ranks = stats.rankdata(both, axis=axis)
        count = bad.shape[axis]
        of_bad = np.take(ranks, range(good.shape[axis], both.shape[axis]), axis)
        return (of_bad.sum(axis) - count * (count + 1) / 2) / (count * good.shape[axis])

    expected = stats.bootstrap(
        (scores[0][labels == 0], scores[0][labels == 1]),
        auroc,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    draws = bootstrap(pair_wins(labels, scores[0])[None], draws=20_000)
    assert interval(draws) == pytest.approx(expected.confidence_interval, abs=0.006)
    assert draws.std() == pytest.approx(expected.standard_error, rel=0.03)


def test_seeds_share_the_drawn_images(images) -> None:
    labels, scores = images
    wins = pair_wins(labels, scores[0])
    np.testing.assert_allclose(bootstrap(np.stack([wins] * 3)), bootstrap(wins[None]))


def test_another_seed_draws_other_images(images) -> None:
    labels, scores = images
    wins = pair_wins(labels, scores[0])[None]
    assert not np.array_equal(bootstrap(wins, seed=1), bootstrap(wins))
    assert np.array_equal(bootstrap(wins, seed=1), bootstrap(wins, seed=1))


def test_seeds_may_be_drawn_too() -> None:
    areas = np.array([0.6, 0.7, 0.95])
    wins = np.ones((3, 6, 5)) * areas[:, None, None]  # so that images make no difference
    assert bootstrap(wins).std() == pytest.approx(0, abs=1e-12)
    draws = bootstrap(wins, over_seeds=True, draws=50_000)
    assert draws.var() == pytest.approx(areas.var() / 3, rel=0.03)


def test_a_perfect_detector_has_no_interval() -> None:
    assert interval(bootstrap(np.ones((2, 5, 4)))) == (1, 1)


def test_wilcoxon_is_scipys_with_its_effect() -> None:
    differences = [1.2, -0.4, 0.9, 2.1, 0.3, 1.7, 0.8]
    test = wilcoxon(differences)
    assert (test.pairs, test.p) == (7, pytest.approx(stats.wilcoxon(differences).pvalue))
    assert test.rank_biserial == pytest.approx((28 - 2 - 2) / 28)
    assert wilcoxon([0.0, *differences]) == (8, test.p, test.rank_biserial)


def test_wilcoxon_without_a_difference_says_so() -> None:
    test = wilcoxon([0.0, 0.0])
    assert np.isnan(test.p)
    assert (test.pairs, test.rank_biserial) == (2, 0)


def test_detectors_without_a_spread_are_not_called_alike():
    labels, perfect = [0] * 20 + [1] * 20, np.arange(40)
    for other, difference in ((np.zeros(40), 0.5), (-perfect, 1.0)):
        found = delong(labels, other, perfect)
        assert found.difference == difference
        assert np.isnan([found.z, found.p]).all()
    assert delong(labels, perfect, 2 * perfect).p == 1
