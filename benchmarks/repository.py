"""The public DifferNet repository itself, timed from a checkout of it.

Its own `train` runs: some epochs, and one look at the test images. Its settings are a module, which
is set before the others are imported; its code is not changed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from adnlib import AttentDifferNet
from adnlib.errors import InputError

_MODULES = ("config", "freia_funcs", "multi_transform_loader", "utils", "model", "localization")


def check_checkout(checkout: Path) -> None:
    """Raise InputError if a folder does not hold the repository's code."""
    if not (checkout / "train.py").is_file():
        raise InputError(f"{str(checkout)!r} is no checkout of DifferNet: it has no train.py.")


def time_repository(
    checkout: Path, model: AttentDifferNet, images: Mapping[str, Sequence[Path]], epochs: int
) -> dict[str, float]:
    """Train and score with the repository's code.

    Args:
        checkout: of https://github.com/marco-rudolph/differnet, which `check_checkout` passes.
        model: whose settings and convolutions are taken.
        images: files by folder, such as "train/good" and "test/crack".
        epochs: of training.

    Returns:
        train_seconds, score_seconds, auroc.
    """
    with tempfile.TemporaryDirectory() as folder, _imported(checkout, model, epochs) as (c, train):
        for kind, paths in images.items():
            place = Path(folder) / "category" / kind
            place.mkdir(parents=True)
            for index, path in enumerate(paths):
                (place / f"{index:04d}{path.suffix}").symlink_to(path.resolve())
        c.dataset_path, c.class_name = folder, "category"
        utils = sys.modules["utils"]
        loaders = utils.make_dataloaders(*utils.load_datasets(c.dataset_path, c.class_name))
        test = _Noting(loaders[1])
        began = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            train.train(loaders[0], test)
        ended = time.perf_counter()
    last = said.getvalue().rpartition("last: ")[2].split()[0]
    return {
        "train_seconds": test.began - began,
        "score_seconds": ended - test.began,
        "auroc": float(last),
    }


class _Noting:
    """A loader that notes when it was begun."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        self.began = time.perf_counter()
        return iter(self._loader)


@contextlib.contextmanager
def _imported(checkout: Path, model: AttentDifferNet, epochs: int) -> Iterator[tuple[Any, Any]]:
    """Its modules `config` and `train`, set to a model's settings."""
    settings = model.settings

    class WithWeights(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            state = model.embedding.network.state_dict()
            self.features = importlib.import_module("torchvision.models").AlexNet().features
            self.features.load_state_dict(state)

    def alexnet(pretrained: bool) -> torch.nn.Module:
        return WithWeights()

    with (
        mock.patch.object(sys, "path", [str(checkout), *sys.path]),
        mock.patch.object(torch.cuda, "set_device"),
        mock.patch("torchvision.models.alexnet", alexnet),
    ):
        try:
            c = importlib.import_module("config")
            c.device = str(model.device)
            c.img_size = (settings.image_size, settings.image_size)
            c.img_dims = [3, *c.img_size]
            c.n_scales, c.n_feat = settings.scales, model.embedding.features
            c.n_coupling_blocks, c.fc_internal = settings.flow_blocks, settings.flow_width
            c.n_transforms, c.n_transforms_test = settings.train_views, settings.test_views
            c.batch_size, c.batch_size_test = settings.batch_images, 1
            c.meta_epochs, c.sub_epochs, c.save_model = 1, epochs, False
            yield c, importlib.import_module("train")
        finally:
            for name in (*_MODULES, "train"):
                sys.modules.pop(name, None)
