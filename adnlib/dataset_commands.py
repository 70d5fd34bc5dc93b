"""The commands for a folder of data sets: `datasets check` and `datasets unpack`."""

from __future__ import annotations

import argparse
from typing import Any

from adnlib.parsing import command, finish, guarded, path, tell


def add_to(commands: Any) -> None:
    """Add them to a parser's commands."""
    parser = commands.add_parser("datasets", help="check a folder of data sets, or unpack into it")
    actions = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    check = command(actions, "check", "say what is there, what is missing, where to get it")
    check.add_argument("folder", type=path, metavar="DIR", help="folder that holds the data sets")
    finish(check, guarded(_check, "nothing was changed"))
    unpack = command(actions, "unpack", "unpack a downloaded zip or tar archive")
    unpack.add_argument("archive", type=path, metavar="ARCHIVE")
    unpack.add_argument("folder", type=path, metavar="DIR", help="folder that holds the data sets")
    unpack.add_argument(
        "--dataset", metavar="NAME", help="its folder, if the archive does not tell"
    )
    finish(unpack, guarded(_unpack, "nothing was left half-done"))


def _check(options: argparse.Namespace) -> int:
    from adnlib.inventory import render, take

    inventory = take(options.folder)
    tell(render(inventory))
    return 0 if inventory.usable else 1


def _unpack(options: argparse.Namespace) -> int:
    from adnlib.archives import unpack

    done = unpack(options.archive, options.folder, options.dataset)
    others = f" ({done.left_out} left out, no images of a category)" if done.left_out else ""
    tell(f"{done.files} files unpacked into {done.folder}{others}")
    return 0
