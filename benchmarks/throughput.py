"""How much faster the library is than the published procedure, in one process on one machine.

    python benchmarks/throughput.py --device cpu --data DIR/mvtec_ad/bottle

Both train from the same weights for the same number of epochs and score the same test images at the
same number of views, decoding included. AUROC, from 0 to 1, stands beside the seconds, since fast
and wrong is easy. The published way is in fp32; ours is timed in each precision asked for. Writes a
CSV, a row per seed, implementation and precision; the last line is for programs, and of the first
precision.
"""

from __future__ import annotations

import argparse
import copy
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from published import PublishedDetector
from repository import check_checkout, time_repository
from torch.utils.flop_counter import FlopCounterMode

from adnlib import AttentDifferNet, datasets
from adnlib.errors import InputError, writing
from adnlib.evaluation import roc
from adnlib.images import load_images
from adnlib.precision import PRECISIONS, rounding
from adnlib.provenance import describe_device

_SIZES = (256, 512, 1024, 2048, 4096, 8192)
_SLOW = 0.1  # seconds: larger products would say the same
_HIGH_WATER = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out)
    if table is None:
        return 2
    means = table.groupby(["implementation", "precision"]).mean(numeric_only=True)
    print(means.drop(columns="seed").round(2).to_string())
    ours, published = means.loc["adnlib", asked.precision[0]], means.loc["published", "fp32"]
    print(
        f"score_ratio={ours['test_images_per_s'] / published['test_images_per_s']:.2f} "
        f"train_ratio={ours['train_views_per_s'] / published['train_views_per_s']:.2f} "
        f"images_per_s={ours['test_images_per_s']:.2f}"
    )
    return 0


def tabulated(
    measure: Callable[[argparse.Namespace], pd.DataFrame], asked: argparse.Namespace, out: Path
) -> pd.DataFrame | None:
    """What is measured, written as a CSV, too; None, and a sentence, where it cannot be."""
    try:
        with writing(out, "another path with --out"):  # before what may take hours
            out.parent.mkdir(parents=True, exist_ok=True)
        table = measure(asked)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    table.to_csv(out, index=False, float_format="%.4f")
    return table


def new_parser(description: str) -> argparse.ArgumentParser:
    """With the options that benchmarks of a data set's category have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="a category in MVTec AD's layout")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--attention", default="none", help="that learns with the flow")
    parser.add_argument("--flow-width", type=int, default=2048)
    parser.add_argument("--weights", default="imagenet")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1, help="of training (default: 1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--precision", nargs="+", default=["fp32"], choices=PRECISIONS)
    parser.add_argument("--image-size", type=int, default=448, help="px (default: 448)")
    parser.add_argument("--views", type=int, default=64, help="of a test image (default: 64)")
    parser.add_argument("--train-images", type=int, default=0, help="0 for all")
    parser.add_argument("--test-images", type=int, default=0, help="of each label; 0 for all")
    parser.add_argument("--published", type=Path, help="a checkout of DifferNet, timed as well")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/throughput.csv"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    for option in ("train_images", "test_images"):
        if (count := getattr(asked, option)) < 0:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is {count}: give a number above 0, or 0 for all.")
    if asked.published:
        check_checkout(asked.published)
        if asked.attention != "none":
            raise InputError("the repository has no attention: leave out --published.")
    samples = datasets.read_samples(asked.data)
    datasets.check_for_auroc(samples, str(asked.data))
    good = datasets.at_even_steps(samples[samples["split"] == "train"], asked.train_images)
    test = datasets.some_of_each_label(samples[samples["split"] == "test"], asked.test_images)
    ways: dict[str, Callable[[AttentDifferNet], dict[str, float]]] = {
        "published": lambda model: run_published(model, asked.data, good, test),
        "adnlib": lambda model: run_ours(model, asked.data, good, test),
    }
    if asked.published:
        images = _by_folder(asked.data, pd.concat([good, test]))
        ways["repository"] = lambda m: time_repository(asked.published, m, images, asked.epochs)
    torch.backends.cudnn.allow_tf32 = False  # of what is not ours
    rows = []
    for seed in asked.seeds:
        for name, way in ways.items():
            for precision in asked.precision if name == "adnlib" else ["fp32"]:
                model = new_model(asked, seed, precision)
                warm_up(model)
                reset_peak(model.device)
                row: dict[str, Any] = {"implementation": name, "precision": precision}
                row |= {"seed": seed, **way(model)}
                row |= _rates(row, model, len(good) * asked.epochs, len(test))
                print(f"{name}, {precision}, seed {seed}: {_told(row)}", file=sys.stderr)
                rows.append(row)
    return pd.DataFrame(rows)


def new_model(asked: argparse.Namespace, seed: int, precision: str) -> AttentDifferNet:
    """A detector with what the command line says, DifferNet's settings else."""
    return AttentDifferNet(
        attention=asked.attention,
        image_size=asked.image_size,
        test_views=asked.views,
        flow_width=asked.flow_width,
        weights=asked.weights,
        epochs=asked.epochs,
        device=asked.device,
        precision=precision,
        seed=seed,
    )


