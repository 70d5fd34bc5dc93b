"""One finished run, as tables and figures read it from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.folders import DONE, HELD_OUT_SCORES, MAPS, PARAMS, SCORES, is_done
from adnlib.looks import SELECTIONS
from adnlib.parameters import project_path
from adnlib.run_settings import DEFAULTS

# Settings that say which run it is, or where and how fast it ran, and not what was computed.
# Runs of one data set may differ in these and in no others.
MAY_DIFFER = frozenset(
    {"dataset", "category", "attention", "attention_training", "standardize", "seed"}
    | {"data_root", "results", "device", "memory_budget", "save_model", "on_bad_image"}
)
# In these, too, before tables compare the hash of the weights, and figures the views of the maps.
NOT_IN_TABLES = MAY_DIFFER | {"weights", "map_views"}
# In a caption these have words of their own (`report.circumstances`), and views of maps no place.
_TOLD = MAY_DIFFER | {"epochs", "image_size", "test_views", "holdout", "weights", "map_views"}


@dataclass(frozen=True)
class FinishedRun:
    """One finished run: what was asked, what came out, and where the rest lies."""

    folder: Path
    dataset: str
    category: str
    variant: str
    seed: int
    settings: dict[str, Any]
    images: str  # the category folder that the run read
    weights: str  # "random", or the SHA-256 of the backbone's weights
    aurocs: dict[str, float]  # fractions, by `SELECTIONS`; none "selected" without a hold-out
    told_by: dict[str, float]  # see `shortcuts.told_by`; none in older runs
    train_images: int  # without those held out
    test_images: int
    seconds: float
    device: str
    git: str  # revision of the code, "" where unknown
    versions: dict[str, str]

    @property
    def images_seen(self) -> str:
        """How many images the run was made with, in words."""
        return f"{self.train_images} to train and {self.test_images} to test"

    @property
    def learns_attention(self) -> bool:
        """Whether its attention has parameters, trained or not."""
        return ATTENTION[self.settings["attention"]].learns

    @property
    def departures(self) -> dict[str, Any]:
        """Other settings that change the numbers and are not the paper's, nor taken for it."""
        return {
            name: value
            for name, value in self.settings.items()
            if name in DEFAULTS.keys() - _TOLD and value != DEFAULTS[name]
        }

    def __repr__(self) -> str:
        where = f"{self.dataset}/{self.category}/{self.variant}/seed{self.seed}"
        return f"FinishedRun({where}: AUROC {100 * self.aurocs['last']:.1f} %, {self.images_seen})"

    def scores(self) -> pd.DataFrame:
        """`scores.csv`: path, label, defect, mask ("" without one), score_<one of `aurocs`>.

        Raises:
            OSError, ValueError: it is gone, or not as the run wrote it.
        """
        scores = _read_scores(self.folder / SCORES)
        columns = [f"score_{which}" for which in self.aurocs]
        if lacking := {"path", "label", "defect", "mask", *columns} - {*scores}:
            raise ValueError(f"{SCORES} lacks {min(lacking)}")
        if len(scores) != self.test_images:
            raise ValueError(f"{SCORES} has {len(scores)} rows for {self.test_images} images")
        return scores.astype(dict.fromkeys(columns, float))

    def held_out(self) -> pd.DataFrame | None:
        """`holdout.csv`: the same columns for held-out good images; None where there is none."""
        path = self.folder / HELD_OUT_SCORES
        table = _read_scores(path) if path.is_file() else None
        return None if table is None or table.empty else table

    def maps(self) -> np.ndarray:
        """(n_test, h, w) float32 Grad-CAM maps in `scores.csv`'s order, >= 0, not normalised."""
        with np.load(self.folder / MAPS, allow_pickle=False) as archive:
            return np.asarray(archive["maps"], dtype=np.float32)

    def image_folder(self, paths: Iterable[str]) -> Path:
        """The category folder that the run read.

        Raises:
            InputError: one of these images, relative to it, is no longer there.
        """
        folder = project_path(self.images)
        for path in paths:
            if not (folder / path).is_file():
                raise InputError(
                    f"The images of {self.dataset}/{self.category} are no longer in {folder} "
                    f"({path} is missing): put them back, or run again with their new place."
                )
        return folder


def read_run(folder: Path) -> FinishedRun:
    """Read one finished run, whatever runs lie beside it.

    Raises:
        InputError: there is none, or it is not finished, or damaged.
    """
    if not folder.is_dir() or not folder.name.startswith("seed"):
        raise InputError(
            f"No run lies in {folder}: give the folder of one, "
            "<results>/runs/<dataset>/<category>/<variant>/seed<k>."
        )
    if not is_done(folder):
        raise InputError(f"The run in {folder} is not finished: run it to its end.")
    try:
        return _read_run(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder, error) from None


def damaged(folder: Path, error: Exception) -> InputError:
    """The sentence for a run whose files cannot be read."""
    return InputError(
        f"The run in {folder} is damaged ({type(error).__name__}: {error}): delete its folder and "
        "run it again."
    )


def _read_run(folder: Path) -> FinishedRun:
    params = json.loads((folder / PARAMS).read_text(encoding="utf-8"))
    metrics = json.loads((folder / DONE).read_text(encoding="utf-8"))
    settings = params["settings"]
    dataset, category, variant = folder.parts[-4:-1]
    seed = int(folder.name.removeprefix("seed"))
    claimed = (settings["dataset"], settings["category"], params["variant"], settings["seed"])
    if claimed != (dataset, category, variant, seed):
        raise ValueError(f"{PARAMS} is of {'/'.join(map(str, claimed))}")
    if settings["attention"] not in ATTENTION:
        raise ValueError(f"attention {settings['attention']!r} is unknown here")
    if not (folder / SCORES).is_file():
        raise FileNotFoundError(f"{SCORES} is missing")
    aurocs = {
        which: float(metrics[f"auroc_{which}"])
        for which in SELECTIONS
        if which != "selected" or settings["holdout"]
    }
    if not all(0 <= auroc <= 1 for auroc in aurocs.values()):
        raise ValueError(f"AUROC {aurocs} is no fraction")
    return FinishedRun(
        folder=folder,
        dataset=dataset,
        category=category,
        variant=variant,
        seed=seed,
        settings=settings,
        images=str(params["folder"]),
        # The same weights may come from the cache or from a file, so the hash says which they are.
        weights=str(params["weights_sha256"]),
        aurocs=aurocs,
        told_by=dict(metrics.get("told_by", {})),
        train_images=int(metrics["train_images"]),
        test_images=int(metrics["test_images"]),
        seconds=float(metrics["seconds"]),
        device=str(params["device"]),
        git=str(params["git"] or ""),
        versions=params["versions"],
    )


def _read_scores(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path,
        keep_default_na=False,  # a defect may be called "NA"
        dtype={"path": str, "label": int, "defect": str, "mask": str},
    )
