"""How far AUROC, false alarms and recall move with a corruption's severity: tables and figures.

Made of `tables/robustness_<dataset>.csv`; computes nothing but means. Those are over the categories
and seeds that every variant was measured with, so that variants are compared on the same images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adnlib import tables
from adnlib.corruptions import CORRUPTIONS
from adnlib.errors import InputError
from adnlib.figures import add_legend, line_style, margins, save, style, write_around
from adnlib.record import FinishedRun
from adnlib.records import read_runs, read_tidy, sorted_variants
from adnlib.report import alert, circumstances, dataset_title, with_spread
from adnlib.robustness import table_path
from adnlib.tables import Sheet
from adnlib.threshold import FPR, needed
from adnlib.variants import variant_title
from adnlib.words import counted, span

SHOWN = {
    "auroc": "AUROC in percent",
    "false_alarms": "false alarms, percent of good images",
    "recall": "recall, percent of anomalous images",
}
"""What is shown, by its column."""

_CHANCE = 50.0
_MOST_COLUMNS = 4
_SIDE, _BELOW, _LEFT = 1.75, 0.62, 0.55  # inches


def write_sheets(results: str | Path, dataset: str) -> Path:
    """Write `tables/robustness_<dataset>.md`, a table for each of `SHOWN`; its path.

    Raises:
        InputError: nothing was measured, or no category and seed with every variant.
    """
    measured = _measured(results, dataset)
    of_measures = {measure: _with_all(*measured, measure) for measure in SHOWN}
    sheets = [_sheet(*runs, measure) for measure, runs in of_measures.items() if runs[0]]
    path = table_path(results, dataset).with_suffix(".md")
    tables.write(path.parent, {path.name: tables.document("Under corruptions", sheets)})
    return path


def draw_decline(results: str | Path, dataset: str, measure: str = "auroc") -> list[Path]:
    """Draw `figures/robustness_<dataset>.png` and `.pdf`: panels by corruption, lines by variant.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: a data set that was measured.
        measure: one of `SHOWN`; all but AUROC have their name behind the data set's.

    Returns:
        The paths; none where no category and seed has a threshold for every variant.

    Raises:
        InputError: nothing was measured, or no category and seed with every variant.
    """
    found, table = _with_all(*_measured(results, dataset), measure)
    if not found:
        return []
    name = f"robustness_{dataset}" + (f"_{measure}" if measure != "auroc" else "")
    with style():
        return save(_figure(found, table, measure), Path(results) / "figures" / name)


def of_all_variants(table: pd.DataFrame, measure: str = "auroc") -> pd.DataFrame:
    """Of `robustness.measure`'s rows those of the categories and seeds where every variant has one.

    Args:
        table: the rows.
        measure: its column; a row without a value counts as none.
    """
    told = table[table[measure].notna()]
    variants = told.groupby(["category", "seed"])["variant"].transform("nunique")
    return told[variants == table["variant"].nunique()]


def _measured(results: str | Path, dataset: str) -> tuple[list[FinishedRun], pd.DataFrame]:
    path = table_path(results, dataset)
    if not path.is_file():
        raise InputError(f"{path} is not there: measure first, as the notebook 09_robustness does.")
    table = read_tidy(path)
    found = read_runs(results, dataset)
    if of_all_variants(table).empty:
        raise InputError(
            f"No category and seed of {dataset} was measured with all of "
            f"{', '.join(table['variant'].unique())}: keep models of the same seeds."
        )
    return found, table


def _with_all(
    found: Sequence[FinishedRun], table: pd.DataFrame, measure: str
) -> tuple[list[FinishedRun], pd.DataFrame]:
    """`of_all_variants`, and the runs that these rows are of."""
    table = of_all_variants(table, measure)
    cells = set(table[["category", "variant", "seed"]].itertuples(index=False, name=None))
    return [run for run in found if (run.category, run.variant, run.seed) in cells], table


def _means(table: pd.DataFrame, measure: str) -> dict[tuple[str, str], pd.DataFrame]:
    """By variant and corruption: what `_of_seeds` gives, one row per severity."""
    means = {}
    for (variant, kind), rows in table.groupby(["variant", "corruption"]):
        of_severities = {
            severity: _of_seeds(some, measure) for severity, some in rows.groupby("severity")
        }
        means[str(variant), str(kind)] = pd.DataFrame(of_severities).T
    return means


def _of_seeds(rows: pd.DataFrame, measure: str) -> pd.Series[float]:
    """The mean of the categories' means; std, min and max over the seeds that have them all."""
    cells = rows.pivot_table(index="seed", columns="category", values=measure)
    spread = cells.dropna().mean(axis=1).agg(["std", "min", "max"])
    return pd.concat([pd.Series({"mean": cells.mean().mean()}), spread])


def _protocol(found: Sequence[FinishedRun], table: pd.DataFrame, measure: str) -> str:
    """How the numbers came about, in one line."""
    runs = table.drop_duplicates(["category", "variant", "seed"])
    images = runs.drop_duplicates("category")
    categories, views = len(images), int(runs["views"].iloc[0])
    parts = [
        f"{circumstances(found)}.",
        f"Scored with {counted(views, 'view')}, at the same angles for every image:",
        f"{images['good'].sum()} good and {images['anomalous'].sum()} anomalous test images.",
        "Severity 0: as they are.",
    ]
    named = images["category"].iloc[0]
    parts.append(f"Mean of {categories} categories." if categories > 1 else f"Category {named}.")
    if measure != "auroc":
        parts.append(
            f"Threshold for {100 * FPR:g} % false alarms by {span(images['held_out'])} held-out "
            f"good images as they are; fewer than {needed(FPR)} cannot resolve it, and give their "
            "highest score."
        )
    return " ".join(parts)


