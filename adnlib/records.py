"""The finished runs of a results folder, and whether they may stand in one table.

Reads run folders and the plan beside them, and nothing else: no tables, no pictures. Unfinished and
damaged runs are left out and named in a warning.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from adnlib.catalogue import MEAN
from adnlib.errors import InputError
from adnlib.folders import PLAN
from adnlib.record import NOT_IN_TABLES, FinishedRun, damaged, read_run
from adnlib.run_settings import DEFAULTS
from adnlib.variants import variant_order
from adnlib.words import counted

_NAMED = 20  # runs in a warning, at most

_T = TypeVar("_T")


def by_dataset(found: Collection[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The runs of each data set, by its name."""
    names = sorted({run.dataset for run in found})
    return {name: [run for run in found if run.dataset == name] for name in names}


def sorted_variants(found: Iterable[FinishedRun]) -> list[str]:
    """The variants that occur, each once, in the order of tables and figures."""
    return sorted({run.variant for run in found}, key=variant_order)


def read_runs(results: str | Path, dataset: str | None = None) -> list[FinishedRun]:
    """Read every finished run beneath `results/runs`, sorted by data set, category, variant, seed.

    Args:
        results: a results folder, such as `results/demo`.
        dataset: read this data set only.

    Raises:
        InputError: when there is no finished run, or when runs of one data set differ in a setting
            that changes their numbers (see `check_settings`), or are of a category called "mean".
    """
    root = Path(results) / "runs"
    found: list[FinishedRun] = []
    left_out: list[str] = []
    for folder in sorted(root.glob("*/*/*/seed*")):
        if dataset not in (None, folder.parts[-4]):
            continue
        try:
            found.append(read_run(folder))
        except InputError as error:
            left_out.append(str(error))
    _warn(left_out)
    if not found:
        held = sorted(p.name for p in root.glob("*") if p.is_dir())
        where = root / dataset if dataset else root
        hint = f"; there are runs of {', '.join(held)}" if dataset and held else ""
        raise InputError(
            f"No finished run lies under {where}{hint}; run the grid first, or name another "
            "results folder."
        )
    if means := [run.folder for run in found if run.category == MEAN]:
        raise InputError(
            f"{means[0]} is of a category called {MEAN}, which is the row of means in tables: "
            "rename its folder of images, delete its runs, and run it again."
        )
    found.sort(key=lambda r: (r.dataset, r.category, variant_order(r.variant), r.seed))
    check_settings(found)
    return found


def asked_cells(results: str | Path) -> dict[str, dict[str, Any]]:
    """The runs that the last `./run_all.sh` asked for, by run folder; none without a plan."""
    plan = Path(results) / PLAN
    if not plan.is_file():
        return {}
    try:
        return json.loads(plan.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{plan} is damaged ({type(error).__name__}: {error}): delete it, or call ./run_all.sh "
            "again, which writes it."
        ) from None


def asked_seeds(results: str | Path) -> dict[str, int]:
    """How many seeds of each data set the last `./run_all.sh` asked for."""
    counts = Counter(Path(key).parent for key in asked_cells(results))
    asked: dict[str, int] = {}
    for cell, count in counts.items():
        dataset = cell.parts[1]
        asked[dataset] = max(asked.get(dataset, 0), count)
    return asked


def check_settings(found: list[FinishedRun]) -> None:
    """Refuse runs of one data set whose settings differ.

    A table's caption can state one number of epochs, one image size, one kind of weights. Runs
    under other settings would be averaged with, or stand beside, numbers that they cannot be
    compared with; separate columns for them would leave a mean row without common categories. So
    one results folder holds one set of settings per data set, and another belongs in a folder of
    its own. Data sets may differ from each other. Within a category all runs must also have seen
    the same numbers of images. The number of views that maps are means of changes no score, and is
    for `run_maps.with_maps` to compare.

    Raises:
        InputError: naming data set, setting, its values, and a run folder for each value.
    """
    for dataset, group in by_dataset(found).items():
        names = {name for run in group for name in run.settings} - NOT_IN_TABLES
        for name in sorted(names):
            unset = DEFAULTS.get(name, "unset")  # the run is older than the setting
            check_same(dataset, name, {r.folder: r.settings.get(name, unset) for r in group})
        check_same(dataset, "weights", {r.folder: r.weights for r in group})
        for category in sorted({run.category for run in group}):
            seen = {r.folder: r.images_seen for r in group if r.category == category}
            check_same(f"{dataset}/{category}", "their images", seen)


def read_tidy(path: Path) -> pd.DataFrame:
    """A table made of runs, in which "03" and "NA" are names and an empty number is NaN."""
    names = dict.fromkeys(("dataset", "category", "variant"), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def check_same(what: str, name: str, values: Mapping[Path, Hashable]) -> None:
    """Refuse runs of something that differ in the value of a setting, given by run folder.

    Raises:
        InputError: naming the values, and a run folder for each.
    """
    counts = Counter(values.values())
    if len(counts) > 1:
        such = {value: folder for folder, value in values.items()}
        shown = "; ".join(
            f"{value} in {counted(count, 'run')} such as {such[value]}"
            for value, count in counts.most_common()
        )
        raise InputError(
            f"The runs of {what} differ in {name}: {shown}. Keep one setting per results folder: "
            "move or remake the others."
        )


def check_same_images(tested: Iterable[tuple[object, pd.DataFrame]]) -> None:
    """Refuse tables of scores that are not of the same images in the same order.

    Args:
        tested: what a message calls each table, and the table.

    Raises:
        InputError: naming the first that differs from the first of all.
    """
    (first, expected), *others = tested
    columns = ["path", "label"]
    for name, table in others:
        if not table[columns].equals(expected[columns]):
            raise InputError(
                f"{name} and {first} were tested with different images: run them again with the "
                "same ones."
            )


def readable(
    found: Iterable[FinishedRun], read: Callable[[FinishedRun], _T]
) -> list[tuple[FinishedRun, _T]]:
    """Each run with what `read` gives for it; runs whose files are damaged are warned of, left out.

    For `scores.csv` and `maps.npz`, which tables do not need and `read_runs` does not open.

    Raises:
        InputError: `read` has.
    """
    pairs: list[tuple[FinishedRun, _T]] = []
    left_out: list[str] = []
    for run in found:
        try:
            pairs.append((run, read(run)))
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            left_out.append(str(damaged(run.folder, error)))
    _warn(left_out)
    return pairs


def unreadable(runs: str) -> InputError:
    """The sentence for so many runs, all of which `readable` has left out."""
    return InputError(
        f"None of the {runs} has readable scores: delete these run folders and run them again."
    )


def _warn(left_out: list[str]) -> None:
    if left_out:
        more = f" And {len(left_out) - _NAMED} more." if len(left_out) > _NAMED else ""
        warnings.warn(
            f"{counted(len(left_out), 'run')} left out. {' '.join(left_out[:_NAMED])}{more}",
            stacklevel=3,
        )
