"""Data sets on disk: which there are, where a category lies, and its images as one table.

Read are folders in MVTec AD's layout, `<data set>/<category>/{train/good, test/good, test/<defect>,
ground_truth/<defect>}`. Beside these may lie `foreground/{good, <defect>}`, masks of the object in
test images. Nothing is downloaded and no image is opened here.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from adnlib.catalogue import CATALOGUE, Counts, category_name, dataset_name
from adnlib.errors import InputError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
COLUMNS = ("path", "split", "label", "defect", "mask")
FOREGROUND = "foreground"

_GOOD = ("good", "normal")
_DEEPEST = 3  # <DIR>/InsPLAD-fault/unsupervised_anomaly_detection/glass-insulator


@dataclass(frozen=True, order=True)
class Found:
    """A category that lies on disk, under the names that the catalogue would use."""

    dataset: str
    category: str
    folder: Path


def find(data_root: Path) -> list[Found]:
    """All categories in a folder of data sets, in one data set or in one category, sorted.

    A category is a folder with `train` or `test` beneath; its data set is the folder around it.

    Raises:
        InputError: there is no such folder.
    """
    _check_folder(data_root, "give the folder that holds the data sets")
    return sorted(
        Found(dataset_name(named.parent.name), category_name(named.name), folder)
        for folder in _categories_below(data_root, _DEEPEST)
        for named in [folder.absolute()]
    )


def locate(data_root: Path, dataset: str, category: str) -> Path:
    """The folder of one category.

    Raises:
        InputError: it is not there, or there twice.
    """
    found = find(data_root)
    dataset, category = dataset_name(dataset), category_name(category)
    if not found:
        raise InputError(
            f"{str(data_root)!r} holds no data: put folders <data set>/<category>/train/good there."
        )
    sets = {f.dataset for f in found}
    known = CATALOGUE[dataset].categories if dataset in CATALOGUE else {}
    if dataset not in sets:
        where = f"data set {dataset!r} is not in {str(data_root)!r}"
        raise _not_there(where, dataset, sets, CATALOGUE, dataset)
    here = {f.category for f in found if f.dataset == dataset}
    if category not in here:
        where = f"category {category!r} of {dataset} is not in {str(data_root)!r}"
        raise _not_there(where, category, here, known, dataset)
    folders = [f.folder for f in found if (f.dataset, f.category) == (dataset, category)]
    if len(folders) > 1:
        raise InputError(
            f"{dataset}/{category} lies both in {str(folders[0])!r} and {str(folders[1])!r}: "
            "give as data folder the one to use."
        )
    return folders[0]


def absent(dataset: str, found: Iterable[Found]) -> list[str]:
    """The catalogue's categories of a data set that were not found."""
    dataset = dataset_name(dataset)
    here = {f.category for f in found if f.dataset == dataset}
    known = CATALOGUE[dataset].categories if dataset in CATALOGUE else {}
    return [category for category in known if category not in here]


