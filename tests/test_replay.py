"""Recordings of a GPU's work; without a GPU the work itself."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import get_ident

import pytest
import torch

from adnlib import AttentDifferNet, replay, training
from adnlib.checkpoint import Checkpoint
from adnlib.replay import Replayed

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"batch_images": 3, "train_views": 2, "test_views": 2}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_a_cpu_does_the_work_itself():
    calls = []

    def work(x):
        calls.append(x)
        return (x + 1,)

    replayed = Replayed(work, torch.device("cpu"))
    for number in range(5):
        assert replayed(torch.tensor(number))[0] == number + 1
    assert len(calls) == 5


class Stream:
    def wait_stream(self, _):
        pass


@pytest.fixture
def fakes(monkeypatch):
    """A GPU that launches all that it is given, and can record."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(Replayed, "_has_room", lambda _: True)
    monkeypatch.setattr(replay, "_IDLE", defaultdict(list))


def test_the_thread_that_records_has_done_the_work_itself(fakes, monkeypatch):
    recorded_by = []

    class Recording:
        pool = None

        def __init__(self, *_):
            recorded_by.append(get_ident())

        def __call__(self, *_):
            return ("played",)

    monkeypatch.setattr(replay, "_Recording", Recording)
    replayed = Replayed(lambda _: (get_ident(),), torch.device("cuda"))
    given = torch.zeros(1)
    for _ in range(replay._FEW):
        with ThreadPoolExecutor(1) as new:
            assert new.submit(replayed, given).result() != ("played",)
    done = [replayed(given) for _ in range(replay._FEW + 1)]
    assert done == [(get_ident(),)] * replay._FEW + [("played",)]
    assert recorded_by == [get_ident()]


def test_what_cannot_be_recorded_is_launched_from_then_on(fakes, monkeypatch):
    tried = []

    def refuse(*_):
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(replay, "_Recording", refuse)
    replayed = Replayed(lambda x: (x + 1,), torch.device("cuda"))
    for number in range(replay._FEW):
        assert replayed(torch.tensor(number))[0] == number + 1
    with pytest.warns(UserWarning, match="could not be recorded.*not permitted"):
        assert replayed(torch.tensor(1))[0] == 2
    assert replayed(torch.tensor(2))[0] == 3
    assert len(tried) == 1


def test_no_two_that_live_have_one_stream(fakes):
    device = torch.device("cuda")
    first, second = Replayed(print, device), Replayed(print, device)
    assert first._stream is not second._stream
    left = first._stream
    del first
    assert Replayed(print, device)._stream is left


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_plays_what_it_recorded():
    calls, total = [], torch.zeros(3, device="cuda")

    def work(x):
        calls.append(x)
        total.add_(x)
        return (2 * x,)

    replayed = Replayed(work, torch.device("cuda"))
    for number in range(replay._FEW + 3):
        given = torch.full((3,), float(number), device="cuda")
        made = replayed(given)[0]
        assert torch.equal(made, 2 * given)
        assert torch.equal(total, torch.full((3,), float(sum(range(number + 1))), device="cuda"))
    assert len(calls) == replay._FEW + 1  # the last one was recorded


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention": "cbam"},
        {"attention": "se", "precision": "fp16"},
        {"attention": "se", "attention_training": "frozen", "view_bank": 4},
        {"precision": "bf16", "flow_average": 0.9},
        {"standardize": True},
    ],
    ids=str,
)
def test_a_recorded_training_is_the_same(settings, monkeypatch):
    recordings = Counter()
    recording = replay._Recording

    def counted(*given):
        recordings["made"] += 1
        return recording(*given)

    monkeypatch.setattr(replay, "_Recording", counted)
    generator = torch.Generator().manual_seed(1)
    given = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=generator)

    def trained():
        model = AttentDifferNet(device="cuda", epochs=replay._FEW + 2, **TINY | settings)
        told = [(e.train_loss, e.feature_variance) for e in model.train_epochs(given)]
        return told, model.state_dict()

    made, weights = trained()
    assert recordings["made"] == 2  # of a batch, and of the one that is left over
    monkeypatch.setattr(training, "Replayed", lambda work, device: work)
    expected, plain = trained()
    torch.testing.assert_close(torch.tensor(made), torch.tensor(expected), rtol=1e-5, atol=0)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, plain[name], msg=name)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "settings", [{}, {"attention": "se", "precision": "fp16", "flow_average": 0.9}], ids=str
)
def test_a_recorded_training_goes_on_from_its_checkpoint(settings, tmp_path):
    generator = torch.Generator().manual_seed(1)
    given = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=generator)
    epochs = 2 * (replay._FEW + 2)  # each half is recorded
    kept = Checkpoint(tmp_path, dict)

    def trained(restored=None):
        model = AttentDifferNet(device="cuda", epochs=epochs, **TINY | settings)
        training = model.train_epochs(given)
        if restored:
            training.restore(restored)
        losses = []
        for epoch in training:
            losses.append(epoch.train_loss)
            if epoch.epoch == epochs // 2 and not restored:
                kept.write(training.state())
        return losses, model.state_dict()

    whole, expected = trained()
    rest, found = trained(kept.read())
    assert rest == pytest.approx(whole[epochs // 2 :], rel=1e-5)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_recorded_scores_are_the_same(precision):
    model = AttentDifferNet(device="cuda", precision=precision, **TINY)
    generator = torch.Generator().manual_seed(1)
    given = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=generator)
    scores = model.score(given)
    assert torch.equal(torch.cat([model.score(image) for image in given.split(1)]), scores)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("threads", [4, 32])
def test_threads_may_share_a_scorer(threads):
    model = AttentDifferNet(device="cuda", **TINY)
    generator = torch.Generator().manual_seed(1)
    given = torch.randint(0, 256, (384, 3, 64, 64), dtype=torch.uint8, generator=generator)
    look = model.scorer()
    with ThreadPoolExecutor(threads) as pool:
        scores = torch.cat(list(pool.map(lambda image: look(image)[0], given)))
    assert torch.equal(model.score(given), scores)


@pytest.mark.gpu
@needs_gpu
def test_threads_may_have_scorers_of_their_own_beside_a_training():
    model = AttentDifferNet(device="cuda", **TINY)
    generator = torch.Generator().manual_seed(1)
    given = torch.randint(0, 256, (24, 3, 64, 64), dtype=torch.uint8, generator=generator)
    expected = torch.cat([model.score(image) for image in given.split(1)])
    with ThreadPoolExecutor(2) as pool:
        assert all(torch.equal(made, expected) for made in pool.map(model.score, [given] * 40))
    other = AttentDifferNet(device="cuda", epochs=40, **TINY)
    losses = []
    for epoch in other.train_epochs(given):
        losses.append(epoch.train_loss)
        assert torch.equal(model.score(given), expected)
    again = AttentDifferNet(device="cuda", epochs=40, **TINY)
    plain = [epoch.train_loss for epoch in again.train_epochs(given)]
    assert losses == pytest.approx(plain, rel=1e-4)


@pytest.mark.gpu
@needs_gpu
def test_a_gpu_without_room_does_the_work_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 1 << 50)
    monkeypatch.setattr(replay, "_Recording", None)
    replayed = Replayed(lambda x: (x + 1,), torch.device("cuda"))
    for number in range(replay._FEW + 2):
        assert replayed(torch.tensor(number, device="cuda"))[0] == number + 1
