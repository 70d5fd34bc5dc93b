"""What views buy: AUROC by their number and how their angles are chosen, beside milliseconds.

    python benchmarks/accuracy.py --device cpu RESULTS/runs/mvtec_ad/bottle/none/seed0 [...]

Takes finished runs with their models (`save_model`). Four ways to choose angles: "own" draws them
for every image, as a run does with random ones; "shared" draws them once for all images, as `adnlib
score` does; "even" and "grid" are those of `test_angles`. Random angles are drawn `--draws` times,
with replacement, from 192 even ones, at which every image is embedded once. The time is that of
some of the images, one after the other and at so many views each, decoding not included. Draws
curves for each category, mean over seeds, and writes the numbers, AUROC in percent, beside the
picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from throughput import tabulated

from adnlib import AttentDifferNet
from adnlib.backbones import EmbeddingSettings
from adnlib.errors import InputError
from adnlib.evaluation import roc
from adnlib.images import load_images
from adnlib.pixels import Pixels
from adnlib.provenance import describe_device
from adnlib.record import FinishedRun, read_run
from adnlib.variants import variant_title
from adnlib.views import even_angles, grid_angles

_POOL = 192


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out.with_suffix(".csv"))
    if table is None:
        return 2
    of_runs = table.groupby(["category", "variant", "angles", "views"])
    means = of_runs[["auroc", "auroc_std", "ms_an_image"]].mean().reset_index()
    grid = sns.relplot(
        means.assign(method=means["variant"].map(variant_title)),
        x="views",
        y="auroc",
        hue="angles",
        style="method",
        col="category",
        kind="line",
        marker="o",
        height=3,
        facet_kws={"sharey": False},
    )
    grid.set(xscale="log").set_titles("{col_name}").set_axis_labels("views", "AUROC, percent")
    counts = means["views"].unique()
    for axes in grid.axes.flat:
        axes.set_xticks(counts, counts)
        axes.minorticks_off()
    grid.savefig(asked.out.with_suffix(".png"), dpi=150)
    print(means.round(2).to_string(index=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs with a model")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--draws", type=int, default=24, help="of random angles (default: 24)")
    parser.add_argument("--timed", type=int, default=8, help="images timed (default: 8; 0: none)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/accuracy"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    if min(*asked.views, asked.draws) < 1 or asked.timed < 0:
        raise InputError("--views and --draws take numbers above 0, --timed none below.")
    tables = []
    seen: _Seen | None = None
    for folder in asked.runs:
        run = read_run(folder)
        model = AttentDifferNet.load(folder, asked.device)
        if seen is None or not seen.serves(run, model):
            seen = _Seen(run, model, asked.views)
        table = pd.DataFrame(_rows(seen, model, asked.draws))
        ms = {views: seen.milliseconds(model, views, asked.timed) for views in asked.views}
        told = {
            "ms_an_image": table["views"].map(ms),
            "device": describe_device(model.device),
        }
        tables.append(table.assign(**told))
        tables[-1].insert(0, "category", f"{run.dataset}/{run.category}")
        tables[-1].insert(1, "variant", run.variant)
        tables[-1].insert(2, "seed", run.seed)
        print(tables[-1].to_string(index=False, header=len(tables) == 1), file=sys.stderr)
    return pd.concat(tables)


class _Seen:
    """A run's test images, embedded at every angle that some way chooses."""

    def __init__(self, run: FinishedRun, model: AttentDifferNet, views: Sequence[int]) -> None:
        scores = run.scores()
        paths = scores["path"].tolist()
        self.labels = scores["label"].to_numpy()
        self._folder = run.image_folder(paths)
        self._images, _ = load_images(self._folder, paths, model.settings.image_size)
        self._model = model
        most = model.settings.max_angle
        chosen = {("even", count): even_angles(1, count, most)[0] for count in (*views, _POOL)}
        chosen |= {("grid", count): grid_angles(1, count)[0] for count in views}
        angles, columns = torch.unique(torch.cat([*chosen.values()]), return_inverse=True)
        self.embedded = model.embed(self._images, angles.expand(len(scores), -1))
        of_each = columns.split([len(some) for some in chosen.values()])
        self.columns = dict(zip(chosen, of_each, strict=True))
        """Of `embedded`: which views each way and number has."""

    def serves(self, run: FinishedRun, model: AttentDifferNet) -> bool:
        """Whether that model would see the same: its backbone is this one's, and its images."""
        names = [field.name for field in dataclasses.fields(EmbeddingSettings)]
        mine, its = (each.embedding.state_dict() for each in (self._model, model))
        return (
            run.image_folder([]) == self._folder
            and all(getattr(model.settings, n) == getattr(self._model.settings, n) for n in names)
            and all(torch.equal(mine[name], its[name]) for name in mine)
        )

    def milliseconds(self, model: AttentDifferNet, views: int, timed: int) -> float:
        """Of an image at so many views; NaN if none is timed."""
        if not timed:
            return math.nan
        some = np.linspace(0, len(self._images) - 1, timed).round().astype(int)
        images = self._images.part(torch.from_numpy(some))
        angles = even_angles(1, views, model.settings.max_angle)

        def score(some: Pixels) -> None:
            for number in range(len(some)):
                one = some.part(slice(number, number + 1))
                model.score_embeddings(model.embed(one, angles))

        score(images.part(slice(0, 1)))  # what the first takes longer is no cost of views
        began = time.perf_counter()
        score(images)
        return 1000 * (time.perf_counter() - began) / len(images)


def _rows(seen: _Seen, model: AttentDifferNet, draws: int) -> list[dict[str, str | float]]:
    """AUROC in percent of each way and number of views; over the draws where it is drawn."""
    count, angles = seen.embedded.shape[:2]
    of_each = model.score_embeddings(seen.embedded.flatten(0, 1)[:, None])  # view by view
    scores = of_each.view(count, angles).double()
    pool, generator = seen.columns["even", _POOL], torch.Generator().manual_seed(0)
    rows: list[dict[str, str | float]] = []
    for (way, views), columns in seen.columns.items():
        told = {"angles": way, "views": views}
        rows.append(told | _spread(seen.labels, scores, [columns.expand(count, -1)]))
    for views in [views for way, views in seen.columns if way == "grid"]:
        for way, images_per_draw in (("own", 1), ("shared", count)):
            shape = (draws, count // images_per_draw, views)
            drawn = torch.randint(_POOL, shape, generator=generator)
            chosen = [pool[some].expand(count, -1) for some in drawn]
            rows.append({"angles": way, "views": views} | _spread(seen.labels, scores, chosen))
    return rows


def _spread(
    labels: np.ndarray, scores: torch.Tensor, draws: Sequence[torch.Tensor]
) -> dict[str, float]:
    """Of the AUROC by the scores (N, K) of these views (N, V), draw by draw."""
    means = [scores.gather(1, drawn).mean(1).numpy() for drawn in draws]
    aurocs = [100 * roc(labels, mean)["auroc"] for mean in means]
    return {
        "draws": len(draws),
        "auroc": float(np.mean(aurocs)),
        "auroc_std": float(np.std(aurocs, ddof=1)) if len(aurocs) > 1 else math.nan,
        "auroc_min": min(aurocs),
        "auroc_max": max(aurocs),
    }


if __name__ == "__main__":
    sys.exit(main())
