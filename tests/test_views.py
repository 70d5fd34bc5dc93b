import numpy as np
import pytest
import torch
from PIL import Image

from adnlib.views import (
    draw_angles,
    even_angles,
    every_turn,
    grid_angles,
    rotate,
    turns,
    views_from,
)


@pytest.mark.parametrize("size", [1, 2, 33, 64, 97, 256])
def test_rotation_equals_pil_pixel_for_pixel(size):
    generator = torch.Generator().manual_seed(size)
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)
    special = torch.tensor(
        [0, 90, 180, 270, -90, 360, 45, -135, 1e-3, 179.999], dtype=torch.float64
    )
    angles = torch.cat([special, draw_angles(1, 40, generator, 180.0)[0]])
    views = rotate(image.expand(len(angles), -1, -1, -1), angles)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for view, angle in zip(views, angles.tolist(), strict=True):
        expected = np.asarray(picture.rotate(angle))
        np.testing.assert_array_equal(view.permute(1, 2, 0).numpy(), expected, err_msg=str(angle))


def test_each_image_turns_by_its_own_angle():
    images = torch.zeros(2, 1, 9, 9, dtype=torch.uint8)
    images[:, 0, 0, 4] = 255  # a dot at the top
    views = rotate(images, torch.tensor([90.0, -90.0], dtype=torch.float64))
    assert views[0, 0, 4, 0] == 255  # counter-clockwise: to the left
    assert views[1, 0, 4, 8] == 255


def test_every_image_at_every_angle_is_what_rotate_gives():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8, generator=generator)
    angles = draw_angles(1, 5, generator, 180.0)[0]
    views = every_turn(images, turns(angles, 33))
    assert views.shape == (2, 5, 3, 33, 33)
    for image, turned in zip(images, views, strict=True):
        assert torch.equal(turned, rotate(image.expand(5, -1, -1, -1), angles))


def test_a_table_may_be_longer_than_int32_counts():
    table = torch.zeros(1, 1).expand(2**32, 1)
    last = torch.tensor([2**32 // 14**2 - 1])  # 14: 8 pixels in a frame of 3
    views = views_from(table, last, turns(torch.tensor([30.0]), 8), 8)
    assert views.shape == (1, 1, 8, 8)


def test_rotation_refuses_what_it_cannot_turn():
    with pytest.raises(ValueError, match="square"):
        rotate(torch.zeros(1, 3, 8, 9), torch.zeros(1))
    with pytest.raises(ValueError, match="one angle"):
        rotate(torch.zeros(2, 3, 8, 8), torch.zeros(1))


def test_angles():
    angles = draw_angles(50, 40, torch.Generator().manual_seed(0), 30.0)
    assert angles.shape == (50, 40)
    assert -30 <= angles.min() < -29
    assert 29 < angles.max() <= 30
    assert [sorted(some) for some in grid_angles(2, 4).tolist()] == [[0, 90, 180, 270]] * 2
    assert sorted(even_angles(1, 4, 180.0)[0].tolist()) == [-135, -45, 45, 135]
    assert sorted(even_angles(2, 3, 30.0)[1].tolist()) == [-20, 0, 20]
    assert even_angles(1, 1, 30.0).tolist() == [[0]]


@pytest.mark.parametrize("views", [16, 60, 64])
def test_the_first_of_regular_angles_are_far_apart_too(views):
    for angles in (grid_angles(1, views)[0], even_angles(1, views, 180.0)[0]):
        assert len(angles.unique()) == views
        first = torch.cat([angles[:4].sort().values, angles[:4].min(0, keepdim=True).values + 360])
        assert first.diff().min() >= 40
