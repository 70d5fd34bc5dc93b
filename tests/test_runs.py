import dataclasses
import fcntl
import json
import multiprocessing
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adnlib import InputError, record, records, runs
from adnlib.evaluation import roc
from adnlib.explain import saliency
from adnlib.folders import HELD_OUT_SCORES
from adnlib.looks import SELECTIONS
from adnlib.run_settings import Settings
from adnlib.shortcuts import told_by
from adnlib.variants import variant_settings

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 3, "evaluate_every": 2, "test_views": 2, "train_views": 2, "map_views": 1}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in {"train/good": 6, "test/good": 3, "test/dent": 3}.items():
        folder = root / "sets" / "part" / split
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            if "dent" in split:
                pixels[20:40, 20:40] = 255
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


@pytest.fixture
def settings(data_root, tmp_path):
    return Settings(
        dataset="sets", category="part", data_root=str(data_root), results=str(tmp_path), **TINY
    )


def whole_run(settings):
    """A run, with the scores of each evaluation as `seen`."""
    run = runs.Run(settings)
    run.load_images()
    run.seen, score = [], run.model.score_embeddings
    run.model.score_embeddings = lambda embedded: run.seen.append(score(embedded)) or run.seen[-1]
    run.train(say=lambda line: None)
    run.explain()
    return run, run.finish()


def test_a_run_that_is_stopped_leaves_the_looks_that_it_had(settings):
    run = runs.Run(dataclasses.replace(settings, epochs=9))
    run.load_images()
    said = []

    def stop_at_the_third(line):
        said.append(line)
        if len(said) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(say=stop_at_the_third)
    history = pd.read_csv(run.folder / "history.csv")
    assert history["epoch"].tolist() == [2, 4, 6]
    assert {left.name for left in run.folder.iterdir()} == {".lock", "params.json", "history.csv"}
    row = {"epoch": 6, "train_loss": 0.25, "test_auroc": 0.5, "seconds": 60.0}
    assert run._progress(row).endswith("60 s, about 30 s left")  # 3 of 9 epochs


def test_a_run_is_filed_under_the_catalogues_names(data_root, settings, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "MVTec").symlink_to(data_root / "sets")
    named = {"dataset": "mvtec", "category": "Part", "data_root": str(tmp_path / "root")}
    run = runs.Run(dataclasses.replace(settings, **named))
    assert run.folder == tmp_path / "runs" / "mvtec_ad" / "part" / "none" / "seed0"
    kept = json.loads((run.folder / "params.json").read_text())["settings"]
    assert (kept["dataset"], kept["category"]) == ("mvtec_ad", "part")


def test_a_run_leaves_what_the_report_reads(settings, tmp_path):
    run, metrics = whole_run(dataclasses.replace(settings, attention="se", save_model=True))
    folder = tmp_path / "runs" / "sets" / "part" / "se" / "seed0"
    assert run.folder == folder
    assert repr(run) == "Run(sets/part/se/seed0: 1 holdout, 6 test, 5 train images)"
    assert runs.is_done(folder)
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [2, 3]  # every second, and the last
    assert {"train_loss", "test_auroc", "feature_variance", "gate_mean", "gate_std"} <= {*history}
    assert {"gate_mean_2", "gate_std_2", "gate_mean_11"} <= {*history}
    scores = pd.read_csv(folder / "scores.csv")
    columns = [f"score_{which}" for which in SELECTIONS]
    assert list(scores) == ["path", "label", "defect", "mask", *columns]
    assert len(scores) == 6
    for which in SELECTIONS:
        auroc = roc(scores["label"], scores[f"score_{which}"])["auroc"]
        assert metrics[f"auroc_{which}"] == pytest.approx(auroc)
    assert metrics["auroc_best_on_test"] == history["test_auroc"].max()
    lowest = history["holdout_loss"].argmin()
    assert metrics["selected_epoch"] == history["epoch"][lowest]
    assert metrics["auroc_selected"] == history["test_auroc"][lowest]
    assert (metrics["train_images"], metrics["holdout_images"]) == (5, 1)
    labels = run.samples.loc[run.samples["split"] == "test", "label"]
    assert metrics["told_by"] == told_by(labels, run.images("test"))
    assert metrics["told_by"]["brightness"] == 1  # the anomalous ones have a white square
    assert metrics["auroc_last"] == history["test_auroc"].iloc[-1]
    of_both = (run.seen[0] + run.seen[2]) / 2  # two evaluations, each of test and held-out images
    np.testing.assert_allclose(scores["score_averaged"], of_both, rtol=1e-5)
    held = pd.read_csv(folder / HELD_OUT_SCORES)
    assert list(held) == list(scores)
    assert held["path"].tolist() == run.samples.query("split == 'holdout'")["path"].tolist()
    assert np.isfinite(held[columns]).all(axis=None)
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert np.load(folder / "maps.npz")["maps"].shape == (6, 3, 3)
    params = json.loads((folder / "params.json").read_text())
    assert params["settings"]["attention"] == "se"
    assert params["samples"] == {"train": 6, "test_good": 3, "test_anomalous": 3}
    assert params["weights_sha256"] == "random"
    assert (folder / "model.safetensors").exists()


