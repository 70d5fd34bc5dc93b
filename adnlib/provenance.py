"""What a number was computed with: the hardware in words, versions, this code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import torch

from adnlib.words import counted

PACKAGES = ("adnlib", "torch", "torchvision", "FrEIA", "grad-cam", "numpy", "pillow")
"""Those that numbers depend on."""


def describe_device(device: torch.device) -> str:
    """The hardware in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{(names or [platform.processor()])[0]}, {counted(threads, 'thread')}"


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of these packages, by name."""
    of_packages = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | of_packages


def code_digest() -> str:
    """SHA-256 of this package's modules, with their names."""
    package, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def git_revision() -> str | None:
    """Of the checkout that this code lies in, "-dirty" behind it where it differs; None in none."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # git would take a repository that merely holds the package
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
