import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from adnlib import AttentDifferNet, explain
from adnlib.coupling import Coupled
from adnlib.demo import draw_sample
from adnlib.errors import InputError
from adnlib.explain import _turn, saliency, upsample
from adnlib.flow import anomaly_score, negative_log_likelihood
from adnlib.localization import centre_prior, energy_inside
from adnlib.map_kinds import METHODS, TARGETS, Saliency, Target
from adnlib.views import rotate

TINY = {"weights": "random", "image_size": 128, "scales": 2, "flow_blocks": 2, "flow_width": 16}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 128, 128), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def plain():
    return AttentDifferNet(**TINY)


@pytest.fixture(scope="module")
def attentive():
    return AttentDifferNet(attention="se", **TINY)


@pytest.fixture(scope="module")
def of_three_scales():
    return AttentDifferNet(**TINY | {"image_size": 256, "scales": 3})


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


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0, 1, 2])
def test_every_scale_reaches_the_map(of_three_scales, monkeypatch, scale, method):
    """pytorch-grad-cam alone keeps a layer's first call only: the other scales would be lost."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, generator=generator)
    embedding = of_three_scales.embedding
    before = saliency(of_three_scales, images, 1, Saliency(method))
    scaled = embedding.scaled

    def one_scale_grey(pixels):
        return [s * 0 if i == scale else s for i, s in enumerate(scaled(pixels))]

    monkeypatch.setattr(embedding, "scaled", one_scale_grey)
    changed = saliency(of_three_scales, images, 1, Saliency(method))
    assert (changed - before).abs().max() > 1e-3 * before.max()


def test_maps_of_single_scales_average_to_the_map(images):
    model = AttentDifferNet(**TINY, max_angle=0.0)
    large, small = (saliency(model, images, 1, scale=scale) for scale in (0, 1))
    assert (large.shape, small.shape) == ((3, 7, 7), (3, 3, 3))
    mean = (large + upsample(small, 7)) / 2
    torch.testing.assert_close(saliency(model, images, 1), mean, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "settings",
    [*({"attention": name} for name in ("none", "se", "cbam")), {"standardize": True}],
    ids=str,
)
def test_maps_are_finite_and_leave_the_model_as_it_was(images, settings):
    model = AttentDifferNet(**TINY | settings, epochs=1).fit(images)
    before, learned = model.score(images), [p.requires_grad for p in model.parameters()]
    model.train()  # as a model is that was made or loaded
    with torch.no_grad():  # as a program may be that scores
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


def test_maps_are_not_stretched_image_by_image(plain, images):
    peaks = saliency(plain, images).amax((1, 2))
    assert len(set(peaks.tolist())) == len(images)


@pytest.mark.parametrize("angle", [90.0, -37.0, 160.0])
def test_a_map_is_turned_back_to_where_its_image_was(angle):
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 12:20, 30:38] = 1
    turned = rotate(image, torch.tensor([angle], dtype=torch.float64))
    back = _turn(turned[:, 0], torch.tensor([-angle]))
    assert back[0, 13:19, 31:37].min() > 0.9
    assert (back * (1 - image[:, 0])).mean() < 0.01


@pytest.mark.parametrize("layer", ["last", "before", "5"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_maps_of_every_kind(attentive, images, method, target, layer):
    maps = saliency(attentive, images[:2], 2, Saliency(method, target, layer))
    assert maps.shape == (2, *([128, 128] if method == "gradient" else [7, 7]))
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    assert (maps.amax((1, 2)) > 0).all()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("method", METHODS)
def test_maps_of_scores_decades_apart_are_finite(plain, images, monkeypatch, method):
    """A flow squares values up to 1e6; float32 would not hold the cube of such gradients."""
    energy = TARGETS["energy"].of
    huge = Target("a huge number", lambda embedded, flow: 1e16 * energy(embedded, flow))
    monkeypatch.setitem(TARGETS, "score", huge)
    maps = saliency(plain, images, 1, Saliency(method))
    assert maps.isfinite().all()
    assert maps.max() > 0


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_a_map_does_not_depend_on_the_images_beside_it(plain, images, monkeypatch, method):
    many = torch.cat([images, images.flip(3), images.flip(2)])
    together = saliency(plain, many, 4, Saliency(method))
    monkeypatch.setattr(explain, "_TOGETHER", 1)
    alone = saliency(plain, many, 4, Saliency(method))
    assert together.shape == alone.shape == (9, *alone.shape[1:])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5 * alone.max().item())


def test_attention_stands_between_the_last_layer_and_the_one_before(attentive, plain, images):
    kinds = [Saliency(layer=name) for name in ("before", "last")]
    before, last = (saliency(attentive, images, 1, kind) for kind in kinds)
    assert not torch.allclose(before, last)
    before, last = (saliency(plain, images, 1, kind) for kind in kinds)
    assert torch.equal(before, last)


def test_the_embeddings_energy_asks_the_backbone_alone(plain, images):
    other = AttentDifferNet(**TINY)
    for parameter in other.flow.parameters():
        parameter.data.mul_(2 if parameter.requires_grad else 1)
    energy, score = (
        [saliency(model, images, 1, Saliency(target=target)) for model in (plain, other)]
        for target in ("energy", "score")
    )
    assert torch.equal(*energy)
    assert not torch.allclose(*score)


def test_golden_gradient_map(images):
    """DifferNet's published map of one view that is not turned, with SciPy's Gaussian as there."""
    model = AttentDifferNet(**TINY, test_views=1, max_angle=0.0)
    found = saliency(model, images, 1, Saliency("gradient", "loss"))
    pixels = model.embedding.normalized(images).requires_grad_()
    embedded = [model.embedding.network(x).mean((2, 3)) for x in model.embedding.scaled(pixels)]
    negative_log_likelihood(*model.flow(torch.cat(embedded, 1))).backward()
    smooth = ndimage.gaussian_filter(pixels.grad.numpy() * len(images), (0, 0, 3, 3), mode="mirror")
    expected = np.abs(smooth).mean(1) ** 2
    np.testing.assert_allclose(found.numpy(), expected, rtol=0.02, atol=0.002 * expected.max())


def test_a_component_points_to_where_it_is_strongest(plain, images, monkeypatch):
    """A principal component has no sign of its own: the same one may come out as its negative."""
    maps = saliency(plain, images, 1, Saliency("eigencam"))
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *a, **k: [-part for part in svd(*a, **k)])
    assert maps.max() > 0
    torch.testing.assert_close(saliency(plain, images, 1, Saliency("eigencam")), maps)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": Saliency(layer="99")}, "layer is '99': choose 'last', 'before' or one of 0, 1"),
        ({"scale": 2}, "scale is 2: give a number from 0 to 1"),
    ],
)
def test_a_layer_or_scale_that_is_not_there(plain, images, given, complaint):
    with pytest.raises(InputError, match=complaint):
        saliency(plain, images, **given)


@pytest.mark.parametrize("views", [0, -1])
def test_a_map_of_no_view_is_refused(plain, images, views):
    with pytest.raises(InputError, match=f"views is {views}: give a number above 0"):
        saliency(plain, images, views)


@pytest.mark.parametrize("name", ["views", "scale"])
@pytest.mark.parametrize("value", [1.5, "1"])
def test_a_part_of_a_view_or_scale_is_refused(plain, images, name, value):
    with pytest.raises(InputError, match=f"{name} is {value!r}: give a whole number"):
        saliency(plain, images, **{name: value})
    if name == "views":
        with pytest.raises(InputError, match="give a whole number"):
            plain.explain(images[0], value)


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="method is 'scorecam': choose"):
        Saliency("scorecam")


@pytest.mark.network
@pytest.mark.slow
def test_the_map_of_a_planted_defect_beats_the_centre_prior_and_an_even_map():
    """A patch away from the middle of good demo images, which ImageNet's weights must see.

    The centre prior is beaten in the mean: the last patch lies near the middle.
    """
    size = 128
    train, good = (_pictures(split, count, size) for split, count in (("train", 24), ("good", 6)))
    masks = np.zeros((6, size, size), dtype=bool)
    corners = [(10, 20), (96, 8), (100, 100), (12, 96), (20, 30), (92, 60)]
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + 20, x : x + 20] = True
    colour = torch.tensor([255, 40, 200], dtype=torch.uint8)[:, None, None]
    planted = torch.where(torch.from_numpy(masks)[:, None], colour, good)
    short = {"epochs": 12, "batch_images": 8, "learning_rate": 1e-3, "flow_blocks": 4}
    try:
        model = AttentDifferNet(image_size=size, scales=2, flow_width=64, **short)
    except InputError as error:
        pytest.skip(f"no ImageNet weights: {error}")
    model.fit(train, holdout=0.1)
    centre = energy_inside(np.repeat(centre_prior(size)[None], 6, axis=0), masks)
    for method in ("gradcam", "gradient"):
        maps = upsample(saliency(model, planted, 16, Saliency(method)), size).numpy()
        inside = energy_inside(maps, masks)
        assert inside.mean() > 1.5 * centre.mean()
        assert (inside[:5] > 1.1 * centre[:5]).all()
        assert (inside > masks[0].mean()).all()
        clean = upsample(saliency(model, good, 16, Saliency(method)), size).numpy()
        assert inside.mean() > energy_inside(clean, masks).mean()


@pytest.mark.gpu
@pytest.mark.parametrize("training", ["joint", "frozen"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_on_a_gpu_are_those_of_the_cpu(tmp_path, images, method, training):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    settings = TINY | {"attention": "se", "attention_training": training, "epochs": 1}
    model = AttentDifferNet(**settings, device="cpu").fit(images)
    expected = saliency(model, images, 2, Saliency(method))
    model.save(tmp_path)
    there = AttentDifferNet.load(tmp_path, device="cuda")
    found = saliency(there, images, 2, Saliency(method))
    assert found.device.type == "cpu"
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * expected.max().item())


def _pictures(split, count, size):
    drawn = [draw_sample("demo_parts", split, index, size)[0].image for index in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


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


@pytest.mark.parametrize("kind", [Saliency(), Saliency("gradient")])
def test_views_that_are_alike_have_the_map_of_one(images, kind):
    model = AttentDifferNet(**TINY, max_angle=0.0)
    one, three = (saliency(model, images[:1], views, kind) for views in (1, 3))
    torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-4 * one.max().item())
