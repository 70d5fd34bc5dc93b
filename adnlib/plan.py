"""The plan: the runs of a grid on the data that lie there, for `workflow/Snakefile` to carry out.

With `grid` and `places` it checks everything that can be checked before the first run. It writes
nothing.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adnlib import machine
from adnlib.cluster import find_profile
from adnlib.datasets import locate, read_samples
from adnlib.errors import InputError
from adnlib.folders import find_done, is_done, kept_settings, run_folder
from adnlib.grid import Grid, Options, make_grid
from adnlib.model_settings import find_device
from adnlib.parameters import project_path
from adnlib.places import Place, find_places
from adnlib.record import MAY_DIFFER, NOT_IN_TABLES
from adnlib.run_settings import DEFAULTS, Settings

_RUN_MEMORY = 2 * 2**30  # libraries, views and activations
_PARAMETER_MEMORY = 24  # weight, gradient, Adam's two moments, and a half more for passing copies
_RUN_DISK = 20 * 2**20  # notebook, scores and maps
_PARAMETER_DISK = 4
_PARAMETER_CHECKPOINT = 12  # weight and Adam's two moments


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
    def memory(self) -> int:
        """Estimated bytes: 2 GiB, the image budget where one is set, and 24 for each parameter of
        the flow."""
        images = round(1e9 * self.settings.memory_budget)
        return _RUN_MEMORY + images + _PARAMETER_MEMORY * _parameters(self.settings)

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
        found = kept_settings(folder)
        if found is None:
            return "stale"
        kept = found.get("save_model") or not self.settings.save_model
        return "done" if kept and not self.settings.difference(found, MAY_DIFFER) else "stale"

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
        gpus: devices as `CUDA_VISIBLE_DEVICES` names them, to be dealt to the runs; empty on the
            CPU, and on a cluster, where each job sees what it was given.
        gpu: GPUs that each run asks its scheduler for, 0 or 1.
        jobs: runs at a time; None where a cluster's profile says.
        threads: CPU threads of each run; None where a cluster's profile says.
        command: what asks for this, without the choice of runs.
        cluster: folder of the Snakemake profile of the cluster that does the work, if one does.
    """

    grid: Grid
    results: Path
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    unusable: tuple[str, ...]
    gpus: tuple[str, ...]
    gpu: int
    jobs: int | None
    threads: int | None
    command: tuple[str, ...]
    cluster: Path | None

    def record(self) -> dict[str, Any]:
        """The plan as JSON holds it. By now the demo images must lie there too."""
        states = {cell.key: cell.state for cell in self.cells}
        images = {p: len(read_samples(locate(*p))) for p in {cell.place for cell in self.cells}}
        return {
            "title": self.grid.title,
            "results": str(self.results),
            "gpus": list(self.gpus),
            "gpu": self.gpu,
            "jobs": self.jobs,
            "threads": self.threads,
            "command": list(self.command),
            "cluster": self.cluster and str(self.cluster),
            "started": time.time(),
            "todo": [key for key, state in states.items() if state != "done"],
            "stale": [key for key, state in states.items() if state == "stale"],
            "cells": {
                cell.key: {
                    "title": cell.title,
                    "dataset": cell.settings.dataset,
                    "images": images[cell.place],
                    "mem_mb": cell.memory // 2**20,
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
    cluster = find_profile(options.cluster) if options.cluster else None
    device, gpus = _device(grid.settings.get("device", "auto"), cluster is not None)
    results = (options.results or project_path("results") / grid.name).absolute()
    shared = {"results": str(results), "device": device}
    places, notes, unusable = find_places(grid, options)
    cells: dict[str, Cell] = {}
    for place in places:
        where = {**place._asdict(), "data_root": str(place.data_root)}
        for variant in grid.variants():
            cell = Cell(Settings(**{**variant, **shared, **where}))
            cells[cell.key] = cell
    left = [cell for cell in cells.values() if cell.state != "done"]
    spare = _check_results(results, left)
    _check_finished(results, cells, left, options.force)
    jobs, threads = options.jobs, None
    if not cluster:
        jobs = jobs or default_jobs(left, len(gpus))
        threads = max(1, machine.cores() // jobs)
    notes += _checkpoints(spare, left, jobs or 1)
    return Plan(
        grid=grid,
        results=results,
        cells=tuple(cells.values()),
        notes=tuple(notes),
        unusable=tuple(unusable),
        gpus=tuple(gpus),
        gpu=int(bool(gpus) or (cluster is not None and device != "cpu")),
        jobs=jobs,
        threads=threads,
        command=tuple(options.command()),
        cluster=cluster,
    )


def default_jobs(left: list[Cell], gpus: int) -> int:
    """How many runs go at a time, of those that are left: one for each GPU; on the CPU one for each
    core, as far as memory reaches.

    At the paper's width a run is taken to need about 6 GiB.
    """
    memory = max((cell.memory for cell in left), default=1)
    most = gpus or min(machine.cores(), machine.memory() // memory)
    return max(1, min(most, len(left)))


def _device(name: str, on_cluster: bool) -> tuple[str, list[str]]:
    """The device of each run and the GPUs that there are for runs.

    A run sees the one GPU that it is given as its first, whatever number that has here. On a
    cluster the device is what was asked for: the GPUs of the login node say nothing of the others.
    """
    if on_cluster:
        if name not in ("auto", "cpu", "cuda"):
            raise InputError(f"device is {name!r}: on a cluster choose auto, cpu or cuda.")
        return name, []
    device = find_device(name)
    if device.type != "cuda":
        return device.type, []
    gpus = machine.gpus()
    return "cuda", gpus if device.index is None else [gpus[device.index]]


def _check_results(results: Path, left: list[Cell]) -> int:
    """That the results folder can be written, and has room for the runs that are left; the bytes
    that are free beside these."""
    there = next(path for path in (results, *results.parents) if os.path.lexists(path))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"cannot write to {there}: give another folder with --results.")
    needed = sum(
        _RUN_DISK + cell.settings.save_model * _PARAMETER_DISK * _parameters(cell.settings)
        for cell in left
    )
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(
            f"{there} has {free / 1e9:.1f} GB free and the runs need about {needed / 1e9:.1f} GB: "
            "make room, or give another folder with --results."
        )
    return free - needed


def _checkpoints(spare: int, left: list[Cell], jobs: int) -> list[str]:
    """What to say where too few bytes are free for what the runs keep until they are done.

    It is no mistake: a run of less than ten minutes keeps none.
    """
    largest = max((_parameters(cell.settings) for cell in left), default=0)
    # One for each run, and one that is written beside its predecessor.
    needed = _PARAMETER_CHECKPOINT * largest * (min(jobs, len(left)) + 1)
    if needed <= spare:
        return []
    return [
        f"checkpoints of runs of more than ten minutes take about {needed / 1e9:.1f} GB, and "
        f"{spare / 1e9:.1f} GB are free beside the results: make room, or a run that is stopped "
        "begins anew."
    ]


def _check_finished(
    results: Path, cells: Mapping[str, Cell], left: list[Cell], force: bool
) -> None:
    """That no finished run is overwritten unasked, and that old and new ones fit into one table."""
    asked = {cell.settings.dataset: cell.settings for cell in cells.values()}
    growing = {cell.settings.dataset for cell in left}
    again = {cell.key for cell in left} if force else set()
    for folder in find_done(results):
        key = str(folder.relative_to(results))
        if not key.startswith("runs/") or folder.parts[-4] not in asked:
            continue
        if key in again:
            continue
        found, apart = kept_settings(folder), MAY_DIFFER if key in cells else NOT_IN_TABLES
        gone = {*(found or ())} - DEFAULTS.keys()
        if gone and folder.parts[-4] in growing:
            raise InputError(
                f"{folder} holds a finished run with the setting {min(gone)}, which this adnlib "
                "does not have: give another folder with --results."
            )
        if found and (other := asked[folder.parts[-4]].difference(found, apart)):
            advice = ", or --force to make it anew" if key in cells else ""
            raise InputError(
                f"{folder} holds a finished run with {other}: give another folder with "
                f"--results{advice}."
            )


def _parameters(settings: Settings) -> int:
    """Weights of the flow; each block has two subnets of four layers."""
    features, width = settings.features, settings.flow_width
    subnet = features // 2 * width + 2 * width**2 + width * features
    return 2 * settings.flow_blocks * subnet
