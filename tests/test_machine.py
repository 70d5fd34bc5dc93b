"""What the computer offers, with files and torch that say so."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from adnlib import machine


def test_cores_and_memory_are_no_more_than_the_containers(monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": "max 100000", "/sys/fs/cgroup/memory.max": "max"}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    assert machine.cores() == 8
    whole = machine.memory()
    assert whole > 2**28
    files |= {"/sys/fs/cgroup/cpu.max": "250000 100000", "/sys/fs/cgroup/memory.max": "1000"}
    assert machine.cores() == 2
    assert machine.memory() == 1000
    files["/sys/fs/cgroup/cpu.max"] = "50000 100000"
    assert machine.cores() == 1


def test_a_jobs_limits_lie_in_a_group_below_the_root(monkeypatch):
    files = {"/proc/self/cgroup": "0::/slurm/job_1/step_0"}
    files |= {"/sys/fs/cgroup/slurm/job_1/memory.max": "1000", "/sys/fs/cgroup/memory.max": "max"}
    files["/sys/fs/cgroup/slurm/job_1/step_0/memory.max"] = "max"
    files["/sys/fs/cgroup/slurm/job_1/step_0/cpu.max"] = "200000 100000"
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)))
    assert (machine.cores(), machine.memory()) == (2, 1000)
    files["/proc/self/cgroup"] = "7:cpuset:/elsewhere\n0::/"
    assert machine.cores() == 8


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["0", "1"]),
        ("", ["0", "1"]),
        ("3,5", ["3", "5"]),
        ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("3,5,-1,7", ["3", "5"]),
    ],
)
def test_gpus_have_the_names_that_they_can_be_chosen_by(monkeypatch, visible, names):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == names


def test_no_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert machine.gpus() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_ends_with_its_parent():
    # The parent starts a child that would sleep for ten minutes, tells its number and waits.
    code = f"""
import ctypes, functools, os, runpy, subprocess, time
end_with = runpy.run_path({machine.__file__!r})["end_with"]
child = subprocess.Popen(["sleep", "600"], preexec_fn=functools.partial(end_with, os.getpid()))
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = Path("/proc", parent.stdout.readline().strip())
        assert child.exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while child.exists() and "Z" not in (child / "stat").read_text().rpartition(")")[2].split()[:1]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
