"""The demo data sets on disk: folders as in MVTec AD and a marker that says how they were made.

A set appears whole or not at all: it is written under a hidden name beside its place and renamed.
Only a folder that carries the marker is ever replaced.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adnlib.catalogue import CATALOGUE
from adnlib.demo import outdoor, parts, wafer
from adnlib.demo.paint import Picture
from adnlib.errors import InputError, writing
from adnlib.masks import FOREGROUND, GROUND_TRUTH
from adnlib.staging import staging

DEMO_SETS = {
    name: category
    for name, info in CATALOGUE.items()
    if info.page == "adnlib.demo"
    for category in info.categories
}
MARKER = "demo.json"
SMALLEST = 64  # px; below it the thin parts of the scenes vanish

_Draw = Callable[[np.random.Generator, int, "str | None"], Picture]
_SCENES: dict[str, tuple[_Draw, tuple[str, ...]]] = {
    "demo_parts": (parts.draw, parts.DEFECTS),
    "demo_outdoor": (outdoor.draw, outdoor.DEFECTS),
    "demo_wafer": (wafer.draw, wafer.DEFECTS),
}
_SPLITS = ("train", "good", "anomalous")
_VERSION = 3  # goes up whenever a scene is drawn differently, so that old sets are drawn anew


@dataclass(frozen=True)
class _Settings:
    size: int
    train: int
    good: int
    anomalous: int
    seed: int
    adnlib_demo: int = _VERSION


def make_demo(
    root: Path,
    size: int = 256,
    train: int = 32,
    good: int = 15,
    anomalous: int = 20,
    seed: int = 0,
) -> None:
    """Draw the three demo data sets into a folder; what is there with these settings stays.

    Writes `root/<dataset>/<category>/{train/good, test/good, test/<defect>, ground_truth/<defect>}`
    with images `NNN.png` and masks `NNN_mask.png`, the masks of the object in each test image
    likewise in `foreground/{good, <defect>}`, and `root/<dataset>/demo.json` last. The bytes depend
    on the arguments only, and image k not on how many are drawn.

    Args:
        root: the folder that holds data sets; made where absent.
        size: height and width in pixels, at least 64.
        train: good training images of each set.
        good: good test images of each set.
        anomalous: anomalous test images of each set, dealt in turn to its three defects.
        seed: another seed gives other images of the same objects.

    Raises:
        InputError: a setting is out of range, a folder of that name was not made by this function,
            or the folder cannot be written.
    """
    settings = _Settings(size, train, good, anomalous, seed)
    _check(settings)
    for dataset in DEMO_SETS:
        with writing(root / dataset):
            _refuse_foreign(root / dataset)
    for dataset in DEMO_SETS:
        place = root / dataset
        with writing(place):
            _make_set(place, dataset, settings)


def draw_sample(
    dataset: str, split: str, index: int, size: int = 256, seed: int = 0
) -> tuple[Picture, str]:
    """Return one demo picture with its twin and mask, and the name of its defect or "good".

    Args:
        dataset: a key of `DEMO_SETS`.
        split: "train", "good" or "anomalous".
        index: which picture of the split, from 0.
        size: height and width in pixels.
        seed: as in `make_demo`.
    """
    draw, defects = _SCENES[dataset]
    numbers = [seed, list(_SCENES).index(dataset), _SPLITS.index(split), index]
    defect = defects[index % len(defects)] if split == "anomalous" else None
    return draw(np.random.default_rng(numbers), size, defect), defect or "good"


def _check(settings: _Settings) -> None:
    least = {"size": SMALLEST, "train": 1, "good": 0, "anomalous": 0, "seed": 0}
    for name, bound in least.items():
        if getattr(settings, name) < bound:
            raise InputError(
                f"the demo setting {name} is {getattr(settings, name)}: give {bound} or more."
            )


def _make_set(place: Path, dataset: str, settings: _Settings) -> None:
    if _made_with(place) == asdict(settings):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with staging(place.parent) as beside:
        fresh, old = beside / "new", beside / "old"
        try:
            _write(fresh, dataset, settings)
            if place.exists():
                _refuse_foreign(place)
                place.rename(old)
            fresh.rename(place)
        except OSError:
            # Another process may have put the same set there first: nothing is left to do then.
            if _made_with(place) != asdict(settings):
                if old.exists() and not place.exists():
                    old.rename(place)
                raise


def _write(folder: Path, dataset: str, settings: _Settings) -> None:
    category = folder / DEMO_SETS[dataset]
    counts = {"train": settings.train, "good": settings.good, "anomalous": settings.anomalous}
    for split, count in counts.items():
        for index in range(count):
            picture, defect = draw_sample(dataset, split, index, settings.size, settings.seed)
            part = "train" if split == "train" else "test"
            number = index // len(_SCENES[dataset][1]) if split == "anomalous" else index
            _save(picture.image, category / part / defect / f"{number:03d}.png")
            masks = {GROUND_TRUTH: picture.mask} if defect != "good" else {}
            masks |= {FOREGROUND: picture.body} if part == "test" else {}
            for kind, mask in masks.items():
                white = mask.astype(np.uint8) * 255
                _save(white, category / kind / defect / f"{number:03d}_mask.png")
    (folder / MARKER).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)  # noise does not compress: be quick


def _refuse_foreign(place: Path) -> None:
    if place.exists() and _made_with(place) is None:
        raise InputError(
            f"{str(place)!r} was not made as a demo set (it has no {MARKER}): move it away, or "
            "give another folder for the demo images."
        )


def _made_with(place: Path) -> dict[str, object] | None:
    """Return the settings in a set's marker, None where no marker of ours can be read."""
    try:
        found = json.loads((place / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "adnlib_demo" in found else None
