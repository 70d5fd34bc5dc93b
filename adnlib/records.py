"""The finished runs of a results folder, as the tables and figures read them.

Reads run folders and nothing else: no training, no tables, no pictures. A run is finished when its
`metrics.json` is there; unfinished and damaged runs are left out and named in a warning.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from adnlib import runs
from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.folders import is_done
from adnlib.variants import variant_order

# Settings that say which run it is, or where and how fast it ran, and not what was computed.
# Runs of one data set may differ in these and in no others.
MAY_DIFFER = frozenset(
    {"dataset", "category", "attention", "attention_training", "standardize", "seed"}
    | {"data_root", "results", "device", "memory_budget", "save_model", "on_bad_image"}
)
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(runs.Settings)}
_METHOD = {"backbone", "precision", "view_bank"}
_METHOD |= {name for name in _DEFAULTS if name.startswith("attention_")}
_DAMAGE = (OSError, ValueError, KeyError, TypeError)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Run:
    """One finished run: what was asked, what came out, and where the rest lies."""

    folder: Path
    dataset: str
    category: str
    variant: str
    seed: int
    settings: dict[str, Any]
    images: str  # the category folder that the run read
    weights: str  # "random", or the SHA-256 of the backbone's weights
    aurocs: dict[str, float]  # fractions, by `runs.SELECTIONS`; none "selected" without a hold-out
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
        """Settings of backbone, attention, and views that are not the paper's, nor taken for it."""
        return {
            name: value
            for name, value in self.settings.items()
            if name in _METHOD - MAY_DIFFER and value != _DEFAULTS[name]
        }

    def __repr__(self) -> str:
        where = f"{self.dataset}/{self.category}/{self.variant}/seed{self.seed}"
        return f"Run({where}: AUROC {100 * self.aurocs['last']:.1f} %, {self.images_seen})"

    def scores(self) -> pd.DataFrame:
        """`scores.csv`: path, label, defect, mask ("" without one), score_<one of `aurocs`>."""
        return _read_scores(self.folder / "scores.csv")

    def held_out(self) -> pd.DataFrame | None:
        """`holdout.csv`: the same columns for the held-out good images; None where it is not."""
        path = self.folder / runs.HOLDOUT
        return _read_scores(path) if path.is_file() else None

    def maps(self) -> np.ndarray:
        """(n_test, h, w) float32 Grad-CAM maps in `scores.csv`'s order, >= 0, not normalised."""
        with np.load(self.folder / runs.MAPS, allow_pickle=False) as archive:
            return np.asarray(archive["maps"], dtype=np.float32)

    def image_folder(self, paths: Iterable[str]) -> Path:
        """The category folder that the run read.

        Raises:
            InputError: one of these images, relative to it, is no longer there.
        """
        folder = runs.project_path(self.images)
        for path in paths:
            if not (folder / path).is_file():
                raise InputError(
                    f"The images of {self.dataset}/{self.category} are no longer in {folder} "
                    f"({path} is missing): put them back, or run again with their new place."
                )
        return folder


def sorted_variants(found: Iterable[Run]) -> list[str]:
    """The variants that occur, each once, in the order of tables and figures."""
    return sorted({run.variant for run in found}, key=variant_order)


def read_runs(results: str | Path, dataset: str | None = None) -> list[Run]:
    """Read every finished run beneath `results/runs`, sorted by data set, category, variant, seed.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: read this data set only.

    Raises:
        InputError: when there is no finished run, or when runs of one data set differ in a setting
            that changes their numbers (see `check_settings`).
    """
    root = Path(results) / "runs"
    found: list[Run] = []
    left_out: list[str] = []
    for folder in sorted(root.glob(f"{dataset or '*'}/*/*/seed*")):
        if not is_done(folder):
            left_out.append(f"{folder} (unfinished)")
            continue
        try:
            found.append(_read_run(folder))
        except _DAMAGE as error:
            left_out.append(f"{folder} (damaged: {type(error).__name__}: {error})")
    _warn(left_out)
    if not found:
        held = sorted(p.name for p in root.glob("*") if p.is_dir())
        where = root / dataset if dataset else root
        hint = f"; there are runs of {', '.join(held)}" if dataset and held else ""
        raise InputError(
            f"No finished run lies under {where}{hint}; run the grid first, or name another "
            "results folder."
        )
    found.sort(key=lambda r: (r.dataset, r.category, variant_order(r.variant), r.seed))
    check_settings(found)
    return found


def read_run(folder: Path) -> Run:
    """Read one finished run, whatever runs lie beside it.

    Raises:
        InputError: it is not finished, or damaged.
    """
    if not is_done(folder):
        raise InputError(f"The run in {folder} is not finished: run it to its end.")
    try:
        return _read_run(folder)
    except _DAMAGE as error:
        raise InputError(
            f"The run in {folder} is damaged ({type(error).__name__}: {error}): delete its folder "
            "and run it again."
        ) from None


