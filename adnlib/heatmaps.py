"""Where the detectors look: saliency maps of a results folder over its images, side by side.

Drawn from run folders and the data set's images; trains nothing. The form is the paper's: a column
for each image, the input on top, then a row for each detector, jet colours blended over the image,
or others that grey print keeps.
A map is not stretched to its own maximum, as is usual: where it is no stronger than the strongest
of normal images it keeps their colour scale, so that a good part does not glow because nothing in
it is brighter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from adnlib.errors import InputError, writing
from adnlib.figures import ALERT_COLOUR, save, shrink, style
from adnlib.folders import MAPS
from adnlib.images import read_image, read_mask
from adnlib.map_kinds import USUAL, Saliency
from adnlib.overlays import COLOUR_MAPS, as_pixels, draw_picture, overlay, silhouette
from adnlib.record import FinishedRun
from adnlib.records import read_runs
from adnlib.report import alert, circumstances, dataset_title
from adnlib.selection import SCALE_PERCENTILE, Chosen, choose, listed, read_named, told_rule
from adnlib.settings import check_choice, check_from_zero
from adnlib.variants import variant_order, variant_title

_PIXELS = 256
_MOST_COLUMNS = 8  # pictures beside each other, then the next category starts a new block
_HOW_TO_READ = (
    "half over the image. The bar's last colour is the strongest map of all normal test images of "
    f"that detector and category ({SCALE_PERCENTILE}th percentile): the number above it. A "
    "stronger map has its own instead, so many times as high as its corner says. "
    "Below a picture: its score, and the score's percentile among the normal test images "
    "(P100: above all of them). White outline: ground truth, where there is one."
)
# Inches.
_PICTURE, _GAP, _BETWEEN, _LABELS = 1.15, 0.05, 0.62, 1.25
_ROW, _INPUT_ROW, _NAMES, _MARGIN = _PICTURE + 0.22, _PICTURE + 0.07, 0.42, 0.12


def draw_gradcam(
    results: str | Path,
    dataset: str,
    anomalous: int = 0,
    named: str | Path = "",
    kind: Saliency = USUAL,
    photographs: bool = True,
    colours: str = "jet",
) -> list[Path]:
    """Draw `figures/gradcam_<dataset>.png` and `.pdf`, and list their images in `_images.csv`.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: the data set.
        anomalous: how many anomalous images of each category; 0 for three, or for one where there
            are more than five categories.
        named: a file that names the images instead, such as the list of an earlier figure.
        kind: of the maps; the files of others than the usual have it in their names.
        photographs: without, maps lie on grey silhouettes, what `background` leaves of an image:
            for figures of images that may not be shown.
        colours: one of `overlays.COLOUR_MAPS`.

    Returns:
        The paths of the PNG, the PDF and the list of images.

    Raises:
        InputError: when there is no finished run with maps, when runs differ in their settings,
            when the images are no longer where the runs read them, or when there are no such
            colours.
    """
    check_from_zero({"anomalous": anomalous}, "anomalous")
    check_choice({"colours": colours}, "colours", COLOUR_MAPS)
    found = read_runs(results, dataset)
    several = len({run.category for run in found}) > 5
    paths = read_named(named, found) if named else None
    chosen = choose(found, anomalous or (1 if several else 3), paths, kind)
    if not chosen:
        has, how = f"maps ({MAPS}), or", "with map_views above 0, or with save_model"
        if kind != USUAL:
            has, how = f"maps of this kind ({kind.name}), or", "with save_model"
        raise InputError(
            f"No finished run of {dataset} in {results} has {has} a model to make them by: run it "
            f"again, {how}."
        )
    own = "" if kind == USUAL else f"_{kind.name}"
    path = Path(results) / "figures" / f"gradcam_{dataset}{own}"
    with style():
        written = save(_figure(found, chosen, kind, photographs, colours), path)
    table = path.with_name(f"{path.name}_images.csv")
    with writing(table.parent):
        listed(chosen, dataset).to_csv(table, index=False, float_format="%.6g")
    return [*written, table]


def _figure(
    found: Sequence[FinishedRun],
    chosen: Sequence[Chosen],
    kind: Saliency,
    photographs: bool,
    colours: str,
) -> Figure:
    variants = sorted({v for category in chosen for v in category.maps}, key=variant_order)
    blocks = _blocks(chosen)
    across = max(sum(_width(category) for category in block) for block in blocks)
    width = max(_LABELS + across + _MARGIN, 5.5)
    title = wrap(f"{dataset_title(found)}: where the detectors look", round(width * 12))
    warning = wrap(alert(found), round(width * 12))
    seeds = {category.category: category.seed for category in chosen}
    shown = [run for run in found if seeds.get(run.category) == run.seed]
    one = "" if len({*seeds.values()}) == 1 else "; of each category one, which the list names"
    grey = "" if photographs else "Grey: silhouettes in the photographs' place. "
    what = f"{kind.title} at the last epoch, {colours} colours {_HOW_TO_READ}"
    legend = f"{circumstances(shown)}{one}. {what} {grey}{told_rule(chosen)}"
    notes = wrap(legend, round(width * 16.5))
    head = 0.15 + 0.2 * len(title) + 0.17 * len(warning)
    block_height = _NAMES + _INPUT_ROW + len(variants) * _ROW + 0.1
    height = head + len(blocks) * block_height + 0.15 * len(notes) + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    page = _Page(figure)
    page.text(width / 2, 0.08, "\n".join(title), fontsize="large")
    loud: dict[str, Any] = {"color": ALERT_COLOUR, "weight": "bold"}
    page.text(width / 2, 0.12 + 0.2 * len(title), "\n".join(warning), **loud)
    for index, block in enumerate(blocks):
        top = head + index * block_height
        _row_names(page, variants, top + _NAMES)
        left = _LABELS
        for category in block:
            _draw_category(page, category, variants, left, top, photographs, colours)
            left += _width(category)
    foot = head + len(blocks) * block_height + _MARGIN
    page.text(_MARGIN, foot, "\n".join(notes), ha="left", fontsize="small", color="0.3")
    return figure


class _Page:
    """A figure on which things are placed in inches from its upper left corner."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.width, self.height = figure.get_size_inches()

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(
        self, left: float, top: float, text: str, within: float = math.inf, **look: Any
    ) -> None:
        """A text, in smaller letters where it is wider than `within`."""
        look = {"ha": "center", "va": "top"} | look
        placed = self.figure.text(left / self.width, 1 - top / self.height, text, **look)
        shrink(placed, within)


