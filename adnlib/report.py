"""The AUROC tables of a results folder for people: Markdown and LaTeX.

Made from run folders and the published numbers alone, so they can be remade at any time; trains
nothing. Pictures are drawn in `figures` (ROC curves) and `heatmaps` (Grad-CAM).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adnlib import tables
from adnlib.catalogue import CATALOGUE, MEAN
from adnlib.comparison import (
    Published,
    auroc_table,
    common_categories,
    is_complete,
    published_for,
    published_methods,
    published_numbers,
)
from adnlib.demo import DEMO_SETS
from adnlib.looks import AVERAGED
from adnlib.record import FinishedRun
from adnlib.records import asked_seeds, by_dataset, read_runs, sorted_variants
from adnlib.shortcuts import clear
from adnlib.tables import Best, Sheet
from adnlib.variants import variant_title
from adnlib.words import counted

RANDOM_WEIGHTS = (
    "RANDOM WEIGHTS: the backbone never saw ImageNet; these results show that the programs run, "
    "and say nothing about the method."
)
SELECTION_NAMES = {
    "last": "last epoch",
    "selected": "selected epoch",
    "best_on_test": "best on test",
    "averaged": "scores averaged",
}
"""Ways to choose the epoch, as they head a column."""

SELECTION_TITLES = {
    "last": "last epoch",
    "selected": "epoch with the lowest loss of held-out good images",
    "best_on_test": "best epoch on the test set (as DifferNet does, optimistic)",
    "averaged": f"scores averaged over the last evaluations, at most {AVERAGED}",
}
_IN_WORDS: dict[str, Callable[[int], str]] = {
    "batch_images": lambda images: f"{counted(images, 'image')} in a batch",
    "train_views": lambda views: counted(views, "training view"),
    "evaluate_every": lambda epochs: f"{counted(epochs, 'epoch')} between evaluations",
}
"""Settings that a caption says better than by their names."""
CHOICE_OF_PUBLISHED = (
    "DifferNet's own paper (arXiv:2008.12577) reports the best epoch on the test set; which epoch "
    "the other published numbers are of is not public."
)
FEWER = "†"
FEWER_SEEDS = f"{FEWER} from fewer seeds than asked for or than others (auroc.csv lists them)."


def write_tables(results: str | Path) -> list[Path]:
    """Write `tables/auroc.csv`, `.md` and `.tex` of a results folder and return their paths.

    Raises:
        InputError: when there is no finished run, or runs of a data set differ in their settings.
    """
    found = read_runs(results)
    table = auroc_table(found, asked_seeds(results))
    sheets = auroc_sheets(found, table)
    latex = [
        "% needs \\usepackage{booktabs} and \\usepackage{graphicx}",
        *(
            tables.latex(sheet, label=f"tab:auroc-{dataset}-{selection}")
            for (dataset, selection), sheet in sheets.items()
        ),
    ]
    text = tables.document("Image-level AUROC", sheets.values())
    files = {"auroc.csv": table, "auroc.md": text, "auroc.tex": "\n".join(latex)}
    return tables.write(Path(results) / "tables", files)


def auroc_sheets(found: Sequence[FinishedRun], table: pd.DataFrame) -> dict[tuple[str, str], Sheet]:
    """One sheet per data set and epoch selection, of the rows of `auroc_table`."""
    groups = by_dataset(found)
    sheets = {}
    for names, rows in table.groupby(["dataset", "epoch_selection"], sort=False):
        dataset, selection = map(str, names)
        sheets[dataset, selection] = _sheet(dataset, selection, groups[dataset], rows)
    return sheets


def dataset_title(found: Sequence[FinishedRun]) -> str:
    """What one data set's runs were made on, demo images and missing categories named as such."""
    dataset = found[0].dataset
    categories = sorted({run.category for run in found})
    if dataset in DEMO_SETS:
        return f"Demo images {dataset} (drawn by this program)"
    info = CATALOGUE.get(dataset)
    if info is None:
        return dataset
    known = [category for category in info.categories if category in categories]
    if info.categories and not is_complete(dataset, known):
        return f"{info.title}, {len(known)} of {len(info.categories)} categories"
    return info.title


def alert(found: Sequence[FinishedRun]) -> str:
    """What must be read before any number of these runs, or ""."""
    return RANDOM_WEIGHTS if any(run.weights == "random" for run in found) else ""


def circumstances(found: Sequence[FinishedRun]) -> str:
    """The settings of one data set's runs in one line; `read_runs` saw to it that they agree."""
    settings = found[0].settings
    seeds = sorted({run.seed for run in found})
    training = sorted({_training(run) for run in found if run.learns_attention})
    return ", ".join(
        [
            counted(settings["epochs"], "epoch"),
            f"{settings['image_size']} px",
            counted(settings["test_views"], "test view"),
            f"{100 * settings['holdout']:g} % of the training images held out",
            _weights(str(settings["weights"])),
            *(_in_words(name, value) for name, value in found[0].departures.items()),
            *([f"attention {' or '.join(training)}"] if training else []),
            f"{counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})",
        ]
    )


