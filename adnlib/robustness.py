"""Scores of finished runs under corruptions: saved models see their test images again, changed.

Images are scored as `AttentDifferNet.score` does, all at the same angles, and not as a run's own
`scores.csv`, which draws angles for each image; so the table has the run's own AUROC beside that of
severity 0. The threshold is made of the held-out images, untouched and scored in the same way.

Nothing is trained, and no table or figure for people is made (`decline` does that).
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adnlib.corruptions import CORRUPTIONS, SEVERITIES, check_severities
from adnlib.errors import InputError, writing
from adnlib.evaluation import Array, roc
from adnlib.exposure import Exposure
from adnlib.model_files import JSON_NAME
from adnlib.model_settings import find_device
from adnlib.record import FinishedRun
from adnlib.records import read_runs, readable
from adnlib.settings import check_from_zero, check_names, check_whole
from adnlib.threshold import FPR, threshold_for_fpr
from adnlib.variants import variant_title
from adnlib.words import counted, duration

COLUMNS = (
    *("dataset", "category", "variant", "method", "seed", "corruption", "severity", "value"),
    *("auroc", "difference", "false_alarms", "recall", "good_score"),
    *("good", "anomalous", "held_out", "views", "run_auroc"),
)

_Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What is to be measured.

    Raises:
        InputError: a value cannot be used.
    """

    corruptions: str = "all"
    """Some of `CORRUPTIONS` with commas or spaces between them, or "all"."""
    severities: str = "all"
    """Some of `SEVERITIES` likewise; the untouched images are always scored."""
    views: int = 0
    """Views that a score is the mean of; 0 for the model's own number."""
    images: int = 0
    """Good test images of a category, and anomalous ones, at even steps; 0 for all."""
    device: str = "auto"
    """As for `ModelSettings`."""

    def __post_init__(self) -> None:
        check_whole(vars(self), "views", "images")
        check_from_zero(vars(self), "views", "images")
        for name in ("corruptions", "severities"):
            if not _words(getattr(self, name)):
                raise InputError(f"{name} is empty: give some, or 'all'.")
        check_names(_words(self.corruptions), [*CORRUPTIONS, "all"], "corruption")
        check_severities(self.chosen_severities)
        find_device(self.device)

    @property
    def chosen_corruptions(self) -> list[str]:
        """Names, in the order of tables and figures."""
        asked = _words(self.corruptions)
        return [kind for kind in CORRUPTIONS if kind in asked or "all" in asked]

    @property
    def chosen_severities(self) -> list[int]:
        """Rising, each once.

        Raises:
            InputError: one is no whole number.
        """
        asked = _words(self.severities)
        if "all" in asked:
            return list(SEVERITIES)
        try:
            return sorted({int(word) for word in asked})
        except ValueError:
            raise InputError(
                f"severities is {self.severities!r}: give whole numbers such as '1 3 5', or 'all'."
            ) from None


def measure(
    results: str | Path,
    dataset: str,
    asked: Measurement,
    say: Callable[[str], object] = print,
) -> pd.DataFrame:
    """Score a data set's runs under corruptions, and write `tables/robustness_<dataset>.csv`.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: a data set that there are runs of.
        asked: what to measure.
        say: given a line for each corruption of a run.

    Returns:
        One row per run, corruption and severity; severity 0, the untouched images, stands with
        every corruption. `value` is the corruption's parameter. In percent: `auroc`, its
        `difference` to severity 0 in points, `false_alarms` (good images above the run's
        threshold), `recall` (anomalous ones above it), `run_auroc` (the run's own, last epoch). The
        threshold is for a rate of `FPR` by `held_out` images, and NaN is what it gives where there
        are none. `good_score` is the median score of good images, that of severity 0 being 1.

    Raises:
        InputError: there is no finished run with a model, none can be read, or images are gone or
            damaged.
    """
    found = read_runs(results, dataset)
    with_model = [run for run in found if (run.folder / JSON_NAME).is_file()]
    if not with_model:
        raise InputError(
            f"None of the {len(found)} finished runs of {dataset} in {results} kept its model: run "
            "them again into a new results folder with --set save_model=true."
        )
    if lacking := [str(run.folder) for run in found if run not in with_model]:
        warnings.warn(
            f"{counted(len(lacking), 'run')} left out, which kept no model: {', '.join(lacking)}",
            stacklevel=2,
        )
    whole = [run for run, _ in readable(with_model, Exposure)]
    if not whole:
        raise InputError(
            f"None of the {len(with_model)} runs of {dataset} in {results} that kept their models "
            "can be read: delete these run folders and run them again."
        )
    rows = [row for run in whole for row in _measured(run, asked, say)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    path = table_path(results, dataset)
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.6g")
    return table


def table_path(results: str | Path, dataset: str) -> Path:
    """Where `measure` writes."""
    return Path(results) / "tables" / f"robustness_{dataset}.csv"


def _words(text: str) -> list[str]:
    """A single number comes from papermill as one."""
    return re.findall(r"[^\s,]+", str(text))


def _measured(run: FinishedRun, asked: Measurement, say: Callable[[str], object]) -> Iterator[_Row]:
    exposure = Exposure(run, asked.images, asked.views, asked.device)
    labels, untouched, held_out = exposure.labels, exposure.untouched(), exposure.held_out()
    limit = threshold_for_fpr(held_out, FPR).value if len(held_out) else None
    of_run = {
        "dataset": run.dataset,
        "category": run.category,
        "variant": run.variant,
        "method": variant_title(run.variant),
        "seed": run.seed,
        "good": int((labels == 0).sum()),
        "anomalous": int((labels == 1).sum()),
        "held_out": len(held_out),
        "views": exposure.views,
        "run_auroc": 100 * run.aurocs["last"],
    }
    severities = asked.chosen_severities
    for kind in asked.chosen_corruptions:
        began = time.perf_counter()
        scores = [untouched, *(exposure.corrupted(kind, severity) for severity in severities)]
        values = [np.nan, *(CORRUPTIONS[kind].of(severity) for severity in severities)]
        rows = [_summary(labels, each, untouched, limit) for each in scores]
        for severity, value, row in zip((0, *severities), values, rows, strict=True):
            own = {"corruption": kind, "severity": severity, "value": value}
            yield of_run | own | row
        say(
            f"{run.category}, {of_run['method']}, seed {run.seed}: {kind:10} AUROC "
            f"{' > '.join(format(row['auroc'], '.1f') for row in rows)}, "
            f"{duration(time.perf_counter() - began)}"
        )


def _summary(labels: Array, scores: Array, untouched: Array, limit: float | None) -> _Row:
    auroc, before = (roc(labels, each)["auroc"] for each in (scores, untouched))
    good, anomalous = scores[labels == 0], scores[labels == 1]
    shares = [np.nan if limit is None else (each > limit).mean() for each in (good, anomalous)]
    return {
        "auroc": 100 * auroc,
        "difference": 100 * (auroc - before),
        "false_alarms": 100 * shares[0],
        "recall": 100 * shares[1],
        "good_score": np.median(good) / np.median(untouched[labels == 0]),
    }
