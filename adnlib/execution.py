"""One notebook in one kernel: executed by papermill, logged, and its failure told in one sentence.

This is what the workflow starts for every run, table and figure. It chooses nothing: the plan says
which parameters, GPUs and threads there are. It prints one line.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError

from adnlib.machine import end_with

PROJECT = Path(__file__).resolve().parent.parent
START_SECONDS = 180
"""How long a kernel may take to answer; the first import on a cold disk takes most of a minute."""


class NotebookError(RuntimeError):
    """A notebook did not end; the message is one sentence that says why."""


def run_cell(plan: dict[str, Any], key: str) -> bool:
    """Train and evaluate one cell of the plan; print its line; True if it ended well.

    Args:
        plan: what `plan.Plan.record` gave.
        key: the cell's run folder relative to the results folder.
    """
    results = Path(plan["results"])
    folder = results / key
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "failed.json").unlink(missing_ok=True)
    started = time.monotonic()
    reason = ""
    try:
        with _gpu(plan) as environment:
            execute(
                "02_train",
                folder / "notebook.ipynb",
                plan["cells"][key]["settings"],
                folder / "log.txt",
                environment,
            )
        if not (folder / "metrics.json").is_file():
            reason = "the notebook ended without writing metrics.json"
    except NotebookError as failure:
        reason = str(failure)
        _write_json(folder / "failed.json", {"reason": reason})
    _tell(plan, key, time.monotonic() - started, reason)
    return not reason


def run_notebook(plan: dict[str, Any], name: str, parameters: dict[str, Any]) -> bool:
    """Execute a notebook that makes tables or figures of all runs; True if it ended well."""
    results = Path(plan["results"])
    title = "_".join([name, *map(str, parameters.values())])
    output = results / "notebooks" / f"{title}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    failed = output.with_suffix(".failed.json")
    failed.unlink(missing_ok=True)
    try:
        execute(name, output, {"results": str(results), **parameters}, log, _environment(plan))
    except NotebookError as failure:
        _write_json(failed, {"reason": str(failure)})
        line = f"FAILED notebook {title}: {failure}; log: {log}"
    else:
        line = f"done: notebook {title}"
    with _progress(results) as file:
        _say(file, title, line)
    return not failed.is_file()


def execute(
    name: str, output: Path, parameters: dict[str, Any], log: Path, environment: dict[str, str]
) -> None:
    """Execute `notebooks/<name>.ipynb` with papermill in a fresh kernel.

    The kernel ends when this process does, however that ends. A kernel that did not start is tried
    once more; a notebook that failed is not.

    Args:
        name: the notebook's file name without suffix.
        output: where the executed notebook goes; it is also written when a cell fails.
        parameters: replace those of the notebook's cell tagged `parameters`.
        log: text file for the notebook's output, or the traceback of what failed.
        environment: variables for the kernel, beside this process's own.

    Raises:
        NotebookError: a cell raised, or the kernel died or did not start.
    """
    os.environ.update(environment)
    with _logging_to(log) as logger:
        for attempt in (1, 2):
            try:
                papermill.execute_notebook(
                    PROJECT / "notebooks" / f"{name}.ipynb",
                    output,
                    parameters,
                    cwd=PROJECT,
                    progress_bar=False,
                    log_output=True,
                    start_timeout=START_SECONDS,
                    kernel_manager_class=_MortalKernel,
                )
                return
            except papermill.PapermillExecutionError as error:
                logger.error("%s", error)
                raise NotebookError(_sentence(error.ename, error.evalue)) from error
            except DeadKernelError as error:
                raise NotebookError("its kernel died, most often for lack of memory") from error
            except RuntimeError as error:  # nbclient's, when the kernel gives no first answer
                logger.error("the kernel did not start (attempt %d): %s", attempt, error)
                if attempt == 2:
                    raise NotebookError(f"its kernel did not start twice: {error}") from error


class _MortalKernel(AsyncKernelManager):
    """A kernel that is killed when the process that started it ends, even by `kill -9`.

    ipykernel looks for its parent by itself, but only once a second and only after its own start.
    """

    async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
        await super().start_kernel(preexec_fn=partial(end_with, os.getpid()), **options)


def _sentence(name: str, value: str) -> str:
    first = value.strip().splitlines()[0] if value.strip() else "no message"
    return first if name == "InputError" else f"{name}: {first}"


@contextmanager
def _logging_to(path: Path) -> Iterator[logging.Logger]:
    """papermill's log, which holds the notebook's output, in one file and nowhere else."""
    logger = logging.getLogger("papermill")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def _environment(plan: dict[str, Any]) -> dict[str, str]:
    # A kernel of the same name in the user's home must not come before this environment's.
    environment = {"JUPYTER_PREFER_ENV_PATH": "1"}
    # Snakemake sets these to its rule's threads: one, or on a cluster what the profile says.
    if plan["threads"]:
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(plan["threads"]))
    return environment


@contextmanager
def _gpu(plan: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Hold one of the plan's slots, its jobs dealt over its GPUs; nothing without GPUs.

    Snakemake counts GPUs, but does not say which of them is free.
    """
    environment = _environment(plan)
    if not plan["gpus"]:
        yield environment
        return
    folder = Path(plan["results"]) / ".slots"
    folder.mkdir(exist_ok=True)
    with _free_slot(folder, plan["jobs"]) as slot:
        gpu = plan["gpus"][slot % len(plan["gpus"])]
        yield {**environment, "CUDA_VISIBLE_DEVICES": gpu}


@contextmanager
def _free_slot(folder: Path, count: int) -> Iterator[int]:
    while True:
        for slot in range(count):
            with (folder / str(slot)).open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield slot
                return
        time.sleep(0.5)


def _tell(plan: dict[str, Any], key: str, seconds: float, reason: str) -> None:
    """Print a cell's line: how many are done, what came out, and about how long the rest takes."""
    results = Path(plan["results"])
    cell = plan["cells"][key]
    with _progress(results) as file:
        ended = ({key} | {line.partition("\t")[0] for line in file}) & set(plan["todo"])
        total = len(plan["cells"])
        count = total - len(plan["todo"]) + len(ended)
        line = f"[{count:{len(str(total))}}/{total}] "
        if reason:
            again = shlex.join([*plan["command"], *cell["select"]])
            log = results / key / "log.txt"
            line += f"FAILED {cell['title']}: {reason}; log: {log}; it alone: {again}"
        else:
            metrics = json.loads((results / key / "metrics.json").read_text())
            line += f"{cell['title']}  AUROC {100 * metrics['auroc_last']:.1f}  {duration(seconds)}"
            left = _seconds_left(plan, ended)
            line += f"  about {duration(left)} left" if left else ""
        _say(file, key, line)


@contextmanager
def _progress(results: Path) -> Iterator[TextIO]:
    """`progress.txt`, for one process at a time: those that end together count one by one."""
    with (results / "progress.txt").open("a+", encoding="utf-8") as file:
        with suppress(OSError):  # a node's file system may have no locks; then a count may be wrong
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file


def _say(progress: TextIO, name: str, line: str) -> None:
    """Print a line, and write it down for a scheduler on another node."""
    progress.write(f"{name}\t{line}\n")
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


def duration(seconds: float) -> str:
    """A length of time for people: "28 s", "4 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
