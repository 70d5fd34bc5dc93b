"""How sure the numbers of a results folder are, and what attention is worth, as tidy tables.

Made from the score files of run folders. AUROC and all else in percent, differences in points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from adnlib import tables
from adnlib.catalogue import MEAN
from adnlib.evaluation import Array, auroc_between, mean_and_std, measures
from adnlib.record import FinishedRun
from adnlib.records import check_same_images, read_runs, readable, unreadable
from adnlib.significance import bootstrap, delong, interval, pair_wins, wilcoxon
from adnlib.study_sheets import study_sheets
from adnlib.variants import variant_order, variant_title

PLAIN = "none"


@dataclass(frozen=True)
class Scored:
    """The scores of one category and variant, all seeds."""

    dataset: str
    category: str
    variant: str
    labels: Array
    scores: dict[str, dict[int, Array]]
    """Epoch selection to seed to scores in the labels' order."""
    held_out: dict[int, pd.DataFrame]
    """Seed to the scores of good images held out of training; none without any."""

    def wins(self, selection: str, seeds: Sequence[int] | None = None) -> Array:
        """(seeds, anomalous, good) as `pair_wins` gives them; of all seeds, or of these."""
        of_seeds = self.scores[selection]
        chosen = of_seeds if seeds is None else seeds
        return np.stack([pair_wins(self.labels, of_seeds[seed]) for seed in chosen])

    def against_held_out(self, selection: str) -> list[float]:
        """AUROC in percent of each seed's anomalous test images against its held-out good ones."""
        aurocs = []
        for seed, held_out in self.held_out.items():
            anomalous = self.scores[selection][seed][self.labels == 1]
            good = held_out[f"score_{selection}"].to_numpy()
            aurocs.append(100 * auroc_between(good, anomalous))
        return aurocs

    @property
    def names(self) -> dict[str, str]:
        """The columns that say whose numbers a row holds."""
        return {
            "dataset": self.dataset,
            "category": self.category,
            "variant": self.variant,
            "method": variant_title(self.variant),
        }


def write_study(results: str | Path) -> list[Path]:
    """Write `tables/{statistics,paired,delong,choice}.csv` and `statistics.md`; their paths.

    Raises:
        InputError: there is no finished run, none has readable scores, runs of a data set differ in
            their settings, or seeds of a category were tested with different images.
    """
    found = read_runs(results)
    scored = read_scores(found)
    if not scored:
        raise unreadable(f"{len(found)} finished runs in {results}")
    made = {
        "statistics.csv": statistics_table(scored),
        "paired.csv": paired_table(scored),
        "delong.csv": delong_table(scored),
        "choice.csv": choice_table(scored),
    }
    sheets = study_sheets(found, made["statistics.csv"], made["paired.csv"], made["choice.csv"])
    text = tables.document("How sure the numbers are", sheets)
    return tables.write(Path(results) / "tables", {**made, "statistics.md": text})


def read_scores(found: Sequence[FinishedRun]) -> list[Scored]:
    """The scores of runs by data set, category and variant; damaged files are warned of, left out.

    Raises:
        InputError: runs of a category were not tested with the same images.
    """
    scored: dict[tuple[str, str, str], Scored] = {}
    of_category: dict[tuple[str, str], list[tuple[Path, pd.DataFrame]]] = {}
    for run, (table, held_out) in readable(found, lambda run: (run.scores(), run.held_out())):
        of_category.setdefault((run.dataset, run.category), []).append((run.folder, table))
        names = run.dataset, run.category, run.variant
        empty: dict[str, dict[int, Array]] = {selection: {} for selection in run.aurocs}
        cell = scored.setdefault(names, Scored(*names, table["label"].to_numpy(), empty, {}))
        for selection, of_seeds in cell.scores.items():
            of_seeds[run.seed] = table[f"score_{selection}"].to_numpy()
        if held_out is not None:
            cell.held_out[run.seed] = held_out
    for tested in of_category.values():
        check_same_images(tested)
    return list(scored.values())


def statistics_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """One row per data set, category, variant and epoch selection, averaged over seeds.

    `std` is over seeds (ddof 1); `low` and `high` bound AUROC's 95 % bootstrap interval over test
    images with the seeds as they are. `held_out_auroc` and `held_out_std` are of
    `Scored.against_held_out`, the others those of `evaluation.measures`.
    """
    rows = []
    for cell in scored:
        for selection, of_seeds in cell.scores.items():
            values = pd.DataFrame([measures(cell.labels, s) for s in of_seeds.values()]) * 100
            low, high = interval(100 * bootstrap(cell.wins(selection)))
            mean, std = mean_and_std(values["auroc"].tolist())
            held_out, held_out_std = mean_and_std(cell.against_held_out(selection) or [np.nan])
            rows.append(
                {
                    **cell.names,
                    "epoch_selection": selection,
                    "seeds": len(of_seeds),
                    "auroc": mean,
                    "std": std,
                    "low": low,
                    "high": high,
                    **values.drop(columns="auroc").mean(),
                    "held_out_auroc": held_out,
                    "held_out_std": held_out_std,
                }
            )
    return pd.DataFrame(rows)


