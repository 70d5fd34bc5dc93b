"""One notebook in one kernel: executed by papermill, logged, and its failure told in one sentence.

This is what the workflow starts for every run, table and figure. It chooses nothing: the plan says
which parameters, GPUs and threads there are. It prints one line.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import papermill
from jupyter_client import AsyncKernelManager
from nbclient.exceptions import DeadKernelError

from adnlib import progress
from adnlib.errors import InputError, writing
from adnlib.folders import DONE, FAILED, LOG, REPORT, is_done, write_json
from adnlib.machine import end_with
from adnlib.parameters import project_path

PROJECT = project_path(Path())
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
    (folder / FAILED).unlink(missing_ok=True)
    started = time.monotonic()
    reason = f"the notebook ended without writing {DONE}"
    try:
        with _gpu(plan) as environment:
            execute(
                "02_train",
                folder / "notebook.ipynb",
                plan["cells"][key]["settings"],
                folder / LOG,
                environment,
            )
    except (NotebookError, InputError) as failure:
        reason = str(failure)
    if is_done(folder):
        reason = ""  # what failed behind it, such as papermill's last save, takes nothing from it
    else:
        _note(folder / FAILED, reason)
    progress.tell_run(plan, key, time.monotonic() - started, reason)
    return not reason


def run_notebook(plan: dict[str, Any], name: str, parameters: dict[str, Any]) -> bool:
    """Execute a notebook that makes tables or figures of all runs; True if it ended well."""
    results = Path(plan["results"])
    title = "_".join([name, *map(str, parameters.values())])
    output = results / "notebooks" / f"{title}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    failed = output.with_suffix(f".{FAILED}")
    failed.unlink(missing_ok=True)
    line, ended_well = f"done: notebook {title}", True
    try:
        execute(name, output, {"results": str(results), **parameters}, log, _environment(plan))
    except (NotebookError, InputError) as failure:
        _note(failed, str(failure))
        line, ended_well = f"FAILED notebook {title}: {failure}; log: {log}", False
    progress.tell(results, title, line)
    return ended_well


def run_report(plan: dict[str, Any]) -> bool:
    """Execute the report's notebook and write it as `report.html`; True if it ended well."""
    from adnlib.page import write_page  # here, because nbconvert takes a second to load

    results = Path(plan["results"])
    if not run_notebook(plan, "07_report", {}):
        return False
    notebook = results / "notebooks" / "07_report.ipynb"
    write_page(notebook, results / REPORT, f"AttentDifferNet: {plan['title']}")
    return True


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
        InputError: the executed notebook or its log cannot be written.
    """
    os.environ.update(environment)
    with writing(output.parent, "another folder with --results"), _logging_to(log) as logger:
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


def _note(file: Path, reason: str) -> None:
    with suppress(OSError):  # without room for it, the line of progress still tells the reason
        write_json(file, {"reason": reason})


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
