"""The one error that a user's mistake raises; everything else is a defect of ours."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class InputError(ValueError):
    """What the user gave cannot be used.

    Its message is one sentence that names the file or setting and says what to do. The command line
    prints it and exits with 2; no traceback is shown.
    """


def one_line(error: BaseException) -> str:
    """An error's text on one line, without a full stop; of one without text its type's name."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make an InputError of what the system says while it is asked about a file or folder.

    Such as `Path.is_file`, which raises where the folder around it may not be read.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{str(path)!r} cannot be read ({error.strerror or error}): check the path and its "
            "permissions."
        ) from None


@contextlib.contextmanager
def writing(path: Path, instead: str = "another place") -> Iterator[None]:
    """Make an InputError of what the system says while a file is written.

    Args:
        path: the path as the user named it.
        instead: what the user may give in its place.
    """
    try:
        yield
    except BrokenPipeError:  # the reader closed the pipe, which is no mistake
        raise
    except OSError as error:
        full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)  # safetensors gives no number
        room = "make room, or " if full else ""
        raise InputError(
            f"cannot write {str(path)!r} ({error.strerror or error}): {room}give {instead}."
        ) from None
