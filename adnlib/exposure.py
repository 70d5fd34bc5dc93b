"""One run's images under corruptions: their scores by its saved model, kept in the run's folder.

Kept step by step, with all that they depend on, so that an interrupted measurement goes on where it
was. Model and images are loaded once a score is not kept yet. Nothing here compares runs.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable

import numpy as np
import torch

from adnlib.corruptions import RULES, corrupt
from adnlib.datasets import some_of_each_label
from adnlib.errors import InputError, writing
from adnlib.evaluation import Array
from adnlib.folders import HELD_OUT_SCORES, write_json
from adnlib.images import load_images
from adnlib.model import AttentDifferNet
from adnlib.model_files import identity
from adnlib.model_settings import find_device
from adnlib.pixels import Pictures, Pixels
from adnlib.record import FinishedRun

KEPT = "robustness.json"
"""In the run's folder: the scores, and what they were made with."""

_SEED = 0  # of the corruptions: one for all runs, so that they see the same pixels
_BATCH = 16


class Exposure:
    """Scores as `AttentDifferNet.score` gives them, all images at the same angles.

    Attributes:
        labels: (N,) of the chosen test images.
        views: that a score is the mean of.

    Args:
        run: with a model in its folder.
        images: good test images, and anomalous ones, at even steps; 0 for all.
        views: 0 for the model's own number.
        device: as for `ModelSettings`.

    Raises:
        OSError, ValueError, KeyError: a file of the run is gone, or not as the run wrote it.
    """

    def __init__(
        self, run: FinishedRun, images: int = 0, views: int = 0, device: str = "auto"
    ) -> None:
        samples = some_of_each_label(run.scores(), images)
        self.labels = samples["label"].to_numpy()
        self.views = views or int(run.settings["test_views"])
        self._run = run
        self._device = find_device(device)
        self._paths = samples["path"].tolist()
        held = run.held_out()
        self._held_paths = [] if held is None else held["path"].tolist()
        self._made_with = {
            "rules": RULES,
            "model": identity(run.folder),
            "device": self._device.type,
            "views": self.views,
            "images": self._paths,
            "held_out": self._held_paths,
        }
        self._kept: dict[str, list[float]] = self._read()
        self._look: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None
        self._images: Pixels | None = None

    def untouched(self) -> Array:
        """(N,) scores of the test images as they are."""
        return self._made("untouched", lambda: self._score(self._test_images()))

    def corrupted(self, kind: str, severity: int) -> Array:
        """(N,) scores of the test images under one corruption."""
        return self._made(f"{kind} {severity}", lambda: self._score_corrupted(kind, severity))

    def held_out(self) -> Array:
        """(M,) scores of the held-out good images as they are, or (0,) with a warning.

        They are the only images of the training split that are asked for.
        """
        if "held out" not in self._kept and (reason := self._no_held_out()):
            warnings.warn(f"{self._run.folder} gets no threshold: {reason}", stacklevel=2)
            return np.array([])
        return self._made("held out", lambda: self._score(self._load(self._held_paths)))

    def _no_held_out(self) -> str:
        if not self._held_paths:
            return f"it has no {HELD_OUT_SCORES}"
        try:
            self._run.image_folder(self._held_paths)
        except InputError as error:
            return str(error)
        return ""

    def _made(self, what: str, score: Callable[[], list[float]]) -> Array:
        if what not in self._kept:
            self._kept[what] = score()
            with writing(self._run.folder):
                content = {"made_with": self._made_with, "scores": self._kept}
                write_json(self._run.folder / KEPT, content)
        return np.array(self._kept[what])

    def _read(self) -> dict[str, list[float]]:
        """What is kept, unless it is damaged or was made with anything else."""
        try:
            content = json.loads((self._run.folder / KEPT).read_text(encoding="utf-8"))
            return content["scores"] if content["made_with"] == self._made_with else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _score_corrupted(self, kind: str, severity: int) -> list[float]:
        scores = []
        for first in range(0, len(self._paths), _BATCH):  # all at once would double the memory
            some = slice(first, first + _BATCH)
            images, names = self._test_images()[some], self._paths[some]
            scores += self._score(corrupt(images, names, kind, severity, _SEED))
        return scores

    def _score(self, images: Pictures) -> list[float]:
        if self._look is None:
            model = AttentDifferNet.load(self._run.folder, str(self._device))
            model.settings = dataclasses.replace(model.settings, test_views=self.views)
            self._look = model.scorer()
        return [self._look(image)[0].item() for image in images]

    def _test_images(self) -> Pixels:
        if self._images is None:
            self._images = self._load(self._paths)
        return self._images

    def _load(self, paths: list[str]) -> Pixels:
        folder, size = self._run.image_folder(paths), self._run.settings["image_size"]
        return load_images(folder, paths, size)[0]