def read_samples(folder: Path, need_train: bool = True) -> pd.DataFrame:
    """The images of one category, one row each.

    Folders are matched whatever their case, and "normal" stands for "good". Images may lie deeper
    than `test/<defect>`. Anything in `train` but good images is left out, as are hidden files.

    Args:
        folder: the category's folder.
        need_train: whether a category without training images is an error.

    Returns:
        Columns `path` (POSIX, relative to the folder), `split` ("train" or "test"), `label` (0
        good, 1 anomalous), `defect` ("good" or the name of the folder in `test`) and `mask`
        (relative path, or "" where `ground_truth/<defect>` has no file of the image's name, with
        or without `_mask`). Training images come first, then test images by label, defect and
        path, numbers by value: an order that no file system changes.

    Raises:
        InputError: no folder, no images, or no training images although needed.
    """
    _check_folder(folder, "give the folder of a category, with train/good and test beneath")
    rows: list[tuple[str, str, int, str, str]] = []
    for part in _subfolders(folder, ("train",)):
        for good in _subfolders(part, _GOOD):
            rows += [(path, "train", 0, "good", "") for path in _images_below(folder, good)]
    for part in _subfolders(folder, ("test",)):
        kinds = _subfolders(part)
        _check_no_loose_images(part)
        for kind in kinds:
            paths = _images_below(folder, kind)
            if kind.name.lower() in _GOOD:
                rows += [(path, "test", 0, "good", "") for path in paths]
            else:
                masks = _masks(folder, kind, paths)
                rows += [(path, "test", 1, kind.name, masks.get(path, "")) for path in paths]
    if not any(row[1] == "train" for row in rows) and (need_train or not rows):
        there = [
            child.relative_to(folder).as_posix()
            for part in _subfolders(folder, ("train", "test"))
            for child in _subfolders(part)
        ]
        raise InputError(
            f"{str(folder)!r} has no training images: put good ones into train/good (found "
            f"{', '.join(there) or 'no folders in train or test'}; image files end in "
            f"{', '.join(IMAGE_SUFFIXES)})."
        )
    rows.sort(key=lambda row: (row[1] == "test", row[2], row[3], natural(row[0])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


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
        for path, mask in _masks(folder, kind, of_kind, FOREGROUND).items()
    }


def image_files(folder: Path) -> list[str]:
    """All images below any folder, as POSIX paths relative to it, numbers sorted by value.

    Raises:
        InputError: no such folder, or no image in it.
    """
    _check_folder(folder, "give a folder of images")
    paths = sorted(_images_below(folder, folder), key=natural)
    if not paths:
        raise InputError(
            f"{str(folder)!r} holds no images: give a folder of {', '.join(IMAGE_SUFFIXES)} files."
        )
    return paths


def check_for_auroc(samples: pd.DataFrame, where: str = "the category") -> None:
    """Raise InputError if the test images are not of both labels, where AUROC is undefined.

    Args:
        samples: as `read_samples` gives.
        where: how the message calls the data.
    """
    labels = set(samples.loc[samples["split"] == "test", "label"])
    if not labels:
        raise InputError(f"{where} has no test images: put some into test/good and test/<defect>.")
    if 0 not in labels:
        raise InputError(f"{where} has no good test images: put some into test/good.")
    if 1 not in labels:
        raise InputError(f"{where} has no anomalous test images: put some into test/<defect>.")


def check_counts(dataset: str, category: str, samples: pd.DataFrame) -> str | None:
    """A warning where there are not as many images as were published."""
    info = CATALOGUE.get(dataset_name(dataset))
    published = info.categories.get(category_name(category)) if info else None
    rows = Counter(zip(samples["split"], samples["label"], strict=True))
    here = Counts(rows["train", 0], rows["test", 0], rows["test", 1])
    if published is None or here == published:
        return None
    return (
        f"{dataset}/{category} has {here} images (train good/test good/test anomalous), not the "
        f"{published} that were published: its results do not compare with published ones."
    )


def check_masks(folder: Path, samples: pd.DataFrame) -> str | None:
    """A warning where masks in `ground_truth` fit no test image by name."""
    parts = _subfolders(folder, ("ground_truth",))
    there = {path for part in parts for path in _images_below(folder, part)}
    unused = len(there - set(samples["mask"]))
    if not unused:
        return None
    return (
        f"{unused} of {len(there)} masks in {str(folder / 'ground_truth')!r} fit no image of "
        "test/<defect> by name and are not used."
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not is_hidden(name) and name.lower().endswith(IMAGE_SUFFIXES)


def _check_folder(folder: Path, advice: str) -> None:
    if not folder.exists():
        raise InputError(f"{str(folder)!r} does not exist: {advice}.")
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file: {advice}.")


def _not_there(
    where: str, name: str, here: Iterable[str], known: Iterable[str], dataset: str
) -> InputError:
    near = difflib.get_close_matches(name, sorted({*here, *known}), n=1, cutoff=0.5)
    if name in known:
        advice = f"put it there (see {CATALOGUE[dataset].page})."
    elif near:
        advice = f"did you mean {near[0]!r}?"
    else:
        advice = "choose one of these."
    return InputError(f"{where}, which holds {', '.join(sorted(here))}: {advice}")


def _categories_below(folder: Path, depth: int) -> Iterator[Path]:
    if _subfolders(folder, ("train", "test")):
        yield folder
    elif depth:
        for child in _subfolders(folder):
            yield from _categories_below(child, depth - 1)


def _subfolders(folder: Path, names: Iterable[str] = ()) -> list[Path]:
    """Folders directly beneath, sorted; of these names alone (in any case) where some are given."""
    names = tuple(names)
    try:
        with os.scandir(folder) as entries:
            children = [entry.name for entry in entries if entry.is_dir()]
    except PermissionError:
        raise InputError(f"{str(folder)!r} may not be read: change its permissions.") from None
    return [
        folder / child
        for child in sorted(children)
        if not is_hidden(child) and (not names or child.lower() in names)
    ]


def _images_below(root: Path, folder: Path) -> list[str]:
    """Paths relative to the root, in no order."""

    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename!r} may not be read: change its permissions.")

    paths = []
    for place, children, files in os.walk(folder, onerror=stop):
        children[:] = [child for child in children if not is_hidden(child)]
        at = Path(place).relative_to(root)
        paths += [(at / file).as_posix() for file in files if is_image(file)]
    for path in paths:
        if re.search("[\ud800-\udfff]", path):  # how Python holds bytes that are no UTF-8
            raise InputError(f"{path!r} in {str(root)!r} is not named in UTF-8: rename it.")
    return paths


def _check_no_loose_images(part: Path) -> None:
    loose = sorted(child.name for child in part.iterdir() if is_image(child.name))
    if loose:
        raise InputError(
            f"{str(part / loose[0])!r} lies beside the folders, so that nothing says whether it is "
            "good: move it into good or into a folder that names its defect."
        )


def _masks(
    root: Path, kind: Path, paths: list[str], folder: str = "ground_truth"
) -> dict[str, str]:
    """The mask of each image of one defect, or of the good ones, that has one, by name."""
    masks = {
        PurePosixPath(mask).relative_to(ground.relative_to(root).as_posix()).with_suffix(""): mask
        for part in _subfolders(root, (folder,))
        for ground in _subfolders(part, (kind.name.lower(),))
        for mask in _images_below(root, ground)
    }
    at = kind.relative_to(root).as_posix()
    stems = {path: PurePosixPath(path).relative_to(at).with_suffix("") for path in paths}
    times = Counter(stems.values())
    return {
        path: masks[name]
        for path, stem in stems.items()
        if times[stem] == 1  # a.png beside a.jpg: the mask could be either's
        for name in (stem.with_name(f"{stem.name}_mask"), stem)
        if name in masks
    }


def natural(path: str) -> tuple[list[str | int], str]:
    """A key that sorts 2 before 10, and Unicode's composed and decomposed letters as one."""
    parts = re.split(r"([0-9]+)", unicodedata.normalize("NFC", path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path
