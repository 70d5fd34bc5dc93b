"""The plan: the runs of a grid on the data that lie there, for `workflow/Snakefile` to carry out.

Everything that can be checked is checked here, before the first run; nothing is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from adnlib import machine
from adnlib.backbones import EMBEDDING_CHANNELS
from adnlib.catalogue import CATALOGUE, category_name
from adnlib.datasets import (
    check_counts,
    check_for_auroc,
    check_masks,
    find,
    locate,
    read_samples,
)
from adnlib.demo import DEMO_SETS
from adnlib.errors import InputError
from adnlib.grid import Grid, Options, make_grid
from adnlib.model import find_device
from adnlib.records import MAY_DIFFER
from adnlib.runs import Settings, is_done, project_path, run_folder
from adnlib.settings import check_names

DEMO_ROOT = Path("data/demo")

_RUN_MEMORY = 2 * 2**30  # libraries, views and activations
_PARAMETER_MEMORY = 24  # weight, gradient, Adam's two moments, and a half more for passing copies
_RUN_DISK = 20 * 2**20  # notebook, scores and maps
_PARAMETER_DISK = 4


class Place(NamedTuple):
    """Where the images of a run lie."""

    data_root: Path
    dataset: str
    category: str


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    settings: Settings

    @property
    def key(self) -> str:
        """Its run folder as seen from the results folder."""
        return str(self._folder(Path()))

    @property
    def place(self) -> Place:
        """What `locate` finds its images by."""
        s = self.settings
        return Place(Path(s.data_root), s.dataset, s.category)

    @property
    def title(self) -> str:
        """For people."""
        s = self.settings
        return f"{s.dataset}/{s.category} {s.variant} seed {s.seed}"

    @property
    def select(self) -> list[str]:
        """The options that choose it alone."""
        s = self.settings
        choice = ["--dataset", s.dataset, "--category", s.category, "--attention", s.variant]
        return [*choice, "--seeds", str(s.seed)]

    @property
    def state(self) -> str:
        """ "to do", "done", or "stale": done, but with settings that may give another result."""
        folder = self._folder(Path(self.settings.results))
        if not is_done(folder):
            return "to do"
        try:
            found = json.loads((folder / "params.json").read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError):
            return "stale"
        same = all(
            found.get(field.name, field.default) == getattr(self.settings, field.name)
            for field in dataclasses.fields(Settings)
            if field.name not in MAY_DIFFER
        )
        kept = found.get("save_model") or not self.settings.save_model
        return "done" if same and kept else "stale"

    def _folder(self, results: Path) -> Path:
        s = self.settings
        return run_folder(results, s.dataset, s.category, s.variant, s.seed)


@dataclass(frozen=True)
class Plan:
    """Everything that the workflow needs to know.

    Attributes:
        cells: the runs that shall be there in the end.
        notes: one sentence for each thing that is absent and left out, or odd.
        unusable: one sentence for each category that is there but cannot be used.
        gpus: devices as `CUDA_VISIBLE_DEVICES` names them; empty on the CPU.
        jobs: runs at a time.
        threads: CPU threads of each run.
        command: what asks for this, without the choice of runs.
    """

    grid: Grid
    results: Path
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    unusable: tuple[str, ...]
    gpus: tuple[str, ...]
    jobs: int
    threads: int
    command: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The plan as JSON holds it. By now the demo images must lie there too."""
        states = {cell.key: cell.state for cell in self.cells}
        images = {p: len(read_samples(locate(*p))) for p in {cell.place for cell in self.cells}}
        return {
            "title": self.grid.title,
            "results": str(self.results),
            "gpus": list(self.gpus),
            "jobs": self.jobs,
            "threads": self.threads,
            "command": list(self.command),
            "started": time.time(),
            "todo": [key for key, state in states.items() if state != "done"],
            "stale": [key for key, state in states.items() if state == "stale"],
            "cells": {
                cell.key: {
                    "title": cell.title,
                    "dataset": cell.settings.dataset,
                    "images": images[cell.place],
                    "select": cell.select,
                    "settings": dataclasses.asdict(cell.settings),
                }
                for cell in self.cells
            },
        }


