"""What the explorer shows of one run, as pieces of HTML: counts, thumbnails, one image.

Reads a run's folder and its images; knows no widgets. What comes from files is escaped.
"""

from __future__ import annotations

import base64
import io
import zipfile
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from adnlib.errors import InputError
from adnlib.evaluation import percentiles
from adnlib.folders import MAPS
from adnlib.histogram import COLOURS, Histogram
from adnlib.images import read_image, read_mask
from adnlib.looks import SELECTIONS
from adnlib.misses import Confusion
from adnlib.overlays import draw_picture, overlay
from adnlib.parameters import project_path
from adnlib.record import FinishedRun, read_run
from adnlib.report import alert
from adnlib.run_maps import scores_and_maps
from adnlib.selection import SCALE_PERCENTILE, colour_scales
from adnlib.variants import variant_title

THUMBNAIL = 104
"""Side of a thumbnail in pixels."""
_PICTURE, _DPI = 440, 110


@dataclass(frozen=True)
class Exhibit:
    """One finished run, open to be looked at."""

    run: FinishedRun
    scores: pd.DataFrame = field(repr=False)
    """One row a test image."""
    held_out: pd.DataFrame | None = field(repr=False)
    """One row a held-out good image; None where the run kept none."""
    maps: np.ndarray | None = field(repr=False)
    """(n_test, h, w), or None; `lacking` then says why."""
    lacking: str

    @property
    def images(self) -> Path:
        """The category folder that the run read."""
        return project_path(self.run.images)

    @property
    def selections(self) -> list[str]:
        """Ways to choose the epoch that the run has scores of, of `looks.SELECTIONS`."""
        return [which for which in SELECTIONS if f"score_{which}" in self.scores]


def open_run(folder: Path) -> Exhibit:
    """Read a finished run with its scores and maps.

    Raises:
        InputError: the run is not finished, or its scores are damaged.
    """
    run = read_run(folder)
    try:
        scores, held_out = _with_numbers(run.scores()), run.held_out()
        if held_out is not None:
            held_out = _with_numbers(held_out)[scores.columns]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"The scores in {folder} cannot be read ({type(error).__name__}: {error}): delete the "
            "folder and run it again."
        ) from None
    maps, lacking = None, ""
    if not (folder / MAPS).is_file():
        lacking = "This run made no maps (map_views was 0)."
    else:
        try:
            _, maps = scores_and_maps(run)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            lacking = f"The maps of this run cannot be read ({error})."
    return Exhibit(run, scores, held_out, maps, lacking)


def heading(exhibit: Exhibit, selection: str) -> str:
    """Which run it is, and how well it does with the scores of that epoch."""
    run = exhibit.run
    auroc = f"AUROC {100 * run.aurocs[selection]:.1f} %" if selection in run.aurocs else ""
    parts = [f"seed {run.seed}", auroc, f"images: {run.images_seen}", alert([run])]
    title = f"{variant_title(run.variant)} on {run.dataset}/{run.category}"
    return f"<b>{escape(title)}</b>, {escape(', '.join(filter(None, parts)))}"


def chart(histogram: Histogram, threshold: float) -> str:
    """The histogram as a picture, with words for who does not see it."""
    data = _data_uri(io.BytesIO(histogram.png(threshold)), "png")
    width, height = histogram.size  # so that the page keeps its place while a picture is exchanged
    return (
        f'<img src="{data}" width="{width}" height="{height}" decoding="sync" '
        f'alt="{escape(histogram.words)}">'
    )


def summary(counts: Confusion, threshold: float) -> str:
    """A threshold in words, which a screen reader says anew when it moves."""
    anomalous = counts.true_positives + counts.false_negatives
    good = counts.false_positives + counts.true_negatives
    return (
        f'<p aria-live="polite">Above <b>{threshold:.4g}</b> lie {counts.true_positives} of '
        f"{anomalous} anomalous images, and {counts.false_positives} of {good} good ones.</p>"
    )


