"""Where the images of a grid lie: which of its data sets are there, and which can be used.

It reads folders and opens no image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from adnlib.catalogue import CATALOGUE, category_name, known_categories
from adnlib.comparison import published_numbers
from adnlib.datasets import check_for_auroc, find, locate, oddities, read_samples
from adnlib.demo import DEMO_SETS
from adnlib.errors import InputError
from adnlib.grid import Grid, Options
from adnlib.parameters import project_path
from adnlib.settings import check_names

DEMO_ROOT = Path("data/demo")


class Place(NamedTuple):
    """What `datasets.locate` finds the images of a category by."""

    data_root: Path
    dataset: str
    category: str


def find_places(grid: Grid, options: Options) -> tuple[list[Place], list[str], list[str]]:
    """The categories that the grid names and the options choose, as far as they can be used.

    The demo sets are taken to be there: they are drawn when the work begins.

    Returns:
        The places in the grid's order; one sentence for each thing that is absent and left out, or
        odd; and one for each category that is there and cannot be used.

    Raises:
        InputError: a name is unknown, a data root is needed, or nothing can be used.
    """
    given = options.data_root or grid.settings.get("data_root")
    root = Path(os.path.realpath(project_path(given))) if given else None
    there = _lying_there(root)
    wanted = grid.datasets
    if wanted is None:
        published = {name for name, _, _ in published_numbers()}
        known = [name for name in CATALOGUE if name in published]
        wanted = dict.fromkeys(
            [*known, *(place.dataset for place in there if place.data_root == root)]
        )
    sets = {place.dataset for place in there}
    try:
        check_names(wanted, {*CATALOGUE, *sets}, "data set")
    except InputError as error:
        own = "" if root else " A set of your own needs --data-root DIR, the folder that holds it."
        raise InputError(f"{error}{own}") from None

    places: list[Place] = []
    notes: list[str] = []
    unusable: list[str] = []
    chosen = [category_name(name) for name in options.categories]
    for dataset, categories in _choose(wanted, chosen, there).items():
        if dataset not in sets and not root:
            raise InputError(f"{dataset} needs --data-root DIR, the folder that holds it.")
        here = {place.category: place for place in there if place.dataset == dataset}
        lacking = [name for name in categories if name not in here]
        if not here:
            page = CATALOGUE[dataset].page
            notes.append(f"{dataset} is not under {root} and left out; it comes from {page}")
        elif lacking:
            notes.append(f"{dataset} lacks {', '.join(lacking)} under {root}; left out")
        for place in (here[name] for name in categories if name in here):
            try:
                notes += _check_place(place)
                places.append(place)
            except InputError as error:
                unusable.append(f"{place.dataset}/{place.category}: {error}")
    if not places:
        raise InputError("; ".join([*unusable, *notes]))
    return places, notes, unusable


def _lying_there(root: Path | None) -> list[Place]:
    there = [Place(root, item.dataset, item.category) for item in find(root)] if root else []
    sets = {place.dataset for place in there}
    demo = [Place(project_path(DEMO_ROOT), *item) for item in DEMO_SETS.items()]
    return [*dict.fromkeys(there), *(place for place in demo if place.dataset not in sets)]


def _choose(
    wanted: Mapping[str, tuple[str, ...] | None], chosen: list[str], there: list[Place]
) -> dict[str, list[str]]:
    """The categories of each data set that the grid names, or all; of these, the chosen ones."""
    every = {
        dataset: [
            *known_categories(dataset),
            *(place.category for place in there if place.dataset == dataset),
        ]
        for dataset in wanted
    }
    for dataset, named in wanted.items():
        if every[dataset]:  # else it is absent, and nobody knows what it would hold
            check_names(named or (), every[dataset], f"category of {dataset}")
    lists = {dataset: list(dict.fromkeys(wanted[dataset] or every[dataset])) for dataset in wanted}
    if not chosen:
        return lists
    known = {name for names in lists.values() for name in names}
    check_names(chosen if known else (), known, "category")
    lists = {dataset: [c for c in names if c in chosen] for dataset, names in lists.items()}
    return {dataset: names for dataset, names in lists.items() if names or not every[dataset]}


def _check_place(place: Place) -> list[str]:
    if place.data_root == project_path(DEMO_ROOT):
        return []
    if braced := {name for name in (place.dataset, place.category) if {"{", "}"} & {*name}}:
        raise InputError(
            f"Snakemake takes braces for places to fill in: rename the folder {min(braced)!r}."
        )
    folder = locate(*place)
    samples = read_samples(folder)
    check_for_auroc(samples, f"{str(folder)!r}")
    return oddities(place.dataset, place.category, folder, samples)
