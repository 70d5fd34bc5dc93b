"""AttentDifferNet: embedding and flow as one detector that is fitted, scores, saves and loads."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch

from adnlib.checkpoint import Checkpoint
from adnlib.embedding_flow import EmbeddingFlow
from adnlib.errors import InputError
from adnlib.inputs import Images, OneImage, read_images
from adnlib.model_settings import SETTING_NAMES, ModelSettings
from adnlib.pixels import Pictures, Pixels
from adnlib.precision import plainly
from adnlib.saved_model import Fitted, SavedModel
from adnlib.settings import check_names
from adnlib.threshold import (
    FPR,
    Threshold,
    check_shares,
    threshold_for_balance,
    threshold_for_fpr,
    with_anomalies,
)
from adnlib.training import HOLDOUT, Epoch, Training, hold_out

_MAPPED = 16  # held-out images whose maps set the scale of all maps


class AttentDifferNet(EmbeddingFlow):
    """DifferNet with attention blocks in its backbone (https://arxiv.org/abs/2401.08686).

    With `attention="none"` it is DifferNet (https://arxiv.org/abs/2008.12577).

    Example:
        The settings of the second line are for speed alone; without them it is the whole model.

        >>> import numpy as np
        >>> tiny = {"weights": "random", "image_size": 64, "scales": 1, "flow_width": 16}
        >>> good = np.random.default_rng(0).integers(0, 256, (10, 80, 80, 3), dtype=np.uint8)
        >>> model = AttentDifferNet(attention="se", epochs=1, test_views=2, **tiny)
        >>> scores = model.fit(good, holdout=0.2).score(good[:3])  # or folders, files, PIL images
        >>> scores.shape
        torch.Size([3])
        >>> print(model.threshold.sentence[:56])
        2 held-out normal images cannot resolve a false-positive
        >>> anomalous = scores > model.threshold.value

        Where the model looks, and how it is kept:

        >>> model.explain(good[0]).shape
        torch.Size([64, 64])
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(folder)
        ...     again = AttentDifferNet.load(folder)
        >>> bool((again.score(good[:3]) == scores).all())
        True

    Attributes:
        threshold: scores above it mean anomalous; None before a fit has held images out.
        heat_scale: the least value for a map's last colour, twice the highest of 16 held-out good
            images; None before.
        fitted: what `fit` did; None before.

    Args:
        **settings: any field of `ModelSettings`.

    Raises:
        InputError: a setting is unknown or cannot be used.
    """

    def __init__(self, **settings: Any) -> None:
        check_names(settings, SETTING_NAMES)
        super().__init__(ModelSettings(**settings))
        self.threshold: Threshold | None = None
        self.heat_scale: float | None = None
        self.fitted: Fitted | None = None
        self._is_new = True

    def __repr__(self) -> str:
        return f"AttentDifferNet({self.settings.changed})"

    def _repr_html_(self) -> str:
        told = {"settings": f"{self!r}, all else the defaults", "fitted": "not yet"}
        if self.fitted:
            told["fitted"] = (
                f"{self.fitted.images} images, {self.fitted.held_out} held out, "
                f"{self.fitted.epochs} epochs, {self.fitted.seconds:.0f} s"
            )
        if self.threshold:
            told["threshold"] = f"{self.threshold.value:.4g}. {self.threshold.sentence}"
        lines = [f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in told.items()]
        return f"<table>{''.join(lines)}</table>"

    @plainly()
    def fit(
        self,
        images: Images,
        on_epoch: Callable[[Epoch], object] | None = None,
        holdout: float = HOLDOUT,
        fpr: float = FPR,
        checkpoints: str | Path | None = None,
    ) -> AttentDifferNet:
        """Train on good images, and choose a threshold by those held out of training.

        Args:
            images: see `score`; of a folder in MVTec AD's layout, its train/good is taken.
            on_epoch: called after each epoch.
            holdout: share of the images that is held out, drawn from the seed; 0 trains on all of
                them and gives no threshold.
            fpr: share of normal images that may lie above the threshold.
            checkpoints: a folder, such as the one that the model will be saved in. Every ten
                minutes the state of the training is kept there, and a fit of the same images by the
                same settings that was stopped goes on from it. It is of no use after the fit.

        Raises:
            InputError: nothing there, an image cannot be read, training diverged, or the model was
                trained before, or loaded: its weights know images that would now be held out.
        """
        began = time.perf_counter()
        check_shares(holdout, fpr)
        if not self._is_new:
            raise InputError("this model was trained already: make a new one, and fit that.")
        pixels = self._read(images, good_only=True)
        held = hold_out(len(pixels), holdout, self.settings.seed)
        read = time.perf_counter() - began
        training = self.train_epochs(pixels.part(~held))
        checkpoint = None
        if checkpoints is not None:
            settings = dataclasses.asdict(self.settings) | {"memory_budget": 0, "holdout": holdout}
            made_with = partial(self.made_with, settings, pixels)
            checkpoint = Checkpoint(Path(checkpoints), made_with, training=training)
            checkpoint.restore()
        for epoch in training:
            if on_epoch:
                on_epoch(epoch)
            if checkpoint:
                checkpoint.keep()
        loss = None
        if held.any():
            held_out = pixels.part(held)
            scores, embedded = map(torch.cat, zip(*map(self.scorer(), held_out), strict=True))
            self.threshold = threshold_for_fpr(scores.numpy(), fpr)
            self.heat_scale = self._scale_of_maps(held_out[:_MAPPED])
            loss = self.loss_embeddings(embedded)
        self.fitted = Fitted(
            images=int((~held).sum()),
            held_out=int(held.sum()),
            epochs=self.settings.epochs,
            seconds=round(read + training.seconds, 1),
            train_loss=training.train_loss,
            holdout_loss=loss,
        )
        return self

    def calibrate(self, anomalies: Images, balance: bool = False) -> AttentDifferNet:
        """Count how many labelled anomalies the threshold finds.

        Args:
            anomalies: see `score`.
            balance: move the threshold to where it tells these best from the held-out normal
                images. Not the default: a handful of defects speaks for its own kinds alone, and
                the next may be another, while the rate of false alarms would no longer be known.

        Raises:
            InputError: the model has no threshold, or an image cannot be read.
        """
        if self.threshold is None:
            raise InputError("the model has no threshold: fit it with holdout above 0.")
        scores = self.score(anomalies).numpy()
        if balance:
            normal, fpr = self.threshold.normal_scores, self.threshold.fpr
            self.threshold = threshold_for_balance(normal, scores, fpr)
        else:
            self.threshold = with_anomalies(self.threshold, scores)
        return self

    def made_with(self, settings: Mapping[str, Any], images: Pixels) -> dict[str, Any]:
        """By name, what must be the same for a training by these settings to go on."""
        return {
            "settings": settings,
            "devices": self.device.type,  # "auto" may find another
            "images": images.digest(),
            "weights": self.embedding.weights_sha256,
        }

    def train_epochs(self, images: Pictures) -> Training:
        """Train on uint8 (N, 3, S, S), one epoch per step of its iterator."""
        self.threshold = self.heat_scale = self.fitted = None
        self._is_new = False
        pixels = self._read(images).near(self.device)
        return Training(self.embedding, self.flow, pixels, self.settings, self.settings.seed)

    @plainly()
    def score(self, images: Images) -> torch.Tensor:
        """Anomaly scores (N,), higher is more anomalous, in the order of the images.

        Every image is seen at the same angles and on its own, so that its score depends on nothing
        but itself and compares with those that the threshold was made from. (A run's `scores.csv`
        draws angles for each image, as DifferNet does.)

        Args:
            images: a folder (all images below it, sorted by path), files, PIL images, arrays uint8
                (H, W, 3), one of these or several, or a uint8 tensor (N, 3, S, S) of the model's
                image_size.

        Raises:
            InputError: nothing there, or an image cannot be read.
        """
        score = self.scorer()
        return torch.cat([score(image)[0] for image in self._read(images)])

    @plainly()
    def explain(self, image: OneImage, views: int = 4) -> torch.Tensor:
        """Where one image raises its score: Grad-CAM (S, S) in the score's unit, see `explain`.

        Args:
            image: a file, PIL image, array or tensor, as for `score`.
            views: how many of the model's test angles are used.

        Raises:
            InputError: there is no image or more than one, or it cannot be read.
        """
        from adnlib.explain import saliency, upsample  # which stands behind this on the road

        pixels = self._read(image)
        if len(pixels) != 1:
            raise InputError(f"explain got {len(pixels)} images: give one at a time.")
        return upsample(saliency(self, pixels[:], views), self.settings.image_size)[0]

    def save(self, folder: str | Path, self_contained: bool = False, replace: bool = True) -> None:
        """Write `model.safetensors` and `model.json`, from which `load` rebuilds the model.

        Args:
            folder: made where it is not there; other files in it are left alone.
            self_contained: put ImageNet's convolutions in, too (10 MB); else they are named by
                their hash, and come from the user's cache or the network. Those of a file that the
                user gave are always in.
            replace: a model that is there; False refuses, whatever other processes do meanwhile.

        Raises:
            InputError: it cannot be written, or a model is there that is not to be replaced; then
                nothing was.
        """
        saved = SavedModel(
            self.settings,
            self.embedding.weights_sha256,
            self_contained,
            self.state_dict(),
            self.threshold,
            self.heat_scale,
            self.fitted,
        )
        saved.write(Path(folder), replace)

    @classmethod
    @plainly()
    def load(cls, folder: str | Path, device: str = "auto") -> AttentDifferNet:
        """Rebuild a saved model.

        Raises:
            InputError: the folder holds no model, one of a newer version, or a damaged one.
        """
        folder = Path(folder)
        saved = SavedModel.read(folder, device)
        model = cls(**dataclasses.asdict(saved.to_build()))
        saved.fill(model, model.embedding.weights_sha256, folder)
        model.settings, model.embedding.weights_sha256 = saved.settings, saved.weights_sha256
        model.threshold, model.heat_scale = saved.threshold, saved.heat_scale
        model.fitted, model._is_new = saved.fitted, False
        return model

    def _scale_of_maps(self, good: torch.Tensor) -> float:
        """Twice the highest value in the maps of good images."""
        from adnlib.explain import saliency  # which stands behind this on the road

        highest = max(saliency(self, image[None]).max().item() for image in good)
        return 2 * max(highest, 1e-12)  # all maps may be 0

    def _read(self, images: Images, good_only: bool = False) -> Pixels:
        size, budget = self.settings.image_size, self.settings.memory_budget
        return read_images(images, size, good_only, memory_budget=budget)
