"""What this computer offers: cores, memory, GPUs; and processes that end with their parent.

It decides nothing: how many runs go at a time is the grid's rule.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from itertools import accumulate
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Linux, `man 2 prctl`: the signal that a process gets when its parent ends."""


def cores() -> int:
    """CPU cores for this process: those of its affinity, or its container's or job's if less."""
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    for limit in _limits("cpu.max"):
        quota, _, period = limit.partition(" ")
        if quota.isdigit() and period.isdigit():
            available = min(available, int(quota) // int(period))
    return max(1, available)


def memory() -> int:
    """Bytes of memory of this computer, or of its container or job if that is less."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [int(limit) for limit in _limits("memory.max") if limit.isdigit()]
    return min([available, *limits])


def gpus() -> list[str]:
    """The visible CUDA devices, as `CUDA_VISIBLE_DEVICES` names them; empty without any."""
    import torch  # here, because a process that only waits for a kernel does not need it

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return named[:count] if len(named) >= count and named[0] else [str(i) for i in range(count)]


def end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends, however that ends.

    So that a scheduler stopped by `kill -9` leaves nothing behind that still writes. Made to be a
    child's `preexec_fn` too. Only Linux has this; elsewhere it does nothing.

    Args:
        parent: the parent's process id; if it is the parent no longer, this process ends at once.
    """
    if _LIBC:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


# Loaded here, because between fork and exec little more than a system call is safe.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _limits(name: str) -> list[str]:
    """What a file says in the root of control groups and in each down to this process's own.

    A container has its limits in the root, a job of SLURM in a group below it
    (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    _, _, own = _read("/proc/self/cgroup").partition("0::/")
    groups = accumulate(["/sys/fs/cgroup", *own.split("/")], "{}/{}".format)
    return [_read(f"{group}/{name}") for group in groups]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
