"""What this computer offers: cores, memory, GPUs; and processes that end with their parent.

It decides nothing: how many runs go at a time is the grid's rule.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Linux, `man 2 prctl`: the signal that a process gets when its parent ends."""


def cores() -> int:
    """CPU cores for this process: those of its affinity, or its container's quota if less."""
    available = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        available = min(available, int(quota) // int(period))
    return max(1, available)


def memory() -> int:
    """Bytes of memory of this computer, or of its container if that is less."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read("/sys/fs/cgroup/memory.max")
    return min(available, int(limit)) if limit.isdigit() else available


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


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
