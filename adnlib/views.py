"""Views: an image turned by an angle, on the device where the image lies.

DifferNet turns every image with PIL (nearest sampling, black fill). The same source pixel is
computed here in PIL's own 16.16 fixed-point arithmetic, so a view equals PIL's pixel for pixel, in
batches and without leaving the device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

_FRACTION_BITS = 16


def rotate(images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn square images counter-clockwise about their centre, one angle per image.

    Args:
        images: (N, C, S, S), any dtype.
        angles: (N,) degrees, float64, on any device.

    Returns:
        (N, C, S, S) of the same dtype; what lies outside the image is 0. Equal to
        `PIL.Image.rotate(angle)` for every angle
        (https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Image.rotate).

    Raises:
        ValueError: the images are not square, or there is not one angle per image.
    """
    count, channels, height, width = images.shape
    if height != width or angles.shape != (count,):
        raise ValueError(f"one angle per square image, got {images.shape} and {angles.shape}")
    table = pixel_table(images, images.new_zeros(channels))
    maps = turns(angles, height).to(images.device, non_blocking=True)
    return views_from(table, torch.arange(count, device=images.device), maps, height)


def pixel_table(images: torch.Tensor, black: torch.Tensor) -> torch.Tensor:
    """The pixels of images (N, C, S, S) in frames of `black` (C,), one below the other: (P, C).

    Many views are taken from one table, so what is done to its pixels is done once.
    """
    count, _, size, _ = images.shape
    frame, side = _frame(size), _framed_side(size)
    framed = black.repeat(count, side, side, 1)
    framed[:, frame:-frame, frame:-frame] = images.permute(0, 2, 3, 1)
    return framed.flatten(0, 2)


def views_from(
    table: torch.Tensor, chosen: torch.Tensor, maps: torch.Tensor, size: int
) -> torch.Tensor:
    """As `rotate`, of images in a `pixel_table`.

    Args:
        chosen: (V,), which image a view is of, on the table's device.
        maps: (V, 2, 3), what `turns` gives, on the table's device.
        size: of an image, px.

    Returns:
        (V, C, S, S), in channels-last order in memory.
    """
    source = _source_pixels(maps, size)
    first = chosen * _framed_side(size) ** 2
    source = source + first.to(torch.int32 if len(table) < 2**31 else torch.int64)[:, None, None]
    pixels = table.index_select(0, source.flatten())
    return pixels.view(*source.shape, -1).permute(0, 3, 1, 2)


def turns(angles: torch.Tensor, size: int) -> torch.Tensor:
    """PIL's affine maps of these angles for squares of `size` pixels.

    Args:
        angles: (V,) degrees, float64.

    Returns:
        int32 (V, 2, 3) on the CPU: of the source's x and of its y, the value at a view's first
        pixel, and what a column and a row to the right and below add, in 1 / 65536 pixels.
    """
    radians = [-math.radians(angle % 360.0) for angle in angles.tolist()]
    cos = torch.tensor([round(math.cos(turn), 15) for turn in radians], dtype=torch.float64)
    sin = torch.tensor([round(math.sin(turn), 15) for turn in radians], dtype=torch.float64)
    return torch.stack([_line(cos, sin, size), _line(-sin, cos, size)], 1)


def every_turn(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Every image at every angle: as `rotate`, of what is known before the images come.

    Args:
        images: (N, C, S, S), any dtype.
        maps: (V, 2, 3), what `turns` gives for S pixels, on the images' device.

    Returns:
        (N, V, C, S, S) of the images' dtype.
    """
    size = images.shape[-1]
    framed = F.pad(images, [_frame(size)] * 4)
    source = _source_pixels(maps, size)
    pixels = framed.flatten(2).index_select(2, source.flatten())
    return pixels.unflatten(2, source.shape).transpose(1, 2)


def draw_angles(
    images: int, views: int, generator: torch.Generator, max_angle: float
) -> torch.Tensor:
    """Angles uniform in +-max_angle degrees, (images, views) float64, as DifferNet trains."""
    uniform = torch.rand(images, views, generator=generator, dtype=torch.float64)
    return (2 * uniform - 1) * max_angle


def grid_angles(images: int, views: int) -> torch.Tensor:
    """The regular grid i * 360 / views, (images, views), as DifferNet maps and scores later (where
    it turns an image before it resizes it).

    It holds 0, 90, 180 and 270 degrees, whose views have no black corners; training never sees such
    views, and they drown the rest of the score.
    """
    return (_spread_out(views) * 360 / views).expand(images, views)


def even_angles(images: int, views: int, max_angle: float) -> torch.Tensor:
    """The middles of so many equal parts of +-max_angle degrees, (images, views) float64.

    The midpoint rule for what random angles estimate: a score's mean over the angles of training.
    Of a whole turn, numbers that four divides have no right angles, which `grid_angles` has.
    """
    odd = 2 * _spread_out(views) + 1
    return (odd * max_angle / views - max_angle).expand(images, views)


def _spread_out(count: int) -> torch.Tensor:
    """The numbers below `count`, float64, in steps of about the golden section of a circle.

    So the first few of them lie far apart, too: maps are made at the first of the test angles.
    """
    golden = count * (math.sqrt(5) - 1) / 2
    coprime = (step for step in range(1, count + 1) if math.gcd(step, count) == 1)
    step = min(coprime, key=lambda step: abs(step - golden))
    return (torch.arange(count, dtype=torch.float64) * step) % count


def _line(along_x: torch.Tensor, along_y: torch.Tensor, size: int) -> torch.Tensor:
    """One source coordinate of each map, int32 (V, 3) in fixed point."""
    centre = size / 2
    offset = along_x * -centre + along_y * -centre + centre
    values = torch.stack([offset + along_x * 0.5 + along_y * 0.5, along_x, along_y], 1)
    return torch.floor(values * (1 << _FRACTION_BITS) + 0.5).to(torch.int32)


def _frame(size: int) -> int:
    """How far outside a square image its views look, px: half of what the diagonal
    exceeds the side by."""
    return math.ceil(size * (math.sqrt(2) - 1) / 2) + 1


def _framed_side(size: int) -> int:
    return size + 2 * _frame(size)


def _source_pixels(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Which pixel of the framed image each pixel of a view shows: int32 (V, S, S), flat."""
    line = torch.arange(size, device=maps.device, dtype=torch.int32)
    start, column, row = maps[..., None, None].unbind(2)
    start = start + (_frame(size) << _FRACTION_BITS)
    pixels = (start + line * column) + line[:, None] * row
    x, y = pixels.bitwise_right_shift_(_FRACTION_BITS).unbind(1)
    return torch.add(x, y, alpha=_framed_side(size))
