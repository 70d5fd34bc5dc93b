import pytest
import torch
import torch.nn.functional as F
from torchvision.models import alexnet, resnet18

from adnlib.attention import Residual
from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.coupling import Coupled
from adnlib.errors import InputError
from adnlib.views import rotate

RANDOM = {"weights": "random", "image_size": 128, "scales": 2}


def some_views(count=3, size=128):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_golden_embedding():
    """DifferNet's feature extractor, written anew: AlexNet at each scale, mean over space."""
    embedding = MultiScaleEmbedding(EmbeddingSettings(**RANDOM), seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        reference = alexnet(weights=None).features
    views = some_views()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (views.float() / 255 - mean[:, None, None]) / std[:, None, None]
    expected = torch.cat(
        [reference(x).mean((2, 3)), reference(F.interpolate(x, size=(64, 64))).mean((2, 3))], 1
    )
    assert embedding.features == 512
    torch.testing.assert_close(embedding(views), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_attention_lies_behind_both_pools_and_the_last_convolution(attention):
    embedding = MultiScaleEmbedding(EmbeddingSettings(attention=attention, **RANDOM), seed=0)
    network = embedding.network
    layers = [type(layer.layer).__name__ if hasattr(layer, "layer") else "" for layer in network]
    assert {i: name for i, name in enumerate(layers) if name} == {
        2: "MaxPool2d",
        5: "MaxPool2d",
        11: "ReLU",
    }
    plain = MultiScaleEmbedding(EmbeddingSettings(**RANDOM), seed=0)
    assert torch.equal(plain.network[0].weight, network[0].weight)
    assert not torch.allclose(plain(some_views()), embedding(some_views()))


def test_only_attention_learns_and_only_when_told():
    embedding = MultiScaleEmbedding(EmbeddingSettings(attention="se", **RANDOM), seed=0)
    assert not embedding.trained
    embedding.train_attention()
    assert embedding.trained
    learning = {name for name, p in embedding.named_parameters() if p.requires_grad}
    assert learning
    assert all(".attention." in name for name in learning)
    embedding(some_views()).sum().backward()
    gradients = [p.grad for p in embedding.parameters() if p.requires_grad]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_embed_equals_embedding_view_by_view():
    embedding = MultiScaleEmbedding(EmbeddingSettings(**RANDOM), seed=0)
    images = some_views(3)
    angles = torch.rand(3, 5, dtype=torch.float64) * 360
    embedded = embedding.embed(images, angles)
    assert embedded.shape == (3, 5, 512)
    for i in range(3):
        views = rotate(images[i].expand(5, -1, -1, -1), angles[i])
        torch.testing.assert_close(embedded[i], embedding(views), rtol=1e-4, atol=1e-6)


def test_turning_standardised_pixels_is_standardising_turned_ones():
    embedding = MultiScaleEmbedding(EmbeddingSettings(**RANDOM), seed=0)
    seen = []
    embedding.network[0].register_forward_pre_hook(lambda _, pixels: seen.append(pixels[0]))
    image = some_views(1)
    angles = torch.tensor([[33.0, 170.0]], dtype=torch.float64)
    embedding.embed(image, angles)
    turned = rotate(image.expand(2, -1, -1, -1), angles[0])
    assert (turned == 0).all(1).any()
    assert torch.equal(seen[0], embedding.normalized(turned))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_making_an_embedding_leaves_the_global_generator_as_it_was():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    MultiScaleEmbedding(EmbeddingSettings(attention="cbam", **RANDOM), seed=0)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"image_size": 255}, "image_size is 255.*256 px"),
        ({"scales": 0}, "scales"),
        ({"attention": "sse"}, "attention is 'sse'"),
        ({"attention_reduction": 0}, "attention_reduction"),
        ({"attention": "se", "attention_reduction": 65}, "attention_reduction is 65.* 1 to 64"),
        ({"attention": "cbam", "attention_kernel": 4}, "attention_kernel"),
        ({"attention": "constant", "attention_gate": 0.0}, "attention_gate"),
        ({"attention": "simam", "attention_open": True}, "attention_open .* simam"),
        ({"attention_place": "before"}, "attention_place is 'before'"),
        ({"attention_stages": "1,6"}, "attention_stages is '1,6'"),
        ({"backbone": "resnet50"}, "backbone is 'resnet50': .* resnet18"),
        ({"backbone": "resnet18", "attention_place": "pool"}, "attention_place is 'pool'"),
        ({"backbone": "resnet18", "image_size": 127}, "resnet18 at 3 scales .* 128 px"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(InputError, match=named):
        EmbeddingSettings(**settings)


def test_the_smallest_image_size_works():
    embedding = MultiScaleEmbedding(EmbeddingSettings(weights="random", image_size=256), seed=0)
    assert embedding(some_views(1, 256)).isfinite().all()


def test_attention_lies_where_the_settings_say():
    settings = EmbeddingSettings(
        attention="eca", attention_place="pool", attention_stages="1,5", **RANDOM
    )
    network = MultiScaleEmbedding(settings, seed=0).network
    assert [i for i, layer in enumerate(network) if isinstance(layer, Coupled)] == [2, 12]


def test_blocks_are_made_as_the_settings_say():
    settings = EmbeddingSettings(
        attention="cbam",
        attention_reduction=8,
        attention_kernel=5,
        attention_open=True,
        attention_residual=True,
        **RANDOM,
    )
    blocks = settings.attention_blocks()
    assert list(blocks) == ["2", "5", "11"]
    assert all(isinstance(block, Residual) for block in blocks.values())
    last = blocks["11"].block
    assert last.mlp[0].out_channels == 256 // 8
    assert last.conv.kernel_size == (5, 5)
    assert last.channel_gate.offset == last.spatial_gate.offset > 0
    settings = EmbeddingSettings(attention="constant", attention_gate=0.25, **RANDOM)
    assert settings.attention_blocks()["2"].gate.number == 0.25


SMALL = {"weights": "random", "image_size": 64, "scales": 2}


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_other_backbones_embed(backbone):
    settings = EmbeddingSettings(attention="se", backbone=backbone, **SMALL)
    embedding = MultiScaleEmbedding(settings, seed=0)
    views = some_views(2, 64)
    expected = [
        embedding.network(x).mean((2, 3)) for x in embedding.scaled(embedding.normalized(views))
    ]
    embedded = embedding(views)
    assert embedded.shape == (2, embedding.features) == (2, settings.features)
    assert torch.equal(embedded, torch.cat(expected, 1))


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_b0"])
def test_training_leaves_the_backbones_batch_norm_alone(backbone):
    settings = EmbeddingSettings(attention="se", backbone=backbone, **SMALL)
    embedding = MultiScaleEmbedding(settings, seed=0)
    before = {name: tensor.clone() for name, tensor in embedding.state_dict().items()}
    views = some_views(2, 64)
    expected = embedding.eval()(views)
    embedding.train_attention()
    embedding.train()
    assert torch.equal(embedding(views), expected)  # nor does it drop blocks by chance
    embedding(views).sum().backward()
    for name, tensor in embedding.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(c.attention.training for c in embedding.modules() if isinstance(c, Coupled))


def test_weights_of_another_backbone_are_named_by_their_hash(tmp_path):
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "mine.pth")
    settings = {**SMALL, "weights": str(tmp_path / "mine.pth"), "backbone": "resnet18"}
    embedding = MultiScaleEmbedding(EmbeddingSettings(**settings), seed=0)
    assert len(embedding.weights_sha256) == 64
