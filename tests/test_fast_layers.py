"""Layers in ways of their own: the same numbers, taken where they save time, and nothing else."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from adnlib import AttentDifferNet, fast_layers, networks
from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.coupling import Coupled, apart

CPU = torch.device("cpu")


def convolution(kernel=3, inside=16, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(inside, 24, kernel, padding=kernel // 2, **settings)
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


def made_by(layer, x, monkeypatch):
    """What `run` makes of maps with it, and whether the layer's own way made it."""
    called = []
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda seen: called.append(True) or forward(seen))
    return fast_layers.run(nn.Sequential(layer), x), bool(called)


def is_transformed(layer, x):
    return transformed(lambda: fast_layers.run(nn.Sequential(layer), x))[1]


def pretend(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@pytest.fixture(params=["AVX2", "AVX512"])
def vectors(request, monkeypatch):
    """As on a CPU with these instructions; NNPACK asks for AVX2, which both have."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("NNPACK needs AVX2")
    assert torch.backends.nnpack.is_available()
    pretend(monkeypatch, request.param)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("side", [10, 27, 31])  # Fourier's tiles and Winograd's
def test_it_rounds_little(vectors, kernel, side):
    layer, x = convolution(kernel), maps(side=side)
    made, was_transformed = transformed(lambda: fast_layers.run(nn.Sequential(layer), x))
    assert was_transformed
    exact = nn.functional.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=kernel // 2
    )
    assert 0 < (made - exact).std() < 4e-6 * exact.std()  # fp16: 1e-3


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), ((3, 5), 1)])
def test_gradients_go_by_transform_and_round_little_too(vectors, kernel, padding):
    layer = nn.Conv2d(16, 24, kernel, padding=padding).requires_grad_(False)
    x = maps().requires_grad_()
    made = fast_layers.run(nn.Sequential(layer), x)
    drawn = torch.randn(made.shape, generator=torch.Generator().manual_seed(2))
    (gradient,), was_transformed = transformed(lambda: torch.autograd.grad(made, x, drawn))
    assert was_transformed
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(layer.double()(exact), exact, drawn.double())
    assert 0 < (gradient - expected).std() < 4e-6 * expected.std()


def test_a_convolution_that_learns_is_torchs_own_while_it_does(vectors):
    layer, x = convolution().requires_grad_(True), maps()
    made, was_transformed = transformed(lambda: fast_layers.run(nn.Sequential(layer), x))
    assert not was_transformed
    made.sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert is_transformed(layer, x)


def test_what_would_not_gain_runs_directly(vectors):
    assert not is_transformed(convolution(), maps(count=15))
    assert not is_transformed(convolution(), maps(side=7))  # 441 products would become 256
    for direct in (convolution(1), convolution(stride=2), convolution(groups=2)):
        assert not is_transformed(direct, maps())


def test_convolutions_inside_a_layer_run_directly(vectors):
    assert not is_transformed(nn.Sequential(convolution()), maps())


def test_torchs_switches_are_as_they_were(vectors):
    with torch.backends.nnpack.flags(enabled=False):
        assert is_transformed(convolution(), maps())
        assert not torch._C._get_nnpack_enabled()
    onednn = torch.backends.mkldnn
    fast_layers.run(nn.Sequential(convolution()), maps())
    assert onednn.enabled
    with pytest.raises(RuntimeError):
        fast_layers.run(nn.Sequential(convolution()), maps()[:, :3])
    assert onednn.enabled
    onednn.enabled = False
    try:
        fast_layers.run(nn.Sequential(convolution(), nn.ReLU()), maps())
        assert not onednn.enabled
    finally:
        onednn.enabled = True


def test_threads_leave_switches_and_numbers_as_they_were(vectors):
    """Of a layer that is transformed, and one that is not and that other kernels round else."""
    layers, x = nn.Sequential(convolution(), convolution(stride=2, inside=24)), maps()
    expected = fast_layers.run(layers, x)
    before = torch._C._get_nnpack_enabled()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: fast_layers.run(layers, x), range(200)))
    assert all(torch.equal(each, expected) for each in made)
    assert torch.backends.mkldnn.enabled
    assert torch._C._get_nnpack_enabled() == before


def test_alexnet_begins_directly_and_other_networks_and_devices_stay_direct(vectors, monkeypatch):
    alexnet, resnet = networks.build("alexnet"), networks.build("resnet18")
    assert fast_layers.first(alexnet, CPU) == 3
    assert fast_layers.first(alexnet, torch.device("cuda")) == len(alexnet)
    assert fast_layers.first(resnet, CPU) == len(resnet)
    pretend(monkeypatch, "DEFAULT")
    assert fast_layers.first(alexnet, CPU) == len(alexnet)


def colours(side, kernel, stride, padding, bias=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 8, kernel, stride, padding, bias=bias).requires_grad_(False)
        return layer, torch.randn(2, 3, side, side)


@pytest.mark.parametrize("side", [*range(13, 22), 112, 448])
@pytest.mark.parametrize("form", [(11, 4, 2), (7, 3, 3), (4, 3, 0), ((2, 5), (1, 4), (0, 2))])
def test_a_convolution_of_colours_is_the_same_by_columns(side, form, monkeypatch):
    pretend(monkeypatch, "AVX2")
    layer, x = colours(side, *form)
    expected = layer(x)
    made, directly = made_by(layer, x, monkeypatch)
    assert not directly
    assert torch.allclose(made, expected, rtol=1e-5, atol=1e-5)
    assert made.is_contiguous()


def test_a_convolution_of_colours_may_lack_a_bias(monkeypatch):
    pretend(monkeypatch, "AVX2")
    layer, x = colours(32, 11, 4, 2, bias=False)
    assert torch.allclose(fast_layers.run(nn.Sequential(layer), x), layer(x), atol=1e-5)


def test_where_colours_fill_no_vector_they_run_directly(monkeypatch):
    pretend(monkeypatch, "AVX512")
    assert made_by(*colours(64, 11, 4, 2), monkeypatch)[1]


def test_other_strided_convolutions_run_directly(monkeypatch):
    pretend(monkeypatch, "AVX2")
    for layer in (
        nn.Conv2d(8, 4, 5, 4),
        nn.Conv2d(3, 4, 3, 2),
        nn.Conv2d(3, 4, 4, 4),
        nn.Conv2d(3, 3, 5, 4, groups=3),
        nn.Conv2d(3, 4, 5, 4, dilation=2),
        nn.Conv2d(3, 4, 5, 4, padding=2, padding_mode="reflect"),
    ):
        assert made_by(layer, torch.zeros(1, layer.in_channels, 13, 13), monkeypatch)[1]


@pytest.mark.parametrize("side", [3, 12, 13, 27, 55])
@pytest.mark.parametrize("kernel_and_stride", [(3, 2), (2, 2), (3, 3)])
def test_a_pool_by_rows_is_exact(side, kernel_and_stride, monkeypatch):
    pool, x = nn.MaxPool2d(*kernel_and_stride), maps(count=17, side=side).contiguous()
    x[0, 0, 0, 0] = torch.nan
    expected = pool(x)
    made, directly = made_by(pool, x, monkeypatch)
    assert not directly
    assert torch.equal(made.nan_to_num(9), expected.nan_to_num(9))


def test_pools_of_other_maps_and_other_pools_run_directly(monkeypatch):
    x = maps(side=9)
    others = (
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, 2, dilation=2),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.MaxPool2d((3, 2)),
        nn.AvgPool2d(3, 2),
    )
    for pool, seen in ((nn.MaxPool2d(3, 2), x), *((other, x.contiguous()) for other in others)):
        assert made_by(pool, seen, monkeypatch)[1]


def test_a_pool_with_attention_is_by_rows_too():
    pool, attention = nn.MaxPool2d(3, 2), nn.Hardtanh()
    x = maps().contiguous()
    expected = attention(pool(x))
    pool.forward = None  # not to be called
    assert torch.equal(fast_layers.run(apart(nn.Sequential(Coupled(pool, attention))), x), expected)


def test_hooks_are_heard(monkeypatch):
    pretend(monkeypatch, "AVX2")  # by whose ways all three layers would go
    colours, pool = nn.Conv2d(3, 16, 5, 4).requires_grad_(False), nn.MaxPool2d(3, 2)
    coupled = Coupled(nn.MaxPool2d(3, 2), nn.Hardtanh())
    layers = nn.Sequential(colours, pool, coupled)
    x = maps(side=64)[:, :3]
    expected = layers(x)
    heard = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, seen, made: heard.append(layer))
    assert torch.equal(fast_layers.run(apart(layers), x), expected)
    assert heard == [colours, pool, coupled]


def test_hooks_of_gradients_are_heard(vectors):
    layers, x = nn.Sequential(convolution()), maps().requires_grad_()
    heard = []
    layers[0].register_full_backward_hook(lambda layer, inside, outside: heard.append(layer))
    fast_layers.run(layers, x).sum().backward()
    assert heard == [layers[0]]


@pytest.mark.parametrize("attention", ["none", "cbam"])
def test_embeddings_are_those_of_direct_convolutions(vectors, monkeypatch, attention):
    model = AttentDifferNet(
        attention=attention, weights="random", image_size=256, test_views=70, flow_width=16
    )
    generator = torch.Generator().manual_seed(2)
    image = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=generator)
    angles = model.test_angles(1)
    made, was_transformed = transformed(lambda: model.embed(image, angles))
    assert was_transformed
    pretend(monkeypatch, "DEFAULT")
    direct = model.embed(image, angles)
    assert not torch.equal(made, direct)
    assert (made - direct).abs().max() < 1e-4 * direct.std()


@pytest.mark.parametrize("attention", ["se", "cbam"])
@pytest.mark.parametrize("stages", ["all", "5"])
def test_attention_learns_as_by_direct_convolutions(vectors, monkeypatch, attention, stages):
    """But where last digits decide: whether a value is above 0, which of a pool's is largest."""
    settings = EmbeddingSettings(
        attention, attention_stages=stages, weights="random", image_size=256, scales=2
    )
    embedding = MultiScaleEmbedding(settings, seed=0).train()
    embedding.train_attention()
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=generator)
    angles = torch.linspace(0, 359, 16).view(2, 8)
    weights = torch.randn(2, 8, embedding.features, generator=generator)

    def learnt():
        embedding.zero_grad()
        (embedding.embed(images, angles) * weights).sum().backward()
        return torch.cat([p.grad.flatten() for p in embedding.parameters() if p.requires_grad])

    made, was_transformed = transformed(learnt)
    assert was_transformed
    pretend(monkeypatch, "DEFAULT")
    direct = learnt()
    assert not torch.equal(made, direct)
    assert (made - direct).norm() < 0.01 * direct.norm()


@pytest.mark.parametrize(("precision", "expected"), [("fp32", True), ("bf16", False)])
@pytest.mark.filterwarnings("ignore:precision is 'bf16'")
def test_other_precisions_stay_direct(vectors, precision, expected):
    tiny = {"weights": "random", "image_size": 64, "scales": 1, "flow_width": 16}
    model = AttentDifferNet(precision=precision, **tiny)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert transformed(lambda: model.embed(images, torch.zeros(1, 16)))[1] == expected
