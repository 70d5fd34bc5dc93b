"""The background of an image, found without a mask: what has the border's colours and joins it.

A guess from one image alone; it learns nothing and knows no objects. It holds as far as the object
lies inside the image and differs in colour from what surrounds it, and errs towards the object:
what it leaves out of the background stays as it was. A picture of a texture is all background by
this rule. Whoever uses it should look at `background_share`, and at pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

_BINS = 32  # a colour channel
_COLOUR_WIDTH = 0.03  # of a channel's range: how near two colours are one
_LEAST = 0.01  # share of the border that a colour of the background has
_AGAINST_INSIDE = 0.45  # and that share against the inside's, where an object's colours are
# Of the image's side:
_FRAME = 0.02  # width of the border
_GRAIN = 0.004  # what is smaller has no colour of its own
_NARROW = 0.01  # narrower strips are no background
_SOFT = 0.006  # the edge's softness


def background(image: torch.Tensor) -> torch.Tensor:
    """How far each pixel is background, float32 (S, S) from 0 to 1, with a soft edge.

    The border's histogram of colours is projected back onto the image (Swain and Ballard 1991,
    doi:10.1007/BF00130487). Of the pixels whose colour is frequent there, and not much more so
    inside, those count that are joined with the border.

    Args:
        image: uint8 (3, S, S).
    """
    side = image.shape[-1]
    border, inside = _frequencies(_smoothed(image, side), max(round(_FRAME * side), 1))
    alike = (border >= _LEAST) & (border >= _AGAINST_INSIDE * inside)
    reach = max(round(_NARROW * side), 1)
    brush = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), reach)
    # Continued beyond the border, which would else be worn off.
    wide = ndimage.binary_opening(np.pad(alike, 2 * reach, mode="edge"), brush)
    labels, _ = ndimage.label(wide[2 * reach : -2 * reach, 2 * reach : -2 * reach])
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    joined = np.isin(labels, rim[rim > 0]).astype(np.float32)
    return torch.from_numpy(ndimage.gaussian_filter(joined, _SOFT * side))


def background_share(images: torch.Tensor) -> torch.Tensor:
    """Which share of each image is taken for background, (N,) from 0 to 1.

    Args:
        images: uint8 (N, 3, S, S).
    """
    return torch.stack([background(image).mean() for image in images])


def _smoothed(image: torch.Tensor, side: int) -> Array:
    """(3, S, S), 0 to 1."""
    return ndimage.gaussian_filter(image.numpy() / 255, (0, _GRAIN * side, _GRAIN * side))


def _frequencies(pixels: Array, frame: int) -> tuple[Array, Array]:
    """(S, S) each: the share of the border, and of the inside, that has about a pixel's colour."""
    bins = np.minimum((pixels * _BINS).astype(int), _BINS - 1)
    inside = np.zeros(pixels.shape[1:], dtype=bool)
    inside[frame:-frame, frame:-frame] = True
    sigma = _COLOUR_WIDTH * _BINS
    highest = np.exp(-0.5 * (np.arange(-_BINS, _BINS + 1) / sigma) ** 2).sum() ** -3
    border_and_inside = []
    for region in (~inside, inside):
        counts = np.zeros((_BINS,) * 3)
        np.add.at(counts, tuple(bins[:, region]), 1 / region.sum())
        near = ndimage.gaussian_filter(counts, sigma, mode="constant") / highest
        border_and_inside.append(near[tuple(bins)])
    return border_and_inside[0], border_and_inside[1]
