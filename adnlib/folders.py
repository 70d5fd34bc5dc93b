"""The folder of a run: where it lies, when it is done, and how it is written.

It knows nothing of what a run does, and loads no torch.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

from adnlib.errors import InputError

DONE = "metrics.json"
"""Written last and atomically: its presence means that the run is done."""
FAILED = "failed.json"
"""Why a run's notebook failed; `<notebook>.failed.json` says it of another notebook."""
PARAMS = "params.json"
"""What a run was asked for, on what it runs and of which versions; written first."""
SCORES = "scores.csv"
"""Scores of a run's test images."""
HELD_OUT_SCORES = "holdout.csv"
"""Scores of the held-out good images, as `SCORES` has those of the test images: what a threshold is
made of that has seen no test label."""
MAPS = "maps.npz"
"""Grad-CAM maps of the test images' scores, in the order of `SCORES`."""
LOG = "log.txt"
"""What a run's notebook printed."""
PLAN = "plan.json"
"""In the results folder: the runs that the last `./run_all.sh` asked for."""
REPORT = "report.html"
"""In the results folder: its tables and figures on one page."""

_locks: WeakValueDictionary[Path, IO[str]] = WeakValueDictionary()


def run_folder(results: Path, dataset: str, category: str, variant: str, seed: int) -> Path:
    """Where a run's results lie."""
    return results / "runs" / dataset / category / variant / f"seed{seed}"


def is_done(folder: Path) -> bool:
    """Whether the run in this folder was finished."""
    return (folder / DONE).is_file()


def find_done(place: Path) -> list[Path]:
    """The finished runs of a place: itself, if it is one, else those of a results folder or of
    results folders directly inside it.

    Sorted by path, seeds by number.
    """
    if is_done(place):
        return [place]
    found = [*place.glob("runs/*/*/*/seed*"), *place.glob("*/runs/*/*/*/seed*")]
    return sorted(filter(is_done, found), key=lambda f: (f.parent, len(f.name), f.name))


def failure(told: Path) -> str | None:
    """Why something failed, by its file of the name `FAILED`; None without one."""
    return json.loads(told.read_text(encoding="utf-8"))["reason"] if told.is_file() else None


def failed_notebooks(results: Path) -> dict[str, str]:
    """Why notebooks of a results folder failed, by name."""
    told = sorted((results / "notebooks").glob(f"*.{FAILED}"))
    return {path.name.removesuffix(f".{FAILED}"): failure(path) or "failed" for path in told}


def kept_settings(folder: Path) -> dict[str, Any] | None:
    """The settings that `PARAMS` has; None where it is damaged."""
    try:
        return json.loads((folder / PARAMS).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def take(folder: Path) -> IO[str]:
    """A lock on the folder which the system frees when this process ends, however it ends.

    It is kept from other processes: this one gives up its older lock, which a notebook's variable
    or traceback may still hold when a cell is run again.

    Raises:
        InputError: another process has it.
    """
    folder = folder.resolve()
    if older := _locks.get(folder):
        older.close()
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise InputError(
            f"another run is writing {folder}: wait for it, or give another results folder."
        ) from None
    _locks[folder] = lock
    return lock


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write the whole file or none of it, and have it on the disk."""
    with whole(path) as beside, beside.open("w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name of this process's own to write a file under, which takes its place at the end.

    So nobody reads half a file, and two processes that write the same one do not meet. On an error
    what was written goes.
    """
    beside = path.with_suffix(f".{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
