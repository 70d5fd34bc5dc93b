"""What brightness and contrast alone tell of an image's label."""

import numpy as np
import pandas as pd
import pytest
import torch

from adnlib import InputError
from adnlib.shortcuts import clear, shortcut_table, told_by


def image(low, high):
    """Half of its rows of one value, half of another."""
    rows = torch.tensor([low, high], dtype=torch.uint8).repeat_interleave(2)
    return rows[None, :, None].expand(3, 4, 4)


def test_bright_anomalies_are_told_by_brightness_and_flat_ones_by_contrast():
    images = [image(90, 110), image(92, 108), image(119, 121), image(138, 142)]
    assert told_by([0, 0, 1, 1], images) == {"brightness": 1.0, "contrast": 0.0}
    assert told_by([0, 1, 0, 1], images) == {"brightness": 0.625, "contrast": 0.5}
    with pytest.raises(InputError, match="anomalous"):
        told_by([0, 0, 0, 0], images)


def test_what_is_told_either_way_is_clear():
    told = {"brightness": 0.9, "contrast": 0.1}
    assert clear(told) == told
    assert clear({"brightness": 0.89, "contrast": 0.11}) == {}


def test_a_table_has_the_means_of_each_kind_of_images():
    splits, labels = ["train", "train", "test", "test", "test"], [0, 0, 0, 1, 1]
    samples = pd.DataFrame({"split": splits, "label": labels}, index=[7, 3, 1, 0, 5])
    images = [image(0, 100), image(0, 60), image(50, 50), image(60, 60), image(20, 20)]
    table = shortcut_table(samples, images)
    assert [*table] == ["train good", "test good", "test anomalous", "AUROC"]
    assert table.loc["brightness"].tolist() == [40, 50, 40, 50]
    deviation = [np.array([0, value] * 24).std(ddof=1) for value in (100, 60)]
    assert table.loc["contrast", "train good"] == pytest.approx(np.mean(deviation))
    assert "AUROC" not in shortcut_table(samples[:3], images[:3])
