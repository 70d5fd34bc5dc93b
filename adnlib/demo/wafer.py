"""demo_wafer/chip: a chip sawn from a wafer, in grey, as a microscope sees it.

Every chip has the same design; layer brightness, focus, lamp, cut and position vary. Defects are
small: a particle, a scratch, a chipped edge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from adnlib.demo.paint import (
    SUPERSAMPLING,
    Floats,
    Picture,
    blob,
    cover,
    develop,
    length,
    mix,
    noise,
    path,
    plane,
    stroke,
    turn,
)

DEFECTS = ("particle", "scratch", "chipping")

_DIE = 0.78  # half side of the chip
_CUT = 0.88  # from here outwards the saw has been


def draw(rng: np.random.Generator, size: int, defect: str | None) -> Picture:
    """Return one picture in grey; `defect` is one of `DEFECTS` or None."""
    x, y = plane(size)
    angle, shift = rng.normal(0, 0.8), rng.normal(0, 0.01, 2)
    die, metal, memory, pads = _place(_design(size), angle, shift)
    x, y = turn(x - np.float32(shift[0]), y - np.float32(shift[1]), angle)
    film = noise(rng, len(x), 2.5, octaves=2)  # thickness of the transparent layer: soft fringes
    grit = noise(rng, len(x), 200)
    grey: Floats = np.float32(rng.normal(0.36, 0.008)) + np.float32(0.012) * grit
    grey = mix(grey, np.float32(rng.normal(0.47, 0.01)) + np.float32(0.015) * film, die)
    grey = mix(grey, np.float32(rng.normal(0.31, 0.008)) - np.float32(0.01) * film, memory)
    grey = mix(grey, rng.normal(0.60, 0.01), metal)
    grey = mix(grey, np.float32(rng.normal(0.86, 0.012)) + np.float32(0.02) * grit, pads)
    depth = _saw(rng, x, y)
    kerf = np.float32(0.10) + np.float32(0.015) * grit
    lamp = np.float32(rng.normal(1, 0.02)) * (
        1
        - np.float32(rng.uniform(0.14, 0.24)) * (x * x + y * y) * np.float32(0.5)
        + np.float32(rng.normal(0, 0.02)) * x
        + np.float32(rng.normal(0, 0.02)) * y
    )

    def light(grey: Floats, depth: Floats) -> Floats:
        rim = np.float32(0.16) * cover(np.abs(depth + 0.006) - 0.004, 0.008)
        return (mix(grey, kerf, cover(depth, 0.012)) + rim) * lamp

    clean = light(grey, depth)
    spoilt = clean if defect is None else light(*_spoil(rng, defect, grey, depth, x, y, grit))
    body = 1 - cover(depth, 0.012)
    return develop(rng, clean, spoilt, body, blur=rng.uniform(0.45, 0.6), grain=0.016)


def _spoil(
    rng: np.random.Generator,
    defect: str,
    grey: Floats,
    depth: Floats,
    x: Floats,
    y: Floats,
    grit: Floats,
) -> tuple[Floats, Floats]:
    """Return the surface's brightness and the depth behind the saw's edge, with the defect."""
    severity = rng.uniform()  # 0 barely seen, 1 plain
    if defect == "chipping":
        along, side = rng.uniform(-0.7, 0.7), rng.integers(4)
        cx, cy = [(along, _CUT), (along, -_CUT), (_CUT, along), (-_CUT, along)][side]
        bite = blob(rng, x - cx, y - cy, 0.07 + 0.18 * severity, 0.10) + np.float32(0.004) * grit
        facets = noise(rng, len(x), 40, octaves=2)
        shell = np.float32(0.40) + np.float32(0.13) * facets
        grey = mix(grey, shell, cover(bite - 0.03 * severity, 0.012))
        return grey, np.minimum(depth, bite + 0.01)
    cx, cy = rng.uniform(-0.68, 0.68, 2)
    if defect == "particle":
        for _ in range(1 + rng.poisson(1 + 4 * severity)):
            radius = (0.018 + 0.042 * severity) * rng.uniform(0.6, 1)
            dx, dy = x - np.float32(cx), y - np.float32(cy)
            speck = blob(rng, dx, dy, radius, 0.10)
            halo = np.cos(length(dx, dy) * np.float32(2.2 / radius))
            halo *= np.exp(-((length(dx, dy) / np.float32(1.7 * radius)) ** 2))
            glint = length(dx + 0.3 * radius, dy + 0.3 * radius) - 0.35 * radius
            grey = grey + np.float32(0.08) * halo
            grey = mix(grey, 0.14, np.float32(0.55 + 0.4 * severity) * cover(speck, 0.01))
            grey = mix(grey, 0.85, cover(glint, 0.015))
            cx, cy = np.clip(rng.normal((cx, cy), 0.09), -0.7, 0.7)
        return grey, depth
    points = stroke(rng, (cx, cy), 0.25 + 0.95 * severity, bow=0.25, tremor=0.002)
    width = 0.007 + 0.012 * severity
    distance = path(x, y, points) + np.float32(0.0012) * grit
    tone = np.float32(rng.choice([0.08, 0.88])) + np.float32(0.12) * grit
    return mix(grey, tone, np.float32(0.5 + 0.5 * severity) * cover(distance - width, width)), depth


def _saw(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Return the distance to the rough edge that the saw left, positive on the chip's side."""
    knots, line = np.linspace(0, 1, 90), np.linspace(0, 1, len(x))
    edges: list[Floats] = []
    for across in (x, -x, y, -y):
        wear = np.interp(line, knots, rng.normal(0, 0.005, 90)).astype(np.float32)
        along = wear[:, None] if len(edges) < 2 else wear
        edges.append(np.float32(_CUT + rng.normal(0, 0.008)) - across + along)
    return np.minimum.reduce(edges)


