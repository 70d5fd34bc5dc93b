"""AttentDifferNet: embedding and flow as one detector that is fitted, scores, saves and loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.datasets import image_files, read_samples
from adnlib.errors import InputError
from adnlib.flow import FlowSettings, anomaly_score, build_flow, negative_log_likelihood
from adnlib.images import load_images
from adnlib.settings import check_choice, check_names, check_positive, check_types
from adnlib.training import Epoch, TrainingSettings, train
from adnlib.version import __version__
from adnlib.views import draw_angles, grid_angles

Images = str | Path | Sequence[str | Path] | torch.Tensor
"""A folder, a list of files, or uint8 (N, 3, S, S) at the model's image_size."""

TEST_ANGLES = ("random", "grid")
FILE_FORMAT = 1

_TEST_SEED = 1 << 32  # keeps the test angles apart from the training's, whose seed is the run's


@dataclass(frozen=True)
class ModelSettings(EmbeddingSettings, FlowSettings, TrainingSettings):
    """Everything that makes a detector; the defaults are the paper's."""

    test_views: int = 64
    """Rotations of each image that a score is the mean of."""
    test_angles: str = "random"
    """"random": drawn like the training's angles, from the seed; "grid": i * 360 / test_views."""
    seed: int = 0
    """Of the initial weights, the order of images, and all angles."""
    device: str = "auto"
    """"auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1"."""

    def __post_init__(self) -> None:
        check_types(self)
        EmbeddingSettings.__post_init__(self)
        FlowSettings.__post_init__(self)
        TrainingSettings.__post_init__(self)
        check_positive(self, "test_views")
        check_choice(self, "test_angles", TEST_ANGLES)


