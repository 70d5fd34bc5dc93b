"""Which test images a Grad-CAM figure shows: chosen by a rule and not by taste, with their maps.

Reads scores and maps of finished runs; draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from adnlib.attention import ATTENTION
from adnlib.datasets import at_even_steps
from adnlib.errors import InputError
from adnlib.evaluation import percentiles
from adnlib.map_kinds import USUAL, Saliency
from adnlib.record import FinishedRun
from adnlib.records import check_same_images, readable
from adnlib.run_maps import scores_and_maps, with_maps
from adnlib.settings import check_names
from adnlib.variants import variant_order, variant_settings, variant_title

SCALE_PERCENTILE = 99.5
FAINTEST = 1e-37
"""A colour scale's lowest end, since all maps may be 0; squared gradients may be near 1e-20."""
_NAMED, _PATH = "named", "path"


@dataclass(frozen=True)
class Chosen:
    """The images chosen of one category, from the runs of one seed."""

    category: str
    seed: int
    folder: Path  # the category folder that the images lie in
    images: pd.DataFrame  # as `choose_images` gives them
    maps: dict[str, np.ndarray]  # variant to (images, h, w), not normalised
    scales: dict[str, np.ndarray]  # variant to (images,), the value that gets the last colour
    normal: dict[str, float]  # variant to that of all maps no stronger than a good image's


def choose(
    found: Sequence[FinishedRun],
    anomalous: int,
    named: Mapping[str, Sequence[str]] | None = None,
    kind: Saliency = USUAL,
) -> list[Chosen]:
    """Choose the images of each category that has runs with maps.

    A category is shown by the seed that the most of its variants were run with, the lowest of
    several; variants without that seed are left out there. Colour scales are those of
    `colour_scales`.

    Args:
        found: runs of one data set.
        anomalous: how many anomalous images of each category, at most.
        named: instead of a choice, the images by category (see `read_named`).
        kind: of the maps.

    Raises:
        InputError: when the images are no longer where the runs read them, or are none of theirs,
            or when maps are means over different numbers of views.
    """
    chosen = []
    mapped = with_maps(found, kind)
    for category in sorted({run.category for run in found} if named is None else named):
        runs = [run for run in mapped if run.category == category]
        paths = None if named is None else named[category]
        chosen.append(_of_category(runs, anomalous, paths, kind))
    return [category for category in chosen if category]


def read_named(file: str | Path, found: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """The images that a file names, by category.

    Args:
        file: CSV with the columns `category` and `path`, others being of no account, such as the
            list that a figure came with.
        found: runs of one data set.

    Raises:
        InputError: it cannot be read, or names a category that there is no run of.
    """
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)[["category", "path"]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{str(file)!r} is no list of images ({error}): give a CSV file with the columns "
            "category and path."
        ) from None
    named = {str(category): rows["path"].tolist() for category, rows in table.groupby("category")}
    check_names(named, {run.category for run in found}, "category with runs")
    return named


def choose_images(
    scores: dict[str, pd.DataFrame], anomalous: int = 3, named: Sequence[str] | None = None
) -> pd.DataFrame:
    """One normal and some anomalous test images of a category.

    The normal image is the one with the median score of the first variant. The anomalous images are
    ranked by the gain of their percentile (score among the normal test images' scores) from plain
    DifferNet to the first variant with attention, which a control is not; taken are those evenly
    spaced from the highest gain to the lowest, so for three: highest, median, lowest, and for one:
    median. Without such a pair they are evenly spaced by path. Equal gains are ordered by path.

    Args:
        scores: variant to the scores of one seed's run.
        anomalous: how many anomalous images, at most.
        named: these images instead, in this order.

    Returns:
        One row per image, the normal one first unless they are named: row (position in the scores),
        path, label, defect, mask, rule, gain (NaN without a pair), and score_<variant>,
        percentile_<variant> of each variant.

    Raises:
        InputError: when the variants were not tested with the same images, or with one named.
    """
    variants = sorted(scores, key=variant_order)
    check_same_images((variant_title(variant), scores[variant]) for variant in variants)
    table = scores[variants[0]][["path", "label", "defect", "mask"]].reset_index(names="row")
    table = table.assign(rule="", gain=np.nan)
    for variant in variants:
        values = scores[variant]["score_last"].to_numpy()
        table[f"score_{variant}"] = values
        table[f"percentile_{variant}"] = percentiles(values, values[table["label"] == 0])
    with_attention = [v for v in variants if ATTENTION[variant_settings(v)["attention"]].attends]
    compared = with_attention[0] if with_attention and variants[0] == "none" else None
    if compared:
        gain = table[f"percentile_{compared}"] - table["percentile_none"]
        table["gain"] = gain.where(table["label"] == 1)
    if named is not None:
        check_names(named, table["path"], "test image")
        return table.set_index("path").loc[list(named)].reset_index().assign(rule=_NAMED)
    return _by_rule(table, variants[0], compared, anomalous)


