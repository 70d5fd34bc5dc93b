"""demo_outdoor/insulator: a string of glass insulators above a changing landscape, as from a drone.

Distance, pose, weather and sun vary widely. Defects: rust on the fittings, a broken or missing
glass shell, a foreign object (a bird's nest or a torn plastic sheet).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from adnlib.demo.landscape import landscape
from adnlib.demo.paint import (
    Floats,
    Picture,
    box,
    colour,
    cover,
    develop,
    enlarge,
    length,
    mix,
    noise,
    plane,
    turn,
)

DEFECTS = ("rust", "break", "foreign_object")

_UNITS = 4  # glass shells in the string
_PITCH = 0.40
_TOP = -0.74  # where the string begins along its axis
_SHELL = 0.30  # its radius
# One unit of the string, from its cap to the pin of the next: place along the pitch, radius, light.
_PROFILE = np.array(
    [
        (0.00, 0.050, 0.8),
        (0.03, 0.085, 1.0),
        (0.28, 0.088, 0.9),
        (0.33, 0.105, 0.85),
        (0.39, 0.190, 0.95),
        (0.47, 0.255, 0.85),
        (0.56, 0.290, 0.9),
        (0.63, _SHELL, 1.25),
        (0.68, 0.290, 0.65),
        (0.71, 0.240, 0.45),
        (0.73, 0.060, 0.4),
        (0.78, 0.036, 0.7),
        (1.00, 0.036, 0.8),
    ]
)
_STEPS = 2048
_RADIUS, _SHINE = (
    np.interp(np.linspace(0, 1, _STEPS), _PROFILE[:, 0], _PROFILE[:, column]).astype(np.float32)
    for column in (1, 2)
)
_GLASS = (0.33, 0.72)  # part of the pitch that is glass


@dataclass(frozen=True)
class _Fitting:
    """The object apart from its ground; all (n, n) but `look`."""

    look: Floats  # (3, n, n), lit
    body: Floats  # how much of the ground it hides
    metal: Floats  # share of steel
    shell: Floats  # which glass shell covers a point, -1 where none does
    across: Floats  # distance from the string's axis in shell radii, signed


def draw(rng: np.random.Generator, size: int, defect: str | None) -> Picture:
    """Return one picture in colour; `defect` is one of `DEFECTS` or None."""
    x, y = plane(size)
    side = len(x)
    back = enlarge(landscape(rng, size), side)
    x, y = turn(x - rng.uniform(-0.12, 0.12), y - rng.uniform(-0.06, 0.06), rng.normal(0, 9))
    scale = np.float32(rng.uniform(0.86, 1.14))
    x, y = x / scale, y / scale
    grit = noise(rng, side, 90, octaves=3)
    fitting = _fitting(rng, x, y, back, grit)
    sun = np.float32(rng.normal(1, 0.07)) * colour(*rng.normal(1, 0.025, 3))
    glow = np.float32(rng.uniform(0, 0.06)) * (1 - y)

    def light(look: Floats, body: Floats) -> Floats:
        return mix(back, look, body) * sun + glow

    clean = light(fitting.look, fitting.body)
    spoilt = clean
    if defect == "rust":
        spoilt = light(_rust(rng, fitting, x, y), fitting.body)
    elif defect == "break":
        spoilt = light(*_break(rng, fitting, y))
    elif defect == "foreign_object":
        spoilt = light(*_foreign(rng, fitting, x, y))
    return develop(rng, clean, spoilt, fitting.body, blur=rng.uniform(0.3, 0.8), grain=0.014)


def _fitting(
    rng: np.random.Generator, x: Floats, y: Floats, back: Floats, grit: Floats
) -> _Fitting:
    """Return the string with its steel arm above and the clamped cable below."""
    bend = np.float32(rng.uniform(0.10, 0.32))  # how far from above the string is seen
    sun = np.float32(rng.uniform(-0.7, 0.7))
    sag = np.float32(rng.uniform(0.02, 0.10))
    zinc = colour(0.60, 0.63, 0.66) * np.float32(rng.normal(1, 0.05))
    glass = colour(0.60, 0.76, 0.72) * np.float32(rng.normal(1, 0.04))

    # A solid of revolution: seen from above, its front lies lower in the picture than its sides.
    front = bend * np.sqrt(np.maximum(_SHELL**2 - x * x, 0))
    along = (y - front - _TOP) / _PITCH
    unit = np.floor(along)
    part = along - unit
    step = (part * (_STEPS - 1)).astype(np.intp)
    radius, shine = _RADIUS[step], _SHINE[step]
    string = cover(np.abs(x) - radius, 0.008) * ((unit >= 0) & (unit < _UNITS))
    is_glass = (part > _GLASS[0]) & (part < _GLASS[1])
    turned = np.clip(x / radius, -1, 1)
    facing = sun * turned + np.sqrt(1 - np.minimum(turned * turned, 1)) * np.float32(0.75)
    lit = shine * (np.float32(0.45) + np.float32(0.7) * np.maximum(facing, 0))
    rim = np.float32(0.25) * (turned * turned) ** 2
    glint = np.float32(0.5) * np.exp(-(((turned - sun * np.float32(0.8)) / 0.10) ** 2))
    through = np.float32(0.45) * np.roll(back, len(x) // 30, axis=-1)
    clear = glass * (np.float32(0.62) * lit + rim) + through + glint * (shine > 0.8)
    body = string * np.where(is_glass, np.float32(0.93), 1)
    steel, metal = lit, string * ~is_glass  # the steel's brightness and its share

    steel, body, metal = _hardware(x, y, bend * _SHELL, sag, sun, (steel, body, metal))
    look = mix(clear, zinc * (steel + np.float32(0.035) * grit), metal)
    solid = is_glass & (string > 0)
    return _Fitting(look, body, metal, np.where(solid, unit, -1), x / np.float32(_SHELL))


def _hardware(
    x: Floats,
    y: Floats,
    drop: np.float32,
    sag: np.float32,
    sun: np.float32,
    string: tuple[Floats, Floats, Floats],
) -> tuple[Floats, Floats, Floats]:
    """Return the steel's brightness, the body and the share of steel with all fittings added."""
    steel, body, metal = string
    rod = np.abs(x) - np.float32(0.035)
    start = _TOP + drop
    end = start + _UNITS * _PITCH
    top = np.maximum(rod, y - start - 0.01)
    bottom = np.maximum(rod, np.abs(y - end - 0.03) - 0.05)
    eye = np.abs(length(x, y - (_TOP - 0.09)) - 0.06) - 0.025
    clamp = box(x, y - end - 0.08, 0.20 - np.abs(y - end - 0.08), 0.09, 0.03)
    arm = box(x, y + 1.12, 0.55, 0.20, 0.02)
    cable = np.abs(y - end - 0.09 - sag * x * x) - 0.032
    strands = np.sin((x + 1.5 * (y - end)) * np.float32(110))
    for shape, bright in (
        (np.minimum(top, bottom), 0.75 + 10 * sun * x),
        (eye, 0.95 - 4.0 * np.abs(eye + 0.025)),
        (arm, 0.86 + 0.10 * x),
        (cable, 0.88 + 0.14 * strands + 4 * (cable + 0.032)),
        (clamp, 0.95 - 0.9 * (y - end) + sun * x),
    ):
        cut = cover(shape, 0.008)
        steel, body, metal = mix(steel, bright, cut), np.maximum(body, cut), np.maximum(metal, cut)
    row = length(np.abs(np.abs(x) - 0.3) - 0.1, y + 0.99)  # four bolts, by folding the arm twice
    bolt = np.minimum(row, length(x, y - end - 0.03))
    steel = steel * (1 - np.float32(0.4) * cover(bolt - 0.046, 0.01))
    steel = mix(steel, np.float32(1.25) - 10 * bolt, cover(bolt - 0.036, 0.008))
    return steel, body, metal


