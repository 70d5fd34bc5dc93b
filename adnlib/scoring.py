"""A stream of files to a stream of scores: constant memory, whatever their number.

While a batch is scored the next one is decoded. Nothing here depends on where in the stream an
image stands.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image

from adnlib.errors import InputError, writing
from adnlib.evaluation import percentiles
from adnlib.files import HEAT_SUFFIX, natural, walk
from adnlib.images import read_image, upright_shape
from adnlib.machine import cores
from adnlib.model import AttentDifferNet
from adnlib.onnx_files import SUFFIX, OnnxModel
from adnlib.overlays import overlay

Detector: TypeAlias = AttentDifferNet | OnnxModel


class Line(NamedTuple):
    """What is said of one image; None where there is nothing to say."""

    path: str
    score: float | None = None
    verdict: str | None = None
    """"good" or "anomalous"."""
    percentile: float | None = None
    """Of the score among the held-out normal images, 0..100."""
    error: str | None = None
    """Why the image could not be read."""


def find_images(words: Sequence[str], stdin: Iterable[str]) -> Iterator[str]:
    """The files that the words of a command stand for, one after the other.

    Args:
        words: files, folders (all images below, links to folders not followed), globs, or "-".
            Pictures of maps are passed over wherever they are named.
        stdin: lines with a path each, for "-".

    Raises:
        InputError: at once, if a word stands for nothing.
    """
    found = itertools.chain.from_iterable([_found(word, stdin) for word in words])
    return (path for path in found if not path.lower().endswith(HEAT_SUFFIX))


def load_detector(path: Path, device: str = "auto", fpr: float | None = None) -> Detector:
    """The model in a folder that `fit` has written, or in an ONNX file, whatever its name.

    Args:
        fpr: share of normal images that may lie above the threshold; None leaves it where it is.

    Raises:
        InputError: see `AttentDifferNet.load` and `OnnxModel.load`; or there is no threshold to be
            moved.
    """
    in_a_file = path.is_file() or path.suffix == SUFFIX
    model = (OnnxModel if in_a_file else AttentDifferNet).load(path, device)
    if fpr is not None:
        if model.threshold is None:
            raise InputError(
                "--fpr needs the scores of held-out images, and this model has none: fit it with "
                "--holdout above 0."
            )
        model.threshold = model.threshold.at(fpr)
    return model


def score_files(
    model: Detector,
    paths: Iterable[str],
    batch: int = 16,
    on_bad_image: str = "report",
    heatmaps: Path | None = None,
) -> Generator[Line, None, None]:
    """Score files as they come, in their order; the settings are looked at before the first one.

    Args:
        model: as loaded.
        paths: taken no further ahead than two batches.
        batch: images decoded and held in memory at a time; it changes no score.
        on_bad_image: "report" gives a line with the error, "stop" raises it.
        heatmaps: folder for an overlay PNG of each image.

    Raises:
        InputError: an image cannot be read and that is to stop; a map cannot be drawn or written.
    """
    if heatmaps:
        _check_draws(model)
    return _score_stream(model, iter(paths), batch, on_bad_image, heatmaps)


def _score_stream(
    model: Detector, paths: Iterator[str], batch: int, on_bad_image: str, heatmaps: Path | None
) -> Generator[Line, None, None]:
    size = model.settings.image_size
    score = _scorer(model)
    pool = ThreadPoolExecutor(cores())
    try:
        ahead: list[tuple[str, Future[torch.Tensor]]] = []
        while True:
            coming = [
                (path, pool.submit(read_image, Path(path), size))
                for path in itertools.islice(paths, batch)
            ]
            yield from _score_batch(model, score, ahead, on_bad_image, heatmaps)
            if not coming:
                return
            ahead = coming
    finally:
        pool.shutdown(cancel_futures=True)


def heat_path(folder: Path, path: str) -> Path:
    """Where the overlay of an image goes: below the folder, under the image's own path."""
    parts = [
        "__" if part == ".." else part for part in Path(path).parts if part != Path(path).anchor
    ]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}{HEAT_SUFFIX}")


def _found(word: str, stdin: Iterable[str]) -> Iterator[str]:
    if word == "-":
        return (line for line in (raw.rstrip("\r\n") for raw in stdin) if line)
    if Path(word).is_dir():
        below = walk(word)
        first = next(below, None)
        if first is None:
            raise InputError(f"{word!r} holds no images: give a folder that does.")
        return itertools.chain([first], below)
    if os.path.lexists(word):
        return iter([word])
    matches = sorted(glob.glob(word, recursive=True), key=natural)  # noqa: PTH207
    if not matches:
        brackets = " (in a glob a name's own [ is written [[])" if "[" in word else ""
        raise InputError(
            f"there is no {word!r}{brackets}: give images, folders, globs, or - for a list."
        )
    found = itertools.chain.from_iterable(
        walk(match) if Path(match).is_dir() else [match] for match in matches
    )
    return iter(dict.fromkeys(found))  # `**` gives a folder and what lies in it


def _scorer(model: Detector) -> Callable[[torch.Tensor], float]:
    if isinstance(model, OnnxModel):
        return lambda image: model.score(image).item()
    look = model.scorer()
    return lambda image: look(image)[0].item()


def _score_batch(
    model: Detector,
    score: Callable[[torch.Tensor], float],
    batch: Sequence[tuple[str, Future[torch.Tensor]]],
    on_bad_image: str,
    heatmaps: Path | None,
) -> Iterator[Line]:
    """One by one, so that a line is out as soon as its image is scored."""
    for path, decoded in batch:
        try:
            image = decoded.result()
        except (InputError, MemoryError) as error:
            if on_bad_image == "stop":
                raise InputError(str(error) or f"{path!r} is too large for the memory.") from None
            yield Line(path, error=str(error) or "it is too large for the memory")
            continue
        found = score(image)
        if heatmaps and isinstance(model, AttentDifferNet):
            _draw(model, image, Path(path), heat_path(heatmaps, path))
        yield _judged(model, path, found)


def _check_draws(model: Detector) -> None:
    if isinstance(model, OnnxModel):
        raise InputError("an ONNX file draws no maps: give the folder of the model.")
    if model.heat_scale is None:
        raise InputError(
            "the model has no scale for maps, since no image was held out: fit it with --holdout "
            "above 0."
        )


def _judged(model: Detector, path: str, score: float) -> Line:
    if model.threshold is None:
        return Line(path, score)
    verdict = "anomalous" if score > model.threshold.value else "good"
    (percentile,) = percentiles([score], model.threshold.normal_scores)
    return Line(path, score, verdict, float(percentile))


def _draw(model: AttentDifferNet, image: torch.Tensor, photograph: Path, path: Path) -> None:
    """Write what lies over the image, in the photograph's shape."""
    assert model.heat_scale is not None  # looked at before the first image
    heat = model.explain(image).numpy()
    # A good image keeps the dark half of the colours; an anomalous one, whose map can be beyond all
    # bounds, is stretched to its own highest place, or it would be of the last colour all over.
    pixels = overlay(image, heat, max(model.heat_scale, float(heat.max())))
    shape = upright_shape(photograph)
    sides = [max(1, round(side * model.settings.image_size / max(shape))) for side in shape]
    picture = Image.fromarray((255 * pixels).round().astype(np.uint8)).resize(sides)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
