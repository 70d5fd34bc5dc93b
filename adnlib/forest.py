"""The figure of what attention is worth: paired differences and their intervals, by category.

Drawn from `tables/paired.csv`; computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from adnlib.catalogue import MEAN
from adnlib.figures import ALERT_COLOUR, breadth, line_style, margins, save, style
from adnlib.records import read_runs, read_tidy
from adnlib.report import SELECTION_NAMES, alert
from adnlib.variants import variant_order, variant_settings, variant_title
from adnlib.words import span

_WIDTH = 8.0  # inches, unless names need more than `_NAMES`
_LINE = 0.2  # inches a variant of a category, or a row of the legend
_NAMES, _CLEAR = 1.7, 0.2  # inches left of the panels, at least, and around the names
_LEGEND_COLUMNS = 3
_MARKERS = {
    "none": "s",
    "se": "o",
    "cbam": "D",
    "eca": "^",
    "coordinate": "v",
    "simam": "P",
    "identity": "<",
    "constant": "X",
}


def draw_paired(results: str | Path) -> list[Path]:
    """Draw `figures/paired.png` and `.pdf`; their paths. Without a pair to compare there are none.

    Raises:
        InputError: there is no finished run.
    """
    root = Path(results)
    path, table = root / "figures" / "paired", read_tidy(root / "tables" / "paired.csv")
    if table.empty:
        for older in path.parent.glob("paired.*"):
            older.unlink()
        return []
    with style():
        return save(_figure(table, alert(read_runs(root))), path)


def _figure(table: pd.DataFrame, warning: str) -> Figure:
    groups = list(dict.fromkeys(zip(table["dataset"], table["category"], strict=True)))
    groups.sort(key=lambda names: (names[0], names[1] == MEAN))
    variants = sorted(table["variant"].unique(), key=variant_order)
    selections = list(table["epoch_selection"].unique())
    body = _LINE * (len(variants) + 0.7) * len(groups)
    legend = _LINE * math.ceil(len(variants) / _LEGEND_COLUMNS) + 0.1
    top, bottom = (0.6 if warning else 0.35), legend + 0.6
    height = body + top + bottom
    figure = Figure(figsize=(_WIDTH, height))
    panels = figure.subplots(1, len(selections), sharex=True, squeeze=False)[0]
    for axes, selection in zip(panels, selections, strict=True):
        rows = table[table["epoch_selection"] == selection]
        _panel(axes, rows, groups, variants)
        axes.set_title(SELECTION_NAMES[selection], fontsize="medium")
        axes.tick_params(labelleft=axes is panels[0])
    left = max(_NAMES, _CLEAR + max(map(breadth, panels[0].get_yticklabels())))
    figure.set_figwidth(_WIDTH + left - _NAMES)
    figure.subplots_adjust(wspace=0.08, **margins(figure, left, 0.16, top, bottom))
    if table[["low", "high"]].abs().to_numpy().max() < 1:  # next to no difference anywhere
        panels[0].set_xlim(-1, 1)
    figure.text(
        *(0.5, (legend + 0.15) / height),
        _what(table["seeds"]),
        ha="center",
        va="center",
    )
    figure.text(
        0.5, 1 - 0.1 / height, warning, color=ALERT_COLOUR, ha="center", va="top", wrap=True
    )
    figure.legend(
        [Line2D([], [], **_look(variant)) for variant in variants],
        [variant_title(variant) for variant in variants],
        loc="lower center",
        ncols=min(len(variants), _LEGEND_COLUMNS),
        frameon=False,
    )
    return figure


def _panel(
    axes: Axes, rows: pd.DataFrame, groups: Sequence[tuple[str, str]], variants: Sequence[str]
) -> None:
    step = len(variants) + 0.7
    cells = {(r["dataset"], r["category"], r["variant"]): r for r in rows.to_dict("records")}
    for index, group in enumerate(groups):
        for place, variant in enumerate(variants):
            row = cells.get((*group, variant))
            if row is None:
                continue
            look = _look(variant)
            if group[1] == MEAN:
                look["markersize"] *= 1.2
            y = index * step + place
            axes.plot([row["low"], row["high"]], [y, y], **look | {"marker": ""})
            axes.plot(row["difference"], y, **look)
    axes.axvline(0, color="0.35", linewidth=0.8, zorder=1)
    middles = [index * step + (len(variants) - 1) / 2 for index in range(len(groups))]
    axes.set_yticks(middles, [f"{dataset}\n{category}" for dataset, category in groups])
    axes.set_ylim(step * len(groups) - 0.85, -0.85)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.grid(visible=False, axis="y")


def _look(variant: str) -> dict[str, Any]:
    """Colour and width; lines are whole, for their ends are the interval's. The marker says which
    attention, in grey print, too. Hollow: untrained; thick: standardised features."""
    look, told = line_style(variant), variant_settings(variant)
    face = "white" if "attention_training" in told else look["color"]
    marker = _MARKERS[told["attention"]]
    return look | {"linestyle": "-", "marker": marker, "markersize": 4, "markerfacecolor": face}


def _what(seeds: pd.Series[int]) -> str:
    if (seeds == 1).all():
        pairs, over = "same seed and images", "images"
    else:
        pairs, over = f"same seeds ({span(seeds)}) and images", "both"
    return f"points of AUROC over DifferNet, {pairs}; bars: 95 % bootstrap interval over {over}"
