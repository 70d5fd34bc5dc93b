"""ROC curves of a results folder, and what all its figures share: style, colours, saving.

Drawn from `scores.csv` of finished runs; trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from adnlib.errors import writing
from adnlib.evaluation import MeanRoc, Roc, mean_roc, roc
from adnlib.record import FinishedRun
from adnlib.records import asked_seeds, read_runs, readable, sorted_variants, unreadable
from adnlib.report import FEWER, FEWER_SEEDS, alert, circumstances, dataset_title
from adnlib.variants import variant_settings, variant_title

ALERT_COLOUR = "#b2182b"
_DPI = 200
_OVER_SEEDS = (
    ", mean ± standard deviation over seeds. Line: mean of the seeds at each false positive rate; "
    "band: lowest to highest seed."
)


def draw_roc(results: str | Path, dataset: str) -> list[Path]:
    """Draw `figures/roc_<dataset>.png` and `.pdf`: a panel per category, a line per variant.

    Scores are of the last epoch. A line is the mean over seeds at each false positive rate, its
    band reaches from the lowest to the highest seed. The legend gives the mean and the standard
    deviation of the seeds' AUROC in percent.

    Raises:
        InputError: when the data set has no finished run, or its runs differ in their settings.
    """
    found = read_runs(results, dataset)
    curves: dict[tuple[str, str], list[Roc]] = {}
    for run, curve in readable(found, _curve):
        curves.setdefault((run.category, run.variant), []).append(curve)
    if not curves:
        raise unreadable(f"{len(found)} finished runs of {dataset} in {results}")
    means = {cell: mean_roc(of_cell) for cell, of_cell in curves.items()}
    seeds = {cell: len(of_cell) for cell, of_cell in curves.items()}
    fullest = max(*seeds.values(), asked_seeds(results).get(dataset, 0))
    fewer = {cell for cell, count in seeds.items() if count < fullest}
    with style():
        figure = _roc_figure(found, means, fewer)
        return save(figure, Path(results) / "figures" / f"roc_{dataset}")


@contextmanager
def style() -> Iterator[None]:
    """Seaborn's white grid in the size of a printed page."""
    with sns.axes_style("whitegrid", {"grid.color": ".92"}), sns.plotting_context("paper", 0.9):
        yield


def save(figure: Figure, path: Path) -> list[Path]:
    """Write the figure as `<path>.png` and `<path>.pdf`; the same figure gives the same bytes."""
    written = [path.with_name(f"{path.name}.{ending}") for ending in ("png", "pdf")]
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(written[0], dpi=_DPI, metadata={"Software": None})
        figure.savefig(written[1], dpi=_DPI, metadata={"CreationDate": None})
    return written


def line_style(variant: str) -> dict[str, Any]:
    """Colour and dashes of a variant's line: the colour says which attention, dots untrained.
    Lines of standardised features are thick.

    The colours can be told apart with every kind of colour blindness, and the dashes in grey print,
    but for those of untrained attention. DifferNet and its controls are grey. Of lines that
    coincide, the one with the wider gaps lies on top, so that both are seen.
    """
    palette = sns.color_palette("colorblind")
    told = variant_settings(variant)
    known: dict[str, tuple[Any, Any]] = {
        "none": ("0.35", (0, (4, 2))),
        "se": (palette[0], "-"),
        "cbam": (palette[1], (0, (7, 1, 1.5, 1))),
        "eca": (palette[2], (0, (9, 1.5))),
        "coordinate": (palette[4], (0, (7, 1, 1.5, 1, 1.5, 1))),
        "simam": (palette[5], (0, (3, 1))),
        "identity": ("0.35", (0, (1.5, 2.5))),
        "constant": ("0.6", (0, (5, 1.5, 1.5, 1.5, 1.5, 1.5))),
    }
    colour, dashes = known[told["attention"]]
    dashes = (0, (1, 1)) if "attention_training" in told else dashes
    width = 2.2 if "standardize" in told else 1.3
    gaps = 0 if dashes == "-" else sum(dashes[1][1::2]) / sum(dashes[1])
    return {"color": colour, "linestyle": dashes, "linewidth": width, "zorder": 3 + gaps}


def write_around(
    figure: Figure, title: Sequence[str], warning: Sequence[str], notes: Sequence[str]
) -> None:
    """Lines of text above the panels, the warning below the title, and small print at the foot."""
    height = figure.get_figheight()
    head: dict[str, Any] = {"x": 0.5, "ha": "center", "va": "top"}
    figure.text(y=1 - 0.1 / height, s="\n".join(title), fontsize="large", **head)
    loud: dict[str, Any] = {"color": ALERT_COLOUR, "weight": "bold", **head}
    figure.text(y=1 - (0.15 + 0.2 * len(title)) / height, s="\n".join(warning), **loud)
    foot: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": "small", "color": "0.3"}
    figure.text(0.5, 0.07 / height, "\n".join(notes), **foot)


