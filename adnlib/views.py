"""Views: an image turned by an angle, on the device where the image lies.

DifferNet turns every image with PIL (nearest sampling, black fill). The same source pixel is
computed here in PIL's own 16.16 fixed-point arithmetic, so a view equals PIL's pixel for pixel, in
batches and without leaving the device.
"""

from __future__ import annotations

import math

import torch

_FRACTION_BITS = 16


def rotate(images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Turn square images counter-clockwise about their centre, one angle an image.

    Args:
        images: (N, C, S, S), any dtype.
        angles: (N,) degrees, float64, on any device.

    Returns:
        (N, C, S, S) of the same dtype; what lies outside the image is 0. Equal to
        `PIL.Image.rotate(angle)` for every angle
        (https://pillow.readthedocs.io/en/stable/reference/Image.html#PIL.Image.Image.rotate).

    Raises:
        ValueError: the images are not square, or there is not one angle an image.
    """
    count, channels, height, width = images.shape
    if height != width or angles.shape != (count,):
        raise ValueError(f"one angle a square image, got {images.shape} and {angles.shape}")
    source, inside = _source_pixels(angles, height, images.device)
    pixels = images.flatten(2).gather(2, source[:, None].expand(-1, channels, -1))
    return torch.where(inside[:, None], pixels, 0).view(images.shape)


def draw_angles(
    images: int, views: int, generator: torch.Generator, max_angle: float
) -> torch.Tensor:
    """Angles uniform in +-max_angle degrees, (images, views) float64, as DifferNet trains."""
    uniform = torch.rand(images, views, generator=generator, dtype=torch.float64)
    return (2 * uniform - 1) * max_angle


def grid_angles(images: int, views: int) -> torch.Tensor:
    """The regular grid i * 360 / views, (images, views): what DifferNet's maps use.

    It holds 0, 90, 180 and 270 degrees, whose views have no black corners; training never sees such
    views, and they drown the rest of the score.
    """
    return (torch.arange(views, dtype=torch.float64) * 360 / views).expand(images, views)


def _source_pixels(
    angles: torch.Tensor, size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat index (N, S * S) of the pixel that each pixel of a view shows, and if it lies inside."""
    turns = [-math.radians(angle % 360.0) for angle in angles.tolist()]
    cos = torch.tensor([round(math.cos(turn), 15) for turn in turns], dtype=torch.float64)
    sin = torch.tensor([round(math.sin(turn), 15) for turn in turns], dtype=torch.float64)
    x = _coordinates(cos, sin, size, device)
    y = _coordinates(-sin, cos, size, device)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
    return torch.where(inside, y * size + x, 0).flatten(1).long(), inside.flatten(1)


def _coordinates(
    along_x: torch.Tensor, along_y: torch.Tensor, size: int, device: torch.device
) -> torch.Tensor:
    """One source coordinate (N, S, S) of each pixel's centre under the affine map."""
    centre = size / 2
    offset = along_x * -centre + along_y * -centre + centre
    start, step_x, step_y = (
        torch.floor(value * (1 << _FRACTION_BITS) + 0.5).to(device, torch.int32).view(-1, 1, 1)
        for value in (offset + along_x * 0.5 + along_y * 0.5, along_x, along_y)
    )
    line = torch.arange(size, device=device, dtype=torch.int32)
    return (start + line * step_x + line[:, None] * step_y) >> _FRACTION_BITS
