"""The commands for a user's own images: `fit` makes a detector of a folder, `score` uses it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adnlib.errors import InputError
from adnlib.settings import assignment

FIT_EXAMPLES = """\
presets, each over the defaults, which are the paper's:
  quick      8 epochs, scores by 16 rotated views: 200 images in under 10 minutes on 2 CPU cores
  standard   48 epochs, 64 views
  paper      192 epochs, 64 views

examples:
  adnlib fit photos/good --out my_model --preset quick
      good images alone; a tenth of them is held out and gives the threshold
  adnlib fit mvtec/bottle --out bottle --attention se --set epochs=96
      a category in MVTec AD's layout, of which train/good is taken; attention and a setting
  adnlib fit photos/good --out my_model --holdout 0.3 --fpr 0.05 --anomalies photos/scratched
      more images for the threshold, a higher rate of false alarms, and a look at known defects
  adnlib fit photos/good --out my_model --config settings.yaml
      a file with lines such as "image_size: 256"; names are those of --set

The model appears at the end, whole: an interrupted fit leaves nothing behind.
"""

SCORE_EXAMPLES = """\
examples:
  adnlib score my_model photos/new > scores.csv
      all images below a folder
  adnlib score my_model 'photos/*.png' more/a.jpg --format jsonl --out scores.jsonl
      a glob and a file, as JSON lines
  find photos -name '*.png' | adnlib score my_model - --heatmaps heat
      a list from standard input, and for each image a picture of where the model looks