def _weights(setting: str) -> str:
    known = {"imagenet": "ImageNet weights", "random": "random weights"}
    return known.get(setting, f"weights of {Path(setting).name}")


def _in_words(name: str, value: Any) -> str:
    words = _IN_WORDS.get(name)
    return words(value) if words else f"{name.replace('_', ' ')} {value}"


def _training(run: FinishedRun) -> str:
    return "trained jointly" if run.settings["attention_training"] == "joint" else "untrained"


def number(cell: dict[Hashable, Any] | None) -> str:
    """A row of `auroc_table` as text: mean, spread over seeds, and a mark for fewer seeds."""
    if cell is None:
        return "-"
    return with_spread(cell["mean"], cell["std"]) + (f" {FEWER}" if cell["fewer_seeds"] else "")


def with_spread(mean: float, std: float) -> str:
    """A mean with its standard deviation, as far as they are there."""
    if pd.isna(mean):
        return "-"
    return f"{mean:.2f}" + ("" if pd.isna(std) else f" ± {std:.2f}")


def _sheet(dataset: str, selection: str, group: list[FinishedRun], rows: pd.DataFrame) -> Sheet:
    variants = sorted_variants(group)
    categories = list(dict.fromkeys(rows["category"]))
    if len(categories) == 2 and MEAN in categories:  # a mean that repeats the only category
        categories.remove(MEAN)
    common = common_categories(group)
    cells = {(row["category"], row["variant"]): row for row in rows.to_dict("records")}
    example = {run.variant: run for run in group}
    methods = dict.fromkeys(method for v in variants for method in published_methods(example[v]))
    beside = {
        method: [published_for(dataset, category, method, common) for category in categories]
        for method in methods
    }
    beside = {method: numbers for method, numbers in beside.items() if any(numbers)}
    body = []
    for index, category in enumerate(categories):
        of_row = {v: cells.get((category, v)) for v in variants}
        means = {v: round(cell["mean"], 2) for v, cell in of_row.items() if cell}
        best = [v for v in means if len(means) > 1 and means[v] == max(means.values())]
        numbers = [numbers[index] for numbers in beside.values()]
        body.append(
            [
                _row_name(category, common, categories),
                *(Best(number(cell)) if v in best else number(cell) for v, cell in of_row.items()),
                *(f"{number.auroc:.2f}" if number else "-" for number in numbers),
            ]
        )
    return Sheet(
        title=f"{dataset_title(group)}: AUROC in percent, {SELECTION_TITLES[selection]}",
        caption=_caption(group, rows),
        header=[
            "category",
            *map(variant_title, variants),
            *(f"{method}, published" for method in beside),
        ],
        rows=body,
        alert=alert(group),
        closing=int(MEAN in categories),
        notes=[*_shortcuts(group), *_notes(dataset, beside)],
    )


def _row_name(category: str, common: list[str], categories: list[str]) -> str:
    if category != MEAN:
        return category
    there = len(categories) - 1
    return f"mean of {there}" if len(common) == there else f"mean of {len(common)} (of {there})"


def _caption(group: list[FinishedRun], rows: pd.DataFrame) -> str:
    spread = (
        "Mean ± standard deviation over seeds."
        if rows["std"].notna().any()
        else "One seed, so no standard deviation."
    )
    parts = [f"{circumstances(group)}.", spread]
    if rows["fewer_seeds"].any():
        parts.append(FEWER_SEEDS)
    categories = {run.category for run in group}
    common = common_categories(group)
    if not common:
        parts.append("No mean: no category was run with every method.")
    elif len(common) < len(categories):
        parts.append(f"The mean is over {', '.join(common)}, which every method was run on.")
    return " ".join(parts)


def _shortcuts(group: list[FinishedRun]) -> list[str]:
    """A warning of test images that can be told without a detector."""
    told = {
        f"{run.category} {100 * auroc:.1f} by {name}"
        for run in group
        for name, auroc in clear(run.told_by).items()
    }
    return [f"AUROC without a detector: {', '.join(sorted(told))} alone."] if told else []


def _notes(dataset: str, beside: dict[str, list[Published | None]]) -> list[str]:
    """Where the published numbers come from, and those that have no place in the table."""
    notes = []
    for method, numbers in beside.items():
        sources = dict.fromkeys(f"{n.source} (confidence {n.confidence})" for n in numbers if n)
        notes.append(f"{method}, published: {'; '.join(sources)}.")
    shown = {(method, n.auroc) for method, numbers in beside.items() for n in numbers if n}
    elsewhere = [
        f"{method} {number.auroc:.2f} ({number.source}, confidence {number.confidence})"
        for (where, category, method), number in published_numbers().items()
        if where == dataset and category == MEAN and (method, number.auroc) not in shown
    ]
    if elsewhere:
        notes.append(f"Published means over the whole data set: {'; '.join(elsewhere)}.")
    if beside:
        notes.append(CHOICE_OF_PUBLISHED)
    return notes
