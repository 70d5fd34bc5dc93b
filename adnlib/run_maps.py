"""The saliency maps of a finished run's test images: those in its folder, or made by its model.

A run keeps Grad-CAM maps of its score (`maps.npz`). Maps of another kind are made when first asked
for, by the model that the run kept, and lie beside them from then on. Training images are not
needed.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from adnlib.errors import writing
from adnlib.explain import saliency
from adnlib.folders import MAPS, whole
from adnlib.images import load_images
from adnlib.map_kinds import USUAL, Saliency
from adnlib.model import AttentDifferNet
from adnlib.model_files import JSON_NAME, identity
from adnlib.record import FinishedRun
from adnlib.records import by_dataset, check_same

_VIEWS = 4  # where the run asked for no maps of its own, and has as many


def with_maps(found: Iterable[FinishedRun], kind: Saliency = USUAL) -> list[FinishedRun]:
    """The runs that have maps of a kind, or a model that can make them.

    Raises:
        InputError: their maps are means over different numbers of views.
    """
    names = (_name(kind), JSON_NAME)
    kept = [run for run in found if any((run.folder / name).is_file() for name in names)]
    for dataset, group in by_dataset(kept).items():
        check_same(dataset, "map_views", {run.folder: map_views(run) for run in group})
    return kept


def map_views(run: FinishedRun) -> int:
    """How many views a map of the run is the mean of, whether it kept maps or has them made."""
    return run.settings["map_views"] or min(_VIEWS, run.settings["test_views"])


def scores_and_maps(run: FinishedRun, kind: Saliency = USUAL) -> tuple[pd.DataFrame, np.ndarray]:
    """`scores.csv` of a run, and a map (h, w) for each of its rows, float32, not normalised.

    Raises:
        OSError: one of the files is not there.
        ValueError: the maps are not as many as the scores, or not finite.
        InputError: maps are to be made, and the images are gone, or the model is damaged.
    """
    scores, path = run.scores(), run.folder / _name(kind)
    if path.name == MAPS and path.is_file():
        maps = run.maps()
    else:
        maps = _kept_or_made(run, kind, path, scores["path"].tolist())
    if maps.ndim != 3 or len(maps) != len(scores):
        raise ValueError(f"{path.name} holds {maps.shape} for {len(scores)} test images")
    if not np.isfinite(maps).all():
        raise ValueError(f"{path.name} holds values that are not finite")
    return scores, maps


def _name(kind: Saliency) -> str:
    return MAPS if kind == USUAL else f"maps_{kind.name}.npz"


def _kept_or_made(run: FinishedRun, kind: Saliency, path: Path, images: list[str]) -> np.ndarray:
    model_is_gone = not (run.folder / JSON_NAME).is_file()
    try:
        with np.load(path, allow_pickle=False) as kept:
            if model_is_gone or str(kept["model"]) == identity(run.folder):
                return kept["maps"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # none, or none that can be used: they are made anew
    digest = identity(run.folder)
    on_cpu = run.settings.get("device") == "cpu"
    model = AttentDifferNet.load(run.folder, "cpu" if on_cpu else "auto")
    folder, size = run.image_folder(images), model.settings.image_size
    pixels, _ = load_images(folder, images, size)
    maps = saliency(model, pixels, map_views(run), kind).numpy()
    with writing(run.folder), whole(path) as beside:
        np.savez_compressed(beside, maps=maps, model=digest)
    return maps