class AttentDifferNet(nn.Module):
    """DifferNet with attention blocks in its backbone (https://arxiv.org/abs/2401.08686).

    With `attention="none"` it is DifferNet (https://arxiv.org/abs/2008.12577).

    Example:
        >>> from adnlib import AttentDifferNet
        >>> model = AttentDifferNet(attention="se", epochs=48)  # doctest: +SKIP
        >>> model.fit("my_part/train/good").score(["a.png", "b.png"])  # doctest: +SKIP
        tensor([0.93, 4.18])

    Args:
        **settings: any field of `ModelSettings`.

    Raises:
        InputError: a setting is unknown or cannot be used.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        check_names(settings, [field.name for field in dataclasses.fields(ModelSettings)])
        self.settings = ModelSettings(**settings)
        self.device = find_device(self.settings.device)
        self.embedding = MultiScaleEmbedding(self.settings, self.settings.seed)
        self.flow = build_flow(self.embedding.features, self.settings, self.settings.seed)
        self.to(self.device)

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self.settings, field.name)!r}"
            for field in dataclasses.fields(ModelSettings)
            if getattr(self.settings, field.name) != field.default
        ]
        return f"AttentDifferNet({', '.join(changed)})"

    def fit(
        self, images: Images, on_epoch: Callable[[Epoch], object] | None = None
    ) -> AttentDifferNet:
        """Train on good images.

        Args:
            images: see `score`; of a folder in MVTec AD's layout, its train/good is taken.
            on_epoch: called after each epoch.
        """
        for epoch in self.train_epochs(self._read(images, good_only=True)):
            if on_epoch:
                on_epoch(epoch)
        return self

    def train_epochs(self, images: torch.Tensor) -> Iterator[Epoch]:
        """Train on uint8 (N, 3, S, S), one epoch a step of the iterator."""
        return train(self.embedding, self.flow, images, self.settings, self.settings.seed)

    def score(self, images: Images) -> torch.Tensor:
        """Anomaly scores (N,), higher is more anomalous, in the order of the images.

        Args:
            images: a folder (all images below it, sorted by path), a list of files, or a uint8
            tensor
                (N, 3, S, S) of the model's image_size.

        Raises:
            InputError: nothing there, or an image cannot be read.
        """
        pixels = self._read(images)
        return self.score_embeddings(self.embed(pixels, self.test_angles(len(pixels))))

    def test_angles(self, images: int) -> torch.Tensor:
        """The angles (images, test_views) of test views, the same at every call."""
        if self.settings.test_angles == "grid":
            return grid_angles(images, self.settings.test_views)
        generator = torch.Generator().manual_seed(_TEST_SEED + self.settings.seed)
        return draw_angles(images, self.settings.test_views, generator, self.settings.max_angle)

    @torch.no_grad()
    def embed(self, images: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, V, features) of uint8 (N, 3, S, S) at angles (N, V), on the CPU."""
        self.eval()
        return torch.cat(
            [
                self.embedding.embed(some.to(self.device), turns).cpu()
                for some, turns in zip(images.split(16), angles.split(16), strict=True)
            ]
        )

    @torch.no_grad()
    def score_embeddings(self, embedded: torch.Tensor) -> torch.Tensor:
        """Anomaly scores (N,) of embeddings (N, V, features)."""
        self.eval()
        scores = []
        for some in embedded.split(16):
            latent, _ = self.flow(some.flatten(0, 1).to(self.device))
            scores.append(anomaly_score(latent.view(some.shape)).cpu())
        return torch.cat(scores)

    @torch.no_grad()
    def loss_embeddings(self, embedded: torch.Tensor) -> float:
        """Mean negative log-likelihood of embeddings (N, V, features), nats a feature."""
        self.eval()
        losses = [
            negative_log_likelihood(*self.flow(some.flatten(0, 1).to(self.device))) * len(some)
            for some in embedded.split(16)
        ]
        return (torch.stack(losses).sum() / len(embedded)).item()

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors` and `model.json`, from which `load` rebuilds the model.

        ImageNet's convolutions are not in it: they are named by their hash.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self._own_tensors().items()}
        save_file(tensors, folder / "model.safetensors")
        description = {
            "format": FILE_FORMAT,
            "adnlib": __version__,
            "settings": dataclasses.asdict(self.settings),
            "weights_sha256": self.embedding.weights_sha256,
        }
        (folder / "model.json").write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> AttentDifferNet:
        """Rebuild a saved model.

        Raises:
            InputError: the folder holds no model, one of a newer version, or a damaged one.
        """
        folder = Path(folder)
        for name in ("model.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise InputError(f"{folder / name} is missing: give a folder that save wrote.")
        try:
            description = json.loads((folder / "model.json").read_text())
            tensors = load_file(folder / "model.safetensors")
        except (json.JSONDecodeError, SafetensorError) as error:
            raise InputError(
                f"the model in {folder} is damaged ({error}): save it again."
            ) from None
        if description["format"] > FILE_FORMAT:
            raise InputError(
                f"the model in {folder} was saved by adnlib {description['adnlib']}: "
                "update adnlib to read it."
            )
        model = cls(**{**description["settings"], "device": device})
        if model.embedding.weights_sha256 != description["weights_sha256"]:
            raise InputError(
                f"the model in {folder} was trained on other ImageNet weights "
                f"({description['weights_sha256'][:12]}): give it those by the setting weights."
            )
        if missing := model._own_tensors().keys() ^ tensors.keys():
            raise InputError(f"the model in {folder} lacks or adds {min(missing)}: save it again.")
        model.load_state_dict(tensors, strict=False)
        return model

    def _own_tensors(self) -> dict[str, torch.Tensor]:
        """All that ImageNet does not give: flow and attention, and random convolutions."""
        imagenet = set()
        if self.embedding.weights_sha256 != "random":
            imagenet = {
                name
                for name in self.state_dict()
                if name.startswith("embedding.") and ".attention." not in name
            }
        return {name: t for name, t in self.state_dict().items() if name not in imagenet}

    def _read(self, images: Images, good_only: bool = False) -> torch.Tensor:
        if isinstance(images, torch.Tensor):
            return images
        if not isinstance(images, (str, Path)):
            folder, paths = Path(), [Path(path).as_posix() for path in images]
        elif good_only and (Path(images) / "train").is_dir():
            folder, samples = Path(images), read_samples(Path(images))
            paths = samples.loc[samples["split"] == "train", "path"].tolist()
        else:
            folder, paths = Path(images), image_files(Path(images))
        return load_images(folder, paths, self.settings.image_size)[0]


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

    Raises:
        InputError: the name is none of a device, or a GPU is asked for and absent.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}: choose auto, cpu, cuda or cuda:<index>.") from None
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise InputError(
                f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices: "
                "choose cpu, or install a CUDA build of torch and its driver."
            )
        torch.backends.cudnn.allow_tf32 = False  # the flow reads variances that TF32 blurs
    return device
