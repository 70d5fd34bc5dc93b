"""What Snakemake is asked for, and what is told of the runs; nothing is run."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from adnlib import cluster, scheduling
from adnlib.errors import InputError
from adnlib.run_settings import Settings

KEY = "runs/my_set/cup/se/seed0"


@pytest.fixture
def record(tmp_path):
    cell = {"title": "my_set/cup se seed 0", "select": ["--seeds", "0"]}
    for name in ("progress.txt", "workflow.log"):
        (tmp_path / name).touch()
    (tmp_path / KEY).mkdir(parents=True)
    return {
        "results": str(tmp_path),
        "jobs": 3,
        "cluster": None,
        "command": ["./run_all.sh"],
        "cells": {KEY: cell},
    }


def values(command, option):
    place = command.index(option)
    return command[place + 1]


def test_here_as_many_runs_go_at_a_time_as_there_are_jobs(record):
    command = scheduling._command(record)
    assert values(command, "--cores") == "3"
    assert values(command, "--resources") == "gpu=3"
    assert "--workflow-profile" not in command


def test_on_a_cluster_the_profile_says_how_many(record, monkeypatch):
    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: _Done())
    command = scheduling._command({**record, "cluster": "/a/profile", "jobs": None})
    assert values(command, "--workflow-profile") == "/a/profile"
    assert not {"--cores", "--resources", "--jobs"} & set(command)


class _Done:
    returncode = 0


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(scheduling.fcntl, "flock", no_locks)
    with pytest.raises(InputError, match=r"cannot lock .* \(No locks available\)"):
        scheduling._alone(tmp_path).__enter__()


def test_weights_are_those_of_the_backbones_that_are_left(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(scheduling, "find_weights", lambda *weights: asked.append(weights))
    left = [("resnet18", "imagenet", "new"), ("alexnet", "a.pth", "stale")]
    others = [("resnet18", "imagenet", "new"), ("alexnet", "random", "new")]
    cells = [
        SimpleNamespace(settings=Settings(backbone=backbone, weights=weights), state=state)
        for backbone, weights, state in [*left, *others, ("alexnet", "imagenet", "done")]
    ]
    scheduling._prepare(SimpleNamespace(cells=cells, results=tmp_path, record=lambda: {"todo": []}))
    assert sorted(asked) == [("alexnet", "a.pth"), ("resnet18", "imagenet")]


@pytest.mark.parametrize(
    ("profile", "message", "log"),
    [
        (None, "it was killed, most often for lack of memory", f"{KEY}/log.txt"),
        ("/a/profile", "its job was killed, most often for lack of memory or time", "workflow.log"),
    ],
)
def test_a_run_that_says_nothing_was_killed(record, tmp_path, profile, message, log):
    (tmp_path / KEY / "log.txt").touch()
    (line,) = scheduling._failures({**record, "cluster": profile}, [KEY], all_tried=True)
    assert f"my_set/cup se seed 0: {message}" in line
    assert f"log: {tmp_path / log}\n" in line
    (tmp_path / KEY / "failed.json").write_text(json.dumps({"reason": "no images"}))
    (line,) = scheduling._failures({**record, "cluster": profile}, [KEY], all_tried=True)
    assert "my_set/cup se seed 0: no images\n" in line


REFUSED = """
    message: SLURM sbatch failed. The error message was 'sbatch: error: first
sbatch: error: invalid partition specified: gpu'.
    sbatch call:
"""


@pytest.mark.parametrize(
    ("profile", "log", "message"),
    [
        ("/a/profile", REFUSED, "its job did not start: invalid partition specified: gpu\n"),
        ("/a/profile", "message: node failure", "its job did not start: see the log\n"),
        (None, "error: unrecognized arguments: --nolock", "it did not start: see the log\n"),
    ],
)
def test_a_run_that_did_not_start_says_why(record, tmp_path, profile, log, message):
    (tmp_path / "workflow.log").write_text(log)
    (line,) = scheduling._failures({**record, "cluster": profile}, [KEY], all_tried=True)
    assert f"{message}    log: {tmp_path / 'workflow.log'}\n" in line


def test_what_was_not_tried_is_no_failure(record, tmp_path):
    assert scheduling._failures(record, [KEY], all_tried=False) == []
    Path(tmp_path, "progress.txt").write_text(f"{KEY}\tFAILED\n")
    assert len(scheduling._failures(record, [KEY], all_tried=False)) == 1