columns:
  path, score (higher is more anomalous), verdict (good or anomalous, by the model's threshold),
  percentile (of the score among the good images that were held out of training), error

An image's score does not depend on the others, their number or order.
exit code: 0; 1 if an image could not be read (its line says why); 2 for a mistake in the command.
"""


def add_to(commands: Any) -> None:
    """Add both to a parser's commands."""
    _add_fit(commands)
    _add_score(commands)


# The commands import what they need: torch takes seconds.


def _fit(options: argparse.Namespace) -> int:
    from adnlib.fitting import Fit, Progress, fit_folder
    from adnlib.model import FPR, HOLDOUT
    from adnlib.presets import fit_settings

    flags = {"attention": options.attention, "device": options.device, "seed": options.seed}
    single = dict(map(assignment, options.set))
    single |= {name: value for name, value in flags.items() if value is not None}
    asked = Fit(
        options.folder,
        options.out,
        fit_settings(options.preset, options.config, single),
        holdout=HOLDOUT if options.holdout is None else options.holdout,
        fpr=FPR if options.fpr is None else options.fpr,
        anomalies=options.anomalies,
        balance=options.balance,
        on_bad_image=options.on_bad_image,
        self_contained=options.self_contained,
        force=options.force,
    )
    fit_folder(asked, print, Progress())
    return 0


def _score(options: argparse.Namespace) -> int:
    from adnlib.lines import line_writer
    from adnlib.model import AttentDifferNet
    from adnlib.scoring import find_images, score_files

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    paths = find_images(options.paths, sys.stdin)
    model = AttentDifferNet.load(options.model, options.device)
    if model.threshold is None:
        print("note: this model has no threshold, so there are no verdicts", file=sys.stderr)
    watched = bool(options.out) and sys.stderr.isatty()  # else the lines themselves are seen
    counts: Counter[str] = Counter()
    began = time.perf_counter()
    lines = score_files(model, paths, options.batch, options.on_bad_image, options.heatmaps)
    try:
        with (
            contextlib.closing(lines),
            line_writer(options.out, options.format, options.force) as write,
        ):
            for line in lines:
                write(line)
                counts["not read" if line.error else line.verdict or "scored"] += 1
                if watched:
                    print(f"\r{counts.total()} images", end="", file=sys.stderr, flush=True)
    except BrokenPipeError:  # as in `adnlib score ... | head`: the reader has enough
        return 0
    finally:
        if counts:
            _tell(counts, time.perf_counter() - began, "\r" if watched else "")
    return 1 if counts["not read"] else 0


def _tell(counts: Counter[str], seconds: float, before: str) -> None:
    each = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    total = counts.total()
    rate = f"{total} images in {seconds:.0f} s, {total / seconds:.3g} a second"
    print(f"{before}{rate}: {each}", file=sys.stderr)


def _guarded(
    command: Callable[[argparse.Namespace], int], interrupted: str
) -> Callable[[argparse.Namespace], int]:
    """The command, saying in one sentence what stopped it."""

    def run(options: argparse.Namespace) -> int:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: print(
                    f"note: {message}", file=sys.stderr
                )
                return command(options)
        except KeyboardInterrupt:
            print(f"\ninterrupted; {interrupted}", file=sys.stderr)
            return 130
        except OSError as error:  # such as a name that is too long, wherever it is looked at
            named = f"{str(error.filename)[:200]!r}" if error.filename else "a file"
            raise InputError(f"{named} cannot be used: {error.strerror or error}.") from None

    return run


def _note(message: Warning | str, *_: object, **__: object) -> None:
    print(f"note: {message}", file=sys.stderr)


def _add_fit(commands: Any) -> None:
    parser = _command(
        commands, "fit", "make a detector of a folder of good images", epilog=FIT_EXAMPLES
    )
    add = parser.add_argument
    add("folder", type=_path, metavar="FOLDER", help="good images, or a category with train/good")
    add("--out", type=_path, metavar="MODEL", required=True, help="folder for the model")
    add(
        "--preset",
        default="standard",
        metavar="NAME",
        help="quick, standard (default) or paper: see below",
    )
    add("--config", type=_path, metavar="FILE", help="YAML file of settings, over the preset's")
    add("--attention", metavar="NAME", help="none (default: DifferNet), se or cbam")
    add("--device", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    add("--seed", metavar="N", help="of initial weights, order, angles and held-out images")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, such as image_size=256; may be repeated",
    )
    add(
        "--holdout",
        type=float,
        metavar="SHARE",
        help="share of the images that is kept from training for the threshold (default: 0.1)",
    )
    add(
        "--fpr",
        type=float,
        metavar="RATE",
        help="share of good images that may be called anomalous (default: 0.01)",
    )
    add(
        "--anomalies",
        type=_path,
        metavar="FOLDER",
        help="labelled anomalies: says how many of them the threshold finds",
    )
    add(
        "--balance",
        action="store_true",
        help="let them move the threshold to where it tells them best from good ones; not the "
        "default, as the next defect may be of another kind",
    )
    add(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="where an image cannot be read (default: stop)",
    )
    add(
        "--self-contained",
        action="store_true",
        help="keep ImageNet's weights in the model (10 MB), which then needs no network anywhere",
    )
    add("--force", action="store_true", help="replace the model that is there")
    _finish(parser, _guarded(_fit, "nothing was written"))


def _add_score(commands: Any) -> None:
    parser = _command(commands, "score", "score images by a model", epilog=SCORE_EXAMPLES)
    add = parser.add_argument
    add("model", type=_path, metavar="MODEL", help="folder that fit has written")
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image, folder, glob, or - for a list on standard input, one path a line",
    )
    add("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    add("--out", type=_path, metavar="FILE", help="default: standard output")
    add("--force", action="store_true", help="replace the file that is there")
    add(
        "--batch",
        type=_count,
        default=16,
        metavar="N",
        help="images decoded ahead and held in memory (default: 16); changes no score",
    )
    add("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    add(
        "--on-bad-image",
        choices=("report", "stop"),
        default="report",
        help="where an image cannot be read: a line with the error (default), or stop",
    )
    add(
        "--heatmaps",
        type=_path,
        metavar="DIR",
        help="write PATH.heat.png for each image: up to half the colours is what held-out good "
        "images reach, and beyond that the last colour is the image's own highest place",
    )
    _finish(parser, _guarded(_score, "every line that was written is whole"))


def _command(commands: Any, name: str, title: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=title,
        description=f"{title[0].upper()}{title[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _finish(parser: argparse.ArgumentParser, function: Callable[[argparse.Namespace], int]) -> None:
    known = [name for action in parser._actions for name in action.option_strings]
    parser.set_defaults(function=function, known=known)


def _path(word: str) -> Path:
    try:
        return Path(word).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) == 0:
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number above 0")
    return int(word)
