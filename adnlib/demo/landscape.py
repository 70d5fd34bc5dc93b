"""The changing ground of demo_outdoor: sky and clouds, ridges, foliage, far towers and wires.

Painted at the picture's own size, since it is out of focus; the outdoor scene enlarges it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from adnlib.demo.paint import Floats, colour, mix, noise

_SKIES = (  # overhead and at the horizon
    ((0.30, 0.50, 0.78), (0.74, 0.83, 0.90)),
    ((0.45, 0.60, 0.80), (0.84, 0.88, 0.90)),
    ((0.70, 0.73, 0.77), (0.86, 0.87, 0.88)),
    ((0.56, 0.62, 0.72), (0.93, 0.87, 0.78)),
)
_GROUNDS = (  # in shade and in light
    ((0.10, 0.17, 0.07), (0.42, 0.52, 0.24)),
    ((0.16, 0.20, 0.09), (0.55, 0.58, 0.32)),
    ((0.24, 0.20, 0.13), (0.62, 0.55, 0.40)),
    ((0.15, 0.19, 0.14), (0.46, 0.52, 0.40)),
)


def landscape(rng: np.random.Generator, size: int) -> Floats:
    """Return one out-of-focus landscape, (3, size, size), values 0 to 1."""
    y = np.linspace(-1, 1, size, dtype=np.float32)[:, None] + np.zeros((1, size), np.float32)
    horizon = rng.uniform(-0.9, 1.1)  # from nearly all ground to all sky
    overhead, far = _SKIES[rng.integers(len(_SKIES))]
    haze = colour(*far)
    scene = _sky(rng, size, y, horizon, colour(*overhead), haze)
    ridges = rng.integers(1, 4)
    for ridge in range(ridges):
        profile = noise(rng, size, 3, octaves=4)[0] * np.float32(0.07)
        edge = np.float32(horizon - 0.05 * (ridges - ridge)) + profile
        distance = np.float32(0.75 - 0.35 * ridge / ridges)
        wood = mix(colour(0.20, 0.27, 0.20) + np.zeros_like(scene), haze, distance)
        wood = wood * (1 + np.float32(0.07) * noise(rng, size, 24, octaves=3, stretch=2))
        scene = mix(scene, wood, np.clip((y - edge) * 40, 0, 1))
    if horizon < 1:
        ground = _ground(rng, size, y, horizon, haze)
        scene = mix(scene, ground, np.clip((y - np.float32(horizon)) * 25, 0, 1))
    scene = _steel(rng, scene)
    return ndimage.gaussian_filter(scene, (0, *[rng.uniform(1.0, 2.4) * size / 256] * 2))


def _sky(
    rng: np.random.Generator, size: int, y: Floats, horizon: float, overhead: Floats, haze: Floats
) -> Floats:
    height = np.clip((np.float32(horizon) - y) / np.float32(1.6), 0, 1) ** np.float32(0.7)
    sky = mix(haze, overhead, height)
    clouds = noise(rng, size, rng.uniform(1.5, 4), octaves=6, stretch=2.2)
    thick = np.clip((clouds - np.float32(rng.uniform(-0.6, 1.4))) * np.float32(0.8), 0, 1)
    lit = np.float32(0.93) + np.float32(0.05) * (clouds - np.roll(clouds, size // 40, axis=0))
    return mix(sky, lit * colour(1.0, 0.99, 0.98), thick)


def _ground(rng: np.random.Generator, size: int, y: Floats, horizon: float, haze: Floats) -> Floats:
    dark, bright = (colour(*tone) for tone in _GROUNDS[rng.integers(len(_GROUNDS))])
    clumps = noise(rng, size, rng.uniform(5, 14), octaves=5, stretch=rng.uniform(1, 2.5))
    step = size // 60 + 1
    lit = clumps - np.pad(clumps, ((step, 0), (step, 0)), "edge")[:-step, :-step]
    leaves = noise(rng, size, 70, octaves=2)
    share = np.float32(0.42) + np.float32(0.30) * lit + np.float32(0.12) * clumps
    ground = mix(dark, bright, np.clip(share + np.float32(0.10) * leaves, 0, 1))
    soil = colour(
        *(np.array([0.60, 0.52, 0.39]) * rng.uniform(0.75, 1.15) * rng.normal(1, 0.03, 3))
    )
    fields = noise(rng, size, 2.5, octaves=3, stretch=3)
    bare = np.clip((fields - np.float32(rng.uniform(0.2, 2))) * 3, 0, 1)
    ground = mix(ground, soil * (1 + np.float32(0.08) * leaves), bare)
    distance = np.clip(1 - (y - np.float32(horizon)) / np.float32(0.9), 0, 1)
    return mix(ground, haze, np.float32(rng.uniform(0.2, 0.6)) * distance * distance)


def _steel(rng: np.random.Generator, scene: Floats) -> Floats:
    """Draw far lattice towers and their wires."""
    size = scene.shape[-1]
    layer = Image.new("L", (size, size))
    pen = ImageDraw.Draw(layer)
    width = max(1, round(size / 170))
    for _ in range(rng.integers(0, 2)):
        foot_x, foot_y = rng.uniform(0.0, 1.0) * size, rng.uniform(0.7, 1.3) * size
        tall, wide = rng.uniform(0.5, 1.2) * size, rng.uniform(0.06, 0.16) * size
        levels = [(foot_y - tall * k / 7, wide * (1 - 0.8 * k / 7)) for k in range(8)]
        for (low, low_half), (high, high_half) in pairwise(levels):
            for side in (-1, 1):
                foot = (foot_x + side * low_half, low)
                pen.line([foot, (foot_x + side * high_half, high)], fill=255, width=width)
                pen.line([foot, (foot_x - side * high_half, high)], fill=200, width=width)
        top = foot_y - tall * 0.85
        pen.line([(foot_x - 2 * wide, top), (foot_x + 2 * wide, top)], fill=255, width=width)
    for _ in range(rng.integers(0, 4)):
        start, end = rng.uniform(-0.2, 1.2, 2) * size
        pen.line([(0, start), (size, end)], fill=190, width=1)
    paint = colour(*(np.array([0.52, 0.55, 0.57]) * rng.uniform(0.5, 1.3)))
    return mix(scene, paint, np.asarray(layer, np.float32) / 255)
