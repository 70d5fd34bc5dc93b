"""A folder to write in, beside the place of what is written: that appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_NAME, _NEW, _IN_USE = ".adnlib-", ".new", ".part"


@contextmanager
def staging(where: Path) -> Iterator[Path]:
    """A hidden folder there of this process's own; at the end it goes, and all that is in it.

    What killed processes left there goes first.

    Raises:
        OSError: it cannot be made.
    """
    sweep(where)
    new = Path(tempfile.mkdtemp(_NEW, _NAME, where))
    # Named as one that is in use when it is locked, or another process would take it away between.
    with _locked(new):
        folder = new.rename(new.with_suffix(_IN_USE))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(where: Path) -> None:
    """Take away what killed processes left there; what a running one uses is locked, and stays."""
    for left in where.glob(f"{_NAME}*{_IN_USE}"):
        with _locked(left) as is_free:
            if is_free:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether a lock on the folder was to be had, which the system frees when this process ends.

    A file system without such locks gives none to anyone.
    """
    with ExitStack() as stack:
        is_ours = False
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        yield is_ours
