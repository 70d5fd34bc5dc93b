"""The overview of a results folder: its summary, ours beside what was published, what ran where.

Made from run folders, the published numbers and the plan; trains nothing.
"""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from adnlib import tables
from adnlib.catalogue import MEAN
from adnlib.comparison import auroc_table
from adnlib.folders import FAILED, REPORT, failed_notebooks, failure, is_done
from adnlib.record import FinishedRun
from adnlib.records import asked_cells, asked_seeds, by_dataset, read_runs
from adnlib.report import (
    CHOICE_OF_PUBLISHED,
    FEWER,
    SELECTION_NAMES,
    alert,
    auroc_sheets,
    circumstances,
    dataset_title,
    number,
)
from adnlib.tables import Sheet
from adnlib.variants import variant_title
from adnlib.words import counted, duration


def closing_text(results: str | Path) -> str:
    """What ends a run on a terminal: the last epoch's tables, the summary, where all of it lies.

    Raises:
        InputError: there is no finished run, or runs of a data set differ in their settings.
    """
    root = Path(results)
    found = read_runs(root)
    table = auroc_table(found, asked_seeds(root))
    sheets = [
        sheet for (_, selection), sheet in auroc_sheets(found, table).items() if selection == "last"
    ]
    text = [tables.plain(sheet) for sheet in [*sheets, summary_sheet(found, table)]]
    where = [f"  {_shown(root / 'runs')}: {len(found)} finished"]
    if (root / REPORT).is_file():
        where.append(f"  {_shown(root / REPORT)}: all of it on one page")
    for folder in ("tables", "figures", "notebooks"):
        names = sorted(path.name for path in (root / folder).glob("*") if path.suffix != ".log")
        line = f"  {_shown(root / folder)}: {', '.join(names)}"
        where += textwrap.wrap(line, 100, subsequent_indent="    ", break_long_words=False)
    return "\n".join([*text, "Made:", *where]) + "\n"


def summary_sheet(found: Sequence[FinishedRun], table: pd.DataFrame) -> Sheet:
    """One row per data set and method: AUROC over all common categories, by epoch selection.

    Args:
        found: the runs.
        table: what `comparison.auroc_table` made of them.
    """
    body = []
    lacking = ""
    for dataset, group in by_dataset(found).items():
        rows = table[table["dataset"] == dataset]
        rows = rows[(rows["category"] == MEAN) == _several(rows)]
        if rows.empty:
            lacking += f" {dataset} has no mean: no category was run with every method."
        for method, of_method in rows.groupby("method", sort=False):
            numbers = dict(
                zip(of_method["epoch_selection"], of_method.to_dict("records"), strict=True)
            )
            texts = [number(numbers.get(selection)) for selection in SELECTION_NAMES]
            body.append([dataset_title(group), str(method), *texts])
    return Sheet(
        title="AUROC in percent, mean over categories",
        caption=f"± standard deviation over seeds. {FEWER}: fewer runs than asked for, or than "
        f"others. Data sets are not compared with each other.{lacking}",
        header=["data set", "method", *SELECTION_NAMES.values()],
        rows=body,
        alert=alert(found),
        names=2,
    )


def published_sheets(found: Sequence[FinishedRun], table: pd.DataFrame) -> Iterator[Sheet]:
    """For each data set that has published numbers: ours, the published one, and the difference.

    Args:
        found: the runs.
        table: what `comparison.auroc_table` made of them.
    """
    for dataset, group in by_dataset(found).items():
        rows = table[table["dataset"] == dataset]
        rows = rows[rows["published"].notna() & (_several(rows) | (rows["category"] != MEAN))]
        if rows.empty:
            continue
        yield Sheet(
            title=f"{dataset_title(group)}: ours beside the published AUROC, percent",
            caption=f"{circumstances(group)}. Difference: best on test minus published. "
            f"{CHOICE_OF_PUBLISHED} {FEWER}: fewer runs than asked for, or than others.",
            header=[
                *("category", "method"),
                *(SELECTION_NAMES[name] for name in rows["epoch_selection"].unique()),
                *("published", "difference"),
            ],
            rows=[
                _beside(of_cell.to_dict("records"))
                for _, of_cell in rows.groupby(["category", "variant"], sort=False)
            ],
            alert=alert(group),
            names=2,
            notes=[
                f"{method}: {source} (confidence {confidence})."
                for method, source, confidence in dict.fromkeys(
                    zip(
                        rows["published_method"],
                        rows["published_source"],
                        rows["published_confidence"],
                        strict=True,
                    )
                )
            ],
        )


def ran_sheet(found: Sequence[FinishedRun]) -> Sheet:
    """Which runs there are, on what, and how long they took."""
    body = []
    for dataset, variant in dict.fromkeys((run.dataset, run.variant) for run in found):
        group = [run for run in found if (run.dataset, run.variant) == (dataset, variant)]
        seconds = [run.seconds for run in group]
        body.append(
            [
                dataset,
                variant_title(variant),
                str(len(group)),
                str(len({run.category for run in group})),
                duration(sum(seconds)),
                duration(max(seconds)),
                "; ".join(dict.fromkeys(run.device for run in group)),
            ]
        )
    return Sheet(
        title="Runs",
        caption="Times are of the runs alone, without tables and figures.",
        header=["data set", "method", "runs", "categories", "time", "longest run", "device"],
        rows=body,
        names=2,
    )


def versions(found: Sequence[FinishedRun]) -> list[str]:
    """Versions of the packages and the code that made the runs; several where they differ."""
    told: dict[str, Counter[str]] = {}
    for run in found:
        for name, version in {**run.versions, "git revision": run.git}.items():
            told.setdefault(name, Counter())[version or "unknown"] += 1
    return [
        f"{name} "
        + ", ".join(
            version if len(counts) == 1 else f"{version} ({counted(count, 'run')})"
            for version, count in counts.most_common()
        )
        for name, counts in told.items()
    ]


def unfinished(results: str | Path) -> list[str]:
    """One line for each run that was asked for and is not finished, and each notebook that failed.

    With the reason, where one was told.
    """
    root = Path(results)
    lines = [
        f"{cell['title']}: {failure(root / key / FAILED) or 'not run to its end'}"
        for key, cell in asked_cells(root).items()
        if not is_done(root / key)
    ]
    return lines + [f"notebook {name}: {why}" for name, why in failed_notebooks(root).items()]


def _several(rows: pd.DataFrame) -> bool:
    """Whether there are several categories; of one the mean only repeats it."""
    return len({*rows["category"]} - {MEAN}) > 1


def _beside(rows: list[dict[Hashable, Any]]) -> list[str]:
    [best] = [row for row in rows if row["epoch_selection"] == "best_on_test"]
    several = f"mean of {len(str(best['averaged']).split())}"
    return [
        several if best["category"] == MEAN else str(best["category"]),
        best["method"],
        *map(number, rows),
        f"{best['published']:.2f}",
        f"{best['mean'] - best['published']:+.2f}",
    ]


def _shown(path: Path) -> str:
    """The path from the working directory where it lies beneath it, else as it is."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()
