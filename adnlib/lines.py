"""Lines of scores as CSV or JSON lines. Whatever happens, what was written is whole lines."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import functools
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from adnlib.errors import InputError, writing
from adnlib.scoring import Line


@contextlib.contextmanager
def line_writer(
    out: Path | None, line_format: str = "csv", force: bool = False
) -> Iterator[Callable[[Line], None]]:
    """A function that writes a line, at once and whole; CSV gets its header with the first.

    A file that is to be replaced stays as it was until the first line, or the end without one.
    Text is UTF-8; bytes of a file name that are none appear as backslash escapes.

    Args:
        out: the file; None for standard output.
        line_format: "csv" or "jsonl".
        force: replace a file that is there.

    Raises:
        InputError: the file is there already, or cannot be written.
        BrokenPipeError: whoever read standard output has gone.
    """
    if out and out.is_file() and not force:
        raise InputError(f"{str(out)!r} is there: give another file, or --force to replace it.")
    name = out or Path("standard output")
    with contextlib.ExitStack() as stack:
        with writing(name):
            file = stack.enter_context(out.open("ab", buffering=0)) if out else sys.stdout.buffer
        if out:
            _take(file, out)

        @functools.cache
        def begin() -> None:
            with writing(name):
                if out and out.is_file():
                    file.truncate(file.seek(0))
                if line_format == "csv":
                    _write_whole(file, _csv(Line._fields).encode())

        def write(line: Line) -> None:
            begin()
            text = _csv(line) if line_format == "csv" else json.dumps(line._asdict()) + "\n"
            with writing(name):
                _write_whole(file, text.encode("utf-8", "backslashreplace"))

        yield write
        begin()


def _take(file: BinaryIO, path: Path) -> None:
    """A lock on the file, which the system frees when it is closed."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is writing {str(path)!r}: wait for it, or give another file."
        ) from None
    except OSError:  # a file system without locks
        return


def _csv(values: Sequence[object]) -> str:
    text = io.StringIO()
    # Nine digits are all that a score, a float32, has.
    cells = [f"{value:.9g}" if isinstance(value, float) else value for value in values]
    csv.writer(text).writerow(cells)  # whose ending, "\r\n", has it quote either in a cell
    return f"{text.getvalue()[:-2]}\n"


def _write_whole(file: BinaryIO, line: bytes) -> None:
    if file is sys.stdout.buffer:
        file.write(line)
        file.flush()
        return
    end = file.tell() if file.seekable() else None
    try:
        while line:
            line = line[file.write(line) :]  # a full disk takes part of it before it complains
    except OSError:
        if end is not None:
            with contextlib.suppress(OSError):
                file.truncate(end)
        raise