def _place(design: Image.Image, angle: float, shift: np.ndarray) -> Floats:
    """Return the layers, (4, n, n), turned and shifted as `turn` does the coordinates."""
    cos, sin = float(np.cos(np.deg2rad(angle))), float(np.sin(np.deg2rad(angle)))
    middle = design.width / 2
    x, y = (float(v) for v in middle * (1 + shift))
    matrix = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    method, sampling = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    placed = np.asarray(design.transform(design.size, method, matrix, sampling))
    return np.moveaxis(placed, 2, 0).astype(np.float32, order="C") / 255


@lru_cache(maxsize=2)
def _design(size: int) -> Image.Image:
    """Return the one chip design, on the canvas, its bands the layers die, metal, memory, pads."""
    side = SUPERSAMPLING * size
    layers = [Image.new("L", (side, side)) for _ in range(4)]
    die, metal, memory, pads = (ImageDraw.Draw(layer) for layer in layers)

    def area(x: float, y: float, width: float, height: float) -> list[float]:
        return [(v + 1) * side / 2 for v in (x, y, x + width, y + height)]

    die.rectangle(area(-_DIE, -_DIE, 2 * _DIE, 2 * _DIE), fill=255)
    for inset in (0.02, 0.045):  # seal rings
        ring = area(-_DIE + inset, -_DIE + inset, 2 * (_DIE - inset), 2 * (_DIE - inset))
        metal.rectangle(ring, outline=220, width=max(1, side // 170))
    for k in range(11):  # bond pads on four sides, each with its lead
        place = -0.635 + 0.12 * k
        for px, py in ((place, -0.70), (place, 0.63), (-0.70, place), (0.63, place)):
            pads.rectangle(area(px, py, 0.07, 0.07), fill=255)
            metal.rectangle(area(px - 0.012, py - 0.012, 0.094, 0.094), fill=150)
        metal.rectangle(area(place + 0.025, -0.63, 0.018, 0.08), fill=255)
        metal.rectangle(area(place + 0.025, 0.55, 0.018, 0.08), fill=255)
    for row in range(2):  # memory blocks: cells, word lines and a decoder between halves
        for column in range(4):
            left, top = -0.54 + 0.275 * column, -0.52 + 0.42 * row
            memory.rectangle(area(left, top, 0.235, 0.37), fill=255)
            for line in range(12):
                metal.rectangle(area(left, top + 0.012 + 0.0305 * line, 0.235, 0.011), fill=130)
            for line in range(6):
                metal.rectangle(area(left + 0.012 + 0.042 * line, top, 0.009, 0.37), fill=190)
            metal.rectangle(area(left + 0.105, top, 0.025, 0.37), fill=255)
    cells = np.random.default_rng(1978)  # the design is the same for every seed
    for line in range(9):  # rows of logic
        top = 0.315 + 0.026 * line
        metal.rectangle(area(-0.54, top, 0.72, 0.005), fill=235)
        left = -0.54
        while left < 0.15:
            width = float(cells.choice([0.012, 0.02, 0.032]))
            memory.rectangle(area(left, top + 0.008, width, 0.012), fill=230)
            left += width + float(cells.choice([0.008, 0.014]))
    for turn_ in range(6):  # an inductor
        inset = 0.018 * turn_
        ring = area(0.24 + inset, 0.30 + inset, 0.29 - 2 * inset, 0.23 - 2 * inset)
        metal.rectangle(ring, outline=255, width=max(1, side // 150))
    for line in range(4):  # buses
        metal.rectangle(area(-0.54, -0.575 + 0.012 * line, 1.08, 0.006), fill=240)
    return Image.merge("CMYK", layers)  # for one transform of four bands
