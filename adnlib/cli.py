"""The command line: options in, exit code out.

Its commands are for a user's own images (`detector_commands`), a detector's file
(`export_command`), what can be set (`settings_command`), folders of data sets (`dataset_commands`)
and grids of runs (`grid_commands`).
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adnlib import (
    dataset_commands,
    detector_commands,
    export_command,
    grid_commands,
    settings_command,
)
from adnlib.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command.

    Returns:
        0; 1 if a run failed, an image could not be read, or no data in a folder can be used; 2 for
        a mistake in the input; 130 if interrupted.
    """
    _prepare_streams()
    caught: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        caught.append(number)
        signal.default_int_handler(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, interrupt)
    try:
        options = _parse(arguments)
        return options.function(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Exception) as error:
        # A library that is interrupted while it loads may raise an error of its own.
        if not caught and not isinstance(error, KeyboardInterrupt):
            raise
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _prepare_streams() -> None:
    """Open what `adnlib ... <&- >&-` leaves closed, as the next file would take its number; and
    let names into the output that the locale cannot write."""
    for stream, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, stream) is None:
            setattr(sys, stream, Path(os.devnull).open(mode))  # noqa: SIM115 (until the end)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="adnlib", description="AttentDifferNet: image-level anomaly detection.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    detector_commands.add_to(commands)
    export_command.add_to(commands)
    settings_command.add_to(commands)
    dataset_commands.add_to(commands)
    grid_commands.add_to(commands)
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = getattr(options, "known", [])
        nearest = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "see --help."
        raise InputError(f"there is no option {unknown[0]}: {hint}")
    return options


class _Parser(argparse.ArgumentParser):
    """argparse that raises an InputError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see --help.")
