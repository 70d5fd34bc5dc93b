"""Convolutions by transform: the same numbers, taken where they save time, and nothing else."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from adnlib import AttentDifferNet, fast_convolutions, networks

CPU = torch.device("cpu")


def convolution(kernel=3, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(16, 24, kernel, padding=kernel // 2, **settings)
    return layer.requires_grad_(False).to(memory_format=torch.channels_last)


def maps(count=16, side=27):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, 16, side, side, generator=generator)
    return drawn.contiguous(memory_format=torch.channels_last)


def transformed(run):
    """What it returns, and whether NNPACK ran in it."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        made = run()
    return made, "aten::_nnpack_spatial_convolution" in {e.key for e in seen.key_averages()}


def is_transformed(layer, x):
    return transformed(lambda: fast_convolutions.run(nn.Sequential(layer), x))[1]


@pytest.fixture
def avx2(monkeypatch):
    """As on a CPU with AVX2 alone, whose instructions one with AVX-512 has, too."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("NNPACK needs AVX2")
    assert torch.backends.nnpack.is_available()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [10, 27, 31])  # Fourier's tiles and Winograd's
def test_it_rounds_little(avx2, kernel, side):
    layer, x = convolution(kernel), maps(side=side)
    made, was_transformed = transformed(lambda: fast_convolutions.run(nn.Sequential(layer), x))
    assert was_transformed
    exact = nn.functional.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=kernel // 2
    )
    assert 0 < (made - exact).std() < 4e-6 * exact.std()  # fp16: 1e-3


def test_what_would_not_gain_runs_directly(avx2):
    assert not is_transformed(convolution(), maps(count=15))
    assert not is_transformed(convolution(), maps(side=7))  # 441 products would become 256
    for direct in (convolution(1), convolution(stride=2), convolution(groups=2)):
        assert not is_transformed(direct, maps())


def test_convolutions_inside_a_layer_run_directly(avx2):
    assert not is_transformed(nn.Sequential(convolution()), maps())


def test_torchs_switches_are_as_they_were(avx2):
    with torch.backends.nnpack.flags(enabled=False):
        assert is_transformed(convolution(), maps())
        assert not torch._C._get_nnpack_enabled()
    onednn = torch.backends.mkldnn
    fast_convolutions.run(nn.Sequential(convolution()), maps())
    assert onednn.enabled
    with pytest.raises(RuntimeError):
        fast_convolutions.run(nn.Sequential(convolution()), maps()[:, :3])
    assert onednn.enabled
    onednn.enabled = False
    try:
        fast_convolutions.run(nn.Sequential(convolution(), nn.ReLU()), maps())
        assert not onednn.enabled
    finally:
        onednn.enabled = True


def test_alexnet_begins_directly_and_other_networks_and_devices_stay_direct(avx2, monkeypatch):
    alexnet, resnet = networks.build("alexnet"), networks.build("resnet18")
    assert fast_convolutions.first(alexnet, CPU) == 3
    assert fast_convolutions.first(alexnet, torch.device("cuda")) == len(alexnet)
    assert fast_convolutions.first(resnet, CPU) == len(resnet)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert fast_convolutions.first(alexnet, CPU) == len(alexnet)


@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_embeddings_are_those_of_direct_convolutions(avx2, monkeypatch, attention):
    model = AttentDifferNet(
        attention=attention, weights="random", image_size=256, test_views=70, flow_width=16
    )
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=generator)
    angles = model.test_angles(1)
    made, was_transformed = transformed(lambda: model.embed(image, angles))
    assert was_transformed
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    direct = model.embed(image, angles)
    assert not torch.equal(made, direct)
    assert (made - direct).abs().max() < 1e-4 * direct.std()


@pytest.mark.parametrize(("precision", "expected"), [("fp32", True), ("bf16", False)])
@pytest.mark.filterwarnings("ignore:precision is 'bf16'")
def test_other_precisions_stay_direct(avx2, precision, expected):
    tiny = {"weights": "random", "image_size": 64, "scales": 1, "flow_width": 16}
    model = AttentDifferNet(precision=precision, **tiny)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert transformed(lambda: model.embed(images, torch.zeros(1, 16)))[1] == expected
