import dataclasses
import math

import pytest
import torch

from adnlib import AttentDifferNet
from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.flow import FlowSettings, build_flow, negative_log_likelihood
from adnlib.training import Training, TrainingSettings, hold_out
from adnlib.views import draw_angles

SMALL = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
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
    epochs = list(Training(embedding, flow, images, TrainingSettings(**TINY), seed=4))
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
        list(Training(embedding, flow, images, TrainingSettings(**TINY), seed))
        flows.append(flow.state_dict()["module_list.1.subnet1.0.weight"])
    assert torch.equal(flows[0], flows[1])
    assert not torch.equal(flows[0], flows[2])


@pytest.mark.parametrize(("training", "moves"), [("joint", True), ("frozen", False)])
def test_attention_learns_only_jointly(images, training, moves):
    embedding, flow = parts("cbam")
    before = {name: p.clone() for name, p in embedding.named_parameters()}
    settings = TrainingSettings(**TINY, attention_training=training)
    epochs = list(Training(embedding, flow, images, settings, seed=0))
    changed = {name for name, p in embedding.named_parameters() if not torch.equal(p, before[name])}
    assert bool(changed) == moves
    assert all(".attention." in name for name in changed)
    assert 0 < epochs[-1].gate_mean < 1
    row = epochs[-1].row()
    assert [name for name in row if name.startswith("gate_mean")] == [
        *("gate_mean", "gate_mean_2", "gate_mean_5", "gate_mean_11")
    ]
    assert row["gate_std_5"] == epochs[-1].site_gates["5"].std > 0


@pytest.mark.parametrize("standardize", [False, True])
def test_attention_gains_by_shrinking_features_unless_they_are_standardised(images, standardize):
    settings = EmbeddingSettings("se", weights="random", image_size=64, scales=1)
    embedding = MultiScaleEmbedding(settings, seed=0)
    with torch.no_grad():  # random convolutions shrink the features to nothing by themselves
        for name, weight in embedding.network.named_parameters():
            if name.endswith("weight") and ".attention." not in name:
                weight.mul_(4)
    flow = build_flow(embedding.features, FlowSettings(2, 16, standardize=standardize), seed=0)
    training = TrainingSettings(epochs=60, batch_images=7, learning_rate=5e-3)
    variances = [e.feature_variance for e in Training(embedding, flow, images, training, seed=0)]
    share = variances[-1] / variances[0]
    assert share > 0.8 if standardize else share < 0.2


def test_attention_may_learn_more_slowly_than_the_flow(images):
    steps = {}
    for rate in (1.0, 0.5):
        embedding, flow = parts("se")
        before = {name: p.clone() for name, p in embedding.named_parameters()}
        settings = TrainingSettings(epochs=1, batch_images=7, attention_rate=rate)
        list(Training(embedding, flow, images, settings, seed=0))
        steps[rate] = {name: p - before[name] for name, p in embedding.named_parameters()}
    for name, step in steps[1.0].items():
        torch.testing.assert_close(steps[0.5][name], step / 2, rtol=1e-3, atol=1e-7)


def test_averaged_weights_are_seen_between_epochs_and_kept(images):
    def weights(flow):
        return torch.cat([p.detach().flatten() for p in flow.parameters() if p.requires_grad])

    embedding, flow = parts()
    plain = [weights(flow)]
    settings = TrainingSettings(epochs=3, batch_images=7, learning_rate=1e-2)
    plain += [weights(flow) for _ in Training(embedding, flow, images, settings, seed=0)]
    embedding, flow = parts()
    settings = dataclasses.replace(settings, flow_average=0.9)
    seen = [weights(flow) for _ in Training(embedding, flow, images, settings, seed=0)]
    expected = plain[0]
    for step, (averaged, learned) in enumerate(zip(seen, plain[1:], strict=True), start=1):
        expected = expected.lerp(learned, 1 - step / (step + 10))
        torch.testing.assert_close(averaged, expected)
    torch.testing.assert_close(weights(flow), seen[-1])


