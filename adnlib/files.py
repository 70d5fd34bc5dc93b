"""Folders of image files: which names count, what lies below, in which order.

It knows no layout and opens no image.
"""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath

from adnlib.errors import InputError, reading
from adnlib.words import counted

IMAGE_SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
HEAT_SUFFIX = ".heat.png"
"""Appended to an image's whole name for its heat map; files so named are not read."""
_OTHER_SUFFIXES = (".avif", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jxl")


def image_files(folder: Path) -> list[str]:
    """All images below any folder, as POSIX paths relative to it, numbers sorted by value.

    Raises:
        InputError: no such folder, or no image in it.
    """
    check_folder(folder, "give a folder of images")
    paths = sorted(images_below(folder, folder), key=natural)
    if not paths:
        raise InputError(
            f"{str(folder)!r} holds no images: give a folder of {', '.join(IMAGE_SUFFIXES)} files."
        )
    return paths


def images_below(root: Path, folder: Path) -> list[str]:
    """What `walk` finds, as POSIX paths relative to the root.

    Raises:
        InputError: a folder may not be read, or a name is no UTF-8.
    """
    paths = [PurePath(path).relative_to(root).as_posix() for path in walk(str(folder))]
    for path in paths:
        if re.search("[\ud800-\udfff]", path):  # how Python holds bytes that are no UTF-8
            raise InputError(f"{path!r} in {str(root)!r} is not named in UTF-8: rename it.")
    return paths


def walk(folder: str) -> Iterator[str]:
    """The images below a folder, numbers sorted by value; of links only those to files.

    Raises:
        InputError: when it comes to a folder that may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if not is_hidden(entry.name)]
    except OSError as error:
        raise InputError(
            f"the folder {folder!r} cannot be read ({error.strerror}): change its permissions."
        ) from None
    linked = {entry.name for entry in seen if entry.is_symlink() and _leads_to_folder(entry)}
    _warn_of_links(folder, linked)
    _warn_of_others(folder, [entry.name.lower() for entry in seen])
    for entry in sorted(seen, key=lambda entry: natural(entry.name)):
        if entry.is_dir(follow_symlinks=False):
            yield from walk(entry.path)
        elif entry.name not in linked and is_image(entry.name):
            yield entry.path


def subfolders(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Folders directly beneath, sorted; of these names alone (in any case) where some are given."""
    names = {composed(name) for name in names}
    try:
        with os.scandir(folder) as entries:
            children = [entry.name for entry in entries if _leads_to_folder(entry)]
    except PermissionError:
        raise InputError(f"{str(folder)!r} may not be read: change its permissions.") from None
    return [
        folder / child
        for child in sorted(children)
        if not is_hidden(child) and (not names or composed(child.lower()) in names)
    ]


def check_folder(folder: Path, advice: str) -> None:
    """Raise InputError, with this advice, where there is no such folder."""
    with reading(folder):
        is_there, is_folder = folder.exists(), folder.is_dir()
    if not is_there:
        raise InputError(f"{str(folder)!r} does not exist: {advice}.")
    if not is_folder:
        raise InputError(f"{str(folder)!r} is a file: {advice}.")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; of a link to itself, `entry.is_dir` raises."""
    return Path(entry.path).is_dir() if entry.is_symlink() else entry.is_dir()


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name in ("__MACOSX", "lost+found")


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    lower = name.lower()
    return (
        not is_hidden(name) and lower.endswith(IMAGE_SUFFIXES) and not lower.endswith(HEAT_SUFFIX)
    )


def _warn_of_others(folder: str, names: Iterable[str]) -> None:
    """Warn of photographs in formats that are not read here, by names in small letters."""
    others = [Path(name).suffix for name in names if name.endswith(_OTHER_SUFFIXES)]
    if others:
        warnings.warn(
            f"left out in {folder!r}: {len(others)} of {', '.join(sorted(set(others)))}; convert "
            "what is to be read, such as to PNG.",
            stacklevel=1,  # so that it is said once per folder, whoever asks
        )


def _warn_of_links(folder: str, names: Collection[str]) -> None:
    """Say that these folders in a folder are links, which may lead in a circle."""
    if names:
        warnings.warn(
            f"left out in {folder!r}: {counted(len(names), 'linked folder')}, such as "
            f"{min(names)!r}; put what is to be read there itself, not a link to it.",
            stacklevel=1,
        )


def natural(path: str) -> tuple[list[str | int], str]:
    """A key that sorts 2 before 10, and Unicode's composed and decomposed letters as one."""
    parts = re.split(r"([0-9]+)", composed(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path


def composed(name: str) -> str:
    """A name in the one form of Unicode, in which file systems that keep either are compared."""
    return unicodedata.normalize("NFC", name)