def test_what_an_earlier_run_left_is_not_taken_for_the_new_ones(settings):
    run, _ = whole_run(dataclasses.replace(settings, save_model=True))
    for name in ("maps_energy.npz", "maps_energy.7.part.npz", "metrics.7.part.json"):
        (run.folder / name).touch()
    (run.folder / runs.DONE).unlink()  # as it is before a run with other settings
    bare = runs.Run(dataclasses.replace(settings, holdout=0.0, map_views=0))
    bare.load_images()
    bare.train(say=lambda line: None)
    bare.finish()
    left = {path.name for path in run.folder.iterdir()}
    assert left == {".lock", "params.json", "history.csv", "scores.csv", runs.DONE}


def test_without_held_out_images_no_epoch_is_selected(settings, tmp_path):
    run, metrics = whole_run(dataclasses.replace(settings, holdout=0.0))
    assert (metrics["train_images"], metrics["holdout_images"]) == (6, 0)
    assert "auroc_selected" not in metrics
    assert "score_selected" not in run.scores
    assert not (run.folder / HELD_OUT_SCORES).exists()
    assert run.history["holdout_loss"].isna().all()
    [found] = records.read_runs(tmp_path)
    assert list(found.aurocs) == ["last", "best_on_test", "averaged"]


def test_variants_of_a_seed_hold_out_the_same_images(settings):
    held = {}
    for attention, seed in [("none", 0), ("se", 0), ("none", 1)]:
        run = runs.Run(dataclasses.replace(settings, attention=attention, seed=seed, holdout=0.5))
        run.load_images()
        held[attention, seed] = run.samples.loc[run.samples["split"] == "holdout", "path"].tolist()
    assert len(held["none", 0]) == 3
    assert held["none", 0] == held["se", 0] != held["none", 1]


def test_the_same_settings_give_the_same_digits(settings, tmp_path):
    first, _ = whole_run(settings)
    second, _ = whole_run(dataclasses.replace(settings, results=str(tmp_path / "again")))
    pd.testing.assert_frame_equal(first.scores, second.scores, check_exact=True)


def test_a_run_of_a_relative_data_folder_finds_its_images_where_the_repository_is_now(
    settings, data_root, tmp_path, monkeypatch
):
    monkeypatch.setattr(runs, "project_path", lambda path: tmp_path / "old" / path)
    (tmp_path / "old").symlink_to(data_root.parent)
    relative = dataclasses.replace(settings, data_root=data_root.name)
    whole_run(relative)
    (tmp_path / "old").unlink()
    monkeypatch.setattr(record, "project_path", lambda path: data_root.parent / path)
    [found] = records.read_runs(tmp_path)
    assert found.image_folder(["test/dent/0.png"]) == data_root / "sets" / "part"


