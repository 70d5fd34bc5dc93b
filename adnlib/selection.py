"""Which test images a Grad-CAM figure shows: chosen by a rule and not by taste, with their maps.

Reads `scores.csv` and `maps.npz` of finished runs; draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from adnlib.errors import InputError
from adnlib.evaluation import percentiles
from adnlib.records import Run, readable
from adnlib.variants import variant_order, variant_title

SCALE_PERCENTILE = 99.5
RULE = (
    "Normal image: the one with the median score. Anomalous images: evenly spaced in the ranking "
    "by how much their score percentile is higher with attention than with plain DifferNet, from "
    "the highest gain to the lowest, or the median one alone (by path where there is no such pair)."
)


@dataclass(frozen=True)
class Chosen:
    """The images chosen of one category, from the runs of one seed."""

    category: str
    seed: int
    folder: Path  # the category folder that the images lie in
    images: pd.DataFrame  # as `choose_images` gives them
    maps: dict[str, np.ndarray]  # variant to (images, h, w), not normalised
    scales: dict[str, float]  # variant to the map value that gets the last colour


def choose(found: Sequence[Run], anomalous: int) -> list[Chosen]:
    """Choose the images of each category that has runs with maps.

    A category is shown by the seed that the most of its variants were run with, the lowest of
    several; variants without that seed are left out there. The colour scale of a variant ends at
    the 99.5th percentile of all its test maps' pixels in that category, so that a single hot pixel
    does not darken all others.

    Args:
        found: runs of one data set.
        anomalous: how many anomalous images of each category, at most.

    Raises:
        InputError: when the images are no longer where the runs read them.
    """
    categories = sorted({run.category for run in found})
    chosen = [_of_category([r for r in found if r.category == c], anomalous) for c in categories]
    return [category for category in chosen if category]


def choose_images(scores: dict[str, pd.DataFrame], anomalous: int = 3) -> pd.DataFrame:
    """One normal and some anomalous test images of a category.

    The normal image is the one with the median score of the first variant. The anomalous images are
    ranked by the gain of their percentile (score among the normal test images' scores) from plain
    DifferNet to the first attention variant; taken are those evenly spaced from the highest gain to
    the lowest, so for three: highest, median, lowest, and for one: median. Without such a pair they
    are evenly spaced by path. Equal gains are ordered by path.

    Args:
        scores: variant to the scores of one seed's run.
        anomalous: how many anomalous images, at most.

    Returns:
        One row per image, the normal one first: row (position in the scores), path, label, defect,
        mask, rule, gain (NaN without a pair), and score_<variant>, percentile_<variant> of each
        variant.

    Raises:
        InputError: when the variants were not tested with the same images.
    """
    variants = sorted(scores, key=variant_order)
    table = scores[variants[0]][["path", "label", "defect", "mask"]].reset_index(names="row")
    table = table.assign(rule="", gain=np.nan)
    for variant in variants:
        if list(scores[variant]["path"]) != list(table["path"]):
            raise InputError(
                f"{variant_title(variant)} and {variant_title(variants[0])} were tested with "
                f"different images, such as {table['path'][0]}: run them again with the same ones."
            )
        values = scores[variant]["score_last"].to_numpy()
        table[f"score_{variant}"] = values
        table[f"percentile_{variant}"] = percentiles(values, values[table["label"] == 0])
    good = table[table["label"] == 0].sort_values([f"score_{variants[0]}", "path"])
    bad = table[table["label"] == 1].sort_values("path")
    order = "path"
    if variants[0] == "none" and len(variants) > 1:
        bad["gain"] = bad[f"percentile_{variants[1]}"] - bad["percentile_none"]
        bad = bad.sort_values(["gain", "path"], ascending=[False, True])
        order = f"gain of {variant_title(variants[1])}"
    normal = good.iloc[[(len(good) - 1) // 2]]
    ranks = _evenly(len(bad), anomalous)
    rules = [f"rank {rank + 1} of {len(bad)} by {order}" for rank in ranks]
    parts = [
        normal.assign(rule=f"median score of {variant_title(variants[0])}"),
        bad.iloc[ranks].assign(rule=rules),
    ]
    return pd.concat(parts, ignore_index=True)


def listed(chosen: Sequence[Chosen], dataset: str) -> pd.DataFrame:
    """What was chosen, one row an image, for `gradcam_<dataset>_images.csv`."""
    tables = []
    for category in chosen:
        table = category.images.drop(columns="row")
        table = table.assign(**{f"scale_{v}": scale for v, scale in category.scales.items()})
        table.insert(0, "dataset", dataset)
        table.insert(1, "category", category.category)
        table.insert(2, "seed", category.seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def scores_and_maps(run: Run) -> tuple[pd.DataFrame, np.ndarray]:
    """`scores.csv` of a run, and a map (h, w) for each of its rows.

    Raises:
        OSError: one of them is not there.
        ValueError: the maps are not as many as the scores, or not finite.
    """
    scores, maps = run.scores(), run.maps()
    if maps.ndim != 3 or len(maps) != len(scores):
        raise ValueError(f"maps.npz holds {maps.shape} for {len(scores)} test images")
    if not np.isfinite(maps).all():
        raise ValueError("maps.npz holds values that are not finite")
    return scores, maps


def colour_scale(maps: np.ndarray) -> float:
    """The value that gets the last colour in all of a run's maps (N, h, w)."""
    return max(float(np.percentile(maps, SCALE_PERCENTILE)), 1e-12)  # all maps may be 0


def _of_category(found: list[Run], anomalous: int) -> Chosen | None:
    readings = readable(
        [run for run in found if (run.folder / "maps.npz").exists()], scores_and_maps
    )
    if not readings:
        return None
    seeds = [run.seed for run, _ in readings]
    seed = max(sorted(set(seeds)), key=seeds.count)
    shown = {run.variant: (run, *read) for run, read in readings if run.seed == seed}
    images = choose_images({v: scores for v, (_, scores, _) in shown.items()}, anomalous)
    run = next(run for run, _ in readings if run.seed == seed)
    folder = run.image_folder(images["path"])
    rows = images["row"].to_numpy()
    return Chosen(
        category=run.category,
        seed=seed,
        folder=folder,
        images=images,
        maps={v: maps[rows] for v, (_, _, maps) in shown.items()},
        scales={v: colour_scale(maps) for v, (_, _, maps) in shown.items()},
    )


def _evenly(length: int, count: int) -> list[int]:
    """Positions evenly spaced over a list, both ends among them; the middle for one."""
    if count == 1:
        return [(length - 1) // 2] if length else []
    return np.linspace(0, length - 1, min(count, length)).round().astype(int).tolist()
