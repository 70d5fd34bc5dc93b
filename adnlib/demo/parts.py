"""demo_parts/bracket: a cast metal bracket with a plastic insert on a plain table, as in a factory.

Pose and light vary a little from picture to picture. Defects: a scratch, a drilled hole where none
belongs, a broken-off piece.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adnlib.demo.paint import (
    Floats,
    Picture,
    blob,
    box,
    colour,
    cover,
    develop,
    length,
    mix,
    noise,
    path,
    plane,
    relief,
    soften,
    stroke,
    turn,
)

DEFECTS = ("scratch", "hole", "missing_piece")


@dataclass(frozen=True)
class _Part:
    """The bracket before it is lit; all (n, n)."""

    outline: Floats  # signed distance
    height: Floats
    albedo: Floats  # brightness of the metal
    insert: Floats  # share of plastic


def draw(rng: np.random.Generator, size: int, defect: str | None) -> Picture:
    """Return one picture in colour; `defect` is one of `DEFECTS` or None."""
    x, y = plane(size)
    x, y = turn(x - rng.uniform(0.0, 0.1), y + rng.uniform(0.03, 0.13), rng.normal(0, 3))
    scale = np.float32(rng.normal(1, 0.012))
    x, y = x / scale, y / scale
    grain = noise(rng, len(x), 110, octaves=3)
    stains = noise(rng, len(x), 3, octaves=4)
    part = _bracket(x, y, grain, stains)
    azimuth = rng.normal(-125, 6)
    lamp = np.float32(rng.normal(1, 0.025)) * (
        1 + np.float32(rng.normal(0, 0.03)) * x + np.float32(rng.normal(0, 0.03)) * y
    )
    weave = 1 + np.float32(0.03) * grain[::-1] + np.float32(0.03) * stains[::-1]
    ground = weave * (colour(0.36, 0.40, 0.41) * np.float32(rng.normal(1, 0.015)))
    plastic = colour(*(np.array([0.82, 0.36, 0.10]) * rng.normal(1, 0.02, 3)))
    shadow_shift = rng.uniform(0.03, 0.05)

    def light(part: _Part) -> Floats:
        body = cover(part.outline)
        reach = round(shadow_shift * len(x) / 2)
        shade = soften(np.roll(body, (reach, round(reach * 0.7)), (0, 1)), 0.025)
        diffuse, mirrored = relief(part.height, azimuth)
        metal = colour(0.98, 1.0, 1.03) * (part.albedo * diffuse * np.float32(0.66))
        gloss = plastic * (np.float32(0.35) + np.float32(0.6) * diffuse)
        surface = mix(metal, gloss, part.insert) + np.float32(0.28) * mirrored
        return mix(ground * (1 - np.float32(0.55) * shade), surface, body) * lamp

    clean = light(part)
    spoilt = clean if defect is None else light(_spoil(rng, part, defect, x, y, grain))
    return develop(
        rng, clean, spoilt, cover(part.outline), blur=rng.uniform(0.4, 0.55), grain=0.012
    )


def _bracket(x: Floats, y: Floats, grain: Floats, stains: Floats) -> _Part:
    base = box(x, y - 0.42, 0.70, 0.24, 0.09)
    arm = box(x + 0.28, y + 0.18, 0.30, 0.62, 0.12)
    outline = _join(base, arm, 0.16)
    ring = length(x + 0.28, y + 0.44)
    right, left = length(x - 0.46, y - 0.42), length(x + 0.44, y - 0.42)
    slot = box(x - 0.06, y - 0.44, 0.17, 0.045, 0.045)
    solid = outline
    for opening in (0.11 - ring, 0.075 - right, 0.075 - left, -slot):
        solid = np.maximum(solid, opening)
    height = np.float32(0.05) * _bevel(-solid, 0.05)
    height += np.float32(0.035) * _bevel(0.20 - ring, 0.03)
    for bolt in (right, left):
        height += np.float32(0.018) * _bevel(0.13 - bolt, 0.02)
    rib = box(x + 0.28, y - 0.02, 0.035, 0.20, 0.035)
    height += np.float32(0.03) * _bevel(-rib, 0.03)
    insert = box(x - 0.20, y - 0.26, 0.13, 0.065, 0.03)
    height += np.float32(0.03) * _bevel(-insert, 0.02)
    turned = np.float32(0.0009) * np.sin(ring * 330) * cover(ring - 0.19, 0.01)
    height += turned + np.float32(0.0006) * grain * cover(0.19 - ring, 0.01)
    albedo = 1 + np.float32(0.05) * stains + np.float32(0.10) * cover(ring - 0.19, 0.01)
    return _Part(solid, height, albedo, cover(insert))


def _spoil(
    rng: np.random.Generator, part: _Part, defect: str, x: Floats, y: Floats, grain: Floats
) -> _Part:
    severity = rng.uniform()  # 0 barely seen, 1 plain
    outline, height, albedo = part.outline, part.height, part.albedo
    if defect == "missing_piece":
        cx, cy = _pick(rng, np.abs(outline) < max(0.006, 2 / len(x)), x, y)
        bite = blob(rng, x - cx, y - cy, 0.07 + 0.25 * severity, 0.09) + np.float32(0.006) * grain
        outline = np.maximum(outline, -bite)
        wall = cover(np.abs(bite) - 0.025, 0.02)
        height = height - (np.float32(0.02) + np.float32(0.004) * grain) * wall
        return _Part(outline, height, albedo * (1 + np.float32(0.12) * wall), part.insert)
    cx, cy = _pick(rng, (outline < -0.05) & (part.insert == 0), x, y)
    if defect == "hole":
        pit = blob(rng, x - cx, y - cy, 0.033 + 0.095 * severity, 0.05)
        inside, burr = cover(pit, 0.012), cover(np.abs(pit) - 0.008, 0.012)
        height = height - np.float32(0.05) * inside + np.float32(0.008) * burr
        albedo = albedo * (1 - np.float32(0.55 + 0.35 * severity) * inside)
        return _Part(outline, height, albedo, part.insert)
    points = stroke(rng, (cx, cy), 0.28 + 0.7 * severity, bow=0.35, tremor=0.003)
    width = 0.008 + 0.014 * severity
    distance = path(x, y, points) + np.float32(0.0015) * grain
    groove, lips = cover(distance - width, width), cover(np.abs(distance - 2 * width) - width)
    depth = np.float32(0.006 + 0.008 * severity)
    height = height - depth * groove + np.float32(0.3) * depth * lips
    return _Part(outline, height, albedo * (1 + np.float32(0.35) * groove), part.insert)


def _pick(rng: np.random.Generator, where: np.ndarray, x: Floats, y: Floats) -> tuple[float, float]:
    spots = np.flatnonzero(where)
    spot = spots[rng.integers(len(spots))]
    return float(x.flat[spot]), float(y.flat[spot])


def _bevel(depth: Floats, width: float) -> Floats:
    ramp = np.clip(depth / np.float32(width), 0, 1)
    return np.sqrt(1 - (1 - ramp) ** 2)


def _join(first: Floats, second: Floats, fillet: float) -> Floats:
    """Return the union of two shapes with a rounded inner corner."""
    blend = np.clip(0.5 + 0.5 * (second - first) / np.float32(fillet), 0, 1)
    return second + (first - second) * blend - np.float32(fillet) * blend * (1 - blend)
