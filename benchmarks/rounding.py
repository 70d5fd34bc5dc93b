"""What a number format costs in AUROC, on any machine: its rounding, without its speed.

    python benchmarks/rounding.py --device cpu --data DIR/mvtec_ad/screw --precision tf32 fp16 bf16

Inputs, weights and outputs of the backbone's convolutions are rounded to the format; products and
sums stay in fp32, as they do in hardware that has it. With `--native` the device itself computes in
the format, which it should have. Writes a row per precision, seed and look
at the test images, AUROC in percent, and prints it at the last look and at the best one. Beside it
stands the anomalous test images' AUROC against good images that training held out: where good test
images have a light of their own, it is another.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from throughput import new_model, new_parser, tabulated
from torch import nn

from adnlib import datasets
from adnlib.errors import InputError
from adnlib.evaluation import auroc_between, roc
from adnlib.images import load_images
from adnlib.precision import PRECISIONS
from adnlib.provenance import describe_device
from adnlib.training import HOLDOUT, hold_out

_TF32_DROPPED = 13  # of fp32's 23 bits of fraction


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0, or 2 where something in it cannot be used."""
    asked = _parser().parse_args(arguments)
    table = tabulated(_measured, asked, asked.out)
    if table is None:
        return 2
    of_run = table.groupby(["precision", "seed"], sort=False).agg(
        last=("auroc", "last"), best=("auroc", "max"), held_out=("held_out_auroc", "last")
    )
    means = of_run.groupby("precision", sort=False).agg(["mean", "std"])
    for shown in (of_run, means):
        print(shown.to_string(float_format="{:.2f}".format))
    return 0


def round_convolutions(network: nn.Module, precision: str) -> None:
    """Have a network's convolutions compute as in that precision, which a CPU may lack."""
    if precision == "fp32":
        return
    for convolution in network.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.weight.data = rounded(convolution.weight.data, precision)
            convolution.register_forward_pre_hook(lambda _, x: (rounded(x[0], precision),))
            if PRECISIONS[precision]:
                if convolution.bias is not None:
                    convolution.bias.data = rounded(convolution.bias.data, precision)
                convolution.register_forward_hook(lambda _, __, y: rounded(y, precision))


def rounded(values: torch.Tensor, precision: str) -> torch.Tensor:
    """The nearest numbers of the format, as float32."""
    if dtype := PRECISIONS[precision]:
        return values.to(dtype).float()
    half = 1 << (_TF32_DROPPED - 1)
    bits = (values.view(torch.int32) + half) >> _TF32_DROPPED << _TF32_DROPPED
    return bits.view(torch.float32)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(__doc__.splitlines()[0])
    parser.add_argument("--precision", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6, help="of training (default: 6)")
    parser.add_argument("--evaluate-every", type=int, default=2, help="epochs (default: 2)")
    parser.add_argument("--image-size", type=int, default=256, help="px (default: 256)")
    parser.add_argument("--views", type=int, default=16, help="of a test image (default: 16)")
    parser.add_argument("--native", action="store_true", help="compute in it; do not only round")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/rounding.csv"))
    return parser


def _measured(asked: argparse.Namespace) -> pd.DataFrame:
    if asked.evaluate_every < 1:
        raise InputError("--evaluate-every takes a number above 0.")
    if asked.attention != "none":  # embeddings are made once, and its own convolutions rounded
        raise InputError("attention changes the embeddings as it learns: leave out --attention.")
    samples = datasets.read_samples(asked.data)
    datasets.check_for_auroc(samples, str(asked.data))
    train, test = (samples[samples["split"] == split] for split in ("train", "test"))
    good, tested = (
        load_images(asked.data, rows["path"].tolist(), asked.image_size)[0]
        for rows in (train, test)
    )
    rows = []
    for precision in asked.precision:
        for seed in asked.seeds:
            model = new_model(asked, seed, precision if asked.native else "fp32")
            if not asked.native:
                round_convolutions(model.embedding.network, precision)
            held = hold_out(len(good), HOLDOUT, seed)  # as a run does
            embedded, held_out = (
                model.embed(images, model.test_angles(len(images)))
                for images in (tested, good.part(held))
            )
            for epoch in model.train_epochs(good.part(~held)):
                if epoch.epoch % asked.evaluate_every and epoch.epoch != asked.epochs:
                    continue
                scores, normal = (
                    model.score_embeddings(each).numpy() for each in (embedded, held_out)
                )
                row = {"precision": precision, "native": asked.native, "seed": seed}
                row |= {"epoch": epoch.epoch, "auroc": 100 * roc(test["label"], scores)["auroc"]}
                row["held_out_auroc"] = 100 * auroc_between(normal, scores[test["label"] == 1])
                rows.append(row)
                print(*row.values(), file=sys.stderr)
    return pd.DataFrame(rows).assign(device=describe_device(model.device), torch=torch.__version__)


if __name__ == "__main__":
    sys.exit(main())
