import math

import pytest
import torch
from torch import nn

from adnlib.attention import create_attention
from adnlib.coupling import couple
from adnlib.gates import GateMonitor


def test_gate_monitor_sees_every_gate():
    network = nn.Sequential(nn.Identity())
    couple(network, {"0": create_attention("se", 8, 2, 7, 0.5)})
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


def test_gates_are_nan_when_all_that_was_seen_is_forgotten():
    network = nn.Sequential(nn.Identity())
    couple(network, {"0": create_attention("se", 8, 2, 7, 0.5)})
    with GateMonitor(network) as monitor:
        network(torch.randn(2, 8, 3, 3))
    monitor.forget()
    for gates in (monitor.mean_and_std(), monitor.by_site()["0"]):
        assert all(math.isnan(value) for value in gates)


def test_gate_monitor_tells_the_sites_apart():
    network = nn.Sequential(nn.Identity(), nn.Identity(), nn.Identity())
    blocks = {"0": "constant", "1": "cbam", "2": "identity"}
    couple(network, {site: create_attention(name, 8, 2, 7, 0.5) for site, name in blocks.items()})
    gates = []
    for gate in (network[1].attention.channel_gate, network[1].attention.spatial_gate):
        gate.register_forward_hook(lambda *a: gates.append(a[2].flatten()))
    with GateMonitor(network) as monitor:
        network(torch.randn(4, 8, 5, 5))
    sites = monitor.by_site()
    assert list(sites) == ["0", "1"]  # the identity has no gate
    assert sites["0"] == (0.5, 0.0)
    seen = torch.cat(gates)
    assert sites["1"].mean == pytest.approx(seen.mean().item(), rel=1e-5)
    assert sites["1"].std == pytest.approx(seen.std(correction=0).item(), rel=1e-3)
    everything = torch.cat([seen, torch.tensor([0.5])])
    assert monitor.mean_and_std().mean == pytest.approx(everything.mean().item(), rel=1e-5)