def test_maps_are_kept_as_large_as_they_are(settings, monkeypatch):
    monkeypatch.setattr(
        runs, "saliency", lambda model, images, views: images[:][:, 0, :3, :3] * 1e6
    )
    run, _ = whole_run(settings)
    maps = np.load(run.folder / "maps.npz")["maps"]
    assert np.isfinite(maps).all()
    assert maps.max() > np.finfo(np.float16).max


def test_maps_are_means_over_as_many_views_as_are_asked_for(settings):
    run, _ = whole_run(dataclasses.replace(settings, map_views=2))
    expected = saliency(run.model, run.images("test"), 2)
    np.testing.assert_allclose(np.load(run.folder / "maps.npz")["maps"], expected, rtol=1e-4)


def test_a_run_from_before_a_setting_counts_as_having_its_default(settings):
    run, _ = whole_run(settings)
    params = json.loads((run.folder / "params.json").read_text())
    del params["settings"]["backbone"]
    (run.folder / "params.json").write_text(json.dumps(params))
    with pytest.raises(InputError, match="backbone = 'alexnet', not 'resnet18'"):
        runs.Run(dataclasses.replace(settings, backbone="resnet18"))
    runs.Run(settings)


def test_a_run_that_is_not_finished_is_not_done(settings):
    run = runs.Run(settings)
    run.load_images()
    run.train(say=lambda line: None)
    assert not runs.is_done(run.folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_finished_run_that_is_damaged_is_named(settings, content):
    run = runs.Run(settings)
    run.folder.joinpath(runs.DONE).write_text("{}")
    run.folder.joinpath("params.json").write_text(content)
    with pytest.raises(InputError, match="seed0 holds a damaged run: delete it"):
        runs.Run(settings)


def test_a_finished_run_is_remade_but_never_with_other_settings(settings):
    run, _ = whole_run(settings)
    again = runs.Run(settings)
    assert not runs.is_done(again.folder)
    again.load_images()
    again.train(say=lambda line: None)
    again.finish()
    with pytest.raises(InputError, match="epochs = 3, not 5"):
        runs.Run(dataclasses.replace(settings, epochs=5))
    assert runs.is_done(run.folder)


def _in_other_process(settings):
    try:
        runs.Run(settings)
    except InputError as error:
        return str(error)
    return "no error"


def test_two_runs_cannot_write_one_folder(settings):
    run = runs.Run(settings)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert "another run is writing" in pool.apply(_in_other_process, (settings,))
    run.load_images()
    run.train(say=lambda line: None)
    run.finish()
    assert runs.Run(settings)


def test_a_notebooks_cell_may_be_run_again(settings):
    run = runs.Run(settings)
    again = runs.Run(settings)
    with (again.folder / ".lock").open("w") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert run._lock.closed


def test_a_run_that_is_refused_holds_no_lock(settings):
    run, _ = whole_run(settings)
    with pytest.raises(InputError) as refused:  # keeps the traceback, as a notebook does
        runs.Run(dataclasses.replace(settings, epochs=5))
    with (run.folder / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert refused.tb


def test_a_skipped_image_leaves_the_table(settings, data_root):
    bad = data_root / "sets" / "part" / "test" / "dent" / "9.png"
    bad.write_bytes(b"no image")
    try:
        run = runs.Run(settings)
        with pytest.raises(InputError, match=r"9\.png"):
            run.load_images()
        run._lock.close()
        run = runs.Run(dataclasses.replace(settings, on_bad_image="skip"))
        with pytest.warns(UserWarning, match=r"9\.png"):
            run.load_images()
        assert len(run.samples) == 12
        assert len(run.images("train")) + len(run.images("holdout")) == 6
    finally:
        bad.unlink()


@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_training_images_none_of_which_can_be_read_are_named(
    settings, data_root, tmp_path, holdout
):
    shutil.copytree(data_root, tmp_path / "data")
    for image in (tmp_path / "data").glob("sets/part/train/good/*.png"):
        image.write_bytes(b"no image")
    own = {"data_root": str(tmp_path / "data"), "on_bad_image": "skip", "holdout": holdout}
    run = runs.Run(dataclasses.replace(settings, **own))
    with pytest.warns(match="skipped"), pytest.raises(InputError, match="none of the training"):
        run.load_images()


def test_test_images_of_which_only_good_ones_can_be_read_are_named(settings, data_root, tmp_path):
    shutil.copytree(data_root, tmp_path / "data")
    for image in (tmp_path / "data").glob("sets/part/test/dent/*.png"):
        image.write_bytes(b"no image")
    own = {"data_root": str(tmp_path / "data"), "on_bad_image": "skip"}
    run = runs.Run(dataclasses.replace(settings, **own))
    with pytest.warns(match="skipped"), pytest.raises(InputError, match="no anomalous test images"):
        run.load_images()


def test_a_run_on_other_images_than_were_published_says_so(data_root, settings, tmp_path):
    (tmp_path / "root" / "mvtec_ad").mkdir(parents=True)
    (tmp_path / "root" / "mvtec_ad" / "bottle").symlink_to(data_root / "sets" / "part")
    named = {"dataset": "mvtec_ad", "category": "bottle", "data_root": str(tmp_path / "root")}
    with pytest.warns(UserWarning, match="mvtec_ad/bottle has 6/3/3 images"):
        runs.Run(dataclasses.replace(settings, **named))


def test_no_room_is_one_sentence(settings, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    run = runs.Run(settings)
    run.load_images()
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match="No space left on device"):
        run.train(say=lambda line: None)
    assert not runs.is_done(run.folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset": "sts"}, "sts"),
        ({"category": "pert"}, "pert"),
        ({"data_root": "/no/such/folder"}, "/no/such/folder"),
        ({"on_bad_image": "ignore"}, "on_bad_image"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"map_views": 3}, "map_views"),
        ({"image_size": 32}, "image_size"),
        ({"holdout": 1.0}, "holdout"),
    ],
)
def test_bad_settings_are_named_before_anything_is_written(settings, tmp_path, changes, named):
    with pytest.raises(InputError, match=named):
        runs.Run(dataclasses.replace(settings, **changes))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("attention", "training", "variant"),
    [
        ("none", "joint", "none"),
        ("none", "frozen", "none"),
        ("se", "joint", "se"),
        ("cbam", "frozen", "cbam_frozen"),
        ("simam", "frozen", "simam"),
        ("constant", "frozen", "constant"),
    ],
)
def test_variant(attention, training, variant):
    settings = Settings(attention=attention, attention_training=training)
    assert settings.variant == variant
    standardized = dataclasses.replace(settings, standardize=True)
    assert standardized.variant == f"{variant}_standardized"
    for each in (settings, standardized):
        assert Settings(**variant_settings(each.variant)).variant == each.variant


