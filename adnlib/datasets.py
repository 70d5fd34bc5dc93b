"""Data sets on disk: which there are, where a category lies, and its images as one table.

Read are folders in MVTec AD's layout, `<data set>/<category>/{train/good, test/good, test/<defect>,
ground_truth/<defect>}`. Beside these may lie `foreground/{good, <defect>}`, masks of the object in
test images. Nothing is downloaded and no image is opened here.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from adnlib.catalogue import (
    CATALOGUE,
    MEAN,
    ImageCounts,
    category_name,
    dataset_name,
    known_categories,
    published_counts,
)
from adnlib.errors import InputError
from adnlib.files import IMAGE_SUFFIXES, check_folder, images_below, is_image, natural, subfolders
from adnlib.masks import check_masks, masks_of

COLUMNS = ("path", "split", "label", "defect", "mask")

GOOD = ("good", "normal")
"""Folders of good images, in small letters."""
SPLITS = ("train", "test")
"""Folders that make the one around them a category, in small letters."""
_DEEPEST = 3  # <DIR>/InsPLAD-fault/unsupervised_anomaly_detection/glass-insulator


@dataclass(frozen=True, order=True)
class Found:
    """A category that lies on disk, under the names that the catalogue would use."""

    dataset: str
    category: str
    folder: Path


def find(data_root: Path) -> list[Found]:
    """All categories in a folder of data sets, in one data set or in one category, sorted.

    A category is a folder with `train` or `test` beneath; its data set is the folder around it. One
    that lies more than three folders deep is not found.

    Raises:
        InputError: there is no such folder, or one in it may not be read.
    """
    check_folder(data_root, "give the folder that holds the data sets")
    return sorted(
        Found(dataset_name(named.parent.name), category_name(named.name), folder)
        for folder in _categories_below(data_root, _DEEPEST)
        for named in [folder.absolute()]
    )


def locate(data_root: Path, dataset: str, category: str) -> Path:
    """The folder of one category.

    Raises:
        InputError: it is not there, or there twice, or has the name of a table's row of means.
    """
    found = find(data_root)
    dataset, category = dataset_name(dataset), category_name(category)
    if category == MEAN:
        raise InputError(f"{MEAN} is the row of means in tables: rename the category's folder.")
    if not found:
        raise InputError(
            f"{str(data_root)!r} holds no data: put folders <data set>/<category>/train/good there."
        )
    sets = {f.dataset for f in found}
    known = known_categories(dataset)
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
    return [category for category in known_categories(dataset) if category not in here]


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
    check_folder(folder, "give the folder of a category, with train/good and test beneath")
    rows: list[tuple[str, str, int, str, str]] = []
    for part in subfolders(folder, ("train",)):
        for good in subfolders(part, GOOD):
            rows += [(path, "train", 0, "good", "") for path in images_below(folder, good)]
    for part in subfolders(folder, ("test",)):
        kinds = subfolders(part)
        _check_no_loose_images(part)
        for kind in kinds:
            paths = images_below(folder, kind)
            if kind.name.lower() in GOOD:
                rows += [(path, "test", 0, "good", "") for path in paths]
            else:
                masks = masks_of(folder, kind, paths)
                rows += [(path, "test", 1, kind.name, masks.get(path, "")) for path in paths]
    if not any(row[1] == "train" for row in rows) and (need_train or not rows):
        there = [
            child.relative_to(folder).as_posix()
            for part in subfolders(folder, SPLITS)
            for child in subfolders(part)
        ]
        raise InputError(
            f"{str(folder)!r} has no training images: put good ones into train/good (found "
            f"{', '.join(there) or 'no folders in train or test'}; image files end in "
            f"{', '.join(IMAGE_SUFFIXES)})."
        )
    rows.sort(key=lambda row: (row[1] == "test", row[2], row[3], natural(row[0])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def at_even_steps(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many rows, from the first to the last, or the middle one alone; all for 0."""
    count = min(count or len(rows), len(rows))
    if count == 1:
        return rows.iloc[[(len(rows) - 1) // 2]]
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def some_of_each_label(samples: pd.DataFrame, count: int) -> pd.DataFrame:
    """So many of each label, at even steps; all for 0."""
    of_labels = samples.groupby("label")
    return pd.concat([at_even_steps(rows, count) for _, rows in of_labels])


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


def count_images(samples: pd.DataFrame) -> ImageCounts:
    """How many images a table of samples has of each kind."""
    rows = Counter(zip(samples["split"], samples["label"], strict=True))
    return ImageCounts(rows["train", 0], rows["test", 0], rows["test", 1])


def check_counts(dataset: str, category: str, samples: pd.DataFrame) -> str | None:
    """A warning where there are not as many images as were published."""
    here, published = count_images(samples), published_counts(dataset, category)
    if published is None or here == published:
        return None
    return (
        f"{dataset}/{category} has {here} images (train good/test good/test anomalous), not the "
        f"{published} that were published: its results do not compare with published ones."
    )


def oddities(dataset: str, category: str, folder: Path, samples: pd.DataFrame) -> list[str]:
    """Sentences on what is odd in a category that can be used."""
    warnings = check_counts(dataset, category, samples), check_masks(folder, samples)
    return [warning for warning in warnings if warning]


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
    if subfolders(folder, SPLITS):
        yield folder
    elif depth:
        for child in subfolders(folder):
            yield from _categories_below(child, depth - 1)


def _check_no_loose_images(part: Path) -> None:
    loose = sorted(child.name for child in part.iterdir() if is_image(child.name))
    if loose:
        raise InputError(
            f"{str(part / loose[0])!r} lies beside the folders, so that nothing says whether it is "
            "good: move it into good or into a folder that names its defect."
        )