def add_legend(figure: Figure, variants: Sequence[str], top: float, columns: int) -> None:
    """The lines of variants below the panels, `top` inches from the foot."""
    figure.legend(
        [Line2D([], [], **line_style(variant)) for variant in variants],
        [variant_title(variant) for variant in variants],
        loc="upper center",
        bbox_to_anchor=(0.5, top / figure.get_figheight()),
        ncols=columns,
        frameon=False,
    )


def margins(
    figure: Figure, left: float, right: float, top: float, bottom: float
) -> dict[str, float]:
    """So many inches around a figure's panels, in matplotlib's words and parts of the figure."""
    width, height = map(float, figure.get_size_inches())
    ends = {"right": 1 - right / width, "top": 1 - top / height}
    return {"left": left / width, "bottom": bottom / height} | ends


def breadth(text: Text) -> float:
    """How wide a text is, in inches."""
    return float(text.get_window_extent(dpi=72).width / 72)


def shrink(text: Text, within: float) -> None:
    """Make the letters of a text smaller where it is wider than `within` inches."""
    if (wide := breadth(text)) > within:
        text.set_fontsize(float(text.get_fontsize()) * within / wide)


def _curve(run: FinishedRun) -> Roc:
    scores = run.scores()
    return roc(scores["label"], scores["score_last"])


def _roc_figure(
    found: Sequence[FinishedRun],
    means: dict[tuple[str, str], MeanRoc],
    fewer: Collection[tuple[str, str]],
) -> Figure:
    categories = sorted({category for category, _ in means})
    variants = [v for v in sorted_variants(found) if any(key[1] == v for key in means)]
    columns = 3 if len(categories) == 3 else math.ceil(math.sqrt(len(categories)))
    rows = math.ceil(len(categories) / columns)
    side = {1: 4.2, 2: 3.0, 3: 2.2}.get(columns, 1.75)
    width = columns * (side + 0.2) + 0.55
    title = wrap(f"{dataset_title(found)}: ROC, last epoch", round(width * 10))
    warning = wrap(alert(found), round(width * 12))
    several = any(np.isfinite(mean["auroc_std"]) for mean in means.values())
    small_print = f"{circumstances(found)}. AUROC in percent{_OVER_SEEDS if several else '.'}"
    small_print += f" {FEWER_SEEDS}" if fewer else ""
    notes = wrap(small_print, round(width * 17))
    names_beside = min(len(variants), columns, 3)
    legend_rows = math.ceil(len(variants) / names_beside)
    top = 0.35 + 0.2 * len(title) + 0.16 * len(warning)
    bottom = 0.6 + 0.18 * legend_rows + 0.15 * len(notes)
    height = top + rows * (side + 0.32) - 0.32 + bottom
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        rows,
        columns,
        wspace=0.2 / side,
        hspace=0.32 / side,
        **margins(figure, 0.55, 0.15, top, bottom),
    )
    for index, category in enumerate(categories):
        axes = figure.add_subplot(grid[divmod(index, columns)])
        shrink(axes.set_title(category, fontsize="medium", pad=4), side + 0.1)
        of_panel = {v: means[category, v] for v in variants if (category, v) in means}
        _panel(axes, of_panel, [v for v in of_panel if (category, v) in fewer])
        if index + columns >= len(categories):
            axes.set_xlabel("false positive rate", labelpad=2)
        else:
            axes.tick_params(labelbottom=False)
        if index % columns == 0:
            axes.set_ylabel("true positive rate", labelpad=2)
        else:
            axes.tick_params(labelleft=False)
    write_around(figure, title, warning, notes)
    add_legend(figure, variants, bottom - 0.42, names_beside)
    return figure


def _panel(axes: Axes, means: dict[str, MeanRoc], fewer: Collection[str]) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":", zorder=1)
    for variant, mean in means.items():
        look = line_style(variant)
        auroc = f"{100 * mean['auroc_mean']:.1f}"
        if np.isfinite(mean["auroc_std"]):
            auroc += f" ± {100 * mean['auroc_std']:.1f}"
            band: dict[str, Any] = {"color": look["color"], "alpha": 0.14, "linewidth": 0}
            axes.fill_between(mean["fpr"], mean["low"], mean["high"], **band)
        auroc += f" {FEWER}" if variant in fewer else ""
        start = np.insert(mean["fpr"], 0, 0), np.insert(mean["tpr"], 0, 0)
        axes.plot(*start, **look, label=auroc, clip_on=False)
    axes.legend(loc="best", handlelength=2.2, framealpha=0.85, edgecolor="none")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, box_aspect=1)
    axes.set_xticklabels(["0", "", "0.5", "", "1"])
    axes.set_yticklabels(["0", "", "0.5", "", "1"])