def counts_table(counts: Confusion) -> str:
    """The four counts of a threshold and the two rates that follow from them."""
    good, bad = (
        f'<span class="dot" style="background:{COLOURS[kind]}"></span>{kind}'
        for kind in ("good", "anomalous")
    )
    return f"""<table class="counts">
<caption>Test images at this threshold</caption>
<tr><td></td><th scope="col">above it:<br>called anomalous</th>
<th scope="col">not above it:<br>called good</th></tr>
<tr><th scope="row">{bad}</th>
<td>{counts.true_positives}<small>true positives</small></td>
<td>{counts.false_negatives}<small>missed (false negatives)</small></td></tr>
<tr><th scope="row">{good}</th>
<td>{counts.false_positives}<small>false alarms (false positives)</small></td>
<td>{counts.true_negatives}<small>true negatives</small></td></tr>
<tr><th scope="row">recall</th><td colspan="2">{_percent(counts.recall)}</td></tr>
<tr><th scope="row">false alarm rate</th>
<td colspan="2">{_percent(counts.false_alarm_rate)}</td></tr>
</table>"""


@lru_cache(maxsize=512)
def thumbnail(path: Path) -> str | None:
    """A small picture of an image file as a data URI; None where it cannot be read."""
    try:
        pixels = read_image(path, 2 * THUMBNAIL).permute(1, 2, 0).numpy()
    except InputError:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return _data_uri(file)


def closeup(exhibit: Exhibit, row: int, selection: str) -> str:
    """One test image beside its map, and where its score lies among the others.

    Red is the strongest map of a good image, or this map's own maximum where it is stronger
    (`colour_scales`). What is missing, image or map, is said in a sentence.

    Args:
        exhibit: the run.
        row: the image's row in its scores.
        selection: whose scores, of `exhibit.selections`.
    """
    sample = exhibit.scores.loc[row]
    pictures, remarks = _pictures(exhibit, row)
    values = exhibit.scores[f"score_{selection}"]
    score = float(values[row])
    [percentile] = percentiles([score], values[exhibit.scores["label"] == 0])
    facts = {
        "image": str(sample["path"]),
        "kind": str(sample["defect"]) if sample["label"] else "good",
        "score": f"{score:.4g}, rank {int((values > score).sum()) + 1} of {len(values)} "
        "(1: most anomalous)",
        "among good test images": f"percentile {percentile:.0f} (100: above all of them)",
    }
    if pictures[1:] and selection != "last":
        remarks.append("The map is of the last epoch, whichever epoch the score is of.")
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    notes = "".join(f"<p>{escape(remark)}</p>" for remark in remarks)
    return f'<div class="closeup">{"".join(pictures)}<div><dl>{listed}</dl>{notes}</div></div>'


def _with_numbers(scores: pd.DataFrame) -> pd.DataFrame:
    """The table with scores that are floats for sure; a file may hold anything."""
    return scores.astype({name: float for name in scores if str(name).startswith("score_")})


def _pictures(exhibit: Exhibit, row: int) -> tuple[list[str], list[str]]:
    """The image and its map as figures, and what there is to say of them."""
    sample = exhibit.scores.loc[row]
    path = exhibit.images / sample["path"]
    if not path.is_file():
        gone = f"The image is no longer at {path}: put it back, or run again with its new place."
        return [], [gone]
    try:
        pixels = read_image(path, _PICTURE)
    except InputError as error:
        return [], [str(error)]
    remarks, mask = [], None
    if sample["mask"]:
        try:
            mask = read_mask(exhibit.images / sample["mask"], _PICTURE)
        except InputError as error:
            remarks.append(str(error))
    plain = pixels.permute(1, 2, 0).numpy()
    what = f"{sample['path']}, {sample['defect']}"
    pictures = [_figure(plain, None, what, "The image, as the network sees it: square.")]
    if exhibit.maps is None:
        return pictures, [*remarks, exhibit.lacking]
    scales = colour_scales(exhibit.maps, exhibit.scores["label"])
    scale = scales[row]
    whose = "this map" if scale > scales.min() else "the strongest map of a normal image"
    outline = " White outline: the defect's mask." if mask is not None else ""
    caption = (
        f"Grad-CAM of the score. Blue is 0; red is {scale:.2g}, the {SCALE_PERCENTILE}th "
        f"percentile of {whose}.{outline}"
    )
    heat = overlay(pixels, exhibit.maps[row], scale)
    return [*pictures, _figure(heat, mask, f"{what}, with its map", caption)], remarks


def _figure(pixels: np.ndarray, mask: torch.Tensor | None, alt: str, caption: str) -> str:
    side = _PICTURE / _DPI
    figure = Figure(figsize=(side, side), dpi=_DPI)
    draw_picture(figure.add_axes((0, 0, 1, 1)), pixels, mask)
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", pil_kwargs={"quality": 90})
    image = f'<img src="{_data_uri(file)}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _data_uri(file: io.BytesIO, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
