"""What is told of runs while they go: a line for each that ends, printed and in `progress.txt`.

On a cluster nobody sees what a job prints; there the scheduler prints the file's lines.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from adnlib.folders import DONE, LOG
from adnlib.words import duration

FILE = "progress.txt"
"""In the results folder; a line is the key of a run or the name of a notebook, a tab, its line."""


def tell_run(plan: dict[str, Any], key: str, seconds: float, reason: str) -> None:
    """Print a cell's line: how many are done, what came out, and about how long the rest takes."""
    results = Path(plan["results"])
    cell = plan["cells"][key]
    with _held(results) as file:
        ended = ({key} | {line.partition("\t")[0] for line in file}) & set(plan["todo"])
        total = len(plan["cells"])
        count = total - len(plan["todo"]) + len(ended)
        line = f"[{count:{len(str(total))}}/{total}] "
        if reason:
            again = shlex.join([*plan["command"], *cell["select"]])
            log = results / key / LOG
            line += f"FAILED {cell['title']}: {reason}; log: {log}; it alone: {again}"
        else:
            metrics = json.loads((results / key / DONE).read_text())
            line += f"{cell['title']}  AUROC {100 * metrics['auroc_last']:.1f}  {duration(seconds)}"
            left = _seconds_left(plan, ended)
            line += f"  about {duration(left)} left" if left else ""
        _say(file, key, line)


def tell(results: Path, name: str, line: str) -> None:
    """Print the line of a notebook that makes tables or figures."""
    with _held(results) as file:
        _say(file, name, line)


def follow(results: Path, shown: int) -> int:
    """Print what was told elsewhere after the first `shown` lines; how many there are now."""
    found = lines(results)
    for line in found[shown:]:
        print(line.partition("\t")[2], flush=True)
    return len(found)


def told(results: Path) -> set[str]:
    """The keys of runs and names of notebooks that have ended, well or not."""
    return {line.partition("\t")[0] for line in lines(results)}


def lines(results: Path) -> list[str]:
    """The file's whole lines; the last may be half written."""
    return (results / FILE).read_text(encoding="utf-8").split("\n")[:-1]


@contextmanager
def _held(results: Path) -> Iterator[TextIO]:
    """The file, for one process at a time: those that end together count one by one."""
    with (results / FILE).open("a+", encoding="utf-8") as file:
        with suppress(OSError):  # a node's file system may have no locks; then a count may be wrong
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _say(file: TextIO, name: str, line: str) -> None:
    """Print a line, and write it down for a scheduler on another machine."""
    file.write(f"{name}\t{line}\n")
    print(line, flush=True)


def _seconds_left(plan: dict[str, Any], ended: set[str]) -> float:
    """From the time since the start, with runs weighed by their images and those under way half.

    0 on a cluster, whose queue nobody knows.
    """
    if plan["cluster"]:
        return 0.0
    images = {key: plan["cells"][key]["images"] for key in plan["todo"]}
    done = sum(images[key] for key in ended)
    rest = sum(images.values()) - done
    waiting = len(images) - len(ended)
    if not waiting:
        return 0.0
    under_way = 0.5 * rest / waiting * min(plan["jobs"] - 1, waiting)
    return (time.time() - plan["started"]) * (rest - under_way) / (done + under_way)
