"""Whatever a user gives as images (files, arrays, tensors), as the pixels that a model takes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from adnlib.datasets import GOOD, read_samples
from adnlib.errors import InputError, reading
from adnlib.files import check_folder, image_files, subfolders
from adnlib.images import load_images, read_image, resize_image
from adnlib.pixels import Pixels

OneImage: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor
"""A file, a PIL image, uint8 (H, W, 3), or a uint8 tensor (3, S, S) of the model's image_size."""

Images: TypeAlias = OneImage | Iterable[OneImage] | Pixels
"""A folder, one image, several, or uint8 (N, 3, S, S) of the model's image_size."""


def read_images(
    images: Images,
    size: int,
    good_only: bool = False,
    on_bad_image: str | None = None,
    memory_budget: float = 0,
) -> Pixels:
    """Images of any kind as uint8 (N, 3, size, size).

    Args:
        images: of a folder all images below it, sorted by path.
        size: side of the square in pixels; what is no tensor yet is resized to it.
        good_only: of a folder in MVTec AD's layout take train/good alone.
        on_bad_image: see `images.load_images`.
        memory_budget: GB for files' images, see `pixels.allocate`.

    Raises:
        InputError: nothing there, or something that is no image.
    """

    def read(folder: Path, paths: list[str]) -> Pixels:
        return load_images(folder, paths, size, on_bad_image, memory_budget=memory_budget)[0]

    if isinstance(images, (str, os.PathLike)):
        _check_pattern(images)
        folder = Path(images)
        with reading(folder):
            is_file = folder.is_file()
        if is_file:
            folder, paths = Path(), [folder.as_posix()]
        else:
            paths = good_files(folder) if good_only else image_files(folder)
        return read(folder, paths)
    if isinstance(images, Pixels):
        _checked(images[:1], size)
        return images
    if isinstance(images, torch.Tensor):
        return Pixels(_checked(images if images.ndim == 4 else images[None], size))
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim != 4):
        return Pixels(_converted(images, size)[None])
    several = list(images) if isinstance(images, Iterable) else [images]
    if several and all(isinstance(image, (str, os.PathLike)) for image in several):
        for path in several:
            _check_pattern(path)
        return read(Path(), [Path(path).as_posix() for path in several])
    if not several:
        raise InputError("there are no images: give a folder, files, or arrays.")
    return Pixels(torch.stack([_one(image, size) for image in several]))


def good_files(folder: Path) -> list[str]:
    """The good images of a folder: train/good in MVTec AD's layout, else all that lie below it.

    Raises:
        InputError: no images; or good ones lie beside others, which would be taken for good, too.
    """
    check_folder(folder, "give a folder of images")
    if subfolders(folder, ("train",)):
        samples = read_samples(folder)
        return samples.loc[samples["split"] == "train", "path"].tolist()
    paths = image_files(folder)
    others = [path for path in paths if not _among_good(path)]
    if others and len(others) < len(paths):
        named = others[0].rpartition("/")[0] or others[0]
        raise InputError(
            f"{str(folder)!r} holds good images beside {named!r}: give the folder of the good ones "
            "alone, or one category of a data set."
        )
    return paths


def anomalous_files(folder: Path) -> list[str]:
    """All images below a folder of anomalies.

    Raises:
        InputError: no images; or good ones lie beside them, which would be taken for anomalous.
    """
    paths = image_files(folder)
    if good := [path for path in paths if _among_good(path)]:
        raise InputError(
            f"{str(folder / good[0])!r} is good by its folder's name, and {str(folder)!r} was "
            "given for anomalous images: give a folder of these alone."
        )
    return paths


def _check_pattern(path: str | os.PathLike[str]) -> None:
    """Raise InputError for a pattern: a shell would have put the names of files in its place."""
    if {*"*?"} & {*os.fspath(path)} and not os.path.lexists(path):
        raise InputError(
            f"there is no {str(path)!r}: patterns are for the shell; in Python give "
            f"glob.glob({str(path)!r}), or a folder."
        )


def _among_good(path: str) -> bool:
    return bool({*path.lower().split("/")[:-1]} & {*GOOD})


def _one(image: OneImage, size: int) -> torch.Tensor:
    if isinstance(image, (str, os.PathLike)):
        return read_image(Path(image), size)
    if isinstance(image, torch.Tensor):
        return _checked(image[None], size)[0]
    return _converted(image, size)


def _converted(image: Image.Image | np.ndarray, size: int) -> torch.Tensor:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"an array of {image.dtype} {image.shape} is no image: give uint8 (H, W, 3), "
                "red first."
            )
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise InputError(
            f"{type(image).__name__} is no image: give a path, a PIL image, an array or a tensor."
        )
    return resize_image(image, size)


def _checked(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.dtype != torch.uint8 or images.shape[1:] != (3, size, size) or not len(images):
        raise InputError(
            f"a tensor of {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)} holds "
            f"no images for this model: give uint8 (N, 3, {size}, {size}), or arrays (H, W, 3), "
            "which are resized."
        )
    return images
