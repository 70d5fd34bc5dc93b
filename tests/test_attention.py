import math

import pytest
import torch
from torch import nn

from adnlib.attention import ATTENTION, GateMonitor, couple, create_attention, uncouple
from adnlib.errors import InputError


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def test_se_is_the_published_formula():
    block = create_attention("se", 32, reduction=4)
    features = torch.randn(2, 32, 5, 7)
    w1, b1 = block.fc1.weight[:, :, 0, 0], block.fc1.bias
    w2, b2 = block.fc2.weight[:, :, 0, 0], block.fc2.bias
    squeezed = features.mean((2, 3))
    gate = sigmoid(torch.relu(squeezed @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(block(features), features * gate[:, :, None, None])


def test_cbam_is_the_published_formula():
    block = create_attention("cbam", 32, reduction=8, kernel=7)
    features = torch.randn(2, 32, 9, 9)
    w1, b1 = block.mlp[0].weight[:, :, 0, 0], block.mlp[0].bias
    w2, b2 = block.mlp[2].weight[:, :, 0, 0], block.mlp[2].bias

    def mlp(x):
        return torch.relu(x @ w1.T + b1) @ w2.T + b2

    gate = sigmoid(mlp(features.mean((2, 3))) + mlp(features.flatten(2).max(2).values))
    features_1 = features * gate[:, :, None, None]
    stacked = torch.stack([features_1.mean(1), features_1.max(1).values], 1)
    patches = nn.functional.unfold(stacked, 7, padding=3)
    spatial = sigmoid(block.conv.weight.flatten() @ patches).view(2, 1, 9, 9)
    torch.testing.assert_close(block(features), features_1 * spatial)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("se", 2 * 64 * 4 + 4 + 64), ("cbam", 2 * 64 * 4 + 4 + 64 + 2 * 7 * 7)],
)
def test_parameter_count_and_gradients(name, parameters):
    block = create_attention(name, 64, reduction=16, kernel=7)
    assert sum(p.numel() for p in block.parameters()) == parameters
    block(torch.randn(2, 64, 8, 8)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


def test_none_is_no_module():
    assert create_attention("none", 64) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sse", 64), "sse"),
        (("se", 64, 0), "attention_reduction"),
        (("cbam", 64, 65), "attention_reduction"),
        (("cbam", 64, 16, 6), "attention_kernel"),
    ],
)
def test_bad_settings_are_named(arguments, named):
    with pytest.raises(InputError, match=named):
        create_attention(*arguments)


def test_uncouple_restores_the_very_same_outputs():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    x = torch.randn(2, 3, 9, 9)
    before, names = network(x), list(network.state_dict())
    couple(network, {"1": create_attention("se", 8, 2), "2": create_attention("cbam", 8, 2)})
    assert not torch.equal(network(x), before)
    uncouple(network)
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == names


def test_unknown_site_is_named():
    with pytest.raises(InputError, match="'7'"):
        couple(nn.Sequential(nn.ReLU()), {"7": nn.Sigmoid()})


def test_gate_monitor_sees_every_gate():
    network = nn.Sequential(nn.Identity())
    couple(network, {"0": create_attention("se", 8, 2)})
    gates = []
    network[0].attention.scale_activation.register_forward_hook(lambda *a: gates.append(a[2]))
    with GateMonitor(network) as monitor:
        network(torch.randn(4, 8, 3, 3))
        network(torch.randn(2, 8, 3, 3))
    network(torch.randn(2, 8, 3, 3))  # after the monitor is closed: not seen
    seen = torch.cat([g.flatten() for g in gates[:2]])
    mean, std = monitor.mean_and_std()
    assert mean == pytest.approx(seen.mean().item(), rel=1e-5)
    assert std == pytest.approx(seen.std(correction=0).item(), rel=1e-3)


def test_gate_monitor_without_attention():
    with GateMonitor(nn.Sequential(nn.Sigmoid())) as monitor:
        pass
    assert all(math.isnan(value) for value in monitor.mean_and_std())


def test_the_factory_lists_what_it_makes():
    assert list(ATTENTION) == ["none", "se", "cbam"]
