"""How the library's cost grows with the number of images, of views, and with their size.

    python benchmarks/growth.py --device cpu --data DIR/mvtec_ad/bottle

One of the three is changed at a time, the others are in the middle of what is asked for. Draws
seconds of one epoch of training and of scoring, and writes them as a CSV beside the picture.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
import torch
from throughput import new_parser, run_ours, tabulated, warm_up

from adnlib import AttentDifferNet, datasets
from adnlib.provenance import describe_device

_CHANGED = {"images": "good images, and test images", "views": "views", "size": "size, px"}
_PARTS = {"train_seconds": "one epoch of training", "score_seconds": "scoring"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out.with_suffix(".csv"))
    if table is None:
        return 2
    named = table.replace({"changed": _CHANGED}).rename(columns=_PARTS)
    grid = sns.relplot(
        named.melt(["changed", "value"], list(_PARTS.values()), "part", "seconds"),
        x="value",
        y="seconds",
        hue="part",
        col="changed",
        kind="line",
        marker="o",
        height=3,
        facet_kws={"sharex": False},
    )
    grid.set(ylim=(0, None)).set_titles("{col_name}").set_axis_labels("", "seconds")
    grid.savefig(asked.out.with_suffix(".png"), dpi=150)
    print(table.round(2).to_string(index=False))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--views", type=int, nargs="+", default=[2, 4, 8], help="train and test")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 352, 448])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/growth"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    samples = datasets.read_samples(asked.data)
    datasets.check_for_auroc(samples, str(asked.data))
    choices = {"images": asked.images, "views": asked.views, "size": asked.sizes}
    middle = {name: sorted(values)[len(values) // 2] for name, values in choices.items()}
    rows = []
    for changed, values in choices.items():
        for value in values:
            now = middle | {changed: value}
            good = datasets.at_even_steps(samples[samples["split"] == "train"], now["images"])
            test = datasets.at_even_steps(samples[samples["split"] == "test"], now["images"])
            model = AttentDifferNet(
                attention=asked.attention,
                image_size=now["size"],
                train_views=now["views"],
                test_views=now["views"],
                flow_width=asked.flow_width,
                weights=asked.weights,
                epochs=1,
                device=asked.device,
            )
            warm_up(model)
            seconds = run_ours(model, asked.data, good, test)
            rows.append({"changed": changed, "value": value, **now, **seconds})
    table = pd.DataFrame(rows).drop(columns=["auroc", "epoch_seconds"])
    return table.assign(device=describe_device(model.device), torch=torch.__version__)


if __name__ == "__main__":
    sys.exit(main())
