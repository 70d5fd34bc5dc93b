"""Training of the flow, and of the attention blocks with it, by DifferNet's procedure.

It sees an embedding, a flow and a tensor of images; it knows nothing of folders, test sets or
notebooks.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adnlib.averaging import Average
from adnlib.backbones import MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.flow import negative_log_likelihood
from adnlib.gates import Gates
from adnlib.pixels import Pictures
from adnlib.precision import rounding
from adnlib.replay import Replayed
from adnlib.sampling import BankedViews, FreshViews, Source
from adnlib.settings import check_choice, check_from_zero, check_positive, check_share

TRAININGS = ("joint", "frozen")
HOLDOUT = 0.1
"""Default share of the good images that is kept from training."""


@dataclass(frozen=True)
class TrainingSettings:
    """How the flow is trained (DifferNet's public code, https://arxiv.org/abs/2008.12577)."""

    epochs: int = 192
    """How often each training image is seen."""
    batch_images: int = 24
    """Images in a step of the optimizer."""
    train_views: int = 4
    """Random rotations of each image in a batch."""
    view_bank: int = 0
    """Rotations of each image whose embeddings are kept, for batches to draw from; 0: batches are
    rotated anew, as DifferNet's are. A bank is fast, and a small one costs AUROC in a long
    training: benchmarks/README.md."""
    max_angle: float = 180.0
    """Rotations are uniform in +- this, degrees."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    adam_beta1: float = 0.8
    """Decay of Adam's mean of gradients."""
    adam_beta2: float = 0.8
    """Decay of Adam's mean of squared gradients."""
    adam_eps: float = 1e-4
    """Added to Adam's denominator."""
    weight_decay: float = 1e-5
    """L2 penalty, added to the gradients."""
    attention_training: str = "joint"
    """"joint": one Adam trains attention and flow; "frozen": attention keeps its random values.
    The paper does not say which (see REPRODUCING.md)."""
    attention_rate: float = 1.0
    """Attention's step size as a share of the flow's."""
    flow_average: float = 0.0
    """Decay per step of a moving average of the flow's weights, which scores then use; 0: none."""

    def __post_init__(self) -> None:
        check_positive(vars(self), "epochs", "batch_images", "train_views", "learning_rate")
        check_positive(vars(self), "attention_rate")
        check_from_zero(vars(self), "adam_eps", "weight_decay", "max_angle")
        check_share(vars(self), "adam_beta1", "adam_beta2", "flow_average")
        check_choice(vars(self), "attention_training", TRAININGS)
        if self.view_bank and self.view_bank < self.train_views:
            raise InputError(
                f"view_bank is {self.view_bank}: give at least train_views ({self.train_views}), "
                "or 0 for none."
            )


@dataclass(frozen=True)
class Epoch:
    """What one epoch did."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean negative log-likelihood of the views, nats per feature."""
    feature_variance: float
    """Variance of a feature over the epoch's views, mean over features; NaN of one view."""
    gate_mean: float
    """Mean of all attention gates, NaN without attention."""
    gate_std: float
    seconds: float
    """Since training began."""
    site_gates: Mapping[str, Gates]
    """Mean and spread of the gates behind each layer that has some."""

    def row(self) -> dict[str, float]:
        """One row of a history; a layer has the columns gate_mean_<layer>, gate_std_<layer>."""
        row = dataclasses.asdict(self)
        sites = row.pop("site_gates")
        for site, gates in sites.items():
            row |= {f"gate_mean_{site}": gates.mean, f"gate_std_{site}": gates.std}
        return row


def hold_out(images: int, share: float, seed: int) -> torch.Tensor:
    """Which of so many images are kept from training: a bool tensor (images,).

    Drawn from the seed, so that every variant with that seed holds out the same ones. A share above
    0 keeps at least one image and leaves at least one.

    Raises:
        InputError: there is one image, and it cannot serve both ends.
    """
    count = round(images * share)
    if share > 0:
        if images < 2:
            raise InputError(
                "one image cannot be held out and trained on: give more, or holdout 0."
            )
        count = min(max(count, 1), images - 1)
    chosen = torch.zeros(images, dtype=torch.bool)
    chosen[torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:count]] = True
    return chosen


