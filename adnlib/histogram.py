"""A histogram of one run's scores, with a threshold that moves.

It is drawn once; a move draws the line alone, so that the picture follows a slider.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image

from adnlib.errors import InputError
from adnlib.figures import style

KINDS = ("good", "anomalous")
COLOURS = dict(zip(KINDS, sns.color_palette("colorblind").as_hex(), strict=False))
"""Of the good and the anomalous images, wherever they stand beside each other."""
_SIZE, _DPI = (4.6, 2.4), 220  # inches
_BINS = 32
_NARROW, _DECADES = 5, 200  # highest score over the lowest
_MARGIN = 0.04  # of the axis, on either side of the scores


class Histogram:
    """Scores of good and of anomalous test images on a logarithmic axis.

    Args:
        labels: (N,) 0 for a good image, 1 for an anomalous one.
        scores: (N,) anomaly scores.
        held_out: (M,) scores of held-out good images, marked on the axis; M may be 0.

    Attributes:
        limits: the lowest and the highest score on the axis; all images lie between them.
        words: what it shows, for who does not see it.

    Raises:
        InputError: a score is not a finite number above 0.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, held_out: ArrayLike = ()) -> None:
        truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
        held = np.asarray(held_out, dtype=np.float64)
        both = np.concatenate([values, held])
        if not both.size or not (np.isfinite(both) & (both > 0)).all():
            raise InputError(
                "These scores cannot be drawn, since not all are finite numbers above 0: run again "
                "with a lower learning rate."
            )
        low, high = np.log10([both.min(), both.max()])
        room = max(_MARGIN * (high - low), 0.01)
        self.limits = float(10 ** (low - room)), float(10 ** (high + room))
        self.words = (
            f"Histogram of anomaly scores from {both.min():.4g} to {both.max():.4g}: "
            f"{(truth == 0).sum()} good and {(truth == 1).sum()} anomalous test images, "
            f"{held.size} held-out good ones; a dashed line at the threshold."
        )
        groups = [values[truth == label] for label in range(len(KINDS))]
        with style():
            self._canvas = FigureCanvasAgg(Figure(figsize=_SIZE, dpi=_DPI, layout="constrained"))
            self._axes = self._canvas.figure.add_subplot()
            self._draw(groups, held)
        self._line = self._axes.axvline(1, color="0.1", linewidth=1.4, linestyle="--")
        self._line.set_animated(True)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._canvas.figure.bbox)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._canvas.get_width_height()

    def png(self, threshold: float) -> bytes:
        """The picture with the line at this threshold."""
        self._canvas.restore_region(self._background)
        self._line.set_xdata([threshold, threshold])
        self._axes.draw_artist(self._line)
        file = io.BytesIO()
        pixels = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        pixels.save(file, "PNG", compress_level=1)
        return file.getvalue()

    def _draw(self, groups: Sequence[np.ndarray], held: np.ndarray) -> None:
        bins = np.geomspace(*self.limits, _BINS + 1).tolist()
        for kind, values in zip(KINDS, groups, strict=True):
            label = f"{kind} ({len(values)})"
            look = {"color": COLOURS[kind], "edgecolor": COLOURS[kind], "alpha": 0.45}
            self._axes.hist(values, bins, histtype="stepfilled", label=label, **look)
        if held.size:
            self._axes.plot(
                held,
                np.zeros(held.size),
                "|",
                color="0.25",
                markersize=9,
                clip_on=False,
                label=f"held out, good ({held.size})",
            )
        self._axes.set(xlim=self.limits, xlabel="anomaly score", ylabel="test images")
        set_score_axis(self._axes)
        self._axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        self._axes.figure.legend(loc="outside upper center", ncols=len(KINDS) + 1, frameon=False)


def set_score_axis(axes: Axes) -> None:
    """Make the x axis logarithmic, with ticks that can be read however few decades it spans."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high / low < _DECADES:  # too few powers of ten to read it by
        ticks = MaxNLocator(6) if high / low < _NARROW else LogLocator(subs=(1, 2, 5))
        axes.xaxis.set_major_locator(ticks)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
