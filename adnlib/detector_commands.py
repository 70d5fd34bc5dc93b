"""The commands for a user's own images: `fit` makes a detector of a folder, `score` uses it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from typing import Any

from adnlib.parsing import command, count, finish, guarded, name, path, tell
from adnlib.settings import assignment
from adnlib.words import counted

FIT_EXAMPLES = """\
presets, with the time that 200 images take on 2 CPU cores:
  quick      8 epochs, scores by 16 even views: about 4 minutes
  standard   48 epochs, 64 views: about 25 minutes
  paper      192 epochs, 64 views: about 1.5 hours
All other settings have their defaults: DifferNet's published ones.

examples:
  adnlib fit photos/good --out my_model --preset quick
      good images alone; a tenth of them is held out and gives the threshold
  adnlib fit mvtec/bottle --out bottle --attention se --set epochs=96
      a category in MVTec AD's layout, of which train/good is taken; attention and a setting
  adnlib fit photos/good --out my_model --holdout 0.3 --fpr 0.05 --anomalies photos/scratched
      more images for the threshold, a higher rate of false alarms, and a look at known defects
  adnlib fit photos/good --out my_model --config settings.yaml
      a file with lines such as "image_size: 256"; names are those of --set

The model appears at the end, whole. Every ten minutes a fit leaves a checkpoint in the model's
folder: one that is interrupted goes on from it by the same command.
"""

SCORE_EXAMPLES = """\
examples:
  adnlib score my_model photos/new > scores.csv
      all images below a folder
  adnlib score my_model 'photos/*.png' more/a.jpg --format jsonl --out scores.jsonl
      a glob and a file, as JSON lines
  find photos -name '*.png' | adnlib score my_model - --heatmaps heat
      a list from standard input, and for each image a picture of where the model looks
  adnlib score my_model photos/new --fpr 0.1
      a tenth of the good images may be called anomalous; nothing is fitted anew

columns:
  path, score (higher is more anomalous), verdict (good or anomalous, by the model's threshold),
  percentile (of the score among the good images that were held out of training), error

MODEL may be an ONNX file that `adnlib export` wrote: it is run by onnxruntime.
An image's score does not depend on the others, their number or order.
exit code: 0; 1 if an image could not be read (its line says why); 2 for a mistake in the command.
"""


def add_to(commands: Any) -> None:
    """Add them to a parser's commands."""
    _add_fit(commands)
    _add_score(commands)


# The commands import what they need: torch takes seconds.


def _fit(options: argparse.Namespace) -> int:
    from adnlib.fitting import Fit, Progress, fit_folder
    from adnlib.presets import fit_settings
    from adnlib.threshold import FPR
    from adnlib.training import HOLDOUT

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
    fit_folder(asked, tell, Progress())
    return 0


def _score(options: argparse.Namespace) -> int:
    from adnlib.lines import line_writer
    from adnlib.scoring import find_images, load_detector, score_files

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    paths = find_images(options.paths, sys.stdin)
    model = load_detector(options.model, options.device, options.fpr)
    if model.threshold is None:
        print("note: this model has no threshold, so there are no verdicts", file=sys.stderr)
    elif options.fpr is not None:
        print(model.threshold.told, file=sys.stderr)
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
    else:
        if not counts:
            print("note: there are no images to score", file=sys.stderr)
    finally:
        if counts:
            _tell(counts, time.perf_counter() - began, "\r" if watched else "")
    return 1 if counts["not read"] else 0


def _tell(counts: Counter[str], seconds: float, before: str) -> None:
    each = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
    total = counts.total()
    rate = f"{counted(total, 'image')} in {seconds:.0f} s, {total / seconds:.3g} a second"
    print(f"{before}{rate}: {each}", file=sys.stderr)


def _add_fit(commands: Any) -> None:
    parser = command(
        commands, "fit", "make a detector of a folder of good images", epilog=FIT_EXAMPLES
    )
    add = parser.add_argument
    add("folder", type=path, metavar="FOLDER", help="good images, or a category with train/good")
    add("--out", type=path, metavar="MODEL", required=True, help="folder for the model")
    add(
        "--preset",
        default="standard",
        metavar="NAME",
        help="quick, standard (default) or paper: see below",
    )
    add("--config", type=path, metavar="FILE", help="YAML file of settings, over the preset's")
    add(
        "--attention",
        metavar="NAME",
        help="none (default: DifferNet), se, cbam, eca, coordinate, simam, identity or constant",
    )
    add("--device", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    add("--seed", metavar="N", help="seed of weights, order, angles, held-out images (default: 0)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting, such as image_size=256; `adnlib settings` lists them; may be "
        "repeated",
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
        type=path,
        metavar="FOLDER",
        help="labelled anomalies: says how many of them the threshold finds",
    )
    add(
        "--balance",
        action="store_true",
        help="move the threshold to where it separates the anomalies from good images best; not "
        "the default, as the next defect may be of another kind",
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
    left = (
        "no model was written; the same command goes on from its last checkpoint, if there is one"
    )
    finish(parser, guarded(_fit, left))


def _add_score(commands: Any) -> None:
    parser = command(commands, "score", "score images by a model", epilog=SCORE_EXAMPLES)
    add = parser.add_argument
    add("model", type=path, metavar="MODEL", help="folder that fit has written, or an ONNX file")
    add(
        "paths",
        type=name,
        nargs="+",
        metavar="PATH",
        help="image, folder, glob, or - for a list on standard input, one path a line",
    )
    add("--format", choices=("csv", "jsonl"), default="csv", help="default: csv")
    add("--out", type=path, metavar="FILE", help="default: standard output")
    add("--force", action="store_true", help="replace the file that is there")
    add(
        "--batch",
        type=count,
        default=16,
        metavar="N",
        help="images decoded ahead and held in memory (default: 16); changes no score",
    )
    add("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda or cuda:N")
    add(
        "--fpr",
        type=float,
        metavar="RATE",
        help="judge by another share of good images that may be called anomalous than fit was "
        "given, by the same held-out images",
    )
    add(
        "--on-bad-image",
        choices=("report", "stop"),
        default="report",
        help="where an image cannot be read: a line with the error (default), or stop",
    )
    add(
        "--heatmaps",
        type=path,
        metavar="DIR",
        help="write PATH.heat.png for each image, in its shape (such files are not scored). The "
        "lower half of the colours is what held-out good images reach; for an image beyond them, "
        "the last colour is its own highest place",
    )
    finish(parser, guarded(_score, "every line that was written is whole"))
