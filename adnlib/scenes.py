"""The test images of a category, where in them defect and object are, and how maps lie on these.

Reads images and masks; knows no tables. Training images are not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adnlib.background import background
from adnlib.evaluation import Array
from adnlib.explain import upsample
from adnlib.images import read_image, read_mask
from adnlib.localization import (
    SIZE,
    Bools,
    LevelCounts,
    Maps,
    as_levels,
    energy_inside,
    per_region_overlap,
    pixel_auroc,
    pointing,
)
from adnlib.masks import foregrounds
from adnlib.record import FinishedRun
from adnlib.significance import DRAWS, drawn_again

MEASURES = {
    "defect_energy": "energy in the defect",
    "pointing": "pointing game",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO to 0.3",
    "object_energy": "energy in the object",
}
"""What a look is measured by, and its title; more is better."""
_GUESSED = (0.02, 0.9)  # share of an image that a guessed object may take


@dataclass(frozen=True)
class Scene:
    """The test images of a category, and where in them defect and object are known to be."""

    labels: Array
    """(N,)"""
    defects: Bools
    """(N, S, S), all False where there is no mask."""
    objects: Bools | None
    """(N, S, S), all False where there is no mask; None where there are no masks at all."""

    @classmethod
    def of(cls, run: FinishedRun, scores: pd.DataFrame, guess_object: bool = False) -> Scene:
        """Read the masks of a run's test images.

        Args:
            run: a finished run.
            scores: of it.
            guess_object: where no mask says where the object is, take what `background` leaves.

        Raises:
            InputError: an image is no longer there, or a mask cannot be read.
        """
        folder, paths = run.image_folder(scores["path"]), scores["path"].tolist()
        objects = foregrounds(folder, paths)
        bodies = [_mask(folder, objects.get(path, "")) for path in paths] if objects else None
        if bodies is None and guess_object:
            guess = [background(read_image(folder / path, SIZE)).numpy() < 0.5 for path in paths]
            bodies = guess if _GUESSED[0] < np.mean(guess) < _GUESSED[1] else None
        return cls(
            scores["label"].to_numpy(),
            np.stack([_mask(folder, mask) for mask in scores["mask"]]),
            None if bodies is None else np.stack(bodies),
        )

    @property
    def masked(self) -> Bools:
        """(N,) anomalous images with a mask."""
        return (self.labels == 1) & self.defects.any((1, 2))

    @property
    def known(self) -> Bools:
        """(N,) images whose defective pixels are all known: good ones, and anomalous ones with a
        mask."""
        return (self.labels == 0) | self.masked

    def shares(self) -> dict[str, float]:
        """How much of an image is defect, and object, in percent, or NaN: an even map's energy."""
        objects = np.zeros_like(self.defects) if self.objects is None else self.objects
        there = {"defect": self.defects[self.masked], "object": objects[objects.any((1, 2))]}
        return {
            f"{name}_share": 100 * float(masks.mean()) if len(masks) else float("nan")
            for name, masks in there.items()
        }


@dataclass(frozen=True)
class Look:
    """How one set of maps lies on its scene."""

    each: dict[str, Array]
    """By measure: the value of each image that has one, 0 to 1."""
    whole: dict[str, float]
    """By measure: the value of all pixels together, 0 to 1."""
    drawn_whole: Mapping[str, Callable[[Array], Array]]
    """By the same: (draws,) from weights (draws, N) of the images."""
    labels: Array
    """Of these images."""

    @classmethod
    def at(cls, scene: Scene, maps: Maps) -> Look:
        """Measure maps (N, h, w)."""
        enlarged = upsample(torch.from_numpy(maps), SIZE).numpy()
        each: dict[str, Array] = {}
        whole: dict[str, float] = {}
        drawn: dict[str, Callable[[Array], Array]] = {}
        known = scene.known
        if scene.masked.any():
            seen = enlarged[scene.masked], scene.defects[scene.masked]
            each = {"defect_energy": energy_inside(*seen), "pointing": pointing(*seen)}
            of_pixels = as_levels(enlarged[known]), scene.defects[known]
            whole = {
                "pixel_auroc": pixel_auroc(*of_pixels),
                "pro": per_region_overlap(*of_pixels),
            }
            counts = LevelCounts.of(*of_pixels)
            drawn = {"pixel_auroc": counts.pixel_auroc, "pro": counts.per_region_overlap}
        if scene.objects is not None and (there := scene.objects.any((1, 2))).any():
            each["object_energy"] = energy_inside(enlarged[there], scene.objects[there])
        return cls(each, whole, drawn, scene.labels[known])

    @property
    def measured(self) -> dict[str, float]:
        """What the masks allow of `MEASURES`, in percent."""
        values = self.whole | {measure: float(each.mean()) for measure, each in self.each.items()}
        return {measure: 100 * values[measure] for measure in MEASURES if measure in values}

    def drawn(self, measure: str) -> Array:
        """(draws,) values in percent of images drawn again; the same ones for every look."""
        random = np.random.default_rng(0)
        if measure in self.each:
            values = self.each[measure]
            return 100 * drawn_again(len(values), random) @ values
        weights = np.zeros((DRAWS, len(self.labels)))
        for label in (0, 1):  # within each class
            count = int((self.labels == label).sum())
            weights[:, self.labels == label] = count * drawn_again(max(count, 1), random)
        return 100 * self.drawn_whole[measure](weights)


def _mask(folder: Path, path: str) -> Bools:
    return read_mask(folder / path, SIZE).numpy() if path else np.zeros((SIZE, SIZE), dtype=bool)
