"""The commands for grids of runs: `run-all` is what `./run_all.sh` calls; `cell`, `notebook` and
`report` are what the workflow calls for each of its steps."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adnlib.errors import InputError
from adnlib.machine import end_with
from adnlib.parsing import command, count, finish, guarded, path, tell
from adnlib.settings import assignment

if TYPE_CHECKING:
    from adnlib.plan import Plan

EXAMPLES = """\
examples:
  ./run_all.sh
      the demo, on images that the program draws
  ./run_all.sh --profile paper --data-root DIR
      the paper's grid on the data sets that lie under DIR
  ./run_all.sh --profile paper --data-root DIR --dataset mvtec_ad --category bottle
      --attention none se --seeds 0 --set epochs=48
      two of its runs, with a setting changed
  ./run_all.sh test
      the tests; what follows goes to pytest

What is done is not done again: the same command goes on where it was stopped.
"""

PARENT = "process id of the caller, with which this ends; it may be gone before this has started"


def add_to(commands: Any) -> None:
    """Add them to a parser's commands."""
    _add_run_all(commands)
    cell = _add_step(commands, "cell", "one run of a plan", _cell)
    cell.add_argument("key", help="run folder as seen from the results folder")
    notebook = _add_step(commands, "notebook", "tables or figures", _notebook)
    notebook.add_argument("name", help="file name in notebooks/ without suffix")
    notebook.add_argument("parameters", nargs="*", metavar="NAME=VALUE")
    _add_step(commands, "report", "report.html", _report)


# The commands import what they need: torch takes seconds, and `cell` waits for a kernel only.


def _run_all(options: argparse.Namespace) -> int:
    from adnlib.grid import Options
    from adnlib.plan import make_plan

    plan = make_plan(
        Options(
            profile=options.profile,
            data_root=options.data_root,
            results=options.results,
            datasets=tuple(dict.fromkeys(options.dataset)),  # folders, with blanks in their names
            categories=tuple(dict.fromkeys(options.category)),
            attention=_words(options.attention),
            seeds=tuple(map(_seed, _words(options.seeds))),
            settings=dict(map(assignment, options.set)),
            device=options.device,
            on_bad_image=options.on_bad_image,
            jobs=options.jobs,
            cluster=options.cluster,
            force=options.force,
        )
    )
    _print_plan(plan, whole=options.dry_run)
    if options.dry_run:
        return 0

    from adnlib.scheduling import carry_out

    return carry_out(plan, options.keep_going)


def _cell(options: argparse.Namespace) -> int:
    end_with(options.parent)
    from adnlib.execution import run_cell

    return 0 if run_cell(_read_plan(options.plan), options.key) else 1


def _notebook(options: argparse.Namespace) -> int:
    end_with(options.parent)
    from adnlib.execution import run_notebook

    parameters = dict(map(assignment, options.parameters))
    return 0 if run_notebook(_read_plan(options.plan), options.name, parameters) else 1


def _report(options: argparse.Namespace) -> int:
    end_with(options.parent)
    from adnlib.execution import run_report

    return 0 if run_report(_read_plan(options.plan)) else 1


def _print_plan(plan: Plan, whole: bool) -> None:
    states = [cell.state for cell in plan.cells]
    tell(f"{plan.grid.name}: {plan.grid.title}")
    tell(f"runs: {len(states)}, {states.count('done')} of them done")
    if plan.cluster:
        tell(f"each is a job with {plan.gpu} GPU, on the cluster of {plan.cluster}")
    else:
        where = f"{len(plan.gpus)} GPU" if plan.gpus else "the CPU"
        tell(f"{plan.jobs} at a time on {where}, CPU threads of each: {plan.threads}")
    tell(f"results: {plan.results}")
    for sentence in (*plan.notes, *plan.unusable):
        tell(f"note: {sentence}")
    if whole:
        for cell, state in zip(plan.cells, states, strict=True):
            tell(f"  {state:5}  {cell.title}")


def _add_run_all(commands: Any) -> None:
    title = "train and evaluate a grid of runs, then make its tables and figures"
    parser = command(commands, "run-all", title, epilog=EXAMPLES, prog="./run_all.sh")
    lists: dict[str, Any] = {"nargs": "+", "action": "extend", "default": []}
    add = parser.add_argument
    add(
        "--profile",
        default="demo",
        help="demo, smoke, paper, study, study_cpu, or a grid file (default: demo)",
    )
    add("--data-root", type=_path, metavar="DIR", help="folder that holds the data sets")
    add("--dataset", **lists, metavar="NAME", help="only these data sets")
    add("--category", **lists, metavar="NAME", help="only these categories")
    add(
        "--attention",
        **lists,
        metavar="NAME",
        help="such as none se cbam_frozen; REPRODUCING.md lists them",
    )
    add("--seeds", **lists, metavar="N", help="each gives a run of every category and variant")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting; `adnlib settings` lists them; may be repeated",
    )
    add("--device", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--jobs",
        type=count,
        metavar="N",
        help="runs at a time (default: one a GPU; on the CPU one a core, as memory allows)",
    )
    add(
        "--cluster",
        type=_cluster,
        metavar="NAME",
        help="slurm, or the folder of a changed copy of workflow/profiles/slurm: submit the runs "
        "to a cluster (docs/scheduling.md)",
    )
    add("--on-bad-image", help="stop (default) or skip where an image cannot be read")
    add("--results", type=_path, metavar="DIR", help="default: results/<profile>")
    add("--force", action="store_true", help="run again where a finished run has other settings")
    add("--dry-run", action="store_true", help="print the plan and run nothing")
    add(
        "--keep-going",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with the other runs when one fails",
    )
    finish(parser, guarded(_run_all, "the same command goes on from here"))


def _add_step(
    commands: Any, name: str, title: str, function: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=f"{title} (called by the workflow)")
    parser.add_argument("plan", type=Path)
    parser.add_argument("--parent", type=int, default=os.getppid(), help=PARENT)
    parser.set_defaults(function=function)
    return parser


def _path(word: str) -> Path:
    # Absolute, as the workflow's processes have another working directory than the user.
    return Path(os.path.realpath(path(word)))  # Path.resolve() raises at links in a circle


def _cluster(word: str) -> str:
    return str(_path(word)) if "/" in word else word


def _words(values: Iterable[str]) -> tuple[str, ...]:
    """The words of `--seeds 0 1`, `--seeds "0 1"` and `--seeds 0,1` alike, once each."""
    return tuple(
        dict.fromkeys(word for value in values for word in value.replace(",", " ").split())
    )


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise InputError(f"--seeds got {word!r}: give whole numbers such as 0 1 2.")
    return int(word)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the plan {path}: call ./run_all.sh, which writes it."
        ) from error
