"""Thousands of images on a small machine: peak memory of an epoch of training, and of scoring.

    python benchmarks/many.py --device cpu --images 9000 --memory-budget 1

The files are links to a few demo images that are drawn first; decoding and memory are as of as many
different ones. Says how much was resident at most in each part.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from throughput import peak, reset_peak, tabulated

from adnlib import AttentDifferNet
from adnlib.demo import make_demo
from adnlib.errors import InputError
from adnlib.files import image_files
from adnlib.inputs import read_images
from adnlib.provenance import describe_device

_DRAWN = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out)
    if table is None:
        return 2
    print(table.round(2).to_string(index=False))
    print(f"peak_gib={table['peak_gib'].max():.2f}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=9000)
    parser.add_argument("--image-size", type=int, default=448, help="px (default: 448)")
    parser.add_argument("--views", type=int, default=1, help="in training and scoring (default: 1)")
    parser.add_argument("--memory-budget", type=float, default=0.0, help="GB (see README.md)")
    parser.add_argument("--flow-width", type=int, default=2048)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/many.csv"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    if asked.images < 1:
        raise InputError(f"--images is {asked.images}: give a number above 0.")
    model = AttentDifferNet(
        image_size=asked.image_size,
        epochs=1,
        train_views=asked.views,
        test_views=asked.views,
        flow_width=asked.flow_width,
        weights=asked.weights,
        memory_budget=asked.memory_budget,
        device=asked.device,
    )
    rows: list[dict[str, Any]] = []
    cpu = torch.device("cpu")  # where the images are read, whatever the model is on

    def done(part: str, began: float) -> None:
        seconds = time.perf_counter() - began
        rows.append({"part": part, "seconds": seconds, "peak_gib": peak(cpu) / 2**30})
        print(part, f"{seconds:.0f} s, {rows[-1]['peak_gib']:.2f} GiB", file=sys.stderr)
        reset_peak(cpu)

    with tempfile.TemporaryDirectory() as folder:
        files = _link(Path(folder), asked.images, asked.image_size)
        began = time.perf_counter()
        images = read_images(files, asked.image_size, memory_budget=asked.memory_budget)
        done("read", began)
        began = time.perf_counter()
        for _ in model.train_epochs(images):
            pass
        done("train", began)
        began = time.perf_counter()
        model.score_embeddings(model.embed(images, model.test_angles(len(images))))
        done("score", began)
    where = {"images": asked.images, "on_disk": images.on_disk}
    return pd.DataFrame(rows).assign(**where, device=describe_device(model.device))


def _link(folder: Path, count: int, size: int) -> list[Path]:
    make_demo(folder / "drawn", size=size, train=_DRAWN, good=1, anomalous=1)
    drawn = [folder / "drawn" / path for path in image_files(folder / "drawn")]
    files = [folder / f"{number:06}.png" for number in range(count)]
    for number, file in enumerate(files):
        file.hardlink_to(drawn[number % len(drawn)])
    return files


if __name__ == "__main__":
    sys.exit(main())
