"""What detectors look at, in numbers: the maps of a results folder against masks, as tables.

Made from run folders, test images and their masks. Beside the detectors stand two maps that have
seen no image, a random one and one that favours the centre: what a detector does not have over
these says nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adnlib import tables
from adnlib.evaluation import mean_and_std
from adnlib.localization import SIZE, Maps, centre_prior, random_maps
from adnlib.map_kinds import USUAL, Saliency
from adnlib.record import FinishedRun
from adnlib.records import check_same_images, read_runs, readable
from adnlib.report import alert, circumstances, dataset_title, with_spread
from adnlib.run_maps import map_views, scores_and_maps, with_maps
from adnlib.scenes import MEASURES, Look, Scene
from adnlib.significance import interval, seeds_drawn_again
from adnlib.study import PLAIN
from adnlib.tables import Sheet
from adnlib.variants import variant_order, variant_title
from adnlib.words import counted

_RANDOM, _CENTRE = "random_map", "centre_prior"
_BASELINES = {_RANDOM: "random map", _CENTRE: "centre prior"}

_Looks = dict[tuple[str, str, int], Look]  # by category, variant or baseline, and seed


def write_looking(
    results: str | Path,
    dataset: str,
    kind: Saliency = USUAL,
    guess_object: bool = False,
    say: Callable[[str], object] = print,
) -> list[Path]:
    """Write `tables/localization_<dataset>.csv`, `..._paired.csv` and `.md`; their paths.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: a data set that there are runs of.
        kind: of the maps; the files of others than the usual have it in their names.
        guess_object: where no mask says where the object is, take what `background` leaves.
        say: given a line for each category.

    Returns:
        The paths; none where no mask says where a defect or an object is.

    Raises:
        InputError: there is no finished run, or images are gone.
    """
    found = with_maps(read_runs(results, dataset), kind)
    looks: _Looks = {}
    shares = {}
    for category in sorted({run.category for run in found}):
        of_category = [run for run in found if run.category == category]
        readings = readable(of_category, partial(scores_and_maps, kind=kind))
        if readings:
            scene = _scene(readings, guess_object)
            shares[category] = scene.shares()
            for (variant, seed), maps in _and_baselines(readings):
                looks[category, variant, seed] = Look.at(scene, maps)
            runs, masks = len(readings), int(scene.masked.sum())
            say(f"{category}: {counted(runs, 'run')}, {counted(masks, 'mask')} of defects")
    if not any(look.measured for look in looks.values()):
        return []
    aurocs = {(run.category, run.variant, run.seed): 100 * run.aurocs["last"] for run in found}
    each = _each_table(dataset, looks, shares, aurocs)
    paired = _paired_table(dataset, looks)
    measures = [measure for measure in MEASURES if measure in each]
    name = f"localization_{dataset}" + ("" if kind == USUAL else f"_{kind.name}")
    sheets = [
        _sheet(found, each, measures, kind, guess_object),
        *_paired_sheets(found, paired, measures),
    ]
    text = tables.document("What the detectors look at", sheets)
    files = {f"{name}.csv": each, f"{name}_paired.csv": paired, f"{name}.md": text}
    return tables.write(Path(results) / "tables", files)


_Reading = tuple[FinishedRun, tuple[pd.DataFrame, np.ndarray]]


def _scene(readings: Sequence[_Reading], guess_object: bool) -> Scene:
    check_same_images((run.folder, scores) for run, (scores, _) in readings)
    first, (scores, _) = readings[0]
    return Scene.of(first, scores, guess_object)


def _and_baselines(
    readings: Sequence[_Reading],
) -> Iterator[tuple[tuple[str, int], Maps]]:
    """Maps by variant and seed, of the runs and of the baselines."""
    for run, (_, maps) in readings:
        yield (run.variant, run.seed), maps
    count, side = maps.shape[:2]
    for seed in sorted({run.seed for run, _ in readings}):
        yield (_RANDOM, seed), random_maps(count, side, seed)
    yield (_CENTRE, 0), np.repeat(centre_prior(side)[None], count, axis=0)


def _title(variant: str) -> str:
    return _BASELINES.get(variant) or variant_title(variant)


def _order(variant: str) -> tuple[Any, ...]:
    baselines = list(_BASELINES)
    return (1, baselines.index(variant)) if variant in baselines else (0, variant_order(variant))


def _each_table(
    dataset: str,
    looks: _Looks,
    shares: dict[str, dict[str, float]],
    aurocs: dict[tuple[str, str, int], float],
) -> pd.DataFrame:
    """One row per category, variant or baseline, and seed, in percent: `MEASURES`, the shares, and
    the run's own AUROC of images."""
    keys = sorted(looks, key=lambda key: (key[0], _order(key[1]), key[2]))
    return pd.DataFrame(
        {
            "dataset": dataset,
            "category": category,
            "variant": variant,
            "method": _title(variant),
            "seed": seed,
            **looks[category, variant, seed].measured,
            **shares[category],
            "image_auroc": aurocs.get((category, variant, seed), float("nan")),
        }
        for category, variant, seed in keys
    )