def asked_cells(results: str | Path) -> dict[str, dict[str, Any]]:
    """The runs that the last `./run_all.sh` asked for, by run folder; none without a plan."""
    plan = Path(results) / "plan.json"
    return json.loads(plan.read_text(encoding="utf-8"))["cells"] if plan.is_file() else {}


def asked_seeds(results: str | Path) -> dict[str, int]:
    """How many seeds of each data set the last `./run_all.sh` asked for."""
    counts = Counter(Path(key).parent for key in asked_cells(results))
    asked: dict[str, int] = {}
    for cell, count in counts.items():
        dataset = cell.parts[1]
        asked[dataset] = max(asked.get(dataset, 0), count)
    return asked


def check_settings(found: list[Run]) -> None:
    """Refuse runs of one data set whose settings differ.

    A table's caption can state one number of epochs, one image size, one kind of weights. Runs
    under other settings would be averaged with, or stand beside, numbers that they cannot be
    compared with; separate columns for them would leave a mean row without common categories. So
    one results folder holds one set of settings per data set, and another belongs in a folder of
    its own. Data sets may differ from each other. Within a category all runs must also have seen
    the same numbers of images. The number of views that maps are means of changes no score, and is
    for `run_maps.with_maps` to compare.

    Raises:
        InputError: naming data set, setting, its values, and a run folder for each value.
    """
    for dataset in sorted({run.dataset for run in found}):
        group = [run for run in found if run.dataset == dataset]
        apart = MAY_DIFFER | {"weights", "map_views"}
        names = {name for run in group for name in run.settings} - apart
        for name in sorted(names):
            unset = _DEFAULTS.get(name, "unset")  # the run is older than the setting
            check_same(dataset, name, {r.folder: str(r.settings.get(name, unset)) for r in group})
        check_same(dataset, "weights", {r.folder: r.weights for r in group})
        for category in sorted({run.category for run in group}):
            seen = {r.folder: r.images_seen for r in group if r.category == category}
            check_same(f"{dataset}/{category}", "their images", seen)


def check_same(what: str, name: str, values: dict[Path, str]) -> None:
    """Refuse runs of something that differ in the value of a setting, given by run folder.

    Raises:
        InputError: naming the values, and a run folder for each.
    """
    counts = Counter(values.values())
    if len(counts) > 1:
        shown = "; ".join(
            f"{value} in {count} run(s) such as {next(f for f, v in values.items() if v == value)}"
            for value, count in counts.most_common()
        )
        raise InputError(
            f"The runs of {what} differ in {name}: {shown}. Keep one setting per results folder: "
            "move or remake the others."
        )


def readable(found: Iterable[Run], read: Callable[[Run], _T]) -> list[tuple[Run, _T]]:
    """Each run with what `read` gives for it; runs whose files are damaged are warned of, left out.

    For `scores.csv` and `maps.npz`, which tables do not need and `read_runs` does not open.
    """
    pairs: list[tuple[Run, _T]] = []
    left_out: list[str] = []
    for run in found:
        try:
            pairs.append((run, read(run)))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            left_out.append(f"{run.folder} (damaged: {type(error).__name__}: {error})")
    _warn(left_out)
    return pairs


def _read_run(folder: Path) -> Run:
    params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    settings = params["settings"]
    dataset, category, variant = folder.parts[-4:-1]
    seed = int(folder.name.removeprefix("seed"))
    claimed = (settings["dataset"], settings["category"], params["variant"], settings["seed"])
    if claimed != (dataset, category, variant, seed):
        raise ValueError(f"params.json is of {'/'.join(map(str, claimed))}")
    if settings["attention"] not in ATTENTION:
        raise ValueError(f"attention {settings['attention']!r} is unknown here")
    if not (folder / "scores.csv").is_file():
        raise FileNotFoundError("scores.csv is missing")
    aurocs = {
        which: float(metrics[f"auroc_{which}"])
        for which in runs.SELECTIONS
        if which != "selected" or settings["holdout"]
    }
    if not all(0 <= auroc <= 1 for auroc in aurocs.values()):
        raise ValueError(f"AUROC {aurocs} is no fraction")
    return Run(
        folder=folder,
        dataset=dataset,
        category=category,
        variant=variant,
        seed=seed,
        settings=settings,
        images=str(params["folder"]),
        # The same weights may come from the cache or from a file, so the hash says which they are.
        weights="random" if settings["weights"] == "random" else str(params["weights_sha256"]),
        aurocs=aurocs,
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


def _warn(left_out: list[str], most: int = 20) -> None:
    if left_out:
        more = f", and {len(left_out) - most} more" if len(left_out) > most else ""
        warnings.warn(
            f"{len(left_out)} run(s) left out: {', '.join(left_out[:most])}{more}", stacklevel=3
        )
