"""A detector as one file for other programs: uint8 images in, anomaly scores out.

Views, backbone and flow are in the graph; decoding and resizing an image are not. An export is kept
only if it gives the model's own scores.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adnlib import onnx_files
from adnlib.errors import InputError, writing
from adnlib.flow import anomaly_score
from adnlib.model import AttentDifferNet
from adnlib.model_schema import EXPORT_FORMAT
from adnlib.provenance import versions
from adnlib.staging import staging
from adnlib.views import every_turn, turns

TORCH_SUFFIX = ".pt2"
TOLERANCE = 1e-3
"""The most that a score may differ from the model's own, as a share of it. Other kernels add
float32 numbers in another order, and eight coupling blocks carry the last digits on."""

_CHUNK = 8  # views of an image that go through the backbone together: what memory an image takes
_LARGEST_ONNX = 2_000_000_000  # bytes; a protobuf message ends at 2 GiB
_TOLD = "adnlib.json"


class ScoringGraph(nn.Module):
    """`AttentDifferNet.score` as a function of tensors alone, for N images at once."""

    maps: torch.Tensor

    def __init__(self, model: AttentDifferNet) -> None:
        super().__init__()
        self.embedding, self.flow = model.embedding, model.flow
        angles = model.test_angles(1)[0]
        self.register_buffer("maps", turns(angles, model.settings.image_size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Anomaly scores float32 (N,) of uint8 (N, 3, S, S)."""
        views = every_turn(images, self.maps)
        embedded = torch.cat([self._embed(some) for some in views.split(_CHUNK, 1)], 1)
        latent, _ = self.flow(embedded.flatten(0, 1))
        return anomaly_score(latent.unflatten(0, embedded.shape[:2]))

    def _embed(self, views: torch.Tensor) -> torch.Tensor:
        return self.embedding(views.flatten(0, 1)).unflatten(0, views.shape[:2])


def export_model(model: AttentDifferNet, path: str | Path, images: torch.Tensor) -> float:
    """Write a model as ONNX (`.onnx`, for `adnlib score` and others) or torch.export (`.pt2`).

    Args:
        model: on the CPU.
        path: the file; one that is there is replaced.
        images: uint8 (N, 3, S, S) that the file is checked with.

    Returns:
        The largest difference between a score by the file and by the model, as a share of it.

    Raises:
        InputError: the suffix is another; a folder is there; packages are missing; the model is too
            large for the format or on a GPU; the file cannot be written; or a score differs by more
            than `TOLERANCE`. Then nothing was written.
    """
    path = Path(path)
    check_export(path)
    if model.device.type != "cpu":
        raise InputError("a model on a GPU cannot be exported: load it with device='cpu'.")
    if model.settings.precision != "fp32":
        raise InputError(
            f"an exported file computes in fp32, and the model in {model.settings.precision}: "
            "their scores do not compare; fit it again with precision=fp32."
        )
    write, read = (
        (_write_onnx, _read_onnx) if path.suffix == onnx_files.SUFFIX else (_write_pt2, _read_pt2)
    )
    with writing(path), staging(path.parent) as beside:
        whole = beside / path.name
        write(model, whole)
        difference = _difference(read(whole), model, images)
        if not difference <= TOLERANCE:
            raise InputError(
                f"a score by {str(path)!r} differs from the model's by {difference:.2g} of it, "
                f"and {TOLERANCE:g} is allowed: it was not kept; try other versions of torch and "
                "onnx."
            )
        whole.replace(path)
    return difference


def check_export(path: Path) -> None:
    """Find out before a model is read whether its file could be made.

    Raises:
        InputError: the suffix is none of an export's, a folder is there, or packages are missing.
    """
    if path.suffix not in (onnx_files.SUFFIX, TORCH_SUFFIX):
        raise InputError(f"{str(path)!r} ends in neither .onnx nor .pt2: give one of these names.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder: give another name.")
    needed = ("onnx", "onnxscript", "onnxruntime") if path.suffix == onnx_files.SUFFIX else ()
    for name in needed:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise InputError(
                f"an export to ONNX needs {name}, which is not installed: call pip install "
                "'adnlib[onnx]', or give a name that ends in .pt2."
            ) from None


def noise(images: int, size: int) -> torch.Tensor:
    """Drawn images to check an export with where there are no real ones, uint8 (N, 3, S, S)."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def _write_onnx(model: AttentDifferNet, path: Path) -> None:
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > _LARGEST_ONNX:
        raise InputError(
            f"the model has {size / 1e9:.1f} GB, and an ONNX file holds 2: give a name that ends "
            "in .pt2."
        )
    program = _quietly(
        lambda: torch.onnx.export(
            _program(model),
            dynamo=True,
            input_names=[onnx_files.INPUT],
            output_names=[onnx_files.OUTPUT],
            verbose=False,
        )
    )
    onnx_files.describe(program.model.metadata_props, _description(model))
    program.save(str(path), external_data=False)
    onnx_files.seal(path)


def _read_onnx(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return onnx_files.OnnxModel.load(path, "cpu").score


def _write_pt2(model: AttentDifferNet, path: Path) -> None:
    text = json.dumps(_description(model), indent=2, allow_nan=False)
    content = io.BytesIO()  # of a full disk torch's own writer would end the process
    _quietly(lambda: torch.export.save(_program(model), content, extra_files={_TOLD: text}))
    path.write_bytes(content.getbuffer())


def _read_pt2(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.export.load(path).module()


def _program(model: AttentDifferNet) -> torch.export.ExportedProgram:
    graph = ScoringGraph(model).eval().requires_grad_(False)
    size = model.settings.image_size
    # Of two images, as torch.export takes one for the only number that there is.
    return torch.export.export(
        graph, (noise(2, size),), dynamic_shapes=({0: torch.export.Dim("images")},)
    )


def _description(model: AttentDifferNet) -> dict[str, Any]:
    return {
        "format": EXPORT_FORMAT,
        "settings": model.settings.described(),
        "weights_sha256": model.embedding.weights_sha256,
        "threshold": model.threshold and model.threshold.described(),
        "versions": versions(("adnlib", "torch", "FrEIA")),
    }


def _difference(
    score: Callable[[torch.Tensor], torch.Tensor], model: AttentDifferNet, images: torch.Tensor
) -> float:
    with torch.no_grad():
        found = torch.cat([score(image[None]) for image in images])
    own = model.score(images)
    return ((found - own).abs() / own.abs()).max().item()


def _quietly(make: Callable[[], Any]) -> Any:
    """What it makes, without what exporters tell of their own progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    finally:
        logger.setLevel(level)