def _sheet(found: Sequence[FinishedRun], table: pd.DataFrame, measure: str) -> Sheet:
    means = _means(table, measure)
    severities = sorted(table["severity"].unique())
    rows = []
    for kind in _kinds(table):
        for variant in sorted_variants(found):
            cells = means[variant, kind].to_dict("records")
            numbers = [with_spread(cell["mean"], cell["std"]) for cell in cells]
            rows.append([CORRUPTIONS[kind].title, variant_title(variant), *numbers])
    spread = " Mean ± standard deviation over seeds." if _several_seeds(table) else ""
    return Sheet(
        title=f"{dataset_title(found)}: {SHOWN[measure]}, by severity",
        caption=f"{_protocol(found, table, measure)}{spread}",
        header=["corruption", "method", *map(str, severities)],
        rows=rows,
        alert=alert(found),
        names=2,
        notes=[_own_auroc(found, table)] if measure == "auroc" else [],
    )


def _own_auroc(found: Sequence[FinishedRun], table: pd.DataFrame) -> str:
    of_variants = table.drop_duplicates(["category", "variant", "seed"]).groupby("variant")
    own = {name: _of_seeds(rows, "run_auroc")["mean"] for name, rows in of_variants}
    told = [f"{variant_title(name)} {own[name]:.2f}" for name in sorted_variants(found)]
    return (
        "The runs' own AUROC, of all test images, with angles drawn for each and all test views: "
        f"{', '.join(told)}."
    )


def _several_seeds(table: pd.DataFrame) -> bool:
    return len(table["seed"].unique()) > 1


def _kinds(table: pd.DataFrame) -> list[str]:
    there = set(table["corruption"])
    return [kind for kind in CORRUPTIONS if kind in there]


def _figure(found: Sequence[FinishedRun], table: pd.DataFrame, measure: str) -> Figure:
    kinds, variants = _kinds(table), sorted_variants(found)
    severities = [severity for severity in table["severity"].unique() if severity]
    columns = min(len(kinds), _MOST_COLUMNS)
    rows = math.ceil(len(kinds) / columns)
    width = max(columns * (_SIDE + 0.2) + _LEFT, 4.5)
    title = wrap(f"{dataset_title(found)}: {SHOWN[measure]}", round(width * 10))
    warning = wrap(alert(found), round(width * 12))
    notes = _protocol(found, table, measure)
    notes += " Line: mean over seeds; band: lowest to highest." if _several_seeds(table) else ""
    small_print = wrap(notes, round(width * 17))
    top = 0.55 + 0.2 * len(title) + 0.16 * len(warning)
    bottom = 0.75 + 0.15 * len(small_print)
    height = top + rows * (_SIDE + _BELOW) - _BELOW + bottom
    figure = Figure(figsize=(width, height))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    around = margins(figure, _LEFT, 0.15, top, bottom)
    figure.subplots_adjust(wspace=0.12, hspace=_BELOW / _SIDE, **around)
    means = _means(table, measure)
    for index, kind in enumerate(kinds):
        _panel(panels[index], {variant: means[variant, kind] for variant in variants})
        _name(panels[index], kind, severities)
        if index % columns == 0:
            panels[index].set_ylabel(SHOWN[measure].partition(" of ")[0], labelpad=2)
        if index + columns >= len(kinds):
            panels[index].set_xlabel("severity", labelpad=2)
            panels[index].tick_params(labelbottom=True)
    for axes in panels[len(kinds) :]:
        axes.set_axis_off()
    low, high = panels[0].get_ylim()
    if measure == "auroc" and low < _CHANCE < high:
        for axes in panels[: len(kinds)]:
            axes.axhline(_CHANCE, color="0.7", linewidth=0.8, linestyle=":", zorder=1)
    write_around(figure, title, warning, small_print)
    add_legend(figure, variants, bottom - 0.4, min(len(variants), 3))
    return figure


def _panel(axes: Axes, means: dict[str, pd.DataFrame]) -> None:
    for variant, of_variant in means.items():
        look = line_style(variant)
        axes.plot(of_variant.index, of_variant["mean"], marker="o", markersize=2.5, **look)
        if of_variant["std"].notna().any():
            band: dict[str, Any] = {"color": look["color"], "alpha": 0.14, "linewidth": 0}
            axes.fill_between(of_variant.index, of_variant["min"], of_variant["max"], **band)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _name(axes: Axes, kind: str, severities: Sequence[int]) -> None:
    corruption = CORRUPTIONS[kind]
    first, last = corruption.of(min(severities)), corruption.of(max(severities))
    axes.set_title(corruption.title, fontsize="medium", pad=14)
    small: dict[str, Any] = {"fontsize": "small", "color": "0.3", "ha": "center", "va": "bottom"}
    text = f"{corruption.parameter} {first:g}" + (f" to {last:g}" if last != first else "")
    axes.text(0.5, 1.02, text, transform=axes.transAxes, **small)
