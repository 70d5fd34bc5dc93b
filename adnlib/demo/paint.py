"""Brushes that the demo scenes share: smooth noise, distances to shapes, relief, and the camera.

A scene is painted on a canvas of twice the picture's side and developed to the picture's size,
which smooths every edge. Canvas coordinates run from -1 to 1 in both directions, so a scene looks
the same at every size. Nothing here knows what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Floats = NDArray[np.floating[Any]]  # canvases are float32, for speed
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]

SUPERSAMPLING = 2
VISIBLE_LEVELS = 3  # of 255: a smaller change is no part of a defect's mask


@dataclass(frozen=True)
class Picture:
    """One developed picture and the twin without its defect.

    Attributes:
        image: (size, size, 3) colour or (size, size) grey, uint8.
        clean: the same scene, light and sensor noise without the defect; equal to `image` outside
            `mask`, and everywhere in a good picture.
        mask: (size, size) bool, where the defect changed the picture; all False in a good one.
        body: (size, size) bool, where the object is, and what the defect changed about it.
    """

    image: Bytes
    clean: Bytes
    mask: Bools
    body: Bools


def plane(size: int) -> tuple[Floats, Floats]:
    """Return the x and y of each canvas point, both (2 size, 2 size), x to the right, y down."""
    side = SUPERSAMPLING * size
    line = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(2 / side) - 1
    x, y = np.meshgrid(line, line)
    return x, y


def turn(x: Floats, y: Floats, degrees: float) -> tuple[Floats, Floats]:
    """Return the coordinates in a frame turned by an angle."""
    cos, sin = np.float32(np.cos(np.deg2rad(degrees))), np.float32(np.sin(np.deg2rad(degrees)))
    return cos * x + sin * y, cos * y - sin * x


def noise(
    rng: np.random.Generator, side: int, cells: float, octaves: int = 1, stretch: float = 1.0
) -> Floats:
    """Return smooth noise, (side, side), mean 0 and standard deviation 1.

    Args:
        rng: the sample's generator.
        side: rows and columns.
        cells: bumps per side of the first octave; each further octave has twice as many at 0.55
            of the height.
        octaves: how many are added.
        stretch: how many times wider than high a bump is.
    """
    total = np.zeros((side, side), np.float32)
    for octave in range(octaves):
        rows = min(side, max(2, round(cells * 2**octave)))
        columns = min(side, max(2, round(cells * 2**octave / stretch)))
        coarse = rng.standard_normal((rows + 2, columns + 2), dtype=np.float32)
        fine = Image.fromarray(coarse).resize(
            (side, side), Image.Resampling.BICUBIC, box=(1, 1, columns + 1, rows + 1)
        )
        total += np.float32(0.55**octave) * np.asarray(fine)
    total -= total.mean()
    return total / (total.std() + np.float32(1e-6))


def enlarge(picture: Floats, side: int) -> Floats:
    """Return a picture, (n, n) or (3, n, n), bilinearly enlarged to (side, side) each."""
    if picture.ndim == 3:
        return np.stack([enlarge(channel, side) for channel in picture])
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


def soften(picture: Floats, radius: float) -> Floats:
    """Return a canvas (n, n) blurred by a Gaussian of the given radius in canvas coordinates."""
    small = picture[::4, ::4]
    blurred = ndimage.gaussian_filter(small, radius * small.shape[0] / 2)
    return enlarge(blurred, picture.shape[0])


def box(x: Floats, y: Floats, half_width: float, half_height: float, corner: float) -> Floats:
    """Return the signed distance (negative inside) to a centred box with rounded corners."""
    dx, dy = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    outside = length(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - np.float32(corner)


def length(x: Floats, y: Floats) -> Floats:
    """Return the distance to the origin (much faster than `np.hypot`)."""
    return np.sqrt(x * x + y * y)


def path(x: Floats, y: Floats, points: NDArray[np.float64]) -> Floats:
    """Return the distance to a line through points (n, 2), exact near it and large elsewhere."""
    distance = np.full(x.shape, 9, np.float32)
    margin = 0.08
    for (ax, ay), (bx, by) in pairwise(points):
        near = (
            (x > min(ax, bx) - margin)
            & (x < max(ax, bx) + margin)
            & (y > min(ay, by) - margin)
            & (y < max(ay, by) + margin)
        )
        px, py, dx, dy = x[near] - ax, y[near] - ay, bx - ax, by - ay
        along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        distance[near] = np.minimum(distance[near], length(px - along * dx, py - along * dy))
    return distance


def stroke(
    rng: np.random.Generator, middle: tuple[float, float], extent: float, bow: float, tremor: float
) -> NDArray[np.float64]:
    """Return points (16, 2) of a slightly bent, shaky line of a length, in any direction."""
    heading = rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, 16) * extent
    aside = rng.normal(0, bow) * along**2 + rng.normal(0, tremor, 16)
    cos, sin = np.cos(heading), np.sin(heading)
    return np.stack([cos * along - sin * aside, sin * along + cos * aside], 1) + np.array(middle)


def blob(rng: np.random.Generator, x: Floats, y: Floats, radius: float, roughness: float) -> Floats:
    """Return the distance to an irregular round patch about the origin, negative inside."""
    angle = np.arctan2(y, x)
    edge = np.ones_like(angle)
    for lobes in range(2, 9):
        swing, phase = rng.normal(0, roughness / lobes**0.5), rng.uniform(0, 2 * np.pi)
        edge += np.float32(swing) * np.cos(lobes * angle + np.float32(phase))
    return length(x, y) - np.float32(radius) * edge


def cover(distance: Floats, edge: float = 0.004) -> Floats:
    """Return 1 inside a shape and 0 outside it, with a ramp of the given width between."""
    return np.clip(np.float32(0.5) - distance / np.float32(edge), 0, 1)


def colour(red: float, green: float, blue: float) -> Floats:
    """Return a colour, (3, 1, 1), that spreads over a canvas; 0 to 1 each."""
    return np.array([red, green, blue], np.float32)[:, None, None]


def mix(under: Floats, over: Floats | float, alpha: Floats | np.floating[Any]) -> Floats:
    """Return `over` laid on `under` where alpha, (n, n), is 1."""
    return under + (over - under) * alpha


def relief(height: Floats, azimuth: float) -> tuple[Floats, Floats]:
    """Return the diffuse and the mirrored light of a height map lit from an angle in degrees.

    Heights are in canvas coordinates; the diffuse light of level ground is 1.
    """
    step = 2 / height.shape[0]
    slope_y, slope_x = np.gradient(height, np.float32(step))
    light_x, light_y = np.cos(np.deg2rad(azimuth)), np.sin(np.deg2rad(azimuth))
    facing = -(slope_x * np.float32(light_x) + slope_y * np.float32(light_y))
    steepness = np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    diffuse = np.maximum(1 + np.float32(0.8) * facing, 0) / steepness
    mirrored = np.maximum(1 - 6 * ((facing - np.float32(0.45)) / steepness) ** 2, 0) ** 2
    return diffuse, mirrored


def develop(
    rng: np.random.Generator,
    clean: Floats,
    defective: Floats,
    body: Floats,
    blur: float,
    grain: float,
) -> Picture:
    """Return what the camera makes of a canvas painted without and with the defect.

    Args:
        rng: the sample's generator; one draw of sensor noise serves both pictures.
        clean: the canvas without the defect, (3, n, n) or (n, n), values 0 to 1.
        defective: the canvas with it; the same array in a good picture.
        body: how much the object without the defect covers each point, (n, n), 0 to 1.
        blur: the lens's Gaussian radius in pixels.
        grain: standard deviation of the sensor noise at mid-grey, 0 to 1.
    """
    size = clean.shape[-1] // SUPERSAMPLING
    sensor = rng.standard_normal((*clean.shape[:-2], size, size), dtype=np.float32)
    before = _expose(clean, sensor, blur, grain)
    covered = _shrunk(body) >= 0.5
    if defective is clean:
        return Picture(before, before, np.zeros((size, size), bool), covered)
    after = _expose(defective, sensor, blur, grain)
    change = np.abs(after.astype(np.int16) - before)
    seen = (change.max(axis=2) if change.ndim == 3 else change) >= VISIBLE_LEVELS
    closed = ndimage.binary_closing(np.pad(seen, 2), np.ones((3, 3), bool))[2:-2, 2:-2]
    mask = ndimage.binary_fill_holes(closed)
    image = before.copy()
    image[mask] = after[mask]
    return Picture(image, before, mask, covered | mask)


def _expose(canvas: Floats, sensor: Floats, blur: float, grain: float) -> Bytes:
    light = np.clip(_shrunk(canvas), 0, 1.2)
    light = ndimage.gaussian_filter(light, (0,) * (light.ndim - 2) + (blur, blur), truncate=3)
    noisy = light + np.float32(grain) * (np.float32(0.5) + light) * sensor
    picture = (np.clip(noisy, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1)) if picture.ndim == 3 else picture


def _shrunk(canvas: Floats) -> Floats:
    """Return the mean over the canvas points of each pixel."""
    size = canvas.shape[-1] // SUPERSAMPLING
    light = np.zeros((*canvas.shape[:-2], size, size), np.float32)
    for row in range(SUPERSAMPLING):
        for column in range(SUPERSAMPLING):
            light += canvas[..., row::SUPERSAMPLING, column::SUPERSAMPLING]
    return light / SUPERSAMPLING**2
