"""What the commands have in common: how words become values, and how a mistake is told."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adnlib.errors import InputError, writing

_FULL_GPU = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""What torch says where a GPU has no memory left, the last of cuBLAS's own."""
_FULL_MACHINE = "can't allocate memory"


def command(
    commands: Any, name: str, title: str, epilog: str = "", prog: str | None = None
) -> argparse.ArgumentParser:
    """A new command whose options are not to be shortened, with examples below its help."""
    return commands.add_parser(
        name,
        prog=prog,
        help=title,
        description=f"{title[0].upper()}{title[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def finish(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    """Say what carries the command out, and which options a mistyped one may have meant."""
    known = [name for action in parser._actions for name in action.option_strings]
    parser.set_defaults(function=function, known=known)


def path(word: str) -> Path:
    """A path as typed, as seen from the working directory."""
    if not word:
        raise argparse.ArgumentTypeError("an empty path: give a file or a folder")
    try:
        return Path(name(str(Path(word).expanduser())))
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def name(word: str) -> str:
    """A file, a folder or a glob as typed, whether there is one or not; a `~` may be quoted."""
    word = os.path.expanduser(word)  # noqa: PTH111 - Path would make "-" of "./-"
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(word)  # Path.exists() says no to a name that is too long, from Python 3.14 on
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{word[:200]!r}: {error.strerror}") from None
    return word


def count(word: str) -> int:
    """A whole number above 0."""
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number above 0")
    return int(word)


def tell(line: str) -> None:
    """Print a line; that nobody reads any more is no mistake, and then nothing is printed again.

    Raises:
        InputError: it cannot be written.
    """
    with writing(Path("standard output")):
        try:
            print(line, flush=True)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # else the rest is tried again at the end
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            if not isinstance(error, BrokenPipeError):
                raise


def guarded(
    command: Callable[[argparse.Namespace], int], interrupted: str
) -> Callable[[argparse.Namespace], int]:
    """The command, saying in one sentence what stopped it.

    Args:
        interrupted: what is left where the user stops it.
    """

    def run(options: argparse.Namespace) -> int:
        try:
            with warnings.catch_warnings():
                # PIL's of an image that is too large, which our own sentence names.
                warnings.filterwarnings("ignore", "Image size .* exceeds limit")
                warnings.showwarning = lambda message, *_: print(
                    f"note: {message}", file=sys.stderr
                )
                return command(options)
        except KeyboardInterrupt:
            print(f"\ninterrupted; {interrupted}", file=sys.stderr)
            return 130
        except (MemoryError, RuntimeError) as error:  # torch's own, which is not loaded here
            if isinstance(error, MemoryError) or _FULL_MACHINE in str(error):
                where, instead = "this machine", ""
            elif any(sign in str(error) for sign in _FULL_GPU):
                where, instead = "the GPU", "give --device cpu, "
            else:
                raise
            raise InputError(
                f"{where} has too little memory: end what else uses it, {instead}or train with a "
                "smaller batch_images or image_size."
            ) from None
        except OSError as error:  # such as a name that is too long, wherever it is looked at
            named = f"{str(error.filename)[:200]!r}" if error.filename else "a file"
            raise InputError(f"{named} cannot be used: {error.strerror or error}.") from None

    return run
