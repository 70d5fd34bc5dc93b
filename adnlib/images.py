"""Image files to uint8 tensors of one size, as DifferNet sees them.

It decodes, makes RGB and resizes; it neither normalises nor rotates, and knows no folder layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base
from tqdm import tqdm

from adnlib.errors import InputError, one_line
from adnlib.machine import cores
from adnlib.pixels import Pixels, allocate

ON_BAD_IMAGE = ("stop", "skip")
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")

_UPRIGHT = {  # what undoes each orientation of EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path, size: int) -> torch.Tensor:
    """One image, resized to a square whatever its shape, as uint8 (3, size, size), RGB.

    The resizing is PIL's bilinear one, so the pixels equal those of torchvision's `Resize` on a PIL
    image, which DifferNet uses (https://github.com/marco-rudolph/differnet). Grey becomes RGB, 16
    bits become the upper 8, transparent pixels lie on black, and EXIF's orientation is applied
    where it can be read.

    Values of more than 8 bits are taken as they are, so that those of a camera of 12 bits must be
    scaled to 16 first, or 16 grey levels are left. A file of 32 bits is read as one of 16.

    Raises:
        InputError: the file is no whole image, or one of a kind that has no 8-bit reading.
    """
    return torch.from_numpy(_pixels(Path(path), size))


def resize_image(image: Image.Image, size: int) -> torch.Tensor:
    """An open image as `read_image` would give it from its file, uint8 (3, size, size).

    Raises:
        InputError: it has no 8-bit reading.
    """
    try:
        return torch.from_numpy(_resized(_upright(image), size))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes PIL raise almost any kind
        raise InputError(
            f"an image given by PIL cannot be used ({_said(error)}): repair it, or take it out."
        ) from None


def load_images(
    folder: Path,
    paths: Sequence[str],
    size: int,
    on_bad_image: str | None = None,
    memory_budget: float = 0,
) -> tuple[Pixels, list[int]]:
    """Many images, decoded in threads; on a terminal it says how far it is.

    Args:
        folder: what the paths are relative to.
        paths: the files, in the order wanted.
        size: side of the square in pixels.
        on_bad_image: "stop" at the first image that cannot be read, or "skip" it with a warning;
            None, where a user has no such choice, stops without naming it.
        memory_budget: GB, see `pixels.allocate`.

    Returns:
        uint8 (N, 3, size, size), and the positions in `paths` of the N images that were read.

    Raises:
        InputError: an image cannot be read and is not to be skipped; none can; or they fit neither
            into memory nor on the disk.
    """
    if on_bad_image not in (None, *ON_BAD_IMAGE):
        raise InputError(f"on_bad_image is {on_bad_image!r}: choose 'stop' or 'skip'.")
    images = allocate(len(paths), size, memory_budget)

    def fill(position: int) -> None:
        images.put(position, _pixels(folder / paths[position], size))

    kept: list[int] = []
    pool = ThreadPoolExecutor(cores())
    try:
        tasks = [pool.submit(fill, i) for i in range(len(paths))]
        for position, done in enumerate(tqdm(tasks, "images", unit="", disable=None, leave=False)):
            try:
                done.result()
            except InputError as error:
                if on_bad_image is None:
                    raise
                if on_bad_image == "stop":
                    advice = f"{str(error).removesuffix('.')}, or skip it: on_bad_image skip."
                    raise InputError(advice) from None
                warnings.warn(f"skipped: {error}", stacklevel=2)
            else:
                kept.append(position)
    finally:
        pool.shutdown(cancel_futures=True)
    if not kept:
        such = f", such as {str(folder / paths[0])!r}" if paths else ""
        raise InputError(f"none of the {len(paths)} images can be read{such}.")
    return images.part(torch.tensor(kept)), kept


def upright_shape(path: Path) -> tuple[int, int]:
    """Width and height of an image file as `read_image` sees it, in pixels, before it is resized.

    Raises:
        InputError: as `read_image`.
    """
    with _blaming(path):
        return _decoded(path).size  # not the file's own word: PIL has turned a TIFF's already


def read_mask(path: Path, size: int) -> torch.Tensor:
    """A defect's mask, bool (size, size): True where the file is not 0, or not black.

    It is resized to the nearest pixel, as a mask has nothing between its values.

    Raises:
        InputError: as `read_image`.
    """
    with _blaming(path):
        image = _decoded(path)
        values = np.asarray(image if image.mode.startswith("I") else _rgb(image)) != 0
        mask = Image.fromarray(values.any(axis=2) if values.ndim == 3 else values)
        return torch.from_numpy(np.array(mask.resize((size, size), Image.Resampling.NEAREST)))


def _pixels(path: Path, size: int) -> np.ndarray:
    """uint8 (3, size, size); NumPy, as torch would start threads of its own in each of ours."""
    with _blaming(path):
        return _resized(_decoded(path), size)


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no {str(path)!r}: check the path.") from None
    except Exception as error:  # a damaged file makes PIL raise almost any kind
        raise InputError(
            f"{str(path)!r} cannot be read as an image ({_reason(path, error)}): "
            "replace, convert or remove it."
        ) from None


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no {', '.join(FORMATS)} file" if path.stat().st_size else "it is empty"
    return _said(error)


def _said(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def _decoded(path: Path) -> Image.Image:
    """The image upright, in the file's own mode; of many frames the first."""
    if path.exists() and not path.is_file():
        # Such as a named pipe, which would be waited for.
        raise ValueError("it is a folder" if path.is_dir() else "it is no regular file")
    with Image.open(path, formats=FORMATS) as image:
        # PIL only warns at once to twice its limit, and a warning cannot be caught in threads.
        limit = Image.MAX_IMAGE_PIXELS
        if limit and image.width * image.height > limit:
            raise ValueError(f"it has more than {limit} pixels")
        return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """As its EXIF turns it; PIL's own way fails where any of that cannot be read or written."""
    image.load()
    try:
        turn = _UPRIGHT.get(image.getexif().get(Base.Orientation, 1))
    except Exception:  # of a damaged block PIL raises almost any kind
        turn = None
    return image if turn is None else image.transpose(turn)


def _resized(image: Image.Image, size: int) -> np.ndarray:
    image = _rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16 bits, which PIL's own conversion would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("its values do not fit into 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
