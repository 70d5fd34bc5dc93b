"""The plan: the runs of a grid on the data that lie there, for `workflow/Snakefile` to carry out.

With `grid` and `places` it checks everything that can be checked before the first run. It writes
nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adnlib import machine
from adnlib.backbones import EMBEDDING_CHANNELS
from adnlib.datasets import locate, read_samples
from adnlib.errors import InputError
from adnlib.grid import Grid, Options, make_grid
from adnlib.model_settings import find_device
from adnlib.places import Place, find_places
from adnlib.records import MAY_DIFFER
from adnlib.runs import Settings, is_done, project_path, run_folder

_RUN_MEMORY = 2 * 2**30  # libraries, views and activations
_PARAMETER_MEMORY = 24  # weight, gradient, Adam's two moments, and a half more for passing copies
_RUN_DISK = 20 * 2**20  # notebook, scores and maps
_PARAMETER_DISK = 4


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
    places, notes, unusable = find_places(grid, options)
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
