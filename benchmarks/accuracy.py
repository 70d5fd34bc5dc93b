"""What more views buy: AUROC against the milliseconds that an image takes.

    python benchmarks/accuracy.py --device cpu RESULTS/runs/mvtec_ad/bottle/none/seed0 [...]

Takes finished runs with their models (`save_model`). Every test image is seen once at the most
views asked for; fewer are the first of these. The time is that of some of the images, one after the
other and at so many views each, decoding not included. Draws a curve for each category and variant,
mean over seeds, and writes the numbers beside the picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
import torch
from throughput import tabulated

from adnlib import AttentDifferNet, datasets
from adnlib.errors import InputError
from adnlib.evaluation import roc
from adnlib.images import load_images
from adnlib.pixels import Pixels
from adnlib.provenance import describe_device
from adnlib.record import read_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out.with_suffix(".csv"))
    if table is None:
        return 2
    of_runs = table.groupby(["category", "variant", "views"])[["auroc", "ms_an_image"]]
    grid = sns.relplot(
        of_runs.mean().reset_index(),
        x="ms_an_image",
        y="auroc",
        hue="variant",
        col="category",
        kind="line",
        marker="o",
        height=3,
        facet_kws={"sharey": False},
    )
    grid.set(xscale="log").set_titles("{col_name}").set_axis_labels("ms an image", "AUROC, percent")
    grid.savefig(asked.out.with_suffix(".png"), dpi=150)
    print(of_runs.agg(["mean", "std"]).round(2).to_string())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs with a model")
    parser.add_argument("--views", type=int, nargs="+", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--timed", type=int, default=8, help="images timed (default: 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/accuracy"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    if min(asked.views) < 1 or asked.timed < 1:
        raise InputError("--views and --timed take numbers above 0.")
    rows = []
    for folder in asked.runs:
        run = read_run(folder)
        scores = run.scores()
        model = AttentDifferNet.load(folder, asked.device)
        model.settings = dataclasses.replace(model.settings, test_views=max(asked.views))
        paths = scores["path"].tolist()
        images, _ = load_images(run.image_folder(paths), paths, model.settings.image_size)
        of_views = _score_views(model, images)
        timed = torch.tensor(datasets.at_even_steps(scores, asked.timed).index.tolist())
        for views in sorted(asked.views):
            auroc = roc(scores["label"], of_views[:, :views].mean(1).numpy())["auroc"]
            rows.append(
                {
                    "category": f"{run.dataset}/{run.category}",
                    "variant": run.variant,
                    "seed": run.seed,
                    "views": views,
                    "auroc": 100 * auroc,
                    "ms_an_image": _milliseconds(model, images.part(timed), views),
                    "device": describe_device(model.device),
                }
            )
            print(*list(rows[-1].values())[:-1], file=sys.stderr)
    return pd.DataFrame(rows)


def _score_views(model: AttentDifferNet, images: Pixels) -> torch.Tensor:
    """The score (N, V) of every view alone; an image's score is their mean."""
    embedded = model.embed(images, model.test_angles(len(images)))
    alone = model.score_embeddings(embedded.flatten(0, 1)[:, None])
    return alone.view(embedded.shape[:2])


def _milliseconds(model: AttentDifferNet, images: Pixels, views: int) -> float:
    angles = model.test_angles(len(images))[:, :views]

    def score(some: Pixels) -> None:
        for number in range(len(some)):
            one = some.part(slice(number, number + 1))
            model.score_embeddings(model.embed(one, angles[number : number + 1]))

    score(images.part(slice(0, 1)))  # what the first takes longer is no cost of views
    began = time.perf_counter()
    score(images)
    return 1000 * (time.perf_counter() - began) / len(images)


if __name__ == "__main__":
    sys.exit(main())
