"""The command `settings`: what can be set, in a detector and in a run."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from typing import Any

from adnlib.parsing import command, finish, guarded, tell


def add_to(commands: Any) -> None:
    """Add it to a parser's commands."""
    parser = command(commands, "settings", "list all settings with their defaults and meanings")
    finish(parser, guarded(_settings, "nothing was changed"))


def _settings(_: argparse.Namespace) -> int:
    from adnlib.model_settings import SETTING_NAMES
    from adnlib.run_settings import Settings
    from adnlib.schema import meanings

    told = meanings(Settings)
    titles = {
        True: "of a detector: adnlib fit --set NAME=VALUE, and of runs",
        False: "of runs alone: ./run_all.sh --set NAME=VALUE, or parameters of 02_train",
    }
    for of_detector, title in titles.items():
        tell(title)
        for field in dataclasses.fields(Settings):
            if (field.name in SETTING_NAMES) == of_detector:
                meaning = textwrap.indent(textwrap.fill(told[field.name], 90), 6 * " ")
                tell(f"\n  {field.name} = {field.default!r}\n{meaning}")
        tell("")
    return 0
