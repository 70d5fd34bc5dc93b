"""A run that is stopped goes on from its checkpoint, and gives what it would have given."""

import dataclasses
import json
import os
import re
import resource
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adnlib import AttentDifferNet, checkpoint, runs
from adnlib.checkpoint import CHECKPOINT, Checkpoint
from adnlib.folders import DONE
from adnlib.run_settings import Settings

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 7, "evaluate_every": 2, "test_views": 2, "train_views": 2, "map_views": 0}
TINY |= {"attention": "se", "flow_average": 0.5, "holdout": 0.3}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split in ("train/good", "test/good", "test/dent"):
        folder = root / "sets" / "part" / split
        folder.mkdir(parents=True)
        for i in range(6):
            pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def settings(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    results = str(tmp_path / "results")
    return Settings(
        dataset="sets", category="part", data_root=str(data_root), results=results, **TINY
    )


def trained(settings, stop_after=None):
    """A run and what it said; stopped behind the look of that epoch."""
    run = runs.Run(settings)
    run.load_images()
    said = []

    def say(line):
        said.append(line)
        if stop_after and line.startswith(f"epoch {stop_after:3.0f}/"):
            raise KeyboardInterrupt

    if not stop_after:
        run.train(say)
        return run, said
    with pytest.raises(KeyboardInterrupt):
        run.train(say)
    return run, said


@pytest.mark.parametrize(("stops", "looks"), [([4], [4, 6, 7]), ([2, 4, 7], [7])])
def test_a_stopped_run_gives_what_it_would_have_given(settings, tmp_path, stops, looks):
    whole, _ = trained(dataclasses.replace(settings, results=str(tmp_path / "whole")))
    for epoch in stops:
        trained(settings, stop_after=epoch)
    run, said = trained(settings)
    # A look is told before its epoch is kept, so the epoch before it is the last that is known.
    assert said[0] == f"goes on after epoch {stops[-1] - 1}, from its checkpoint"
    assert [int(line.split()[1].split("/")[0]) for line in said[1:]] == looks
    check_same(run, whole)
    found = pd.read_csv(run.folder / "history.csv")
    assert found["seconds"].is_monotonic_increasing
    metrics = run.finish()
    assert metrics["resumed_after_epochs"] == [epoch - 1 for epoch in stops]
    assert json.loads((run.folder / DONE).read_text()) == metrics
    assert not (run.folder / CHECKPOINT).exists()


def test_a_run_that_was_stopped_after_its_training_is_not_trained_again(settings):
    whole, _ = trained(settings)
    run, said = trained(settings)
    assert said == ["goes on after epoch 7, from its checkpoint"]
    check_same(run, whole)


def test_a_run_that_goes_on_in_its_own_process_counts_no_second_twice(settings, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    run = runs.Run(settings)
    run.load_images()

    def stop(line):
        clock[0] += 100.0
        if line.startswith("epoch   4/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(stop)
    clock[0] += 5000.0  # until somebody runs the notebook's cell again
    run.train(lambda line: None)
    assert run.history["seconds"].tolist() == [0.0, 100.0, 100.0, 100.0]
    assert run.finish()["seconds"] == 100.0


def check_same(run, whole):
    """Scores, history and weights are equal to the last digit."""
    for name in ("scores.csv", "holdout.csv"):
        assert (run.folder / name).read_text() == (whole.folder / name).read_text()
    one, other = run.history.drop(columns="seconds"), whole.history.drop(columns="seconds")
    pd.testing.assert_frame_equal(one, other)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"epochs": 8}, "settings (epochs)"),
        ({"test_angles": "even"}, "settings (test_angles)"),
        ({}, "images"),
    ],
)
def test_no_run_goes_on_from_another(settings, data_root, changes, other):
    trained(settings, stop_after=4)
    added = data_root / "sets" / "part" / "train" / "good" / "added.png"
    if other == "images":
        Image.new("RGB", (64, 64)).save(added)
    try:
        with pytest.warns(
            UserWarning, match=re.escape(f"made with other {other}: training begins anew")
        ):
            run, said = trained(dataclasses.replace(settings, **changes))
    finally:
        added.unlink(missing_ok=True)
    assert said[0].startswith("epoch   2/")
    assert run.finish()["resumed_after_epochs"] == []


def test_no_run_goes_on_from_another_kind_of_device(settings):
    """Its optimizer would be one that a GPU cannot record."""
    run, _ = trained(settings, stop_after=4)
    state = torch.load(run.folder / CHECKPOINT)
    state["made_with"]["devices"] = "cuda"
    torch.save(state, run.folder / CHECKPOINT)
    with pytest.warns(UserWarning, match="was made with other devices: training begins anew"):
        trained(settings)


def test_a_setting_that_is_there_no_more_is_named(tmp_path):
    Checkpoint(tmp_path, lambda: {"settings": {"epochs": 1, "older": 2}}).write({})
    with pytest.warns(UserWarning, match=re.escape("made with other settings (older): training")):
        assert Checkpoint(tmp_path, lambda: {"settings": {"epochs": 1}}).read() is None


def test_a_run_whose_images_lie_elsewhere_goes_on(settings, data_root, tmp_path):
    trained(settings, stop_after=4)
    moved = tmp_path / "moved"
    shutil.copytree(data_root, moved)
    changed = {"data_root": str(moved), "device": "cpu", "on_bad_image": "skip"}
    _, said = trained(dataclasses.replace(settings, **changed))
    assert said[0].startswith("goes on after epoch 3")