def told_rule(chosen: Sequence[Chosen]) -> str:
    """By which rule these images were chosen, in words; "" where they were named."""
    images = pd.concat([category.images for category in chosen])
    if _NAMED in set(images["rule"]):
        return ""
    normal = " or ".join(sorted({*images.loc[images["label"] == 0, "rule"]}))
    orders = {rule.partition(" by ")[2] for rule in images.loc[images["label"] == 1, "rule"]}
    ranking = f"the ranking by {' or '.join(sorted(orders))}."
    if any(category.images["label"].sum() > 1 for category in chosen):
        anomalous = f"Anomalous images: evenly spaced, from first to last, in {ranking}"
    else:
        anomalous = f"Anomalous image: middle of {ranking}"
    gain = " Gain: how much higher the score's percentile is with it than with plain DifferNet."
    return f"Normal image: {normal}. {anomalous}{gain * (orders != {_PATH})}"


def listed(chosen: Sequence[Chosen], dataset: str) -> pd.DataFrame:
    """What was chosen, one row per image, for `gradcam_<dataset>_images.csv`."""
    tables = []
    for category in chosen:
        table = category.images.drop(columns="row")
        table = table.assign(**{f"scale_{v}": scales for v, scales in category.scales.items()})
        table.insert(0, "dataset", dataset)
        table.insert(1, "category", category.category)
        table.insert(2, "seed", category.seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def colour_scales(maps: np.ndarray, labels: ArrayLike) -> np.ndarray:
    """The map value that gets the last colour in each image, (N,).

    It is the 99.5th percentile of the image's own map, so that a single hot pixel does not darken
    all others, but at least the highest of those of the normal images. So no normal image glows
    because nothing in it is brighter, and an anomalous one shows where its map is strong, though
    maps, as the scores of a flow, may be decades apart.

    Args:
        maps: (N, h, w) of all test images of a run.
        labels: (N,)
    """
    own = np.percentile(maps.reshape(len(maps), -1), SCALE_PERCENTILE, axis=1)
    normal = own[np.asarray(labels) == 0]
    return np.maximum(own, max(normal.max(initial=0), FAINTEST))


def _of_category(
    found: list[FinishedRun], anomalous: int, named: Sequence[str] | None, kind: Saliency
) -> Chosen | None:
    readings = readable(found, lambda run: scores_and_maps(run, kind))
    if not readings:
        return None
    seeds = [run.seed for run, _ in readings]
    seed = max(sorted(set(seeds)), key=seeds.count)
    shown = {run.variant: (run, *read) for run, read in readings if run.seed == seed}
    images = choose_images({v: scores for v, (_, scores, _) in shown.items()}, anomalous, named)
    run = next(run for run, _ in readings if run.seed == seed)
    folder = run.image_folder(images["path"])
    rows = images["row"].to_numpy()
    scales = {v: colour_scales(maps, scores["label"]) for v, (_, scores, maps) in shown.items()}
    return Chosen(
        category=run.category,
        seed=seed,
        folder=folder,
        images=images,
        maps={v: maps[rows] for v, (_, _, maps) in shown.items()},
        scales={v: of_images[rows] for v, of_images in scales.items()},
        normal={v: float(of_images.min()) for v, of_images in scales.items()},
    )


def _by_rule(table: pd.DataFrame, first: str, compared: str | None, anomalous: int) -> pd.DataFrame:
    good = table[table["label"] == 0].sort_values([f"score_{first}", "path"])
    bad = table[table["label"] == 1].sort_values(["gain", "path"], ascending=[False, True])
    order = f"gain of {variant_title(compared)}" if compared else _PATH
    rules = [f"rank {rank + 1} of {len(bad)} by {order}" for rank in range(len(bad))]
    parts = [
        at_even_steps(good, 1).assign(rule=f"median score of {variant_title(first)}"),
        at_even_steps(bad.assign(rule=rules), anomalous),
    ]
    return pd.concat(parts, ignore_index=True)
