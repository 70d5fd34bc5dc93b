import numpy as np
import pytest
from scipy import stats

from adnlib.errors import InputError
from adnlib.threshold import (
    Threshold,
    clopper_pearson,
    needed,
    threshold_for_balance,
    threshold_for_fpr,
    with_anomalies,
)


def test_the_order_statistic_keeps_the_rate_in_the_mean():
    """Over many draws of held-out and new images, whatever the distribution."""
    generator = np.random.default_rng(0)
    for count, fpr in ((199, 0.01), (40, 0.1), (19, 0.05)):
        held = generator.lognormal(size=(4000, count))
        thresholds = [threshold_for_fpr(row, fpr).value for row in held]
        rate = stats.lognorm(1).sf(thresholds).mean()
        assert rate == pytest.approx(threshold_for_fpr(held[0], fpr).expected_fpr, rel=0.05)
        assert rate <= fpr * 1.05


@pytest.mark.parametrize(
    ("count", "fpr", "alarms"),
    [(99, 0.01, 0), (199, 0.01, 1), (198, 0.01, 0), (9, 0.1, 0), (19, 0.1, 1), (98, 0.01, 0)],
)
def test_as_many_false_alarms_as_the_rate_allows(count, fpr, alarms):
    assert threshold_for_fpr(np.arange(count), fpr).false_alarms == alarms


def test_the_bound_holds_in_as_many_draws_as_promised():
    generator = np.random.default_rng(1)
    held = generator.uniform(size=(4000, 60))
    found = [threshold_for_fpr(row, 0.05) for row in held]
    rates = 1 - np.array([threshold.value for threshold in found])
    assert (rates <= found[0].fpr_bound).mean() == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("hits", "count"), [(0, 20), (1, 20), (7, 20), (20, 20), (3, 500)])
def test_bounds_equal_scipys(hits, count):
    def interval(side):
        return stats.binomtest(hits, count, alternative=side).proportion_ci(0.95, "exact")

    low, high = clopper_pearson(hits, count)
    assert low == pytest.approx(interval("greater").low)
    assert high == pytest.approx(interval("less").high)


def test_few_images_say_what_they_can_promise():
    few = threshold_for_fpr(np.arange(20), 0.01)
    assert few.value == 19
    assert few.sentence == (
        "20 held-out normal images cannot resolve a false-positive rate of 1 %, which takes 99: "
        "the threshold is the highest score, about 4.76 % of new normal images lie above it, "
        "and with 95 % confidence at most 13.9 %."
    )
    many = threshold_for_fpr(np.arange(400), 0.01)
    assert many.sentence.startswith("By 400 held-out normal images, about 0.998 % of new")
    assert [needed(fpr) for fpr in (0.01, 0.05, 0.1)] == [99, 19, 9]


def test_its_repr_is_one_line_however_many_images_it_was_made_from():
    threshold = threshold_for_fpr(np.arange(400), 0.01)
    assert repr(threshold) == "Threshold(396, rule 'fpr': 3 of 400 held-out normal images above it)"
    counted = with_anomalies(threshold_for_fpr([1, 2], 0.01), [1, 5, 6])
    assert repr(counted).endswith("0 of 2 held-out normal images above it, 2 of 3 anomalies)")


def test_anomalies_change_a_threshold_only_where_asked():
    normal, anomalous = [1, 2, 3, 4, 10], [5, 6, 7, 20]
    plain = threshold_for_fpr(normal, 0.1)
    counted = with_anomalies(plain, anomalous)
    assert (counted.value, counted.anomalies, counted.found) == (plain.value, 4, 1)
    balanced = threshold_for_balance(normal, anomalous, 0.1)
    assert (balanced.value, balanced.found, balanced.false_alarms) == (4.5, 4, 1)
    assert "chosen on these very images" in balanced.sentence


def test_balance_agrees_with_a_search_over_all_thresholds():
    generator = np.random.default_rng(2)
    normal, anomalous = generator.normal(size=50).round(1), generator.normal(1, size=12).round(1)
    balanced = threshold_for_balance(normal, anomalous, 0.01)

    def balance(value):
        return (anomalous > value).mean() + (normal <= value).mean()

    best = max(balance(value) for value in np.linspace(-5, 5, 2001))
    assert balance(balanced.value) == pytest.approx(best)


def test_where_nothing_separates_there_are_no_alarms():
    assert threshold_for_balance([5, 6], [1, 2], 0.01).false_alarms == 0


@pytest.mark.parametrize(
    ("scores", "fpr", "message"),
    [
        ([], 0.01, "give at least one"),
        ([1, np.nan], 0.01, "1 of 2 scores of held-out normal images are not finite"),
        ([1, np.inf], 0.01, "not finite"),
        ([1, 2], 0, "fpr is 0"),
        ([1, 2], 1, "fpr is 1"),
        ([1, 2], float("nan"), "fpr is nan"),
    ],
)
def test_what_gives_no_threshold(scores, fpr, message):
    with pytest.raises(InputError, match=message):
        threshold_for_fpr(scores, fpr)


def test_a_described_threshold_is_the_same_again_whatever_the_order_of_its_scores():
    found = with_anomalies(threshold_for_fpr([3, 1, 2], 0.3), [2, 5])
    described = found.described() | {"normal_scores": [2.0, 3.0, 1.0]}
    assert Threshold.from_description(described) == found


def test_a_score_on_the_threshold_is_not_above_it():
    assert with_anomalies(threshold_for_fpr([1, 2], 0.01), [2, 3]).found == 1


def test_rates_that_are_no_binary_fractions_count_right():
    assert threshold_for_fpr(np.arange(99), 0.29).false_alarms == 28
    assert needed(1 / 49) == 48


def test_of_equally_good_thresholds_that_with_the_fewest_false_alarms():
    found = threshold_for_balance([1, 3], [2, 4], 0.01)
    assert (found.value, found.false_alarms) == (3.5, 0)


def test_a_threshold_chosen_on_its_own_scores_promises_nothing():
    found = threshold_for_balance([1, 2], [3], 0.01)
    assert (found.expected_fpr, found.fpr_bound) == (None, None)
    assert "will fare worse" in found.described()["sentence"]
