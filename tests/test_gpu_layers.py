"""A GPU's layers, computed by a CPU with the kernel of cuDNN replaced: the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adnlib import AttentDifferNet, gpu_layers, networks
from adnlib.coupling import Coupled, apart
from adnlib.precision import computing

CPU = torch.device("cpu")


@pytest.fixture
def kernels(monkeypatch):
    """What the kernel is called for: channels of the maps, their format, and if in NCHW order."""
    called = []

    def kernel(maps, weight, bias, stride, padding, dilation, groups):
        called.append((maps.shape[1], maps.dtype, maps.is_contiguous()))
        return F.conv2d(maps, weight, bias, stride, padding, dilation, groups).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", kernel)
    return called


def images(side):
    drawn = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [64, 65, 66, 67, 112])
@pytest.mark.parametrize("precision", ["fp32", "tf32"])
@torch.no_grad()
def test_alexnet_is_the_same(kernels, side, precision):
    alexnet, x = networks.build("alexnet"), images(side)
    expected = alexnet(x)
    made = gpu_layers.run(alexnet, x, precision)
    assert torch.allclose(made, expected, rtol=1e-4, atol=1e-5 * expected.std().item())
    form = (torch.float32, precision == "fp32")
    in_halves = {384} if precision == "fp32" else set()
    whole = [channels for channels in (48, 64, 192, 384, 256) if channels not in in_halves]
    assert kernels == [(channels, *form) for channels in whole]


@torch.no_grad()
def test_half_precision_is_that_of_autocast(kernels):
    alexnet, x = networks.build("alexnet"), images(64)
    with computing("bf16", CPU):
        expected = alexnet(x)
        made = gpu_layers.run(alexnet, x, "bf16")
    assert made.dtype == expected.dtype == torch.bfloat16
    assert {dtype for _, dtype, _ in kernels} == {torch.bfloat16}
    assert (made - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
@torch.no_grad()
def test_other_networks_are_as_they_were(kernels, name):
    network, x = networks.build(name), images(64)
    assert torch.allclose(gpu_layers.run(network, x, "fp32"), network(x), rtol=1e-4, atol=1e-5)
    assert not kernels  # their convolutions have a norm behind them


@torch.no_grad()
def test_what_is_no_plain_convolution_runs_as_it_is(kernels):
    for layer in (
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, padding="same"),
    ):
        layers, x = nn.Sequential(layer, nn.ReLU()), torch.randn(1, 8, 9, 9)
        assert torch.equal(gpu_layers.run(layers, x, "fp32"), layers(x))
    assert not kernels


@torch.no_grad()
def test_hooks_are_heard_and_attention_is_behind_its_layer(kernels):
    convolution, relu, pool = nn.Conv2d(8, 8, 3), nn.ReLU(), nn.MaxPool2d(2)
    layers = nn.Sequential(convolution, relu, nn.Conv2d(8, 8, 1), Coupled(nn.ReLU(), pool))
    x = torch.randn(1, 8, 9, 9)
    expected = layers(x)
    assert torch.allclose(gpu_layers.run(apart(layers), x, "fp32"), expected, atol=1e-6)
    assert len(kernels) == 2
    heard = []
    for layer in (relu, layers[3]):
        layer.register_forward_hook(lambda layer, seen, made: heard.append(layer))
    assert torch.allclose(gpu_layers.run(apart(layers), x, "fp32"), expected, atol=1e-6)
    assert heard == [relu, layers[3]]
    assert len(kernels) == 2


def test_a_cpu_has_them_not():
    assert not gpu_layers.available(CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_embeddings_on_a_gpu_are_those_of_its_plain_layers(precision, monkeypatch):
    settings = {"weights": "random", "image_size": 256, "flow_width": 16, "test_views": 3}
    model = AttentDifferNet(attention="se", precision=precision, device="cuda", **settings)
    generator = torch.Generator().manual_seed(2)
    given = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=generator)
    made = model.embed(given, model.test_angles(2))
    monkeypatch.setattr(gpu_layers, "available", lambda _: False)
    plain = model.embed(given, model.test_angles(2))
    bound = {"fp32": 1e-5, "tf32": 1e-3, "fp16": 1e-3, "bf16": 1e-2}[precision]
    assert (made - plain).norm() < bound * plain.norm()