def _rust(rng: np.random.Generator, fitting: _Fitting, x: Floats, y: Floats) -> Floats:
    severity = rng.uniform()
    spots = np.flatnonzero(fitting.metal > 0.9)
    spot = spots[rng.integers(len(spots))]
    flakes = noise(rng, len(x), 22, octaves=4)
    reach = length(x - x.flat[spot], y - y.flat[spot]) / np.float32(0.10 + 0.45 * severity)
    stain = np.clip((np.float32(1.1) - reach**2 + np.float32(0.5) * flakes) * 1.5, 0, 1)
    tone = np.clip(np.float32(0.75) + np.float32(0.22) * flakes, 0.3, 1.3)
    brown = colour(0.50, 0.26, 0.12) * tone
    brown = brown * (np.float32(0.4) + np.float32(0.6) * fitting.look.mean(axis=0) / 0.6)
    return mix(fitting.look, brown, fitting.metal * stain * np.float32(0.55 + 0.4 * severity))


def _break(rng: np.random.Generator, fitting: _Fitting, y: Floats) -> tuple[Floats, Floats]:
    """Return the look and the body once glass has gone; what is left of the shell is crumbled."""
    severity = rng.uniform()
    visible = [k for k in range(_UNITS) if (fitting.shell == k).sum() > 0.01 * y.size]
    first = rng.integers(len(visible))
    jags = np.float32(0.08) * noise(rng, len(y), 11, octaves=4)
    if severity > 0.5:  # shattered: hardly more than the caps are left, of two shells at the worst
        hit = np.isin(fitting.shell, visible[first : first + (2 if severity > 0.75 else 1)])
        beyond = np.abs(fitting.across) + jags - np.float32(0.8 - 0.4 * severity)
    else:
        hit = fitting.shell == visible[first]
        beyond = float(rng.choice([-1, 1])) * fitting.across + jags - np.float32(0.7 - severity)
    crumbs = np.clip(np.float32(0.68) + np.float32(0.36) * noise(rng, len(y), 55, octaves=2), 0, 1)
    crumbled = hit * np.clip(1 + beyond / np.float32(0.08 + 0.5 * severity), 0, 1)
    look = mix(fitting.look, crumbs * colour(0.92, 1.0, 0.98), np.float32(0.85) * crumbled)
    return look, fitting.body * ~(hit & (beyond > 0))


