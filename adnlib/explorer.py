"""The explorer: a run's scores, a threshold that moves, and the images on which it errs.

One widget, for JupyterLab and for a page that voila serves. It arranges and listens; what it shows
is made in `misses`, `histogram` and `exhibits`. A user's mistake becomes a sentence on the page.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from functools import partial
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ipywidgets import HTML, Box, Button, Dropdown, SelectionSlider, Text, VBox

from adnlib.errors import InputError
from adnlib.exhibits import (
    Exhibit,
    chart,
    closeup,
    counts_table,
    heading,
    open_run,
    summary,
    thumbnail,
)
from adnlib.folders import find_done
from adnlib.histogram import Histogram
from adnlib.misses import count, start, thresholds, worst
from adnlib.parameters import project_path
from adnlib.report import SELECTION_TITLES

MOST = 6
"""Thumbnails in a row."""
_PROMPT = "<p>Choose one of the pictures to see it large, with its map.</p>"
# ipywidgets gives a slider's handle no name that a screen reader could say.
_NAMES_SLIDER = """<style onload="this.closest('.adn-chart').querySelector('[role=slider]')
    .setAttribute('aria-label', 'Threshold')"></style>"""


class Explorer(VBox):
    """One finished run at a time, of those that lie in a results folder.

    Args:
        results: a results folder, a folder of such, or the folder of one run; a relative one is
            seen from the repository's root. It can be changed on the page.

    Attributes:
        exhibit: the run that is open; None where none is, and what asks for one raises InputError.
    """

    def __init__(self, results: str | Path) -> None:
        super().__init__()
        self.exhibit: Exhibit | None = None
        self._histogram: Histogram | None = None
        self._place = Text(str(results), description="Results in", continuous_update=False)
        self._runs = Dropdown(description="Run")
        self._epochs = Dropdown(description="Scores of")
        self._problem, self._heading, self._promise = HTML(), HTML(), HTML()
        self._picture = HTML()
        self._sliders = Box()  # of one, made anew for each run, and what names it
        self._began = 0
        self._back = Button(description="Back to where it began")
        self._told, self._counts, self._closeup = HTML(), HTML(), HTML()
        self._alarms = _Row("False alarms", "highest scores first", self._look)
        self._missed = _Row("Missed anomalies", "lowest scores first", self._look)
        self._arrange()
        self._place.observe(lambda _: self._list(), "value")
        self._runs.observe(lambda _: self._open(), "value")
        self._epochs.observe(lambda _: self._begin(), "value")
        self._back.on_click(lambda _: self._go_back())
        self._list()

    @property
    def threshold(self) -> float:
        """Scores above it are called anomalous."""
        self._check_open()
        return float(self._sliders.children[0].value)

    @property
    def column(self) -> str:
        """The column of the scores that are shown, such as "score_last"."""
        self._check_open()
        return self._column

    def misses(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """All false alarms and all missed anomalies at the threshold, the worst first."""
        scores = self._check_open().scores
        return worst(scores, self.column, self.threshold, len(scores))

    @property
    def _column(self) -> str:
        return f"score_{self._epochs.value}"

    def _check_open(self) -> Exhibit:
        if self.exhibit is None or not self._sliders.children:
            raise InputError("No run is open: name a results folder with finished runs.")
        return self.exhibit

    def _arrange(self) -> None:
        style = resources.files("adnlib").joinpath("templates/explorer/style.css")
        self.add_class("adn-explorer")
        chart = VBox([self._picture, self._sliders, self._told, self._back, self._promise])
        chart.add_class("adn-chart")
        side_by_side = Box([chart, self._counts])
        side_by_side.add_class("adn-beside")
        self._body = VBox([self._heading, side_by_side, self._alarms, self._missed, self._closeup])
        self.children = [
            HTML(f"<style>{style.read_text(encoding='utf-8')}</style>"),
            self._place,
            self._runs,
            self._epochs,
            self._problem,
            self._body,
        ]

    def _list(self) -> None:
        """Offer the finished runs of the folder that is named."""
        place = project_path(os.path.expanduser(self._place.value.strip()))  # noqa: PTH111 (never raises)
        try:
            found = find_done(place)
        except OSError:  # a name too long, or a folder that may not be read
            found = []
        _offer(self._runs, [(_label(folder, place), folder) for folder in found])
        if not found:
            self._say(
                f"No finished run lies in {place}: run ./run_all.sh or notebooks/02_train.ipynb, "
                "or name another folder."
            )

    def _open(self) -> None:
        """Read the chosen run, and offer the epochs that it has scores of."""
        self.exhibit = None
        self._drop_slider()
        _offer(self._epochs, [])
        if self._runs.value is None:
            return
        try:
            self.exhibit = open_run(self._runs.value)
        except InputError as error:
            self._say(str(error))
            return
        names = self.exhibit.selections
        _offer(self._epochs, [(SELECTION_TITLES[name], name) for name in names])

    def _begin(self) -> None:
        """Draw the scores, and put the threshold where held-out images put it."""
        if self.exhibit is None or self._epochs.value is None:
            return
        self._drop_slider()
        scores, held_out = self.exhibit.scores, self.exhibit.held_out
        values = scores[self._column]
        held = held_out[self._column].to_numpy() if held_out is not None else ()
        try:
            self._histogram = Histogram(scores["label"], values, held)
            began = start(scores, held_out, self._column)
        except InputError as error:
            self._say(str(error))
            return
        self._say("")
        self._heading.value = heading(self.exhibit, self._epochs.value)
        self._promise.value = f"<p>It begins at {began.value:.4g}. {escape(began.sentence)}</p>"
        steps = thresholds(values, began.value)
        self._began = int(np.flatnonzero(steps == began.value)[0])
        slider = SelectionSlider(
            options=[(f"{step:.4g}", step) for step in steps.tolist()],
            index=self._began,
            description="Threshold",
        )
        slider.observe(lambda _: self._show(), "index")
        self._sliders.children = [slider, HTML(_NAMES_SLIDER)]
        self._closeup.value = _PROMPT
        self._show()

    def _show(self) -> None:
        """Everything that depends on the threshold."""
        if self.exhibit is None or self._histogram is None:
            return
        scores = self.exhibit.scores
        counts = count(scores["label"], scores[self.column], self.threshold)
        self._picture.value = chart(self._histogram, self.threshold)
        self._told.value = summary(counts, self.threshold)
        self._counts.value = counts_table(counts)
        self._back.disabled = self._sliders.children[0].index == self._began
        for row, misses in zip((self._alarms, self._missed), self.misses(), strict=True):
            row.show(misses, self.column, self.exhibit.images)

    def _look(self, row: int) -> None:
        """Show one test image large."""
        if self.exhibit is not None:
            self._closeup.value = closeup(self.exhibit, row, self._epochs.value)

    def _drop_slider(self) -> None:
        for widget in self._sliders.children:
            widget.close()
        self._sliders.children = ()

    def _go_back(self) -> None:
        self._sliders.children[0].index = self._began

    def _say(self, problem: str) -> None:
        """Say what is wrong in place of a run, or nothing beside one."""
        self._problem.value = f'<p role="alert">{escape(problem)}</p>' if problem else ""
        self._body.layout.display = "none" if problem else ""


class _Row(VBox):
    """A row of thumbnails, each a button that calls `look` with the row of its image."""

    def __init__(self, title: str, order: str, look: Callable[[int], None]) -> None:
        super().__init__()
        self._title, self._order, self._look = title, order, look
        self._shown: tuple[Path, dict[int, float]] | None = None
        self._head, self._pictures = HTML(), HTML()
        self._mark = f"adn-{uuid.uuid4().hex[:8]}"  # two explorers may stand on one page
        self._buttons = [Button() for _ in range(MOST)]
        for position, button in enumerate(self._buttons):
            button.add_class("adn-thumbnail")
            button.add_class(f"{self._mark}-{position}")
            button.on_click(partial(self._click, position))
        box = Box(self._buttons)
        box.add_class("adn-thumbnails")
        self.children = [self._head, self._pictures, box]

    def show(self, misses: pd.DataFrame, column: str, images: Path) -> None:
        """Show the first of these images, given with their rows in the scores as index."""
        first = misses.head(MOST)
        of = f"{self._order}; the first {MOST}" if len(misses) > MOST else self._order
        beside = f" <small>({of})</small>" if len(misses) else ""
        self._head.value = f"<h3>{self._title}: {len(misses)}{beside}</h3>"
        shown = images, dict(zip(first.index.tolist(), first[column].tolist(), strict=True))
        if shown == self._shown:
            return
        self._shown = shown
        rules = []
        samples = first.to_dict("records")
        for position, button in enumerate(self._buttons):
            button.layout.display = "" if position < len(samples) else "none"
            if position < len(samples):
                sample = samples[position]
                path = Path(sample["path"])
                picture = thumbnail(images / path)
                kind = sample["defect"] if picture else f"{sample['defect']}, no picture"
                button.description = f"{path.name}\n{kind}\n{sample[column]:.4g}"
                button.tooltip = sample["path"]
                if picture:
                    rules.append(f".{self._mark}-{position} {{background-image: url({picture})}}")
        self._pictures.value = f"<style>{''.join(rules)}</style>"

    def _click(self, position: int, _: Button) -> None:
        if self._shown is not None:
            self._look(list(self._shown[1])[position])


def _offer(dropdown: Dropdown, options: list[tuple[str, Any]]) -> None:
    """Offer these and choose the first, as if nothing had been chosen before."""
    dropdown.options = ()
    dropdown.options = options
    dropdown.index = 0 if options else None


def _label(folder: Path, place: Path) -> str:
    """A run folder as the list names it: its results folder where there may be several."""
    cell = "/".join(folder.parts[-4:])
    within = folder.relative_to(place).parts[:-5]
    return f"{'/'.join(within)}: {cell}" if within else cell