class Training:
    """Training in place, an epoch a step of its iterator, so that the caller may look in between.

    Args:
        images: uint8 (N, 3, S, S), good ones only; batches are moved to the embedding's device.
        seed: of the order of images and of the rotations.

    Attributes:
        train_loss: of the last epoch; NaN before the first.
        resumed: after which epochs it was stopped and went on.

    Raises:
        InputError: while it is iterated over, the loss is no longer finite.
    """

    def __init__(
        self,
        embedding: MultiScaleEmbedding,
        flow: nn.Module,
        images: Pictures,
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        self._began = time.perf_counter()
        self.train_loss = math.nan
        self.resumed: list[int] = []
        self._embedding, self._flow = embedding, flow
        self._images, self._settings = len(images), settings
        self._epoch = 0
        self._generator = torch.Generator().manual_seed(seed)
        if settings.attention_training == "joint":
            embedding.train_attention()
        self._optimizer = _adam(embedding, flow, settings)
        self._average = Average(flow, settings.flow_average)
        made = settings.view_bank or settings.train_views
        fresh = FreshViews(embedding, images, made, settings.max_angle, self._generator)
        self._source: Source = (
            BankedViews(fresh, settings.train_views) if settings.view_bank else fresh
        )
        # fp16 has no numbers as small as the gradients of the attention blocks.
        scaled = embedding.trained and embedding.settings.precision == "fp16"
        self._scaler = torch.amp.GradScaler(embedding.mean.device.type, enabled=scaled)

    def __iter__(self) -> Iterator[Epoch]:
        step = Replayed(self._step, self._embedding.mean.device)
        while self._epoch < self._settings.epochs:
            self._epoch += 1
            self._embedding.train()
            self._flow.train()
            losses, embeddings = [], []
            with self._source.watch() as gates:
                for chosen in torch.randperm(self._images, generator=self._generator).split(
                    self._settings.batch_images
                ):
                    loss, embedded = step(*self._source.draw(chosen))
                    self._average.update()
                    losses.append(loss * len(chosen))
                    embeddings.append(embedded)
            self.train_loss = (torch.stack(losses).sum() / self._images).item()
            if not math.isfinite(self.train_loss):
                raise InputError(
                    f"the training loss is {self.train_loss} in epoch {self._epoch}: give a "
                    "smaller learning_rate."
                )
            seen = torch.cat(embeddings)
            with self._average:
                yield Epoch(
                    self._epoch,
                    self.train_loss,
                    seen.var(0).mean().item() if len(seen) > 1 else math.nan,  # torch warns of one
                    *gates.mean_and_std(),
                    self.seconds,
                    gates.by_site(),
                )
        self._average.swap()  # and leave it there

    @property
    def seconds(self) -> float:
        """Since it began; not what was lost with a stop."""
        return time.perf_counter() - self._began

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from, taken between two epochs; its tensors are no copies."""
        return {
            "epoch": self._epoch,
            "seconds": self.seconds,
            "train_loss": self.train_loss,
            "resumed": self.resumed,
            "generator": self._generator.get_state(),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what a training of the same images, settings and seed had come to."""
        self._epoch = state["epoch"]
        self._began = time.perf_counter() - state["seconds"]
        self.train_loss = state["train_loss"]
        self.resumed = [*state["resumed"], state["epoch"]]
        self._generator.set_state(state["generator"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._average.swap()  # as the state was taken with the average in the weights' place

    def _parts(self) -> dict[str, Any]:
        return {
            "embedding": self._embedding,
            "flow": self._flow,
            "optimizer": self._optimizer,
            "average": self._average,
            "scaler": self._scaler,
        }

    def _step(self, *drawn: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A step of the optimizer; the batch's loss and embeddings."""
        self._optimizer.zero_grad()  # of a step that was interrupted
        embedded = self._source.embed(*drawn)
        with rounding(self._embedding.settings.precision, embedded.device):
            loss = negative_log_likelihood(*self._flow(embedded))
            self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()  # at once: until the next step they would take memory
        return loss.detach(), embedded.detach()


def _adam(
    embedding: MultiScaleEmbedding, flow: nn.Module, settings: TrainingSettings
) -> torch.optim.Adam:
    rates = {
        flow: settings.learning_rate,
        embedding: settings.learning_rate * settings.attention_rate,
    }
    groups = [
        {"params": learned, "lr": rate}
        for part, rate in rates.items()
        if (learned := [p for p in part.parameters() if p.requires_grad])
    ]
    return torch.optim.Adam(
        groups,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_eps,
        weight_decay=settings.weight_decay,
        fused=True,
        capturable=embedding.mean.device.type == "cuda",
    )