def make_plan(options: Options) -> Plan:
    """Check the options, find the data and lay out the runs.

    Raises:
        InputError: a name, a setting or a folder cannot be used, or no run is left.
    """
    grid = make_grid(options)
    device, gpus = _device(grid.settings.get("device", "auto"))
    results = (options.results or project_path("results") / grid.name).absolute()
    shared = {"results": str(results), "device": device}
    places, notes, unusable = _find_data(grid, options)
    cells = {
        cell.key: cell
        for place in places
        for variant in grid.variants()
        for where in [{**place._asdict(), "data_root": str(place.data_root)}]
        for cell in [Cell(Settings(**{**variant, **shared, **where}))]
    }
    _check_results(results, list(cells.values()))
    jobs = options.jobs or default_jobs(list(cells.values()), len(gpus))
    return Plan(
        grid=grid,
        results=results,
        cells=tuple(cells.values()),
        notes=tuple(notes),
        unusable=tuple(unusable),
        gpus=tuple(gpus),
        jobs=jobs,
        threads=max(1, machine.cores() // jobs),
        command=tuple(options.command()),
    )


def default_jobs(cells: list[Cell], gpus: int) -> int:
    """Runs at a time: one for each GPU; on the CPU one for each core, as far as memory reaches.

    A run on the CPU is taken to need 2 GiB, and 24 bytes for each parameter of its flow: about
    6 GiB at the paper's width.
    """
    if gpus:
        return gpus
    memory = max(_RUN_MEMORY + _PARAMETER_MEMORY * _parameters(cell.settings) for cell in cells)
    return max(1, min(machine.cores(), machine.memory() // memory, len(cells)))


def _find_data(grid: Grid, options: Options) -> tuple[list[Place], list[str], list[str]]:
    """Categories of the grid that can be used; notes; a sentence for each that cannot.

    The demo sets are taken to be there: they are drawn when the work begins.
    """
    given = options.data_root or grid.settings.get("data_root")
    root = project_path(given).resolve() if given else None
    there = _lying_there(root)
    wanted = grid.datasets
    if wanted is None:
        known = [name for name in CATALOGUE if name not in DEMO_SETS]
        wanted = dict.fromkeys(
            [*known, *(place.dataset for place in there if place.data_root == root)]
        )
    sets = {place.dataset for place in there}
    check_names(wanted, {*CATALOGUE, *sets}, "data set")

    places: list[Place] = []
    notes: list[str] = []
    unusable: list[str] = []
    for dataset, categories in _choose(
        wanted, tuple(map(category_name, options.categories)), there
    ).items():
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
    wanted: Mapping[str, tuple[str, ...] | None], chosen: tuple[str, ...], there: list[Place]
) -> dict[str, list[str]]:
    """The categories of each data set that the grid names, or all; of these, the chosen ones."""
    every = {
        dataset: [
            *(CATALOGUE[dataset].categories if dataset in CATALOGUE else ()),
            *(place.category for place in there if place.dataset == dataset),
        ]
        for dataset in wanted
    }
    for dataset, named in wanted.items():
        check_names(named or (), every[dataset], f"category of {dataset}")
    lists = {dataset: list(dict.fromkeys(wanted[dataset] or every[dataset])) for dataset in wanted}
    if not chosen:
        return lists
    check_names(chosen, {name for names in lists.values() for name in names}, "category")
    lists = {dataset: [c for c in names if c in chosen] for dataset, names in lists.items()}
    return {dataset: names for dataset, names in lists.items() if names}


def _check_place(place: Place) -> list[str]:
    if place.data_root == project_path(DEMO_ROOT):
        return []
    folder = locate(*place)
    samples = read_samples(folder)
    check_for_auroc(samples, f"{str(folder)!r}")
    warnings = check_counts(place.dataset, place.category, samples), check_masks(folder, samples)
    return [warning for warning in warnings if warning]


def _device(name: str) -> tuple[str, list[str]]:
    """The device of each run and the GPUs that there are for runs.

    A run sees the one GPU that it is given as its first, whatever number that has here.
    """
    device = find_device(name)
    if device.type != "cuda":
        return device.type, []
    gpus = machine.gpus()
    return "cuda", gpus if device.index is None else [gpus[device.index]]


def _check_results(results: Path, cells: list[Cell]) -> None:
    """That the results folder can be written, and has room for the runs that are not done."""
    there = next(path for path in (results, *results.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write to {there}: give another folder with --results.")
    needed = sum(
        _RUN_DISK + cell.settings.save_model * _PARAMETER_DISK * _parameters(cell.settings)
        for cell in cells
        if cell.state != "done"
    )
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"{there} has {free / 1e9:.1f} GB free and the runs need about {needed / 1e9:.1f} GB: "
            "make room, or give another folder with --results."
        )


def _parameters(settings: Settings) -> int:
    """Weights of the flow; each block has two subnets of four layers."""
    features, width = EMBEDDING_CHANNELS * settings.scales, settings.flow_width
    subnet = features // 2 * width + 2 * width**2 + width * features
    return 2 * settings.flow_blocks * subnet
