"""Pictures: a map over its image in colours, a mask's outline, a silhouette."""

from __future__ import annotations

import io
from collections.abc import Mapping
from textwrap import wrap

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adnlib.background import background
from adnlib.explain import upsample
from adnlib.figures import style
from adnlib.selection import FAINTEST

COLOUR_MAPS = ("jet", "viridis")
"""Colours of maps: the paper's, and those that rise in lightness, so that grey print and colour
blindness keep their order."""
_BLEND = 0.5


def overlay(
    image: torch.Tensor, heat: np.ndarray, scale: float, colours: str = "jet"
) -> np.ndarray:
    """Colours of a map blended half over an image.

    Args:
        image: uint8 (3, S, S).
        heat: (h, w) map; enlarged bilinearly.
        scale: the value that gets the last colour; higher ones get it too.
        colours: one of `COLOUR_MAPS`.

    Returns:
        float (S, S, 3), 0..1.
    """
    enlarged = upsample(torch.from_numpy(heat)[None], image.shape[-1])[0].numpy()
    coloured = colormaps[colours](np.clip(enlarged / scale, 0, 1))[..., :3]
    return _BLEND * coloured + (1 - _BLEND) * as_pixels(image)


def draw_maps(
    image: torch.Tensor, maps: Mapping[str, torch.Tensor], mask: torch.Tensor | None = None
) -> bytes:
    """An image, and beside it each map over it, on a colour scale of its own from 0 to its highest.

    So maps in different units stand side by side; their strengths cannot be compared.

    Args:
        image: uint8 (3, S, S).
        maps: (h, w) by title.
        mask: bool (S, S), outlined where there is one.

    Returns:
        A PNG, for `IPython.display.Image`.
    """
    with style():
        figure = Figure(figsize=((1 + len(maps)) * 2.1, 2.5), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(maps), squeeze=False)[0]
        draw_picture(first, as_pixels(image), mask)
        first.set_title("image")
        for axes, (title, heat) in zip(others, maps.items(), strict=True):
            scale = max(heat.max().item(), FAINTEST)
            draw_picture(axes, overlay(image, heat.numpy(), scale), mask)
            axes.set_title("\n".join(wrap(title, 26)), fontsize="small")
        png = io.BytesIO()
        figure.savefig(png, dpi=110)
    return png.getvalue()


def draw_picture(axes: Axes, pixels: np.ndarray, mask: torch.Tensor | None) -> None:
    """Fill the axes with pixels (S, S, 3), and outline what is True in a mask (S, S)."""
    axes.imshow(pixels)
    if mask is not None and mask.any() and not mask.all():
        for colour, width in (("black", 1.4), ("white", 0.7)):
            axes.contour(mask.numpy(), levels=[0.5], colors=colour, linewidths=width)
    axes.set_axis_off()


def silhouette(image: torch.Tensor) -> torch.Tensor:
    """Light grey where the image is background, darker where it is not; (3, S, S)."""
    return (150 + 90 * background(image)).to(torch.uint8).expand(3, -1, -1)


def as_pixels(image: torch.Tensor) -> np.ndarray:
    """uint8 (3, S, S) as float (S, S, 3), 0..1."""
    return image.permute(1, 2, 0).numpy() / 255
