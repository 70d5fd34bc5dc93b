"""The normalizing flow of DifferNet, on FrEIA: random permutations and GLOW coupling blocks.

It maps an embedding to a latent vector that is standard normal for good images; how far the latent
vector lies from zero is the anomaly score. It knows nothing of images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock, InvertibleModule, PermuteRandom
from torch import nn

from adnlib.settings import check_positive

_MOMENTUM = 0.1  # of the running mean and variance
_FLOOR = 1e-3  # of a feature's variance, as a share of their mean
_TINY = 1e-12  # so that a batch of equal features divides nothing by zero


@dataclass(frozen=True)
class FlowSettings:
    """The flow of DifferNet (https://arxiv.org/abs/2008.12577, section 4.1 and its public code)."""

    flow_blocks: int = 8
    """Coupling blocks, each behind a fixed random permutation whose seed is the block's index."""
    flow_width: int = 2048
    """Hidden units of each of the subnets' three hidden layers."""
    flow_clamp: float = 3.0
    """alpha in log-scale = alpha * 0.636 * atan(s / alpha)."""
    flow_bound: float = 1e6
    """Outputs of a block are cut to +-this."""
    standardize: bool = False
    """Standardise each feature before the flow, by the batch in training and by its running mean
    and variance in scoring. The loss then no longer depends on a scale that all features share,
    so that attention which learns gains nothing by shrinking all of them. Not DifferNet's."""

    def __post_init__(self) -> None:
        check_positive(vars(self), "flow_blocks", "flow_width", "flow_clamp", "flow_bound")


class DifferNetCoupling(GLOWCouplingBlock):
    """FrEIA's two-sided affine coupling with DifferNet's soft clamp and bounded outputs."""

    def __init__(self, dims_in: list[tuple[int]], settings: FlowSettings) -> None:
        clamp = settings.flow_clamp

        def subnet(inputs: int, outputs: int) -> nn.Module:
            width = settings.flow_width
            return nn.Sequential(
                *(_Linear(inputs, width), nn.ReLU()),
                *(_Linear(width, width), nn.ReLU()),
                *(_Linear(width, width), nn.ReLU()),
                _Linear(width, outputs),
            )

        super().__init__(
            dims_in,
            subnet_constructor=subnet,
            clamp=clamp,
            clamp_activation=partial(_soft_clamp, clamp=clamp),
        )
        self.bound = settings.flow_bound

    def forward(self, x, c=(), rev=False, jac=True):
        (y,), log_det = super().forward(x, c, rev=rev, jac=jac)
        return (y.clamp(-self.bound, self.bound),), log_det


class _Linear(nn.Linear):
    """On a GPU the bias is added by a kernel of its own: of the few hundred rows that come here, a
    product of cuBLAS that adds it takes up to twice as long (benchmarks/README.md)."""

    def forward(self, x):
        return F.linear(x, self.weight).add_(self.bias) if x.is_cuda else super().forward(x)


class Standardize(InvertibleModule):
    """Features less their mean, divided by their standard deviation, over the batch.

    Out of training the running mean and variance are used, which a batch moves by its share of the
    largest one. A floor under each variance, relative to their mean, keeps features that hardly
    ever fire from ruling the rest.

    Its log-determinant counts as 0 on purpose: what the flow then learns is the density of
    standardised features, which a + b * features has whatever a and b are. So the loss cannot be
    lowered by shrinking all features alike, which joint training of attention otherwise may do. One
    far below the others is shrunk further by the floor.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    seen: torch.Tensor
    largest: torch.Tensor

    def __init__(self, dims_in: list[tuple[int]]) -> None:
        super().__init__(dims_in)
        (features,) = dims_in[0]
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("seen", torch.tensor(False))
        self.register_buffer("largest", torch.tensor(0.0), persistent=False)  # batch; training's

    def forward(self, x, rev=False, jac=True):
        (features,) = x
        mean, variance = self.mean, self.variance
        if self.training and not rev and len(features) > 1:
            mean, variance = features.mean(0), features.var(0)
            # No `if`: a GPU is ahead. The few images left for an epoch's last step tell little.
            size = self.largest.new_full((), len(features))
            share = size / self.largest.clamp_(min=len(features))
            weight = torch.where(self.seen, _MOMENTUM * share, 1.0).to(mean)
            self.mean.lerp_(mean.detach(), weight)
            self.variance.lerp_(variance.detach(), weight)
            self.seen.fill_(True)
        deviation = (variance + _FLOOR * variance.mean() + _TINY).sqrt()
        out = features * deviation + mean if rev else (features - mean) / deviation
        return (out,), features.new_zeros(features.shape[0])

    def output_dims(self, input_dims: list[tuple[int]]) -> list[tuple[int]]:
        return input_dims


def build_flow(features: int, settings: FlowSettings, seed: int) -> SequenceINN:
    """The flow for embeddings of `features` values; global random generators stay as they were.

    Called on (N, features) it returns latent vectors (N, features) and log|det J| (N,); with
    `rev=True` it goes back.
    """
    flow = SequenceINN(features)
    if settings.standardize:
        flow.append(Standardize)
    with _own_generators(seed):
        for block in range(settings.flow_blocks):
            flow.append(PermuteRandom, seed=block)
            flow.append(DifferNetCoupling, settings=settings)
    return flow


def negative_log_likelihood(latent: torch.Tensor, log_det: torch.Tensor) -> torch.Tensor:
    """DifferNet's loss: mean over views of (||z||^2 / 2 - log|det J|), per feature (equation 4).

    The Gaussian's constant, log(2 pi) / 2 for a feature, is left out, as there.

    Args:
        latent: (N, D).
        log_det: (N,).
    """
    return (0.5 * latent.square().sum(1) - log_det).mean() / latent.shape[1]


def anomaly_score(latent: torch.Tensor) -> torch.Tensor:
    """Mean of z^2 over the views and features of an image: (N, views, D) to (N,)."""
    return latent.square().mean((1, 2))


def _soft_clamp(s: torch.Tensor, clamp: float) -> torch.Tensor:
    return 0.636 * torch.atan(s / clamp)


@contextlib.contextmanager
def _own_generators(seed: int) -> Iterator[None]:
    # FrEIA's PermuteRandom reseeds NumPy's global generator and leaves it so.
    numpy_state = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)  # a GPU's generators stay as they are
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
