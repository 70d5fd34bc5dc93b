"""SLURM: the Snakemake profile that describes a cluster, and the jobs that are left in its queue.

Snakemake's plugin submits the jobs and asks for their state. It does not outlive a `kill -9`, and
after Ctrl-C it may take minutes to end; so jobs are cancelled here, by their names.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from adnlib.errors import InputError
from adnlib.grid import read_yaml
from adnlib.parameters import project_path

PROFILES = Path("workflow/profiles")
PLUGIN = "snakemake_executor_plugin_slurm"
CANCEL_SECONDS = 60
"""How long cancelled jobs may take to end; SLURM kills them after 30 seconds by default."""


def find_profile(name: str) -> Path:
    """The folder of a Snakemake profile: one of `workflow/profiles`, or with a slash any folder.

    Raises:
        InputError: there is none, or it is not for SLURM.
    """
    folder = Path(name) if "/" in name else project_path(PROFILES) / name
    file = folder.absolute() / "config.yaml"
    if not file.is_file():
        raise InputError(
            f"there is no Snakemake profile {file}: --cluster takes slurm, or the path of a folder "
            "such as ./my_cluster."
        )
    content = read_yaml(file, "Snakemake profile")
    if not isinstance(content, dict) or content.get("executor") != "slurm":
        raise InputError(f"the Snakemake profile {file} lacks the line executor: slurm.")
    return file.parent


def check_tools() -> None:
    """That jobs can be submitted from here.

    Raises:
        InputError: Snakemake's plugin or SLURM itself is not installed.
    """
    if not importlib.util.find_spec(PLUGIN):
        raise InputError(
            "SLURM needs a plugin of Snakemake: call "
            f"{sys.executable} -m pip install -e '{project_path('.')}[slurm]'."
        )
    if not shutil.which("sbatch"):
        raise InputError("there is no sbatch here: call this on a login node of the cluster.")


def options(profile: Path, results: Path, jobs: int | None) -> list[str]:
    """The options with which Snakemake submits jobs.

    Args:
        profile: what `find_profile` gave.
        results: the results folder, from which the jobs have their name.
        jobs: at most so many in the queue at a time; None for what the profile says.
    """
    words = ["--workflow-profile", str(profile), "--slurm-jobname-prefix", _prefix(results)]
    if jobs:
        words += ["--jobs", str(jobs)]
    if not shutil.which("sacct") or subprocess.run(["sacct"], capture_output=True).returncode:
        # Without SLURM's accounting the plugin would wait for ever for an answer of sacct.
        words += ["--slurm-status-command", "squeue"]
    return words


def refusal(log: Path) -> str:
    """Why SLURM refused a job, as Snakemake's log tells it last; empty if it took them all."""
    told = re.findall(r"(?ms)sbatch failed\. The error message was '(.*?)'\.$", log.read_text())
    return told[-1].splitlines()[-1].removeprefix("sbatch: error: ") if told else ""


def cancel_jobs(results: Path) -> list[str]:
    """Cancel what is in the queue for these results, and wait until it is gone.

    Returns:
        The numbers of the jobs that are still there after a minute.
    """
    deadline = time.monotonic() + CANCEL_SECONDS
    while (jobs := _jobs(results)) and time.monotonic() < deadline:
        subprocess.run(["scancel", *jobs], capture_output=True)
        time.sleep(1)
    return jobs


def _jobs(results: Path) -> list[str]:
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i %j"]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    jobs = [line.split(maxsplit=1) for line in listed.splitlines()]
    return [number for number, name in jobs if name.startswith(_prefix(results))]


def _prefix(results: Path) -> str:
    return f"adnlib_{hashlib.sha256(bytes(results)).hexdigest()[:16]}"
