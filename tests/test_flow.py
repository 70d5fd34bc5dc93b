"""The flow against mathematics, and against a plain-NumPy writing of DifferNet's formulas."""

import dataclasses

import numpy as np
import pytest
import torch

from adnlib.errors import InputError
from adnlib.flow import FlowSettings, anomaly_score, build_flow, negative_log_likelihood

FEATURES = 12
TINY = FlowSettings(flow_blocks=3, flow_width=16)


@pytest.fixture
def flow():
    flow = build_flow(FEATURES, TINY, seed=3)
    with torch.no_grad():  # larger weights than the initial ones, so that the clamp bends
        for parameter in flow.parameters():
            if parameter.requires_grad:
                parameter.mul_(2)
    return flow.double()


def numpy_flow(flow, x, settings):
    """DifferNet's forward pass and log-determinant, written anew from its formulas."""

    def subnet(layers, x):
        for weight, bias in layers[:-1]:
            x = np.maximum(x @ weight.T + bias, 0)
        weight, bias = layers[-1]
        return x @ weight.T + bias

    def layers(block, name):
        parameters = [p.detach().numpy() for p in getattr(block, name).parameters()]
        return list(zip(parameters[::2], parameters[1::2], strict=True))

    half, log_det = FEATURES // 2, np.zeros(len(x))
    alpha = settings.flow_clamp
    for k in range(settings.flow_blocks):
        x = x[:, np.random.RandomState(k).permutation(FEATURES)]
        block = flow[2 * k + 1]
        x1, x2 = x[:, :half], x[:, half:]
        out = subnet(layers(block, "subnet2"), x2)
        s = alpha * 0.636 * np.arctan(out[:, :half] / alpha)
        y1, log_det = np.exp(s) * x1 + out[:, half:], log_det + s.sum(1)
        out = subnet(layers(block, "subnet1"), y1)
        s = alpha * 0.636 * np.arctan(out[:, :half] / alpha)
        y2, log_det = np.exp(s) * x2 + out[:, half:], log_det + s.sum(1)
        x = np.clip(np.concatenate([y1, y2], 1), -1e6, 1e6)
    return x, log_det


def test_golden_forward_loss_and_score(flow):
    x = np.random.default_rng(0).normal(size=(6, FEATURES))
    expected, expected_log_det = numpy_flow(flow, x, TINY)
    latent, log_det = flow(torch.from_numpy(x))
    np.testing.assert_allclose(latent.detach().numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(log_det.detach().numpy(), expected_log_det, rtol=1e-10)
    loss = np.mean(0.5 * np.sum(expected**2, 1) - expected_log_det) / FEATURES
    assert negative_log_likelihood(latent, log_det).item() == pytest.approx(loss, rel=1e-10)
    scores = np.mean(expected.reshape(2, 3, FEATURES) ** 2, axis=(1, 2))
    np.testing.assert_allclose(
        anomaly_score(latent.view(2, 3, -1)).detach().numpy(), scores, rtol=1e-10
    )


def test_the_default_clamp_of_freia_would_differ(flow):
    """FrEIA's own "ATAN" does not divide by the clamp: the golden test must be able to fail."""
    x = torch.randn(4, FEATURES, dtype=torch.float64)
    before, _ = flow(x)
    flow[1].f_clamp = lambda u: 0.636 * torch.atan(u)
    assert not torch.allclose(flow(x)[0], before)


def test_inverse(flow):
    x = torch.randn(5, FEATURES, dtype=torch.float64)
    latent, log_det = flow(x)
    back, log_det_back = flow(latent, rev=True)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_det_back, -log_det)


def test_log_determinant_against_autograd(flow):
    x = torch.randn(1, FEATURES, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], x[0])
    torch.testing.assert_close(flow(x)[1][0], torch.linalg.slogdet(jacobian).logabsdet)


def test_outputs_are_bounded():
    flow = build_flow(FEATURES, FlowSettings(flow_blocks=2, flow_width=8, flow_bound=0.5), 0)
    assert flow(torch.randn(50, FEATURES))[0].abs().max() <= 0.5


def test_building_leaves_the_global_generators_as_they_were():
    np.random.seed(11)  # noqa: NPY002
    torch.manual_seed(11)
    expected = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    torch.manual_seed(11)
    build_flow(FEATURES, TINY, seed=0)
    assert (np.random.random(), torch.rand(1)) == expected  # noqa: NPY002