def paired_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """What each variant has over plain DifferNet with the same seeds and test images.

    One row per data set, variant, epoch selection and category that both were run on, and one for
    their mean where there are several. `low` and `high` bound the difference's 95 % bootstrap
    interval over seeds and test images, the categories as they are. Wilcoxon's test is over the
    categories, in the row of their mean; of a single category it is over the seeds.
    """
    rows: list[dict[str, Any]] = []
    for cells, selection in _compared(scored):
        differences = [
            (other.names, other.wins(selection, seeds) - plain.wins(selection, seeds))
            for plain, other, seeds in cells
        ]
        rows += _difference_rows(differences, selection)
    return pd.DataFrame(rows, columns=_PAIRED)


def choice_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """What the choice of the epoch adds to the last epoch's AUROC, in the same runs.

    Rows as those of `paired_table`, plain DifferNet's too. What "best_on_test" adds was bought with
    the test labels, by every variant alike. The interval is of these epochs: its draws of images do
    not choose anew, so that it can reach below 0 where the choice itself cannot lose.
    """
    rows: list[dict[str, Any]] = []
    for dataset, variant in dict.fromkeys((cell.dataset, cell.variant) for cell in scored):
        cells = [cell for cell in scored if (cell.dataset, cell.variant) == (dataset, variant)]
        for selection in list(cells[0].scores)[1:]:
            gained = [(cell.names, cell.wins(selection) - cell.wins("last")) for cell in cells]
            rows += _difference_rows(gained, selection)
    return pd.DataFrame(rows, columns=_PAIRED)


def delong_table(scored: Sequence[Scored]) -> pd.DataFrame:
    """DeLong's test of each run of a variant against plain DifferNet's run with the same seed."""
    rows = []
    for cells, selection in _compared(scored):
        for plain, other, seeds in cells:
            for seed in seeds:
                pair = plain.scores[selection][seed], other.scores[selection][seed]
                test = delong(plain.labels, *pair)
                in_points = {
                    "difference": 100 * test.difference,
                    "standard_error": 100 * test.standard_error,
                }
                own = {"epoch_selection": selection, "seed": seed}
                rows.append(other.names | own | test._asdict() | in_points)
    return pd.DataFrame(rows, columns=_DELONG)


_PAIRED = (
    *("dataset", "category", "variant", "method", "epoch_selection", "seeds"),
    *("difference", "low", "high", "pairs", "p", "rank_biserial"),
)
_DELONG = (
    *("dataset", "category", "variant", "method", "epoch_selection", "seed"),
    *("difference", "standard_error", "z", "p"),
)


def _compared(
    scored: Sequence[Scored],
) -> Iterator[tuple[list[tuple[Scored, Scored, list[int]]], str]]:
    """For each data set, variant and selection: (plain, other, common seeds) of each category."""
    plain = {(cell.dataset, cell.category): cell for cell in scored if cell.variant == PLAIN}
    others = sorted(
        {(cell.dataset, cell.variant) for cell in scored if cell.variant != PLAIN},
        key=lambda names: (names[0], variant_order(names[1])),
    )
    for dataset, variant in others:
        cells = []
        for other in scored:
            base = plain.get((dataset, other.category))
            if base and (other.dataset, other.variant) == (dataset, variant):
                seeds = sorted(base.scores["last"].keys() & other.scores["last"].keys())
                cells += [(base, other, seeds)] if seeds else []
        for selection in cells[0][0].scores if cells else ():
            yield cells, selection


def _difference_rows(
    cells: Sequence[tuple[dict[str, str], Array]], selection: str
) -> Iterator[dict[str, Any]]:
    """A row for each category and, of several, one for their mean.

    Args:
        cells: a category's names, and differences of `pair_wins` (seeds, anomalous, good).
    """
    draws = [
        bootstrap(100 * wins, seed=index, over_seeds=True) for index, (_, wins) in enumerate(cells)
    ]
    several = len(cells) > 1
    for (names, wins), drawn in zip(cells, draws, strict=True):
        of_seeds = (100 * wins.mean((1, 2))).tolist()
        test = {} if several else wilcoxon(of_seeds)._asdict()
        yield _difference_row(names, selection, len(wins), of_seeds, drawn) | test
    if several:
        fewest = min(len(wins) for _, wins in cells)
        means = [100 * float(wins.mean()) for _, wins in cells]
        names = cells[0][0] | {"category": MEAN}
        row = _difference_row(names, selection, fewest, means, np.mean(draws, axis=0))
        yield row | wilcoxon(means)._asdict()


def _difference_row(
    names: dict[str, str], selection: str, seeds: int, differences: list[float], draws: Array
) -> dict[str, Any]:
    low, high = interval(draws)
    return {
        **names,
        "epoch_selection": selection,
        "seeds": seeds,
        "difference": float(np.mean(differences)),
        "low": low,
        "high": high,
    }