def _paired_table(dataset: str, looks: _Looks) -> pd.DataFrame:
    """What each variant has over plain DifferNet, and over the centre prior, in points.

    `low` and `high` bound the 95 % bootstrap interval over test images and seeds.
    """
    drawn = {key: {m: look.drawn(m) for m in look.measured} for key, look in looks.items()}
    cells = {key[:2] for key in looks if key[1] not in _BASELINES}
    rows = []
    for category, variant in sorted(cells, key=lambda cell: (cell[0], _order(cell[1]))):
        seeds = [seed for c, v, seed in looks if (c, v) == (category, variant)]
        for against in [other for other in (PLAIN, _CENTRE) if other != variant]:
            pairs = [
                ((category, variant, seed), base)
                for seed in seeds
                if (base := (category, against, 0 if against == _CENTRE else seed)) in looks
            ]
            for measure in looks[pairs[0][0]].measured if pairs else ():
                differences = [
                    looks[mine].measured[measure] - looks[base].measured[measure]
                    for mine, base in pairs
                ]
                draws = [drawn[mine][measure] - drawn[base][measure] for mine, base in pairs]
                # Not the generator of `Look.drawn`: as many seeds as images would be drawn alike.
                of_seeds = seeds_drawn_again(np.stack(draws, 1), np.random.default_rng(1))
                low, high = interval(of_seeds)
                rows.append(
                    {
                        "dataset": dataset,
                        "category": category,
                        "variant": variant,
                        "method": _title(variant),
                        "against": _title(against),
                        "measure": measure,
                        "seeds": len(pairs),
                        "difference": float(np.mean(differences)),
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


def _sheet(
    found: Sequence[FinishedRun],
    each: pd.DataFrame,
    measures: Sequence[str],
    kind: Saliency,
    guess_object: bool,
) -> Sheet:
    rows = []
    for (category, method), of_cell in each.groupby(["category", "method"], sort=False):
        spreads = [mean_and_std(of_cell[name].tolist()) for name in ("image_auroc", *measures)]
        rows.append([str(category), str(method), *(with_spread(*spread) for spread in spreads)])
    shares = each.drop_duplicates("category").set_index("category")
    even = "; ".join(
        f"{category} {row['defect_share']:.1f} and {row['object_share']:.1f}"
        for category, row in shares.iterrows()
    ).replace("nan", "unknown")
    views = map_views(found[0])
    guessed = " Objects without a mask are guessed from the background's colours." * guess_object
    return Sheet(
        title=f"{dataset_title(found)}: where the maps lie, in percent",
        caption=f"{circumstances(found)}. {kind.title} at the last epoch, mean over "
        f"{counted(views, 'view')}; maps and masks compared at {SIZE} px. Energy: "
        "the share of a map's sum; pointing game: whether its highest pixel lies in the defect "
        "(both of anomalous images with a mask); pixel AUROC and PRO: all test images together. "
        "Image AUROC is that of the run's scores. Mean ± standard deviation over seeds. An even "
        "map would have as its energy the share of the image that is defect, and object: "
        f"{even}.{guessed}",
        header=["category", "maps of", "image AUROC", *(MEASURES[m] for m in measures)],
        rows=rows,
        alert=alert(found),
        names=2,
    )


def _paired_sheets(
    found: Sequence[FinishedRun], paired: pd.DataFrame, measures: Sequence[str]
) -> Iterator[Sheet]:
    for against in map(_title, (PLAIN, _CENTRE)):
        rows = paired[paired["against"] == against]
        lines = []
        for (category, method), cell in rows.groupby(["category", "method"], sort=False):
            texts = {
                row["measure"]: f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
                for row in cell.to_dict("records")
            }
            numbers = [texts.get(measure, "-") for measure in measures]
            lines.append([str(category), str(method), *numbers])
        if not lines:
            continue
        yield Sheet(
            title=f"{dataset_title(found)}: points over {against}, paired",
            caption="In brackets: 95 % bootstrap interval over test images and seeds, which few "
            "seeds make too narrow. Where it contains 0, the images cannot tell the two apart.",
            header=["category", "maps of", *(MEASURES[measure] for measure in measures)],
            rows=lines,
            alert=alert(found),
            names=2,
        )
