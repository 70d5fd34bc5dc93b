"""What a map's place is measured by: golden values, libraries, and maps whose numbers are known."""

import numpy as np
import pytest
import torch
from pyaupro import PerRegionOverlap, auc_compute
from sklearn.metrics import roc_auc_score

from adnlib.localization import (
    SIZE,
    LevelCounts,
    as_levels,
    centre_prior,
    energy_inside,
    per_region_overlap,
    pixel_auroc,
    pointing,
    random_maps,
)


@pytest.fixture(scope="module")
def scene():
    """Ten noisy maps of 64 px that know a little of the masks; the last three images are good.

    They lie up to twelve decades apart, as those of a flow's scores do.
    """
    random = np.random.default_rng(0)
    masks = np.zeros((10, 64, 64), dtype=bool)
    for index in range(7):
        y, x = random.integers(0, 50, 2)
        masks[index, y : y + 3 + index, x : x + 9] = True
    masks[0, 60:, 60:] = True  # a second region
    maps = random.random((10, 64, 64), dtype=np.float32) ** 6 + 0.2 * masks.astype(np.float32)
    return maps * np.geomspace(1e12, 1, 10, dtype=np.float32)[:, None, None], masks


def test_golden_energy():
    maps = np.array([[[1, 3], [0, 4]], [[0, 0], [0, 0]]], dtype=np.float32)
    masks = np.array([[[True, False], [False, True]]] * 2)
    assert energy_inside(maps, masks).tolist() == [5 / 8, 0]


def test_pointing_asks_for_the_highest_pixel_alone():
    maps = np.array([[[1, 3], [0, 4]], [[9, 0], [0, 1]]], dtype=np.float32)
    masks = np.array([[[False, False], [False, True]]] * 2)
    assert pointing(maps, masks).tolist() == [1, 0]


def test_levels_keep_the_order_of_values_decades_apart():
    values = np.geomspace(1e-6, 1e12, 5000, dtype=np.float32)
    levels = as_levels(values.reshape(1, 50, 100)).ravel()
    assert (np.diff(levels) > 0).all()
    assert (levels[0] > 0, levels[-1]) == (True, 2**15 - 1)
    assert not as_levels(np.zeros((1, 2, 2), dtype=np.float32)).any()


def test_pixel_auroc_is_scikit_learns(scene):
    maps, masks = scene
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_auroc(as_levels(maps), masks) == pytest.approx(expected, abs=1e-4)


def test_pro_is_the_official_codes(scene):
    """pyaupro carries the reference of MVTec AD's authors beside its own, faster way."""
    maps, masks = scene
    official = PerRegionOverlap(reference_implementation=True)
    official.update(torch.from_numpy(maps), torch.from_numpy(masks).int())
    expected = auc_compute(*official.compute(), limit=0.3, reorder=True)
    assert per_region_overlap(as_levels(maps), masks) == pytest.approx(float(expected), abs=1e-3)


def test_golden_pro():
    """The larger region is found at once, the smaller with the background: PRO is a half."""
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, :8, :8] = masks[0, 18:, 18:] = True
    levels = np.zeros((1, 20, 20), dtype=np.int16)
    levels[0, :8, :8] = 900
    levels[0, 18:, 18:] = -1  # below all else
    assert per_region_overlap(levels, masks) == pytest.approx(0.5, abs=0.01)


def test_counts_of_all_images_give_the_libraries_numbers(scene):
    maps, masks = scene
    levels = as_levels(maps)
    counts, once = LevelCounts.of(levels, masks), np.ones((1, len(maps)))
    assert counts.regions.tolist() == [2, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert counts.pixel_auroc(once)[0] == pytest.approx(pixel_auroc(levels, masks), abs=1e-3)
    expected = per_region_overlap(levels, masks)
    assert counts.per_region_overlap(once)[0] == pytest.approx(expected, abs=2e-3)


def test_counts_of_images_drawn_again_are_those_of_the_images_repeated(scene):
    maps, masks = scene
    drawn = [0, 0, 3, 5, 5, 5, 8, 8, 9]
    weights = np.bincount(drawn, minlength=len(maps))[None].astype(float)
    counts, levels = LevelCounts.of(as_levels(maps), masks), as_levels(maps)[drawn]
    expected = pixel_auroc(levels, masks[drawn]), per_region_overlap(levels, masks[drawn])
    found = counts.pixel_auroc(weights)[0], counts.per_region_overlap(weights)[0]
    assert found == pytest.approx(expected, abs=3e-3)


def test_a_random_map_knows_nothing(scene):
    _, masks = scene
    maps = random_maps(len(masks), 64, seed=1)
    assert (maps.mean(), maps.var()) == pytest.approx((1 / 2, 1 / 12), rel=0.02)  # uniform
    assert pixel_auroc(as_levels(maps), masks) == pytest.approx(0.5, abs=0.03)
    assert energy_inside(maps, masks)[:7].mean() == pytest.approx(masks[:7].mean(), rel=0.1)
    assert np.array_equal(maps, random_maps(len(masks), 64, seed=1))
    assert not np.array_equal(maps, random_maps(len(masks), 64, seed=2))


def test_the_centre_prior_is_highest_in_the_middle_and_alike_on_all_sides():
    prior = centre_prior(SIZE)
    middle = SIZE // 2
    assert prior.argmax() in {
        y * SIZE + x for y in (middle - 1, middle) for x in (middle - 1, middle)
    }
    assert np.allclose(prior, prior.T)
    assert np.allclose(prior, prior[::-1])
    assert prior[0, middle] == pytest.approx(np.exp(-2), rel=0.02)  # two deviations away


def test_regions_touch_at_corners():
    mask = np.eye(4, dtype=bool)[None]
    assert LevelCounts.of(np.zeros((1, 4, 4), np.int16), mask).regions.tolist() == [1]


def test_pixels_of_one_level_are_ties():
    mask = np.zeros((1, 8, 8), dtype=bool)
    mask[0, :2] = True
    counts = LevelCounts.of(np.zeros((1, 8, 8), np.int16), mask)
    assert counts.pixel_auroc(np.ones((1, 1)))[0] == 0.5
