"""One run: settings in, a folder of results out. What the train notebook calls, step by step.

A run's folder is `<results>/runs/<dataset>/<category>/<variant>/seed<k>/`. Its `metrics.json` is
written last and atomically: its presence means that the run is done.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from adnlib import datasets
from adnlib.catalogue import category_name, dataset_name
from adnlib.checkpoint import Checkpoint, remove
from adnlib.errors import InputError, writing
from adnlib.evaluation import roc
from adnlib.explain import saliency
from adnlib.folders import (
    DONE,
    HELD_OUT_SCORES,
    MAPS,
    PARAMS,
    SCORES,
    is_done,
    kept_settings,
    run_folder,
    take,
    whole,
    write_json,
)
from adnlib.images import load_images
from adnlib.looks import SELECTIONS, Looks
from adnlib.model import AttentDifferNet
from adnlib.model_files import JSON_NAME, TENSORS_NAME
from adnlib.model_settings import SETTING_NAMES
from adnlib.parameters import project_path
from adnlib.pixels import Pixels
from adnlib.provenance import describe_device, git_revision, versions
from adnlib.run_settings import Settings
from adnlib.shortcuts import told_by
from adnlib.training import hold_out

# Images and the kind of device are compared themselves, wherever they are.
_APART_FROM_TRAINING = (
    *("data_root", "on_bad_image", "device", "results"),
    *("memory_budget", "save_model", "map_views"),
)


class Run:
    """One run, taken step by step: `load_images`, `train`, `explain`, `finish`.

    Making it checks everything that can be checked before work begins, takes the run's folder for
    this process and writes `params.json`.

    Attributes:
        folder: where the results go.
        samples: the table of images (`datasets.read_samples`), without unreadable ones once loaded.
        model: the detector.
        scores: one row per test image.

    Raises:
        InputError: data, device or settings cannot be used; the folder is taken by another process,
            or holds a finished run with other settings.
    """

    def __init__(self, settings: Settings) -> None:
        settings = dataclasses.replace(
            settings,
            dataset=dataset_name(settings.dataset),
            category=category_name(settings.category),
        )
        self.settings = settings
        self.data_folder = datasets.locate(
            project_path(settings.data_root), settings.dataset, settings.category
        )
        self.samples = datasets.read_samples(self.data_folder)
        datasets.check_for_auroc(self.samples)
        if warning := datasets.check_counts(settings.dataset, settings.category, self.samples):
            warnings.warn(warning, stacklevel=2)
        self.model = AttentDifferNet(**{name: getattr(settings, name) for name in SETTING_NAMES})
        self.folder = run_folder(
            project_path(settings.results),
            settings.dataset,
            settings.category,
            settings.variant,
            settings.seed,
        )
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = take(self.folder)
            try:
                _check_same_settings(self.folder, settings)
            except InputError:
                self._lock.close()  # which the error's traceback would keep
                raise
            _clear(self.folder)
            write_json(self.folder / PARAMS, self._params())

    def __repr__(self) -> str:
        images = self.samples["split"].value_counts()
        counts = ", ".join(f"{images[split]} {split}" for split in images.index.sort_values())
        return f"Run({'/'.join(self.folder.parts[-4:])}: {counts} images)"

    @property
    def history(self) -> pd.DataFrame:
        """One row per evaluation."""
        return self._looks.history

    def load_images(self) -> None:
        """Decode and resize all images, and hold some of the good ones out of training.

        Images that are skipped leave the table of samples; those held out get the split "holdout".
        """
        began = time.perf_counter()
        self._images, kept = load_images(
            self.data_folder,
            self.samples["path"].tolist(),
            self.settings.image_size,
            self.settings.on_bad_image,
            memory_budget=self.settings.memory_budget,
        )
        self.samples = self.samples.iloc[kept].reset_index(drop=True)
        datasets.check_for_auroc(self.samples)
        train = np.flatnonzero(self.samples["split"] == "train")
        if not len(train):
            raise InputError(
                f"none of the training images in {str(self.data_folder)!r} can be read."
            )
        held = hold_out(len(train), self.settings.holdout, self.settings.seed)
        self.samples.loc[train[held], "split"] = "holdout"
        self._loading = time.perf_counter() - began

    def images(self, split: str) -> Pixels:
        """uint8 (N, 3, S, S) of the samples of that split, in the table's order."""
        chosen = np.flatnonzero(self.samples["split"] == split)
        return self._images.part(torch.from_numpy(chosen))

    def train(self, say: Callable[[str], object] = print) -> None:
        """Train, and look at held-out and test images as often as the settings say."""
        training = self._training = self.model.train_epochs(self.images("train"))
        looks = self._looks = Looks(self.model, self.samples, self.images)
        checkpoint = Checkpoint(self.folder, self._made_with, training=training, looks=looks)
        if checkpoint.restore():
            say(f"goes on after epoch {training.resumed[-1]}, from its checkpoint")
        for epoch in training:
            every, last = self.settings.evaluate_every, self.settings.epochs
            if epoch.epoch % every == 0 or epoch.epoch == last:
                row = looks.take(epoch, self._seconds)
                # Look by look, so that hours of a run that is stopped are not lost to the eye.
                with writing(self.folder), whole(self.folder / "history.csv") as beside:
                    self.history.to_csv(beside, index=False)
                say(self._progress(row))
            checkpoint.keep()
        self.scores = looks.scored("test")
        with writing(self.folder):
            self.scores.to_csv(self.folder / SCORES, index=False)
            if "holdout" in looks.splits:
                looks.scored("holdout").to_csv(self.folder / HELD_OUT_SCORES, index=False)

    def explain(self) -> None:
        """Grad-CAM maps of all test images by the last epoch's model."""
        maps = saliency(self.model, self.images("test"), self.settings.map_views)
        with writing(self.folder):
            # As float32: the maps of a long training go beyond float16's range.
            np.savez_compressed(self.folder / MAPS, maps=maps.numpy())

    def finish(self) -> dict[str, Any]:
        """Write the metrics; from here on the run counts as done."""
        metrics: dict[str, Any] = {
            f"auroc_{which}": roc(self.scores["label"], self.scores[f"score_{which}"])["auroc"]
            for which in SELECTIONS
            if f"score_{which}" in self.scores
        }
        for which, look in self._looks.selected().items():
            metrics[f"{which}_epoch"] = int(self.history["epoch"].iloc[look])
        metrics |= {
            f"{split}_images": int((self.samples["split"] == split).sum())
            for split in ("train", "holdout", "test")
        }
        labels = self.samples.loc[self.samples["split"] == "test", "label"]
        metrics["told_by"] = told_by(labels, self.images("test"))
        metrics["seconds"] = round(self._seconds(), 1)
        metrics["resumed_after_epochs"] = self._training.resumed
        with writing(self.folder):
            if self.settings.save_model:
                self.model.save(self.folder)
            write_json(self.folder / DONE, metrics)
            remove(self.folder)
        self._lock.close()
        return metrics

    def _seconds(self) -> float:
        """That the run took to come here; not what was lost with a stop."""
        return self._loading + self._training.seconds

    def _progress(self, row: Mapping[str, float]) -> str:
        left = row["seconds"] / row["epoch"] * (self.settings.epochs - row["epoch"])
        return (
            f"epoch {row['epoch']:3.0f}/{self.settings.epochs}  loss {row['train_loss']:8.4f}  "
            f"AUROC {100 * row['test_auroc']:6.2f}  {row['seconds']:6.0f} s, "
            f"about {left:.0f} s left"
        )

    def _images_folder(self) -> Path:
        """The category's folder, relative where `data_root` is: a run folder can then be moved."""
        root = Path(self.settings.data_root)
        return root / self.data_folder.relative_to(project_path(root))

    def _made_with(self) -> dict[str, Any]:
        """What must be the same for this run to go on from where another was stopped."""
        settings = dataclasses.asdict(self.settings)
        for name in _APART_FROM_TRAINING:
            del settings[name]
        return self.model.made_with(settings, self._images) | {"files": [*self.samples["path"]]}

    def _params(self) -> dict[str, Any]:
        images = datasets.count_images(self.samples)
        return {
            "settings": dataclasses.asdict(self.settings),
            "variant": self.settings.variant,
            "folder": str(self._images_folder()),
            "samples": {
                "train": images.train_good,
                "test_good": images.test_good,
                "test_anomalous": images.test_anomalous,
            },
            "weights_sha256": self.model.embedding.weights_sha256,
            "device": describe_device(self.model.device),
            "versions": versions(),
            "git": git_revision(),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def _clear(folder: Path) -> None:
    """Take away what an earlier run may have left that this one need not write anew."""
    for name in (DONE, HELD_OUT_SCORES, JSON_NAME, TENSORS_NAME):
        (folder / name).unlink(missing_ok=True)
    for left in (*folder.glob("maps*.npz"), *folder.glob("*.part.*")):
        left.unlink(missing_ok=True)  # a map's part is found by both


def _check_same_settings(folder: Path, settings: Settings) -> None:
    if not is_done(folder):
        return
    found = kept_settings(folder)
    if found is None:
        raise InputError(f"{folder} holds a damaged run: delete it.")
    if other := settings.difference(found, apart={"results"}):
        raise InputError(
            f"{folder} holds a finished run with {other}: give another results folder, or delete "
            "this one."
        )
