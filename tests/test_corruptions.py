"""Corruptions of images: each by its formula, and what all of them promise."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from adnlib.background import background, background_share
from adnlib.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from adnlib.errors import InputError

KINDS = list(CORRUPTIONS)
NAMES = ["test/good/000.png", "test/good/001.png", "test/scratch/000.png"]


@pytest.fixture(scope="module")
def images():
    """Discs textured at every scale on grounds with a grain."""
    random = np.random.default_rng(0)
    side = 192
    inside = disc(side)[1].numpy()
    blocks = [(random.normal(size=(3, 3, n, n)), np.ones((side // n,) * 2)) for n in (6, 24, 192)]
    texture = 90 + 25 * sum(np.kron(values, block) for values, block in blocks)
    ground = 140 + 4 * random.normal(size=(3, 3, side, side))
    return torch.from_numpy(np.where(inside, texture, ground).clip(0, 255).astype(np.uint8))


def value(kind, severity):
    return CORRUPTIONS[kind].values[severity - 1]


def one(image, kind, severity):
    return corrupt(image[None], NAMES[:1], kind, severity)[0]


def disc(size=128, ground=(200, 205, 210), colour=(60, 20, 30)):
    """A dark disc on a plain ground, and where it is."""
    line = torch.arange(size) - size / 2
    inside = (line**2 + line[:, None] ** 2).sqrt() < size / 4
    image = torch.where(inside, *(torch.tensor(c)[:, None, None] for c in (colour, ground)))
    return image.to(torch.uint8), inside


@pytest.mark.parametrize("kind", KINDS)
def test_all_keep_shape_and_grow_with_severity(images, kind):
    assert len(CORRUPTIONS[kind].values) == len(SEVERITIES)
    before = images.clone()
    assert torch.equal(corrupt(images, NAMES, kind, 0), images)
    changes = []
    for severity in SEVERITIES:
        changed = corrupt(images, NAMES, kind, severity)
        assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)
        changes.append((changed.float() - images.float()).abs().mean().item())
    assert changes[0] > 0
    assert changes == sorted(changes)
    assert torch.equal(images, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_in_any_batch_and_after_any_draws(images, kind):
    together = corrupt(images, NAMES, kind, 3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global state is the point
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    backwards = corrupt(images.flip(0), NAMES[::-1], kind, 3).flip(0)
    assert torch.equal(together, backwards)
    assert torch.equal(together[1], corrupt(images[1:2], NAMES[1:2], kind, 3)[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.parametrize("kind", ["noise", "crop", "background"])
def test_seed_and_name_draw_anew(images, kind):
    same = images[:1].expand(2, -1, -1, -1)
    first, second = corrupt(same, NAMES[:2], kind, 4)
    assert not torch.equal(first, second)
    assert not torch.equal(first, corrupt(same[:1], NAMES[:1], kind, 4, seed=1)[0])


def test_brightness_is_a_factor(images):
    for kind in ("darker", "brighter"):
        for severity in SEVERITIES:
            wanted = (images[0].double() * value(kind, severity)).clamp(0, 255)
            error = wanted - one(images[0], kind, severity)
            assert error.abs().max() <= 1


def test_jpeg_has_the_stated_quality(images):
    for severity in SEVERITIES:
        file = io.BytesIO()
        pixels = images[0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=value("jpeg", severity))
        wanted = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(wanted, one(images[0], "jpeg", severity))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blur_of_a_line_is_a_bell_of_the_stated_width(severity):
    image = torch.zeros(3, 500, 500, dtype=torch.uint8)
    image[:, :, 248:253] = 255
    for turned in (image, image.mT.contiguous()):
        blurred = one(turned, "blur", severity)
        bell = blurred[0].double().numpy().mean(0 if turned is image else 1)
        assert bell.sum() == pytest.approx(5 * 255, rel=0.02)
        places = np.arange(500) - 250
        width = math.sqrt((bell * places**2).sum() / bell.sum())
        of_line = math.sqrt((5**2 - 1) / 12)
        assert width == pytest.approx(math.hypot(500 * value("blur", severity), of_line), rel=0.03)


def test_noise_has_the_stated_sigma_and_no_colour():
    grey = torch.full((3, 200, 200), 128, dtype=torch.uint8)
    for severity in (1, 2, 3):
        noise = one(grey, "noise", severity).double() - 128
        assert noise.std() == pytest.approx(255 * value("noise", severity), rel=0.02)
        assert noise.mean().abs() < 0.5
    assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 0.05


def test_crop_keeps_the_stated_share_of_the_side():
    side = 400
    ramps = torch.linspace(0, 255, side).expand(side, side)
    image = torch.stack([ramps, ramps.T, ramps]).to(torch.uint8)
    for severity in SEVERITIES:
        kept = one(image, "crop", severity).double()
        for channel in kept[:2]:
            assert (channel.max() - channel.min()) / 255 == pytest.approx(
                value("crop", severity), abs=0.015
            )


def test_background_changes_the_ground_and_not_the_disc():
    image, inside = disc()
    assert background(image)[inside].mean() < 0.02
    share = background_share(image[None]).item()
    assert share == pytest.approx(1 - inside.float().mean().item(), abs=0.06)
    change = (one(image, "background", 5).float() - image.float()).abs().mean(0)
    well_inside = inside & (background(image) < 1e-3)
    assert well_inside.sum() > 0.8 * inside.sum()
    assert change[well_inside].max() <= 1
    assert change[~inside].mean() > 20


def test_the_grounds_colour_inside_the_object_stays():
    image, inside = disc()
    hole = disc(64)[1]
    image[:, 32:96, 32:96] = torch.where(
        hole, torch.tensor([[[200]], [[205]], [[210]]]), image[:, 32:96, 32:96]
    ).to(torch.uint8)
    assert background(image)[inside].mean() < 0.02


def test_a_plain_image_is_all_background():
    assert background_share(torch.full((1, 3, 96, 96), 90, dtype=torch.uint8))[0] > 0.99


def test_mistakes_are_named(images):
    with pytest.raises(InputError, match="no corruption 'blurr': did you mean 'blur'"):
        corrupt(images, NAMES, "blurr", 1)
    with pytest.raises(InputError, match="severity is 6: choose of 1, 2, 3, 4, 5"):
        corrupt(images, NAMES, "blur", 6)


def test_kinds_draw_each_for_itself(monkeypatch):
    drawn = []
    for kind in ("noise", "crop"):
        watched = dataclasses.replace(
            CORRUPTIONS[kind],
            change=lambda image, _, random: drawn.append(random.random()) or image,
        )
        monkeypatch.setitem(CORRUPTIONS, kind, watched)
        corrupt(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["a"], kind, 1)
    assert drawn[0] != drawn[1]


def test_crops_move_along_both_sides_each_for_itself():
    ramp = torch.linspace(0, 250, 200).expand(200, 200)
    image = torch.stack([ramp, ramp.T, ramp]).to(torch.uint8)
    cut = corrupt(image.expand(8, -1, -1, -1), [str(i) for i in range(8)], "crop", 5).float()
    left, top = (cut[:, channel].amin((1, 2)) for channel in (0, 1))
    assert (left - top).abs().max() > 20


def test_crops_lie_anywhere_up_to_both_borders():
    image = 10 * torch.arange(10, dtype=torch.uint8).expand(1, 3, 10, 10)
    cut = corrupt(image.expand(60, -1, -1, -1), [str(i) for i in range(60)], "crop", 5)
    assert cut[:, 0, 0, 0].unique().tolist() == [0, 10, 20, 30, 40]  # 6 of 10 pixels are kept


def test_a_new_background_is_a_gradient_from_one_colour_to_another():
    grey, side = torch.full((3, 64, 64), 90, dtype=torch.uint8), 64
    random = np.random.default_rng([0, *b"background/a"])
    colours, angle = random.uniform(0, 255, (2, 3, 1, 1)), random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    share = (1 + (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2)) / 2
    gradient = colours[0] + share * (colours[1] - colours[0])
    blended = 90 + value("background", 5) * background(grey).numpy() * (gradient - 90)
    changed = corrupt(grey[None], ["a"], "background", 5)[0]
    assert np.abs(changed.numpy() - blended).max() < 0.51