def warm_up(model: AttentDifferNet) -> None:
    """Let a GPU load its libraries and choose its kernels before anything is timed.

    It does so for each shape at its first use, so a copy of the model trains on a batch of noise
    and scores it. A CPU needs no more than one look.
    """
    size, on_cpu = model.settings.image_size, model.device.type == "cpu"
    images = 1 if on_cpu else model.settings.batch_images
    noise = torch.randint(256, (images, 3, size, size)).to(torch.uint8)
    if not on_cpu:
        model = copy.deepcopy(model)
        next(iter(model.train_epochs(noise)))
    model.score_embeddings(model.embed(noise, model.test_angles(images)))


def _rates(
    row: Mapping[str, Any], model: AttentDifferNet, trained: int, scored: int
) -> dict[str, Any]:
    """What a time for so many looks at images says, with the hardware beside it.

    `conv_tflops` is what the convolutions alone would do in the time of scoring; `matmul_tflops`
    is this machine's rate for large products of matrices in that precision.
    """
    views = scored * model.settings.test_views
    return {
        "peak_gb": peak(model.device) / 1e9,  # before what follows takes memory of its own
        "train_views_per_s": trained * model.settings.train_views / row["train_seconds"],
        "test_images_per_s": scored / row["score_seconds"],
        "conv_tflops": views * _operations(model) / row["score_seconds"] / 1e12,
        "matmul_tflops": _matmul_rate(str(row["precision"]), model.device) / 1e12,
        "device": describe_device(model.device),
        "torch": torch.__version__,
    }


def _operations(model: AttentDifferNet) -> int:
    """Multiplications and additions in the convolutions for one view."""
    size = model.settings.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.embedding(torch.zeros(1, 3, size, size, dtype=torch.uint8, device=model.device))
    return counter.get_total_flops()


@functools.cache
def _matmul_rate(precision: str, device: torch.device) -> float:
    """Operations a second, the best of some products; of small ones where large ones are slow."""
    dtype = PRECISIONS[precision] or torch.float32
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    best = 0.0
    for size in _SIZES:
        matrix = torch.ones(size, size, dtype=dtype, device=device)
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(matrix, matrix)[0, 0].item()  # which waits for a GPU
            seconds = time.perf_counter() - began
            best = max(best, 2 * size**3 / seconds)
        if seconds > _SLOW:
            break
    torch.set_float32_matmul_precision(before)
    return best


def run_published(
    model: AttentDifferNet, folder: Path, good: pd.DataFrame, test: pd.DataFrame
) -> dict[str, float]:
    """Train and score the published way: train_seconds, epoch_seconds, score_seconds, auroc."""
    detector = PublishedDetector(model)
    began = time.perf_counter()
    optimizer = detector.optimizer()
    with rounding("fp32", model.device):  # as on the GPUs of its time
        for _ in range(model.settings.epochs):
            last = time.perf_counter()
            detector.train_epoch([folder / path for path in good["path"]], optimizer)
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)  # the last step is under way
        trained = time.perf_counter()
        scores = detector.score([folder / path for path in test["path"]])
    return _result(began, trained, trained - last, test, scores)


def run_ours(
    model: AttentDifferNet, folder: Path, good: pd.DataFrame, test: pd.DataFrame
) -> dict[str, float]:
    """The same by the library."""
    size = model.settings.image_size
    began = time.perf_counter()
    images, _ = load_images(folder, good["path"].tolist(), size)
    *earlier, last = [0.0, *(epoch.seconds for epoch in model.train_epochs(images))]
    trained = time.perf_counter()
    images, _ = load_images(folder, test["path"].tolist(), size)
    scores = model.score_embeddings(model.embed(images, model.test_angles(len(images))))
    return _result(began, trained, last - earlier[-1], test, scores)


def _result(
    began: float, trained: float, epoch: float, test: pd.DataFrame, scores: torch.Tensor
) -> dict[str, float]:
    ended = time.perf_counter()
    return {
        "train_seconds": trained - began,
        "epoch_seconds": epoch,
        "score_seconds": ended - trained,
        "auroc": roc(test["label"], scores.numpy())["auroc"],
    }


def _by_folder(folder: Path, samples: pd.DataFrame) -> Mapping[str, list[Path]]:
    kinds = samples["split"] + "/" + samples["defect"]
    return {
        str(kind): [folder / path for path in rows["path"]] for kind, rows in samples.groupby(kinds)
    }


def _told(row: Mapping[str, Any]) -> str:
    return (
        f"{row['train_views_per_s']:.1f} training views/s, {row['test_images_per_s']:.3f} test "
        f"images/s, AUROC {100 * row['auroc']:.2f}, {row['peak_gb']:.1f} GB"
    )


def reset_peak(device: torch.device) -> None:
    """Forget how high memory was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _HIGH_WATER[1].exists():
        _HIGH_WATER[1].write_text("5")


def peak(device: torch.device) -> float:
    """Bytes: of the GPU, or resident in memory since the last reset (NaN where Linux is not)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _HIGH_WATER[0].exists():
        return float("nan")
    (line,) = [line for line in _HIGH_WATER[0].read_text().splitlines() if "VmHWM" in line]
    return 1024 * float(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