def looks(settings, **more):
    """A run of five looks at test and held-out images."""
    settings = dataclasses.replace(settings, epochs=5, evaluate_every=1, **more)
    return whole_run(settings)[0]


def test_attention_that_learns_embeds_anew_at_each_look(settings):
    run = looks(settings, attention="se", attention_rate=100.0)
    test = run.images("test")
    embedded = run.model.embed(test, run.model.test_angles(len(test)))
    expected = run.model.score_embeddings(embedded)
    np.testing.assert_allclose(run.scores["score_last"], expected, rtol=1e-5)


def test_held_out_scores_and_losses_are_those_of_held_out_images(settings):
    run = looks(settings, holdout=0.5)
    held = run.images("holdout")
    embedded = run.model.embed(held, run.model.test_angles(len(held)))
    kept = pd.read_csv(run.folder / HELD_OUT_SCORES)["score_last"]
    np.testing.assert_allclose(kept, run.model.score_embeddings(embedded), rtol=1e-5)
    loss = run.model.loss_embeddings(embedded)
    assert run.history["holdout_loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)


def test_averaged_are_the_last_looks(settings):
    run = looks(settings, learning_rate=1e-2)
    tested = run.seen[::2]
    assert len(tested) == 5
    np.testing.assert_allclose(run.scores["score_averaged"], sum(tested[-3:]) / 3, rtol=1e-5)
