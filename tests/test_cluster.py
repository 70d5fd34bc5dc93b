"""SLURM: its profile, and the queue as small scripts in the place of SLURM's commands show it."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adnlib import cluster
from adnlib.errors import InputError
from adnlib.parameters import project_path

SLURM = project_path("workflow/profiles/slurm")
SNAKEFILE = project_path("workflow/Snakefile")
KEY = "runs/my_set/cup/se/seed0"


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Call it with the jobs of the queue, number and name; what was cancelled is in `cancelled`."""
    jobs, cancelled = tmp_path / "jobs", tmp_path / "cancelled"
    scripts = {
        "squeue": f'cat "{jobs}"',
        # Each takes the first job away, as jobs end one after the other.
        "scancel": f'echo "$*" >>"{cancelled}"; sed -i 1d "{jobs}"',
        "sacct": "exit 0",
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
    return lambda *lines: jobs.write_text("".join(f"{line}\n" for line in lines))


def prefix(results):
    words = cluster.options(SLURM, results, None)
    return words[words.index("--slurm-jobname-prefix") + 1]


def test_a_profile_is_known_by_its_name_or_any_folder(tmp_path):
    assert cluster.find_profile("slurm") == SLURM
    shutil.copytree(SLURM, tmp_path / "mine")
    assert cluster.find_profile(str(tmp_path / "mine")) == tmp_path / "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no Snakemake profile .*mine/config.yaml: --cluster takes"),
        ("jobs: 3", "lacks the line executor: slurm"),
        ("executor: local", "lacks the line executor: slurm"),
        ("- slurm", "lacks the line executor: slurm"),
        ("executor: [", "is not YAML"),
        ("executor: 2026-13-01", "is not YAML"),
    ],
)
def test_what_is_no_profile_is_said(tmp_path, content, message):
    (tmp_path / "mine").mkdir()
    if content:
        (tmp_path / "mine/config.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        cluster.find_profile(str(tmp_path / "mine"))


def test_what_is_not_installed_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install -e '.*\[slurm\]'"):
        cluster.check_tools()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    with pytest.raises(InputError, match="no sbatch here"):
        cluster.check_tools()


def test_the_options_name_the_profile_and_the_jobs(queue, tmp_path):
    words = cluster.options(SLURM, tmp_path, None)
    assert words[:2] == ["--workflow-profile", str(SLURM)]
    assert "--jobs" not in words
    assert cluster.options(SLURM, tmp_path, 7)[-2:] == ["--jobs", "7"]
    # The plugin's own rule for it.
    assert re.match(r"^[A-Za-z0-9_-]{1,50}$", prefix(tmp_path))
    assert prefix(tmp_path) != prefix(tmp_path / "other")


def test_without_accounting_the_queue_is_asked(queue, tmp_path):
    (tmp_path / "sacct").write_text("#!/bin/sh\nexit 1\n")
    words = cluster.options(SLURM, tmp_path, None)
    assert words[-2:] == ["--slurm-status-command", "squeue"]


def test_the_jobs_of_these_results_are_cancelled_until_they_are_gone(queue, tmp_path):
    ours = prefix(tmp_path)
    queue(f"11 {ours}_a", f"12_[3-5] {ours}_b", f"13 {prefix(tmp_path / 'other')}_c", "14 my job")
    assert cluster.cancel_jobs(tmp_path) == []
    assert (tmp_path / "cancelled").read_text() == "11 12_[3-5]\n12_[3-5]\n"


def test_a_job_that_does_not_end_is_named(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CANCEL_SECONDS", 0.2)
    (tmp_path / "scancel").write_text("#!/bin/sh\n")
    queue(f"11 {prefix(tmp_path)}_a")
    assert cluster.cancel_jobs(tmp_path) == ["11"]


def test_an_empty_queue_is_left_alone(queue, tmp_path):
    queue()
    assert cluster.cancel_jobs(tmp_path) == []
    assert not (tmp_path / "cancelled").exists()


def test_the_profile_names_the_rules_that_there_are():
    content = yaml.safe_load((SLURM / "config.yaml").read_text())
    rules = set(re.findall(r"^rule (\w+):", SNAKEFILE.read_text(), re.MULTILINE)) - {"all"}
    assert set(content["set-resources"]) == rules
    assert set(content["set-threads"]) <= rules
    assert all(named["runtime"] > 0 for named in content["set-resources"].values())
    assert not any("gpu" in named for named in content["set-resources"].values())
    # With a GPU the plugin makes of it what SLURM refuses for want of a node.
    assert "tasks" not in content["default-resources"]


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec(cluster.PLUGIN), reason="needs the extra slurm of adnlib"
)
@pytest.mark.parametrize("gpu", [0, 1])
def test_each_job_asks_for_time_and_memory_and_only_a_run_for_a_gpu(tmp_path, gpu):
    cell = {"dataset": "my_set", "mem_mb": 6123, "settings": {"map_views": 1}}
    plan = {"cells": {KEY: cell}, "todo": [KEY], "gpu": gpu}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [sys.executable, "-P", "-m", "snakemake", "--dry-run", "--directory", str(tmp_path)]
    files = ["--snakefile", str(SNAKEFILE), "--configfile", str(tmp_path / "plan.json")]
    done = subprocess.run(
        [*command, *files, "--workflow-profile", str(SLURM)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    jobs = re.findall(r"^rule (\w+):.*?^    resources: (.*?)$", done.stdout, re.M | re.S)
    asked = {
        name: {key: int(n) for key, n in re.findall(r"\b(mem_mb|runtime|gpu)=(\d+)", resources)}
        for name, resources in jobs
    }
    asked.pop("all")
    assert asked.pop("run") == {"mem_mb": 6123, "runtime": 1440, "gpu": gpu}
    assert set(asked) == {"tables", "study", "roc", "gradcam", "report"}
    assert all(set(named) == {"mem_mb", "runtime"} for named in asked.values())
    assert not Path(tmp_path, "runs").exists()