def _blocks(chosen: Sequence[Chosen]) -> list[list[Chosen]]:
    """Categories in rows of at most `_MOST_COLUMNS` pictures."""
    blocks: list[list[Chosen]] = [[]]
    for category in chosen:
        in_block = sum(len(other.images) for other in blocks[-1])
        if blocks[-1] and in_block + len(category.images) > _MOST_COLUMNS:
            blocks.append([])
        blocks[-1].append(category)
    return blocks


def _width(category: Chosen) -> float:
    return len(category.images) * (_PICTURE + _GAP) + _BETWEEN


def _below(row: int) -> float:
    """How far a row of pictures lies below the first; nothing is written below the inputs."""
    return _INPUT_ROW + (row - 1) * _ROW if row else 0


def _row_names(page: _Page, variants: Sequence[str], top: float) -> None:
    for row, name in enumerate(["input", *map(variant_title, variants)]):
        middle = top + _below(row) + _PICTURE / 2
        text = "\n".join(wrap(name.replace("(", "\n("), 16))
        page.text(_LABELS - 0.1, middle, text, ha="right", va="center")


def _draw_category(
    page: _Page,
    category: Chosen,
    variants: Sequence[str],
    left: float,
    top: float,
    photographs: bool,
    colours: str,
) -> None:
    pictures = len(category.images) * (_PICTURE + _GAP) - _GAP
    room = pictures + _BETWEEN - _GAP
    page.text(left + pictures / 2, top + 0.02, category.category, room, weight="bold")
    for column, image in enumerate(category.images.to_dict("records")):
        x, y = left + column * (_PICTURE + _GAP), top + _NAMES
        pixels = read_image(category.folder / image["path"], _PIXELS)
        pixels = pixels if photographs else silhouette(pixels)
        mask = read_mask(category.folder / image["mask"], _PIXELS) if image["mask"] else None
        kind = image["defect"] if image["label"] else "normal"
        page.text(x + _PICTURE / 2, y - 0.04, kind, _PICTURE, va="bottom")
        draw_picture(page.axes(x, y, _PICTURE, _PICTURE), as_pixels(pixels), mask)
        for row, variant in enumerate(variants, start=1):
            if variant not in category.maps:
                continue
            scale = category.scales[variant][column]
            heat = overlay(pixels, category.maps[variant][column], scale, colours)
            axes = page.axes(x, y + _below(row), _PICTURE, _PICTURE)
            draw_picture(axes, heat, mask)
            factor = scale / category.normal[variant]
            if factor > 1:
                _corner(axes, f"{factor:{'.2f' if factor < 10 else '.2g'}} times")
            score, percentile = (image[f"{of}_{variant}"] for of in ("score", "percentile"))
            under = y + _below(row) + _PICTURE + 0.03
            text = f"{score:.3g} · P{percentile:.0f}"
            page.text(x + _PICTURE / 2, under, text, fontsize="small")
    for row, variant in enumerate(variants, start=1):
        if variant in category.normal:
            y = top + _NAMES + _below(row)
            _bar(page, category.normal[variant], left + pictures + 0.07, y, colours)


def _corner(axes: Axes, text: str) -> None:
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    axes.annotate(
        text, (0.02, 0.98), xycoords="axes fraction", va="top", fontsize="xx-small", bbox=box
    )


def _bar(page: _Page, scale: float, left: float, top: float, colours: str) -> None:
    axes = page.axes(left, top + 0.16, 0.09, _PICTURE - 0.16)
    page.figure.colorbar(ScalarMappable(Normalize(0, scale), colours), cax=axes, ticks=[0])
    axes.tick_params(length=0, pad=2, labelsize="x-small")
    axes.set_title(f"{scale:.2g}", fontsize="x-small", pad=2, loc="left")
