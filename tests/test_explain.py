import pytest
import torch
import torch.nn.functional as F

from adnlib import AttentDifferNet
from adnlib.coupling import Coupled
from adnlib.explain import _turn, saliency, upsample
from adnlib.flow import anomaly_score
from adnlib.views import rotate

TINY = {"weights": "random", "image_size": 128, "scales": 2, "flow_blocks": 2, "flow_width": 16}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 128, 128), dtype=torch.uint8, generator=generator)


def test_golden_map(images):
    """Grad-CAM's two equations written anew for each scale of one view that is not turned."""
    model = AttentDifferNet(attention="se", test_views=1, max_angle=0.0, **TINY)
    found = saliency(model, images, views=1)
    maps = [scale.requires_grad_() for scale in _last_maps(model, images)]
    pooled = [F.max_pool2d(m, 3, 2).mean((2, 3)) for m in maps]
    latent, _ = model.flow(torch.cat(pooled, 1))
    score = anomaly_score(latent[:, None])
    expected = []
    for m in maps:
        (gradient,) = torch.autograd.grad(score.sum(), m, retain_graph=True)
        alpha = gradient.sum((2, 3), keepdim=True)
        expected.append(torch.relu((alpha * m).sum(1)).detach())
    size = expected[0].shape[-1]
    mean = torch.stack([upsample(m, size) for m in expected]).mean(0)
    assert mean.max() > 0
    torch.testing.assert_close(found, mean, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scale", [0, 1])
def test_every_scale_reaches_the_map(images, scale):
    """pytorch-grad-cam alone keeps a layer's first call only: the second scale would be lost."""
    model = AttentDifferNet(**TINY)
    before = saliency(model, images)
    scaled = model.embedding.scaled

    def one_scale_grey(pixels):
        return [s * 0 if i == scale else s for i, s in enumerate(scaled(pixels))]

    model.embedding.scaled = one_scale_grey
    assert not torch.allclose(saliency(model, images), before)


@pytest.mark.parametrize("attention", ["none", "se", "cbam"])
def test_maps_are_finite_and_leave_the_model_as_it_was(images, attention):
    model = AttentDifferNet(attention=attention, epochs=1, **TINY).fit(images)
    before, learned = model.score(images), [p.requires_grad for p in model.parameters()]
    maps = saliency(model, images)
    assert maps.shape == (3, 7, 7)
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    assert torch.equal(model.score(images), before)
    assert [p.requires_grad for p in model.parameters()] == learned
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("backbone", "side"), [("resnet18", 4), ("efficientnet_b0", 4)])
def test_maps_of_other_backbones(images, backbone, side):
    model = AttentDifferNet(attention="se", backbone=backbone, **TINY)
    before = model.score(images)
    maps = saliency(model, images, views=2)
    assert maps.shape == (3, side, side)
    assert maps.isfinite().all()
    assert maps.max() > 0
    assert torch.equal(model.score(images), before)


def test_maps_are_not_stretched_image_by_image(images):
    model = AttentDifferNet(**TINY)
    peaks = saliency(model, images).amax((1, 2))
    assert len(set(peaks.tolist())) == len(images)


@pytest.mark.parametrize("angle", [90.0, -37.0, 160.0])
def test_a_map_is_turned_back_to_where_its_image_was(angle):
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 12:20, 30:38] = 1
    turned = rotate(image, torch.tensor([angle], dtype=torch.float64))
    back = _turn(turned[:, 0], torch.tensor([-angle]))
    assert back[0, 13:19, 31:37].min() > 0.9
    assert (back * (1 - image[:, 0])).mean() < 0.01


def _last_maps(model, images):
    network = model.embedding.network
    maps = []
    assert isinstance(network[11], Coupled)
    for pixels in model.embedding.scaled(model.embedding.normalized(images)):
        x = pixels
        for layer in network[:12]:
            x = layer(x)
        maps.append(x.detach())
    return maps