def test_seed_decides_the_weights_and_not_the_permutations():
    a, b, c = (build_flow(FEATURES, TINY, seed) for seed in (0, 0, 1))
    x = torch.randn(3, FEATURES)
    assert torch.equal(a(x)[0], b(x)[0])
    assert not torch.equal(a(x)[0], c(x)[0])
    assert torch.equal(a[0].perm, c[0].perm)


def test_the_papers_flow_has_172_million_parameters():
    linear = (384 + 1) * 2048 + 2 * (2048 + 1) * 2048 + (2048 + 1) * 768
    assert 2 * FlowSettings().flow_blocks * linear == pytest.approx(172e6, rel=0.01)
    block = build_flow(768, FlowSettings(flow_blocks=1), 0)
    assert sum(p.numel() for p in block.parameters() if p.requires_grad) == 2 * linear


@pytest.mark.parametrize("name", ["flow_blocks", "flow_width", "flow_clamp", "flow_bound"])
def test_bad_settings_are_named(name):
    with pytest.raises(InputError, match=name):
        FlowSettings(**{name: 0})


@pytest.fixture
def standardizing():
    flow = build_flow(FEATURES, dataclasses.replace(TINY, standardize=True), seed=3)
    return flow.double()


def test_standardised_features_may_have_any_scale(standardizing):
    x = torch.randn(9, FEATURES, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    latent, log_det = standardizing(x)
    scaled = standardizing(1e-3 * x - 7)
    for found, expected in zip(scaled, (latent, log_det), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_scoring_standardises_by_what_training_saw(standardizing):
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        standardizing(5 + 2 * torch.randn(64, FEATURES, dtype=torch.double, generator=generator))
    layer = standardizing[0]
    torch.testing.assert_close(layer.mean, torch.full_like(layer.mean, 5), atol=0.3, rtol=0)
    torch.testing.assert_close(layer.variance, torch.full_like(layer.mean, 4), atol=0.8, rtol=0)
    standardizing.eval()
    x = torch.randn(3, FEATURES, dtype=torch.double, generator=generator)
    latent, _ = standardizing(x)
    one, _ = standardizing(x[:1])  # alone it comes out the same
    torch.testing.assert_close(one, latent[:1])
    back, _ = standardizing(latent, rev=True)
    torch.testing.assert_close(back, x)


def test_equal_features_are_standardised_to_zero_and_not_to_nothing(standardizing):
    latent, _ = standardizing(torch.ones(4, FEATURES, dtype=torch.double))
    assert torch.isfinite(latent).all()


def test_the_first_batch_sets_the_running_moments(standardizing):
    x = 5 + 2 * torch.randn(64, FEATURES, dtype=torch.double)
    standardizing(x)
    torch.testing.assert_close(standardizing[0].mean, x.mean(0))
    torch.testing.assert_close(standardizing[0].variance, x.var(0))
    standardizing(3 * x)
    torch.testing.assert_close(standardizing[0].mean, 1.2 * x.mean(0))
    before = standardizing[0].mean.clone()
    standardizing(x, rev=True)
    assert torch.equal(standardizing[0].mean, before)


def test_a_small_batch_moves_the_running_moments_by_its_share(standardizing):
    x = 5 + 2 * torch.randn(64, FEATURES, dtype=torch.double)
    standardizing(x)
    standardizing(3 * x[:2])
    layer, moved = standardizing[0], 0.1 * 2 / 64
    torch.testing.assert_close(layer.mean, x.mean(0).lerp(3 * x[:2].mean(0), moved))
    torch.testing.assert_close(layer.variance, x.var(0).lerp(9 * x[:2].var(0), moved))
    assert "largest" not in layer.state_dict()  # files of models have none


def test_a_dead_feature_is_not_blown_up_and_one_view_is_enough(standardizing):
    x = torch.randn(64, FEATURES, dtype=torch.double)
    x[:, 0] *= 1e-4
    variance = x.var(0)
    expected = (x - x.mean(0)) / (variance + 1e-3 * variance.mean()).sqrt()
    (found,), _ = standardizing[0]((x,))
    torch.testing.assert_close(found, expected)
    assert found[:, 0].std() < 0.1
    assert standardizing(x[:1])[0].isfinite().all()
