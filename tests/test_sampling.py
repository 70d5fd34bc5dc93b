"""Batches of embeddings: fresh ones, and those of a bank."""

import math

import pytest
import torch

from adnlib import AttentDifferNet, sampling
from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.flow import FlowSettings, build_flow
from adnlib.model_settings import ModelSettings
from adnlib.sampling import BankedViews, FreshViews
from adnlib.training import Training, TrainingSettings
from adnlib.views import draw_angles

BANK, VIEWS, ANGLE = 5, 2, 180.0


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8, generator=generator)


def new_embedding(attention="none"):
    settings = EmbeddingSettings(attention, weights="random", image_size=64, scales=1)
    return MultiScaleEmbedding(settings, seed=0)


def generator():
    return torch.Generator().manual_seed(3)


def batch(source, *chosen):
    return source.embed(*source.draw(torch.tensor(chosen)))


def positions(rows, bank):
    """Which row of the bank each row is, by its bytes."""
    where = {row.numpy().tobytes(): number for number, row in enumerate(bank)}
    return [where[row.numpy().tobytes()] for row in rows]


def test_fresh_views_are_new_at_every_look(images):
    source = FreshViews(new_embedding(), images, VIEWS, ANGLE, generator())
    first, second = batch(source, 4, 1), batch(source, 4, 1)
    assert first.shape == (4, 256)
    assert not torch.isin(first[:, 0], second[:, 0]).any()
    expected = new_embedding().embed(images[[4, 1]], draw_angles(2, VIEWS, generator(), ANGLE))
    assert torch.equal(first, expected.flatten(0, 1))


def test_gates_are_watched_epoch_by_epoch(images):
    """Of fresh views those of an epoch alone, of banked ones those that the bank was made by."""

    def watched(source, *epochs):
        for chosen in epochs:
            with source.watch() as gates:
                batch(source, *chosen)
        return gates.mean_and_std()

    def fresh():
        return FreshViews(new_embedding("se"), images, VIEWS, 0.0, generator())

    assert watched(fresh(), (0, 1), (2, 3)) == watched(fresh(), (2, 3))
    assert watched(fresh(), (0, 1)) != watched(fresh(), (2, 3))
    whole = watched(fresh(), range(7))
    assert watched(BankedViews(fresh(), 1), (0,), (1,)) == pytest.approx(whole)


def test_banked_views_are_some_of_each_images_own_and_none_twice(images, monkeypatch):
    monkeypatch.setattr(sampling, "TOGETHER", 3)  # and one image at the end
    made = FreshViews(new_embedding(), images, BANK, ANGLE, generator())
    source = BankedViews(made, VIEWS)
    drawing = generator()
    bank = torch.cat(
        [
            new_embedding().embed(some, draw_angles(len(some), BANK, drawing, ANGLE)).flatten(0, 1)
            for some in images.split(3)
        ]
    )
    seen = set()
    for _ in range(60):
        rows = positions(batch(source, 6, 0, 3), bank)
        assert [row // BANK for row in rows] == [6, 6, 0, 0, 3, 3]
        assert len(set(rows)) == len(rows)
        seen |= set(rows)
    assert len(seen) == 3 * BANK


def test_training_with_a_bank_learns_and_repeats_itself(images):
    settings = TrainingSettings(epochs=12, batch_images=7, train_views=VIEWS, view_bank=BANK)

    def losses():
        parts = new_embedding("se")
        flow = build_flow(parts.features, FlowSettings(2, 32), 0)
        frozen = TrainingSettings(**{**vars(settings), "attention_training": "frozen"})
        return [(e.train_loss, e.gate_mean) for e in Training(parts, flow, images, frozen, seed=0)]

    first = losses()
    assert first == losses()
    assert first[-1][0] < first[0][0]
    gates = {gate for _, gate in first}
    assert len(gates) == 1
    assert not math.isnan(gates.pop())


def test_the_backbone_sees_each_banked_view_once(images):
    parts = new_embedding()
    flow = build_flow(parts.features, FlowSettings(2, 16), 0)
    seen = []
    parts.network[0].register_forward_pre_hook(lambda _, views: seen.append(len(views[0])))
    settings = TrainingSettings(epochs=4, train_views=VIEWS, view_bank=BANK)
    list(Training(parts, flow, images, settings, seed=0))
    assert sum(seen) == len(images) * BANK * parts.settings.scales


def test_what_a_bank_cannot_serve_is_refused():
    with pytest.raises(InputError, match=r"view_bank is 3: give at least train_views \(4\), or 0"):
        TrainingSettings(view_bank=3)
    with pytest.raises(InputError, match="view_bank is -1"):
        TrainingSettings(view_bank=-1)
    with pytest.raises(InputError, match="view_bank keeps embeddings, which attention that is tra"):
        ModelSettings(attention="se", view_bank=16)
    for attention in ("none", "constant", "simam"):
        ModelSettings(attention=attention, view_bank=16)
    ModelSettings(attention="se", attention_training="frozen", view_bank=16)


def test_a_model_with_a_bank_fits_and_scores(images):
    tiny = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
    model = AttentDifferNet(epochs=2, test_views=2, view_bank=8, **tiny).fit(images)
    assert model.score(images).isfinite().all()