def test_loss_falls(images):
    embedding, flow = parts()
    settings = TrainingSettings(epochs=12, batch_images=7)
    epochs = list(Training(embedding, flow, images, settings, seed=0))
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert [epoch.epoch for epoch in epochs] == list(range(1, 13))
    assert epochs[0].feature_variance > 0
    assert math.isnan(epochs[0].gate_mean)


def test_a_diverging_run_says_so(images):
    embedding, flow = parts()
    with pytest.raises(InputError, match="learning_rate"):
        list(Training(embedding, flow, images, TrainingSettings(epochs=30, learning_rate=1e30), 0))


@pytest.mark.parametrize(
    "settings",
    [
        *({"epochs": 0}, {"learning_rate": -1.0}, {"adam_beta1": 1.0}),
        *({"attention_rate": 0.0}, {"flow_average": 1.0}, {"attention_training": "jont"}),
        *({"batch_images": 0}, {"train_views": 0}, {"adam_beta2": 1.0}, {"max_angle": -1.0}),
        *({"adam_eps": -1e-4}, {"weight_decay": -1e-5}),
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        TrainingSettings(**settings)


@pytest.mark.parametrize(
    ("attention", "settings"),
    [
        ("none", {}),
        ("none", {"view_bank": 5}),
        ("se", {"flow_average": 0.9, "attention_rate": 0.5}),
    ],
)
def test_a_training_goes_on_to_the_same_weights(images, attention, settings, tmp_path):
    settings = TrainingSettings(**{**TINY, "epochs": 5}, **settings)

    def training():
        embedding, flow = parts(attention)
        return Training(embedding, flow, images, settings, seed=4), (embedding, flow)

    whole, expected = training()
    told = [epoch.train_loss for epoch in whole]
    stopped, _ = training()
    for epoch in stopped:
        if epoch.epoch == 2:
            torch.save(stopped.state(), tmp_path / "state.pt")
    after, found = training()
    after.restore(torch.load(tmp_path / "state.pt", weights_only=True) | {"seconds": 1000.0})
    later = list(after)
    assert [(e.epoch, e.train_loss) for e in later] == list(enumerate(told, start=1))[2:]
    assert later[0].seconds > 1000
    for one, other in zip(expected, found, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name


def test_looking_in_between_changes_nothing(images):
    settings = {"standardize": True, "epochs": 3, "test_views": 2}
    scores = []
    for looks in (False, True):
        model = AttentDifferNet(**SMALL, **settings)
        for _ in model.train_epochs(images):
            if looks:
                model.score(images)
        scores.append(model.score(images))
    assert torch.equal(*scores)


def test_the_variance_is_a_features_mean_over_features(images):
    model = AttentDifferNet(**SMALL, epochs=1, max_angle=0.0, train_views=1)
    epoch = next(iter(model.train_epochs(images)))
    angles = torch.zeros(len(images), 1, dtype=torch.float64)
    expected = model.embed(images, angles)[:, 0].var(0).mean().item()
    assert epoch.feature_variance == pytest.approx(expected, rel=1e-4)


@pytest.mark.filterwarnings("error")
def test_one_view_has_no_variance(images):
    model = AttentDifferNet(**SMALL, epochs=1, train_views=1)
    assert math.isnan(next(iter(model.train_epochs(images[:1]))).feature_variance)


@pytest.mark.parametrize(
    ("images", "share", "held"),
    [
        (209, 0.1, 21),
        (24, 0.1, 2),
        (10, 0.26, 3),
        (4, 0.1, 1),
        (3, 0.99, 2),
        (5, 0.0, 0),
        (1, 0, 0),
    ],
)
def test_the_nearest_number_is_held_out_and_one_is_left_at_either_end(images, share, held):
    assert hold_out(images, share, 0).sum() == held


def test_one_image_cannot_serve_both_ends():
    with pytest.raises(InputError, match="one image cannot be held out and trained on"):
        hold_out(1, 0.1, 0)
