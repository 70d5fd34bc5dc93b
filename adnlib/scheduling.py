"""A plan handed to Snakemake, and what became of it.

Which run goes when is Snakemake's; here lie what it needs before, and what people read after.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from adnlib import cluster, overview, progress
from adnlib.demo import make_demo
from adnlib.errors import InputError, writing
from adnlib.folders import DONE, FAILED, LOG, PLAN, failed_notebooks, failure, find_done
from adnlib.machine import end_with
from adnlib.networks import find_weights
from adnlib.parameters import project_path
from adnlib.places import DEMO_ROOT
from adnlib.plan import Plan

SNAKEFILE = Path("workflow/Snakefile")
SOURCE_CACHE = Path(".snakemake/source-cache")
WORKFLOW_LOG = "workflow.log"
"""In the results folder: what Snakemake said."""
FOLLOW_SECONDS = 2

_INSTEAD = "another folder with --results"


def carry_out(plan: Plan, keep_going: bool = True) -> int:
    """Do what is left of the plan and print what came out; 0, or 1 if anything failed.

    Raises:
        InputError: another process or job works on the same results, the folder cannot be written,
            the weights cannot be had, or Snakemake or what a cluster needs is not installed.
    """
    if not importlib.util.find_spec("snakemake"):
        raise InputError("Snakemake is not installed: install adnlib with Python 3.11 or newer.")
    if plan.cluster:
        cluster.check_tools()
    with _alone(plan.results):
        if plan.cluster and (jobs := cluster.cancel_jobs(plan.results)):
            # Two of them must not write to the same run folder.
            raise InputError(
                f"jobs {', '.join(jobs)} of a call that was killed still run: wait until they end."
            )
        record = _prepare(plan)
        options = ["--keep-going"] if keep_going else []
        code = _snakemake(
            record, [*options, "--forcerun", *(f"{key}/{DONE}" for key in record["stale"])]
        )
        missing = [key for key in record["cells"] if not (plan.results / key / DONE).is_file()]
        if keep_going and code and find_done(plan.results):
            # What waited for a run or a figure that failed is made of those that there are.
            _snakemake(record, ["--keep-going", "--config", "finished_only=1"])
        shown = _print_results(plan.results)
        failures = [*plan.unusable, *_failures(record, missing, keep_going)]
        if failures:
            print(f"\nNot done ({len(failures)}):", *failures, sep="\n  ", flush=True)
        elif code:
            print(f"\nThe workflow failed; its log: {plan.results / WORKFLOW_LOG}", flush=True)
    return 0 if shown and not code and not failures else 1


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """A lock on the results which the system frees when this process ends, however it ends."""
    with writing(results, _INSTEAD):
        results.mkdir(parents=True, exist_ok=True)
        lock = (results / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run_all.sh works on {results}: wait for it, or give another folder with "
                "--results."
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot lock {results} ({error.strerror}): give with --results a folder on a file "
                "system that has locks (Lustre has them with its mount option flock)."
            ) from error
        yield


def _prepare(plan: Plan) -> dict[str, Any]:
    """Make what all runs need, so that no two of them do: demo images, weights, the plan's file.

    What the last call told of its failures goes.
    """
    demo = project_path(DEMO_ROOT)
    if any(Path(cell.settings.data_root) == demo for cell in plan.cells):
        if not demo.is_dir():
            print(f"Drawing the demo images into {demo} ...", flush=True)
        make_demo(demo)
    todo = [cell.settings for cell in plan.cells if cell.state != "done"]
    for backbone, source in {(settings.backbone, settings.weights) for settings in todo}:
        if source != "random":
            find_weights(backbone, source)
    record = plan.record()
    with writing(plan.results, _INSTEAD):
        # Snakemake would take the Snakefile of the call that made the folder for today's.
        shutil.rmtree(plan.results / SOURCE_CACHE, ignore_errors=True)
        for told in (plan.results / "notebooks").glob(f"*.{FAILED}"):
            told.unlink()
        for key in record["todo"]:
            for name in (FAILED, LOG):
                (plan.results / key / name).unlink(missing_ok=True)
        for name in (progress.FILE, WORKFLOW_LOG):
            (plan.results / name).write_text("")
        text = json.dumps(record, indent=1) + "\n"
        (plan.results / PLAN).write_text(text, encoding="utf-8")
    return record


def _snakemake(record: dict[str, Any], options: list[str]) -> int:
    """Run the workflow; its exit code. Only what the runs print comes to standard output."""
    results = Path(record["results"])
    shown = len(progress.lines(results))
    with (results / WORKFLOW_LOG).open("a") as log:
        # A session of its own: Ctrl-C reaches this process alone, which ends the others.
        process = subprocess.Popen(
            [*_command(record), *options],
            stderr=log,
            cwd=results,  # jobs of a cluster start there, where the user's folder may be unknown
            start_new_session=True,
            preexec_fn=partial(end_with, os.getpid()),
        )
        try:
            if record["cluster"]:
                while process.poll() is None:
                    time.sleep(FOLLOW_SECONDS)
                    shown = progress.follow(results, shown)
            return process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # and an sbatch that is on its way
                process.wait()
            if record["cluster"]:
                cluster.cancel_jobs(results)


def _command(record: dict[str, Any]) -> list[str]:
    results = Path(record["results"])
    jobs = record["jobs"]
    where = ["--cores", str(jobs), "--resources", f"gpu={jobs}"]
    if record["cluster"]:
        where = cluster.options(Path(record["cluster"]), results, jobs)
    return [
        *(sys.executable, "-P", "-m", "snakemake"),
        *("--snakefile", str(project_path(SNAKEFILE))),
        *("--directory", str(results)),
        *("--configfile", str(results / PLAN)),
        *where,
        *("--rerun-triggers", "mtime", "params"),
        *("--scheduler", "greedy"),
        *("--runtime-source-cache-path", str(results / SOURCE_CACHE)),
        # A lock that a killed Snakemake left behind would stop the next; _alone does this better.
        *("--nolock", "--rerun-incomplete"),
    ]


def _print_results(results: Path) -> bool:
    """Print the tables and what was made; whether there are any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            text = overview.closing_text(results)
        except InputError as error:
            print(f"\nNo table: {error}", flush=True)
            return False
    print(
        "", *(f"note: {warning.message}" for warning in caught), text, sep="\n", end="", flush=True
    )
    return True


def _failures(record: dict[str, Any], missing: list[str], all_tried: bool) -> list[str]:
    results = Path(record["results"])
    told = progress.told(results)
    lines = []
    for key in missing:
        if key not in told and not all_tried:
            continue
        cell = record["cells"][key]
        log = results / key / LOG
        reason = failure(results / key / FAILED)
        if not reason:
            who, want = ("its job", "memory or time") if record["cluster"] else ("it", "memory")
            started, workflow = log.is_file(), results / WORKFLOW_LOG
            if started:
                reason = f"{who} was killed, most often for lack of {want}"
            else:
                reason = f"{who} did not start: {cluster.refusal(workflow) or 'see the log'}"
            log = log if started and not record["cluster"] else workflow
        again = shlex.join([*record["command"], *cell["select"]])
        lines += [f"{cell['title']}: {reason}\n    log: {log}\n    alone: {again}"]
    for name, reason in failed_notebooks(results).items():
        lines += [f"notebook {name}: {reason}\n    log: {results / 'notebooks' / name}.log"]
    return lines