def test_a_run_that_lacked_memory_goes_on_with_another_budget(settings):
    trained(settings, stop_after=4)
    changed = {"memory_budget": 1.0, "save_model": True, "map_views": 1}
    _, said = trained(dataclasses.replace(settings, **changed))
    assert said[0].startswith("goes on after epoch 3")


@pytest.mark.parametrize("other", ["weights", "versions (code)"])
def test_no_run_goes_on_with_other_weights_or_code(settings, monkeypatch, other):
    trained(settings, stop_after=4)
    run = runs.Run(settings)
    run.load_images()
    if other == "weights":
        run.model.embedding.weights_sha256 = "of another file"
    else:
        monkeypatch.setattr(checkpoint, "code_digest", lambda: "another")
    with pytest.warns(
        UserWarning, match=re.escape(f"made with other {other}: training begins anew")
    ):
        run.train(lambda line: None)


def test_a_damaged_checkpoint_is_told_and_left_alone(tmp_path):
    kept = Checkpoint(tmp_path, dict)
    kept.write({"training": {"flow": torch.rand(5000)}, "rows": [{"train_loss": 1.0}]})
    content = (tmp_path / CHECKPOINT).read_bytes()
    middle = len(content) // 2
    lost = content[:middle] + bytes(4096) + content[middle + 4096 :]  # a page of the flow
    unreadable = content.replace(b"train_loss", b"train_los\xff")
    for damaged in (b"", content[:middle], b"\x80" * 100, bytes(len(content)), lost, unreadable):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"cannot be read \(.+\): training begins anew"):
            assert kept.read() is None


def test_a_checkpoint_is_on_the_disk_before_the_older_one_goes(tmp_path, monkeypatch):
    kept = Checkpoint(tmp_path, dict)
    kept.write({"number": 1})
    sizes = []

    def fsync(descriptor):
        assert kept.read() == {"number": 1}
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    kept.write({"number": 2})
    assert sizes == [(tmp_path / CHECKPOINT).stat().st_size]
    assert kept.read() == {"number": 2}


@pytest.fixture
def small_files():
    """Files end at 50 kB, as on a disk that is full, but for the system's words."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_in_the_systems_words_and_the_older_one_is_kept(tmp_path, small_files):
    kept = Checkpoint(tmp_path, dict)
    kept.write({"flow": torch.zeros(10)})
    with pytest.warns(UserWarning, match="begins anew: .*File too large"):
        kept.write({"flow": torch.zeros(100_000)})
    assert len(kept.read()["flow"]) == 10
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_full_disk_does_not_end_a_run(settings, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        run, _ = trained(settings)
    run.finish()
    assert not [*run.folder.glob("checkpoint*")]


def test_it_is_due_when_ten_minutes_are_over_since_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "time", clock := SimpleNamespace(monotonic=lambda: 0.0))
    written = []
    kept = Checkpoint(tmp_path, dict, part=SimpleNamespace(state=lambda: written.append(minute)))
    for minute in range(30):
        clock.monotonic = lambda minute=minute: 60.0 * minute
        kept.keep()
    assert written == [11, 22]


def test_a_short_run_writes_none(settings, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY", 600.0)
    run, _ = trained(settings, stop_after=6)
    assert not (run.folder / CHECKPOINT).exists()


def test_images_are_told_apart_by_their_pixels(settings, data_root):
    trained(settings, stop_after=4)
    changed = data_root / "sets" / "part" / "train" / "good" / "0.png"
    before = changed.read_bytes()
    Image.new("RGB", (64, 64)).save(changed)
    try:
        with pytest.warns(UserWarning, match="was made with other images"):
            trained(settings)
    finally:
        changed.write_bytes(before)


GOOD = np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
FIT = {name: value for name, value in TINY.items() if name not in Settings.__annotations__}


def fitted(folder, images=GOOD, stop_after=None, **changes):
    """A fitted model, or None if it was stopped after that epoch; and what epochs it had."""
    model = AttentDifferNet(**{**FIT, **changes})
    epochs = []

    def on_epoch(epoch):
        epochs.append(epoch.epoch)
        if epoch.epoch == stop_after:
            raise KeyboardInterrupt

    try:
        return model.fit(images, on_epoch, 0.3, checkpoints=folder), epochs
    except KeyboardInterrupt:
        return None, epochs


def test_a_stopped_fit_gives_what_it_would_have_given(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    whole, epochs = fitted(None)
    assert epochs == [*range(1, 8)]
    assert fitted(tmp_path / "new" / "m", stop_after=4) == (None, [1, 2, 3, 4])
    model, epochs = fitted(tmp_path / "new" / "m")
    assert epochs == [4, 5, 6, 7]
    assert model.threshold == whole.threshold
    assert model.fitted == dataclasses.replace(whole.fitted, seconds=model.fitted.seconds)
    assert torch.equal(model.score(GOOD), whole.score(GOOD))


def test_a_fit_that_was_stopped_after_its_training_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    whole, _ = fitted(tmp_path)
    model, epochs = fitted(tmp_path)
    assert epochs == []
    assert model.fitted == dataclasses.replace(whole.fitted, seconds=model.fitted.seconds)
    assert torch.equal(model.score(GOOD), whole.score(GOOD))


@pytest.mark.parametrize(
    ("changes", "other"), [({"images": GOOD[::-1]}, "images"), ({"seed": 1}, "settings (seed)")]
)
def test_no_fit_goes_on_from_another(tmp_path, monkeypatch, changes, other):
    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    fitted(tmp_path, stop_after=4)
    with pytest.warns(
        UserWarning, match=re.escape(f"made with other {other}: training begins anew")
    ):
        _, epochs = fitted(tmp_path, **changes)
    assert epochs == [*range(1, 8)]
