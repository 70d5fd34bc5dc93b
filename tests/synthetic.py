"""Made-up finished runs and pictures, so that reports are tested without training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from adnlib.evaluation import roc
from adnlib.folders import HELD_OUT_SCORES
from adnlib.looks import SELECTIONS

SETTINGS: dict[str, Any] = {
    "epochs": 16,
    "image_size": 128,
    "test_views": 8,
    "map_views": 4,
    "weights": "imagenet",
    "attention_training": "joint",
    "holdout": 0.1,
    "data_root": "data",
}


def make_run(
    results: Path,
    dataset: str = "mvtec_ad",
    category: str = "bottle",
    variant: str = "none",
    seed: int = 0,
    *,
    quality: float = 1.5,
    good: int = 12,
    anomalous: int = 18,
    images: Path | None = None,
    maps: bool = False,
    held_out: int = 0,
    finished: bool = True,
    **settings: Any,
) -> Path:
    """Write one run folder as `adnlib.runs` would.

    Args:
        quality: how many standard deviations the anomalous scores lie above the good ones.
        images: a category folder from `make_pictures`; its test images are then the samples.
        maps: write `maps.npz`; the maps glow at the masks, the more so the higher the score.
        held_out: rows of `holdout.csv`, their scores those of good images; 0 writes none.
        settings: beside or instead of `SETTINGS`.
    """
    folder = results / "runs" / dataset / category / variant / f"seed{seed}"
    folder.mkdir(parents=True)
    attention, _, frozen = variant.partition("_")
    scores = _samples(images, good, anomalous)
    random = np.random.default_rng([seed, *f"{dataset}{category}{variant}".encode()])
    scores["score_last"] = 2 + random.normal(size=len(scores)) * 0.4 + 0.4 * quality * scores.label
    scores["score_selected"] = scores["score_last"] + 0.05 * scores["label"]
    scores["score_averaged"] = scores["score_last"]
    scores["score_best_on_test"] = scores["score_last"] + 0.1 * scores["label"]
    scores.to_csv(folder / "scores.csv", index=False)
    if held_out:
        held = _samples(None, held_out, 0).assign(
            **{f"score_{which}": 2 + 0.4 * random.normal(size=held_out) for which in SELECTIONS}
        )
        held[scores.columns].to_csv(folder / HELD_OUT_SCORES, index=False)
    if maps:
        glow = [_map(row, images, random) for row in scores.itertuples()]
        np.savez_compressed(folder / "maps.npz", maps=np.stack(glow).astype(np.float16))
    own = {"dataset": dataset, "category": category, "attention": attention, "seed": seed}
    own |= {"attention_training": "frozen"} if frozen else {}
    params = {
        "settings": SETTINGS | own | settings,
        "variant": variant,
        "weights_sha256": "random" if settings.get("weights") == "random" else "0a" * 32,
        "folder": str(images or results / "no_images"),
        "device": "a CPU, 2 threads",
        "git": "0123456789ab",
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
    }
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")
    metrics = {
        **{
            f"auroc_{which}": roc(scores["label"], scores[f"score_{which}"])["auroc"]
            for which in SELECTIONS
        },
        "told_by": {"brightness": 0.5, "contrast": 0.5},
        "train_images": 100,
        "test_images": len(scores),
        "seconds": 60.0,
    }
    if finished:
        set_metrics(folder, **metrics)
    return folder


def set_metrics(folder: Path, **metrics: Any) -> None:
    """Write `metrics.json`, or change some of its entries."""
    path = folder / "metrics.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(known | metrics), encoding="utf-8")


def make_grid(
    results: Path,
    dataset: str = "mvtec_ad",
    categories: Iterable[str] = ("bottle", "screw"),
    variants: Iterable[str] = ("none", "se"),
    seeds: int = 2,
    **options: Any,
) -> None:
    """One run for each category, variant and seed."""
    for category in categories:
        for variant in variants:
            for seed in range(seeds):
                make_run(results, dataset, category, variant, seed, **options)


def make_pictures(folder: Path, good: int = 8, anomalous: int = 9, size: int = 192) -> Path:
    """A category folder with test images only: a grey plate with holes, scratched where bad."""
    random = np.random.default_rng(sum(map(ord, folder.name)))
    for name in ("test/good", "test/scratch", "ground_truth/scratch"):
        (folder / name).mkdir(parents=True)
    for index in range(good + anomalous):
        defect = "good" if index < good else "scratch"
        image, mask = _picture(random, size, bad=defect != "good")
        image.save(folder / "test" / defect / f"{index:03d}.png")
        if defect != "good":
            mask.save(folder / "ground_truth" / defect / f"{index:03d}_mask.png")
    return folder


def _picture(random: np.random.Generator, size: int, bad: bool) -> tuple[Image.Image, Image.Image]:
    tint = random.integers(120, 190, 3)
    noise = random.normal(size=(size, size, 1)) * 6
    pixels = np.clip(np.full((size, size, 3), 45.0) + noise, 0, 255).astype(np.uint8)
    image, mask = Image.fromarray(pixels), Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    left, top, right, low = size * np.array([0.2, 0.25, 0.8, 0.75]) + random.normal(size=4) * 4
    draw.rounded_rectangle((left, top, right, low), 14, fill=tuple(tint.tolist()))
    for x in (0.35, 0.65):
        draw.ellipse((size * x - 9, size / 2 - 9, size * x + 9, size / 2 + 9), fill=(30, 30, 34))
    if bad:
        x, y = size * random.uniform(0.3, 0.6, 2)
        line = [(x, y), (x + size * 0.12, y + size * random.uniform(-0.15, 0.15))]
        draw.line(line, fill=(225, 215, 190), width=4)
        ImageDraw.Draw(mask).line(line, fill=255, width=12)
    return image, mask


def _samples(images: Path | None, good: int, anomalous: int) -> pd.DataFrame:
    if images is None:
        rows = [(f"test/good/{i:03d}.png", 0, "good", "") for i in range(good)]
        rows += [(f"test/scratch/{i:03d}.png", 1, "scratch", "") for i in range(anomalous)]
    else:
        paths = sorted((images / "test").glob("*/*.png"))
        rows = [
            (
                path.relative_to(images).as_posix(),
                int(path.parent.name != "good"),
                path.parent.name,
                _mask_of(path, images),
            )
            for path in paths
        ]
    return pd.DataFrame(rows, columns=["path", "label", "defect", "mask"])


def _mask_of(path: Path, images: Path) -> str:
    mask = images / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
    return mask.relative_to(images).as_posix() if mask.exists() else ""


def _map(row: Any, images: Path | None, random: np.random.Generator, size: int = 13) -> np.ndarray:
    rough = np.kron(random.gamma(1.0, 0.004, (4, 4)), np.ones((4, 4)))[:size, :size]
    if not row.mask or images is None:
        return rough
    with Image.open(images / row.mask) as mask:
        spot = np.asarray(mask.resize((size, size), Image.Resampling.BOX), dtype=float) / 255
    near = sum(np.roll(spot, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return rough + 0.02 * row.score_last * near
