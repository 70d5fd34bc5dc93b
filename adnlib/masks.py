"""Masks in a category's folder: which belongs to which image, by name. None is opened here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from adnlib.files import composed, images_below, subfolders

GROUND_TRUTH, FOREGROUND = "ground_truth", "foreground"


def masks_of(
    root: Path, kind: Path, paths: list[str], folder: str = GROUND_TRUTH
) -> dict[str, str]:
    """The mask of each image of one defect, or of the good ones, that has one, by name.

    Args:
        root: the category's folder.
        kind: the folder of the images in it, such as `test/crack`.
        paths: of the images, relative to the root.
        folder: that of the masks in the root; the kind's are in its folder of the kind's name.
    """
    masks = {
        _stem(mask, ground.relative_to(root).as_posix()): mask
        for part in subfolders(root, (folder,))
        for ground in subfolders(part, (kind.name.lower(),))
        for mask in sorted(images_below(root, ground))  # of 0.bmp and 0.png always the same
    }
    at = kind.relative_to(root).as_posix()
    stems = {path: _stem(path, at) for path in paths}
    times = Counter(stems.values())
    return {
        path: masks[name]
        for path, stem in stems.items()
        if times[stem] == 1  # a.png beside a.jpg: the mask could be either's
        for name in (stem.with_name(f"{stem.name}_mask"), stem)
        if name in masks
    }


def foregrounds(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """The mask of the object in each test image that has one, named as a defect's mask would be.

    Args:
        folder: the category's folder.
        paths: of test images, relative to it.

    Returns:
        The path of the mask in `foreground/<kind>`, relative to the folder, by that of the image.
    """
    by_kind: dict[Path, list[str]] = {}
    for path in paths:
        by_kind.setdefault(folder.joinpath(*PurePosixPath(path).parts[:2]), []).append(path)
    return {
        path: mask
        for kind, of_kind in by_kind.items()
        for path, mask in masks_of(folder, kind, of_kind, FOREGROUND).items()
    }


def check_masks(folder: Path, samples: pd.DataFrame) -> str | None:
    """A warning where masks in `ground_truth` fit no test image by name."""
    parts = subfolders(folder, (GROUND_TRUTH,))
    there = {path for part in parts for path in images_below(folder, part)}
    unused = len(there - set(samples["mask"]))
    if not unused:
        return None
    return (
        f"{unused} of {len(there)} masks in {str(folder / GROUND_TRUTH)!r} fit no image of "
        "test/<defect> by name and are not used."
    )


def _stem(path: str, folder: str) -> PurePosixPath:
    """By which an image and its mask are found to belong together."""
    stem = PurePosixPath(path).relative_to(folder).with_suffix("")
    return PurePosixPath(composed(stem.as_posix()))
