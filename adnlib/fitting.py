"""From a folder of good images to a saved model: everything is checked before the long part."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from adnlib import model_files
from adnlib.checkpoint import left_in, remove
from adnlib.errors import InputError
from adnlib.files import is_hidden
from adnlib.inputs import anomalous_files, good_files, read_images
from adnlib.model import AttentDifferNet
from adnlib.threshold import FPR, check_shares, clopper_pearson
from adnlib.training import HOLDOUT, Epoch
from adnlib.words import counted, duration


@dataclass(frozen=True)
class Fit:
    """What is asked for."""

    folder: Path
    """Good images, or a category in MVTec AD's layout."""
    out: Path
    """Folder for the model."""
    settings: Mapping[str, Any]
    """Fields of `ModelSettings`."""
    holdout: float = HOLDOUT
    fpr: float = FPR
    anomalies: Path | None = None
    """Folder of labelled anomalies, which training does not see."""
    balance: bool = False
    """Choose the threshold by the anomalies, too."""
    on_bad_image: str = "stop"
    self_contained: bool = False
    force: bool = False
    """Replace a model that lies in `out`."""


def fit_folder(asked: Fit, say: Callable[[str], object], progress: Progress) -> AttentDifferNet:
    """Train, choose a threshold, and save; `out` appears at the end, whole.

    Args:
        say: given what came out, a line at a time.
        progress: told of every epoch.

    Raises:
        InputError: a folder, image, or setting cannot be used; a model is there already.
    """
    check_shares(asked.holdout, asked.fpr)
    _check_out(asked)
    good = [asked.folder / path for path in good_files(asked.folder)]
    anomalous = _anomalous(asked, good)
    model = AttentDifferNet(**asked.settings)
    model_files.check_room(asked.out, sum(p.nbytes for p in model.parameters()))
    read = partial(
        read_images,
        size=model.settings.image_size,
        on_bad_image=asked.on_bad_image,
        memory_budget=model.settings.memory_budget,
    )
    images = read(good)
    anomalies = read(anomalous) if anomalous else None
    progress.begin(len(images), model)
    try:
        model.fit(images, progress.epoch, asked.holdout, asked.fpr, checkpoints=asked.out)
        if anomalies is not None:
            model.calibrate(anomalies, asked.balance)
    finally:
        progress.end()
    out = _save(model, asked)
    remove(asked.out)
    for line in summary(model):
        say(line)
    if out != asked.out:
        say(f"{str(asked.out)!r} holds the model of another process, which came meanwhile.")
    say(f"model: {str(out)!r}")
    return model


def summary(model: AttentDifferNet) -> list[str]:
    """What a fit gave, in sentences."""
    done, threshold = model.fitted, model.threshold
    lines = []
    if done:
        lines.append(
            f"{counted(done.images, 'image')} trained on for {counted(done.epochs, 'epoch')}, "
            f"{done.held_out} held out, {done.seconds:.0f} s"
        )
    if threshold is None:
        return [*lines, "No threshold, since no image was held out: scores come without a verdict."]
    lines.append(threshold.told)
    if threshold.anomalies and threshold.rule == "fpr":
        least = clopper_pearson(threshold.found, threshold.anomalies)[0]
        lines.append(
            f"It finds {threshold.found} of {threshold.anomalies} labelled anomalies; of their "
            f"kinds at least {100 * least:.0f} %, with 95 % confidence."
        )
    return lines


class Progress:
    """How far a fit is, and how long it will take.

    On a terminal it is one line that is rewritten, else a line per epoch on standard error. Where
    it cannot be written any more, the fit goes on.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rewrites = self._stream.isatty()

    def begin(self, images: int, model: AttentDifferNet) -> None:
        self._epochs = model.settings.epochs
        self._show(f"{counted(images, 'good image')} read; training on {model.device}")

    def epoch(self, epoch: Epoch) -> None:
        left = epoch.seconds / epoch.epoch * (self._epochs - epoch.epoch)
        self._show(
            f"epoch {epoch.epoch}/{self._epochs}  loss {epoch.train_loss:.4f}  "
            f"{epoch.seconds:.0f} s, about {duration(left)} left"
        )
        if epoch.epoch == self._epochs:
            self._show("trained; finishing")

    def end(self) -> None:
        if self._rewrites:
            self._stream.write("\n")

    def _show(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(f"\r\x1b[K{line}" if self._rewrites else f"{line}\n")
            self._stream.flush()


def _check_out(asked: Fit) -> None:
    out = asked.out
    if out.is_file():
        raise InputError(f"{str(out)!r} is a file: give a new folder for the model.")
    there = [*out.iterdir()] if out.is_dir() else []
    if {path for path in there if not is_hidden(path.name)} - {*left_in(out)}:
        if not (out / model_files.JSON_NAME).exists():
            raise InputError(f"{str(out)!r} holds other things: give a new folder for the model.")
        if not asked.force:
            raise InputError(
                f"{str(out)!r} holds a model: give another folder, or --force to replace it."
            )


def _save(model: AttentDifferNet, asked: Fit) -> Path:
    """Where the model went."""
    while True:
        out = _still_free(asked)
        try:
            model.save(out, asked.self_contained, replace=asked.force)
        except model_files.ModelThereError:  # of another process that ended in the same moment
            continue
        return out


def _still_free(asked: Fit) -> Path:
    """The folder asked for, or one beside it, if another process has filled it meanwhile."""
    try:
        _check_out(asked)
    except InputError:
        numbered = (Path(f"{asked.out}-{n}") for n in itertools.count(2))  # "." has no name
        return next(folder for folder in numbered if not folder.exists())
    return asked.out


def _anomalous(asked: Fit, good: Sequence[Path]) -> list[Path]:
    if asked.anomalies is None:
        if asked.balance:
            raise InputError("--balance needs labelled anomalies: give their folder.")
        return []
    if not asked.holdout:
        raise InputError("--anomalies needs held-out images: give --holdout above 0.")
    anomalous = [asked.anomalies / path for path in anomalous_files(asked.anomalies)]
    if both := {*map(os.path.realpath, anomalous)} & {*map(os.path.realpath, good)}:
        raise InputError(f"{min(both)!r} is both good and anomalous: take it out of one.")
    return anomalous
