"""The tables of a study in words for people: titles, captions, and each number with its bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from adnlib.record import FinishedRun
from adnlib.records import by_dataset
from adnlib.report import (
    SELECTION_NAMES,
    SELECTION_TITLES,
    alert,
    circumstances,
    dataset_title,
    with_spread,
)
from adnlib.tables import Sheet
from adnlib.variants import variant_title

_INTERVAL = (
    "In brackets: 95 % bootstrap interval over seeds and test images, of a single seed over test "
    "images alone"
)


def study_sheets(
    found: Sequence[FinishedRun],
    statistics: pd.DataFrame,
    paired: pd.DataFrame,
    choice: pd.DataFrame,
) -> Iterator[Sheet]:
    """For each data set a table of measures, where there is a pair one of differences, and one of
    what the choice of the epoch does."""
    for dataset, group in by_dataset(found).items():
        rows = statistics[statistics["dataset"] == dataset]
        rows = rows[rows["epoch_selection"] == "last"]
        yield Sheet(
            title=f"{dataset_title(group)}: measures in percent, {SELECTION_TITLES['last']}",
            caption=f"{circumstances(group)}. Means over seeds. Interval: 95 % bootstrap over test "
            "images. Held out: AUROC of the anomalous test images against the good images held out "
            "of training, in place of the good test images; it is another where these differ from "
            "those by their light, say. Best F1 is at the threshold that the test labels make "
            "best. The other epoch selections: statistics.csv.",
            header=[
                *("category", "method", "seeds", "AUROC", "interval", "AUROC, held out"),
                *("AP", "best F1", "FPR at 95 % TPR"),
            ],
            rows=[_measured(row) for row in rows.to_dict("records")],
            alert=alert(group),
            names=2,
        )
        rows = paired[paired["dataset"] == dataset]
        if len(rows):
            yield Sheet(
                title=f"{dataset_title(group)}: points of AUROC over DifferNet, paired",
                caption=f"{circumstances(group)}. Selected: by the lowest loss of held-out good "
                f"images. Seeds: those that both have. {_INTERVAL}, which few seeds make too "
                "narrow. p: Wilcoxon, last epoch, over categories, or over the seeds of the only "
                "one; fewer than six pairs cannot reach 0.05.",
                header=[
                    *("category", "method", "seeds"),
                    *(SELECTION_NAMES[name] for name in rows["epoch_selection"].unique()),
                    *("pairs", "p"),
                ],
                rows=[*_differences(rows)],
                alert=alert(group),
                names=2,
            )
        rows = choice[choice["dataset"] == dataset]
        yield Sheet(
            title=f"{dataset_title(group)}: points of AUROC that the choice of the epoch adds",
            caption=f"{circumstances(group)}. Against the last epoch of the same runs. "
            f"{_INTERVAL}, of the epochs as they were chosen. Best on test was chosen by the test "
            "labels, from as many looks at the test set as a run took. Behind ±: standard "
            "deviation of AUROC over seeds, of the last epoch and of each choice.",
            header=[
                *("category", "method", "seeds", SELECTION_NAMES["last"]),
                *(SELECTION_NAMES[name] for name in rows["epoch_selection"].unique()),
            ],
            rows=[*_choices(rows, statistics)],
            alert=alert(group),
            names=2,
        )


def _measured(row: dict[Any, Any]) -> list[str]:
    return [
        row["category"],
        row["method"],
        str(row["seeds"]),
        with_spread(row["auroc"], row["std"]),
        f"[{row['low']:.1f}, {row['high']:.1f}]",
        with_spread(row["held_out_auroc"], row["held_out_std"]),
        *(f"{row[name]:.2f}" for name in ("average_precision", "best_f1", "fpr_at_95_recall")),
    ]


def _differences(rows: pd.DataFrame) -> Iterator[list[str]]:
    for (category, method), of_cell in rows.groupby(["category", "method"], sort=False):
        texts = [_bounded(row) for row in of_cell.to_dict("records")]
        last = of_cell.iloc[0]
        pairs = "-" if pd.isna(last["pairs"]) else f"{last['pairs']:.0f}"
        p = "-" if pd.isna(last["p"]) else f"{last['p']:.3f}"
        yield [str(category), str(method), str(last["seeds"]), *texts, pairs, p]


def _choices(rows: pd.DataFrame, statistics: pd.DataFrame) -> Iterator[list[str]]:
    keys = ["dataset", "category", "variant", "epoch_selection"]
    spread = statistics.set_index(keys)["std"].to_dict()
    for (dataset, category, variant), of_cell in rows.groupby(keys[:3], sort=False):

        def behind(selection: str, cell: tuple[Any, ...] = (dataset, category, variant)) -> str:
            std = spread.get((*cell, selection), np.nan)
            return "" if np.isnan(std) else f" ± {std:.2f}"

        texts = [
            _bounded(row) + behind(row["epoch_selection"]) for row in of_cell.to_dict("records")
        ]
        last = behind("last").strip() or "-"
        seeds = str(of_cell["seeds"].iloc[0])
        yield [str(category), variant_title(str(variant)), seeds, last, *texts]


def _bounded(row: dict[Any, Any]) -> str:
    return f"{row['difference']:+.2f} [{row['low']:+.1f}, {row['high']:+.1f}]"
