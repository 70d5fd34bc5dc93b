"""Which parts of a detector its folder keeps, and which come from ImageNet's weights again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from adnlib import model_files
from adnlib.errors import InputError
from adnlib.model_settings import ModelSettings, stored_settings
from adnlib.threshold import Threshold

_BY_NAME = ("imagenet", "random")  # other weights are a file of the user's, which may move


@dataclass(frozen=True)
class Fitted:
    """What a fit did; losses are in nats per feature."""

    images: int
    """Trained on."""
    held_out: int
    """Kept from training, for the threshold."""
    epochs: int
    seconds: float
    train_loss: float
    """Of the last epoch."""
    holdout_loss: float | None
    """Of the held-out images by the fitted model."""


@dataclass(frozen=True)
class SavedModel:
    """A detector as it is kept."""

    settings: ModelSettings
    weights_sha256: str
    """Of the file that the backbone is from; "random" if it was drawn."""
    self_contained: bool
    """Whether the backbone is kept, and not named by that digest. A user's own always is."""
    tensors: Mapping[str, torch.Tensor]
    """Of a detector, all; of a folder, those that are kept."""
    threshold: Threshold | None
    heat_scale: float | None
    fitted: Fitted | None

    def write(self, folder: Path, replace: bool = True) -> None:
        """Put it into a folder, as `model_files.write` does."""
        contained = self.self_contained or self.settings.weights not in _BY_NAME
        description = {
            "settings": self.settings.described(),
            "self_contained": contained,
            "weights_sha256": self.weights_sha256,
            "threshold": self.threshold and self.threshold.described(),
            "heat_scale": self.heat_scale,
            "training": self.fitted and dataclasses.asdict(self.fitted),
        }
        tensors = _kept(self.tensors, contained, self.weights_sha256)
        model_files.write(folder, tensors, description, replace)

    @classmethod
    def read(cls, folder: Path, device: str) -> SavedModel:
        """What a folder keeps, for that device.

        Raises:
            InputError: it keeps no model, one of a newer version, or a damaged one.
        """
        description, tensors = model_files.read(folder)
        stored, contained = description["settings"], description["self_contained"]
        if not contained and stored.get("weights") not in _BY_NAME:
            raise InputError(f"the model in {str(folder)!r} lacks its convolutions: save it again.")
        here = {"device": device, "memory_budget": 0.0}  # which say nothing of the model
        settings = stored_settings(stored, folder, **here)
        model_files.check_flow(folder, settings, tensors)
        threshold, fitted = description["threshold"], description["training"]
        return cls(
            settings,
            description["weights_sha256"],
            contained,
            tensors,
            threshold and Threshold.from_description(threshold),
            description["heat_scale"],
            fitted and Fitted(**fitted),
        )

    def to_build(self) -> ModelSettings:
        """Settings of a detector that the tensors fit into."""
        weights = "random" if self.self_contained else self.settings.weights
        return dataclasses.replace(self.settings, weights=weights)

    def fill(self, detector: nn.Module, weights_sha256: str, folder: Path) -> None:
        """Put the tensors, which are the folder's, into a detector on the weights of that digest.

        Raises:
            InputError: they do not fit, or belong to other weights.
        """
        if not self.self_contained and weights_sha256 != self.weights_sha256:
            raise InputError(
                f"the model in {str(folder)!r} was trained on other ImageNet weights "
                f"({self.weights_sha256[:12]}) than are here: save it self-contained."
            )
        wanted = _kept(detector.state_dict(), self.self_contained, self.weights_sha256)
        model_files.check_tensors(folder, self.tensors, wanted)
        detector.load_state_dict(self.tensors, strict=False)


def _kept(
    tensors: Mapping[str, torch.Tensor], contained: bool, weights_sha256: str
) -> dict[str, torch.Tensor]:
    """All that ImageNet does not give (flow, attention, random convolutions), or really all."""
    all_are = contained or weights_sha256 == "random"
    return {
        name: tensor
        for name, tensor in tensors.items()
        if all_are or not name.startswith("embedding.") or ".attention." in name
    }
