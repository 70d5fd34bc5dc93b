"""The AUROC of every variant and category, beside what was published, as one tidy table.

Numbers only: `report` sets them for people.

The ways of choosing the epoch (`looks.SELECTIONS`) stand apart everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import pandas as pd

from adnlib.catalogue import MEAN, known_categories
from adnlib.demo import DEMO_SETS
from adnlib.record import FinishedRun
from adnlib.records import by_dataset
from adnlib.run_settings import DEFAULTS
from adnlib.variants import variant_order, variant_title


class Published(NamedTuple):
    """A published AUROC in percent; confidence "medium" means that one secondary copy was read."""

    auroc: float
    source: str
    confidence: str


@cache
def published_numbers() -> dict[tuple[str, str, str], Published]:
    """`paper_results.csv`: (data set, category or "mean", method) to the number published."""
    with resources.files("adnlib").joinpath("paper_results.csv").open(encoding="utf-8") as file:
        table = pd.read_csv(file)
    return {
        (row["dataset"], row["category"], row["method"]): Published(
            float(row["auroc"]), row["source"], row["confidence"]
        )
        for row in table.to_dict("records")
    }


def published_methods(run: FinishedRun) -> list[str]:
    """Names under which the numbers of a run's variant are published, the most exact first.

    Whether the paper trains its attention is not public, so trained and untrained variants stand
    beside the same numbers. For two data sets it names no kind of attention at all. Attention that
    the paper does not know, controls, other backbones and standardised features have none.
    """
    for name in ("backbone", "standardize"):
        if run.settings.get(name, DEFAULTS[name]) != DEFAULTS[name]:
            return []
    published = {
        "none": ["DifferNet"],
        "se": ["AttentDifferNet (SENet)", "AttentDifferNet"],
        "cbam": ["AttentDifferNet (CBAM)", "AttentDifferNet"],
    }
    return published.get(run.settings["attention"], [])


def published_for(
    dataset: str, category: str, method: str, averaged: Sequence[str]
) -> Published | None:
    """The published number that a cell may stand beside, or None.

    A category has its own. A mean over the whole catalogue has the published mean. A mean over some
    categories has the mean of the numbers published for just these, and says so in its source.
    """
    numbers = published_numbers()
    if category != MEAN:
        return numbers.get((dataset, category, method))
    if is_complete(dataset, averaged):
        return numbers.get((dataset, MEAN, method))
    parts = [numbers.get((dataset, part, method)) for part in averaged]
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return Published(
        sum(part.auroc for part in known) / len(known),
        f"mean of {len(known)} category numbers from "
        + "; ".join(dict.fromkeys(part.source for part in known)),
        " and ".join(sorted({part.confidence for part in known})),
    )


def is_complete(dataset: str, categories: Sequence[str]) -> bool:
    """Whether these are all the categories that the catalogue knows, and no others."""
    known = known_categories(dataset)
    return bool(known) and set(known) == set(categories)


def common_categories(found: Sequence[FinishedRun]) -> list[str]:
    """Categories of one data set's runs that every variant among them has."""
    variants = {run.variant for run in found}
    had = {(run.category, run.variant) for run in found}
    categories = sorted({run.category for run in found})
    return [c for c in categories if all((c, variant) in had for variant in variants)]


def auroc_table(
    found: Sequence[FinishedRun], asked: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """One row per data set, epoch selection, category (or "mean") and variant; AUROC in percent.

    `mean` and `std` (ddof 1, empty for one seed) are over seeds; `seeds` counts them, `seed_list`
    names them. `fewer_seeds` marks a cell with fewer seeds than the fullest cell of its data set,
    or than were asked for (`asked`, which `records.asked_seeds` gives). The rows "mean" average the
    categories that every variant has (`averaged` names them): there `mean` is the mean of the
    cells, and `std` and `seeds` are of the category means of the seeds that have all of these
    categories. `published*` is as `published_for` gives it, `difference` is ours minus that.
    """
    rows: list[dict[str, Any]] = []
    for dataset, group in by_dataset(found).items():
        for selection in group[0].aurocs:
            rows += _rows(dataset, group, selection, (asked or {}).get(dataset, 0))
    table = pd.DataFrame(rows).astype({"train_images": "Int64", "test_images": "Int64"})
    return table.assign(difference=table["mean"] - table["published"].astype(float))


def _rows(
    dataset: str, group: list[FinishedRun], selection: str, asked: int
) -> list[dict[str, Any]]:
    example = {(run.category, run.variant): run for run in group}
    values = pd.DataFrame(
        {
            "category": [run.category for run in group],
            "variant": [run.variant for run in group],
            "seed": [run.seed for run in group],
            "auroc": [100 * run.aurocs[selection] for run in group],
        }
    ).pivot_table(index="seed", columns=["category", "variant"], values="auroc")
    fullest = max(asked, int(values.notna().sum().max()))
    categories = sorted({run.category for run in group})
    common = common_categories(group)
    rows = []
    for category in [*categories, *([MEAN] if common else [])]:
        parts = common if category == MEAN else [category]
        for variant in sorted({run.variant for run in group}, key=variant_order):
            cells = [(part, variant) for part in parts]
            if any(cell not in example for cell in cells):
                continue
            of_cells = values[cells]
            of_seeds = of_cells.dropna().mean(axis=1)
            rows.append(
                {
                    "dataset": dataset,
                    "category": category,
                    "variant": variant,
                    "method": variant_title(variant),
                    "epoch_selection": selection,
                    "mean": of_cells.mean().mean(),
                    "std": of_seeds.std(ddof=1),
                    "seeds": len(of_seeds),
                    "seed_list": " ".join(map(str, of_seeds.index)),
                    "fewer_seeds": bool((of_cells.notna().sum() < fullest).any()),
                    "averaged": " ".join(parts) if category == MEAN else "",
                    **_circumstances(example[cells[0]], categories, category == MEAN),
                    **_published(example[cells[0]], category, parts),
                }
            )
    return rows


def _circumstances(run: FinishedRun, categories: list[str], of_mean: bool) -> dict[str, Any]:
    settings = run.settings
    return {
        "epochs": settings["epochs"],
        "image_size": settings["image_size"],
        "test_views": settings["test_views"],
        "weights": settings["weights"],
        "weights_sha256": "" if run.weights == "random" else run.weights,
        "holdout": settings["holdout"],
        "attention_training": settings["attention_training"] if run.learns_attention else "",
        "train_images": None if of_mean else run.train_images,
        "test_images": None if of_mean else run.test_images,
        "demo_images": run.dataset in DEMO_SETS,
        "categories": len(categories),
        "whole_catalogue": is_complete(run.dataset, categories),
    }


def _published(run: FinishedRun, category: str, parts: list[str]) -> dict[str, Any]:
    numbers = {m: published_for(run.dataset, category, m, parts) for m in published_methods(run)}
    method, number = next(((m, n) for m, n in numbers.items() if n), (None, None))
    return {
        "published": number and number.auroc,
        "published_method": method,
        "published_source": number and number.source,
        "published_confidence": number and number.confidence,
    }
