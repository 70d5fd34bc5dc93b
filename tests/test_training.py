import math

import pytest
import torch

from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.flow import FlowSettings, build_flow, negative_log_likelihood
from adnlib.training import TrainingSettings, train
from adnlib.views import draw_angles

TINY = {"epochs": 2, "batch_images": 3, "train_views": 2}


def parts(attention="none", seed=0):
    settings = EmbeddingSettings(attention, weights="random", image_size=64, scales=1)
    embedding = MultiScaleEmbedding(settings, seed)
    return embedding, build_flow(embedding.features, FlowSettings(2, 16), seed)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=generator)


def test_golden_training(images):
    """DifferNet's loop written anew, with torch's plain Adam: the same weights come out."""
    embedding, flow = parts()
    epochs = list(train(embedding, flow, images, TrainingSettings(**TINY), seed=4))
    embedding, expected = parts()
    adam = torch.optim.Adam(
        [p for p in expected.parameters() if p.requires_grad],
        lr=2e-4,
        betas=(0.8, 0.8),
        eps=1e-4,
        weight_decay=1e-5,
    )
    generator = torch.Generator().manual_seed(4)
    for epoch in epochs:
        losses = []
        for chosen in torch.randperm(7, generator=generator).split(3):
            angles = draw_angles(len(chosen), 2, generator, 180.0)
            loss = negative_log_likelihood(
                *expected(embedding.embed(images[chosen], angles).flatten(0, 1))
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses += [loss.item()] * len(chosen)
        assert epoch.train_loss == pytest.approx(sum(losses) / 7, rel=1e-4)
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name], msg=name)


def test_same_seed_same_weights_other_seed_other_weights(images):
    flows = []
    for seed in (0, 0, 1):
        embedding, flow = parts("se")
        list(train(embedding, flow, images, TrainingSettings(**TINY), seed))
        flows.append(flow.state_dict()["module_list.1.subnet1.0.weight"])
    assert torch.equal(flows[0], flows[1])
    assert not torch.equal(flows[0], flows[2])


@pytest.mark.parametrize(("training", "moves"), [("joint", True), ("frozen", False)])
def test_attention_learns_only_jointly(images, training, moves):
    embedding, flow = parts("cbam")
    before = {name: p.clone() for name, p in embedding.named_parameters()}
    settings = TrainingSettings(**TINY, attention_training=training)
    epochs = list(train(embedding, flow, images, settings, seed=0))
    changed = {name for name, p in embedding.named_parameters() if not torch.equal(p, before[name])}
    assert bool(changed) == moves
    assert all(".attention." in name for name in changed)
    assert 0 < epochs[-1].gate_mean < 1
    row = epochs[-1].row()
    assert [name for name in row if name.startswith("gate_mean")] == [
        *("gate_mean", "gate_mean_2", "gate_mean_5", "gate_mean_11")
    ]
    assert row["gate_std_5"] == epochs[-1].site_gates["5"].std > 0


def test_loss_falls(images):
    embedding, flow = parts()
    settings = TrainingSettings(epochs=12, batch_images=7)
    epochs = list(train(embedding, flow, images, settings, seed=0))
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert [epoch.epoch for epoch in epochs] == list(range(1, 13))
    assert epochs[0].feature_variance > 0
    assert math.isnan(epochs[0].gate_mean)


def test_a_diverging_run_says_so(images):
    embedding, flow = parts()
    with pytest.raises(InputError, match="learning_rate"):
        list(train(embedding, flow, images, TrainingSettings(epochs=30, learning_rate=1e30), 0))


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"learning_rate": -1.0}, {"adam_beta1": 1.0}, {"attention_training": "jont"}],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        TrainingSettings(**settings)