def _foreign(
    rng: np.random.Generator, fitting: _Fitting, x: Floats, y: Floats
) -> tuple[Floats, Floats]:
    severity = rng.uniform()
    spots = np.flatnonzero((fitting.body > 0.9) & (np.abs(y) < 0.85))
    row, column = np.unravel_index(spots[rng.integers(len(spots))], x.shape)
    side = len(x)
    reach = (0.07 + 0.15 * severity) * side / 2
    things = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(things)
    if rng.uniform() < 0.6:  # a nest of twigs
        for _ in range(round(25 + 110 * severity)):
            middle = rng.normal((column, row), (reach, 0.5 * reach))
            heading, bow = rng.normal(0, 0.7), rng.normal(0, 0.15)
            extent = rng.uniform(0.5, 1.3) * reach
            t = np.linspace(-1, 1, 5)
            xs = middle[0] + extent * (np.cos(heading) * t - np.sin(heading) * bow * t**2)
            ys = middle[1] + extent * (np.sin(heading) * t + np.cos(heading) * bow * t**2)
            tone = np.array([130, 100, 70]) * rng.uniform(0.45, 1.5)
            twig = tuple(int(v) for v in np.clip(tone, 0, 255))
            points = list(zip(xs.tolist(), ys.tolist(), strict=True))
            pen.line(points, fill=(*twig, 255), width=max(1, side // 220))
    else:  # a torn plastic sheet
        edge = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        swing = 1 + 0.25 * np.sin(3 * edge + rng.uniform(0, 6)) + rng.normal(0, 0.09, 40)
        xs = column + reach * swing * np.cos(edge) * 0.8
        ys = row + reach * (swing * np.sin(edge) * 1.5 + 0.8)
        hue = (rng.uniform(150, 235) + rng.uniform(-35, 20, 3)).astype(int).tolist()
        pen.polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=(*hue, 235))
    layer = np.moveaxis(np.asarray(things, np.float32) / 255, 2, 0)
    folds = 1 + np.float32(0.12) * noise(rng, side, 12, octaves=2, stretch=0.4)
    body = np.maximum(fitting.body, layer[3])
    return mix(fitting.look, layer[:3] * folds, layer[3]), body
