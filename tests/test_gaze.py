"""Maps against masks: tables of made-up runs, whose maps glow at the masks."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from synthetic import make_pictures, make_run

from adnlib.errors import InputError
from adnlib.evaluation import roc
from adnlib.gaze import _paired_table, write_looking
from adnlib.map_kinds import Saliency
from adnlib.records import read_runs
from adnlib.scenes import MEASURES, SIZE, Look, Scene

WITH_MASKS = ["defect_energy", "pointing", "pixel_auroc", "pro"]


@pytest.fixture
def images(tmp_path):
    return make_pictures(tmp_path / "images" / "plate")


@pytest.fixture
def results(tmp_path, images):
    for variant in ("none", "se"):
        for seed in (0, 1):
            make_run(
                tmp_path, "mine", "plate", variant, seed, images=images, maps=True, map_views=2
            )
    return tmp_path


def give_objects(images):
    for path in (images / "test").glob("*/*.png"):
        folder = images / "foreground" / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        plate = np.zeros((192, 192), dtype=np.uint8)
        plate[48:144, 38:154] = 255
        Image.fromarray(plate).save(folder / f"{path.stem}_mask.png")


def read(results, **options):
    each, paired, text = write_looking(results, "mine", say=lambda _: None, **options)
    return pd.read_csv(each), pd.read_csv(paired), text.read_text(encoding="utf-8")


def test_detectors_stand_beside_maps_that_have_seen_nothing(results):
    each, _, text = read(results)
    methods = ["DifferNet", "AttentDifferNet (SE)", "random map", "centre prior"]
    assert each["method"].drop_duplicates().tolist() == methods
    assert each["seed"].tolist() == [0, 1, 0, 1, 0, 1, 0]
    means = each.groupby("method")[["defect_energy", "pixel_auroc", "pro"]].mean()
    assert (means.loc["DifferNet"] > means.loc["random map"] * 1.5).all()
    assert means.loc["random map", "pixel_auroc"] == pytest.approx(50, abs=5)
    share = each["defect_share"].iloc[0]
    assert means.loc["random map", "defect_energy"] == pytest.approx(share, rel=0.2)
    assert set(MEASURES) - set(each) == {"object_energy"}
    assert "Grad-CAM of the anomaly score at the last epoch, mean over 2 views" in text
    assert "energy in the object" not in text


def test_maps_that_a_model_made_say_of_how_many_views(tmp_path, images):
    options = {"images": images, "maps": True, "map_views": 0, "test_views": 2}
    make_run(tmp_path, "mine", "plate", **options)
    assert "mean over 2 views" in read(tmp_path)[2]


def test_one_run_and_one_view_are_not_called_several(tmp_path, images):
    make_run(tmp_path, "mine", "plate", images=images, maps=True, map_views=1, test_views=1)
    said = []
    text = write_looking(tmp_path, "mine", say=said.append)[2].read_text(encoding="utf-8")
    assert "1 test view," in text
    assert "mean over 1 view;" in text
    assert said[0].startswith("plate: 1 run, ")


def test_the_image_auroc_is_the_runs(results):
    each, _, text = read(results)
    run = read_runs(results)[0]
    first = each.iloc[0]
    expected = roc(run.scores()["label"], run.scores()["score_last"])["auroc"]
    assert first["image_auroc"] == pytest.approx(100 * expected, abs=1e-3)
    assert each.loc[each["method"] == "random map", "image_auroc"].isna().all()
    assert "nan" not in text


def test_differences_are_paired_by_seed_and_have_intervals(results):
    each, paired, text = read(results)
    se = paired[paired["method"] == "AttentDifferNet (SE)"].set_index(["against", "measure"])
    means = each.groupby("method")[WITH_MASKS].mean()
    for against in ("DifferNet", "centre prior"):
        for measure in WITH_MASKS:
            row = se.loc[(against, measure)]
            expected = means.loc["AttentDifferNet (SE)", measure] - means.loc[against, measure]
            assert row["difference"] == pytest.approx(expected, abs=1e-3)
            assert row["low"] - 0.5 < row["difference"] < row["high"] + 0.5
            assert row["low"] < row["high"]
            assert row["seeds"] == 2
    assert set(paired.loc[paired["method"] == "DifferNet", "against"]) == {"centre prior"}
    assert text.index("points over DifferNet") < text.index("points over centre prior")


def test_the_same_maps_do_not_differ(results):
    for seed in (0, 1):
        runs = results / "runs" / "mine" / "plate"
        shutil.copy(runs / f"none/seed{seed}/maps.npz", runs / f"se/seed{seed}/maps.npz")
    _, paired, _ = read(results)
    rows = paired[paired["against"] == "DifferNet"]
    assert len(rows) == len(WITH_MASKS)
    assert (rows[["difference", "low", "high"]] == 0).all(axis=None)


def test_the_object_by_masks_or_by_a_guess(results, images):
    each, _, text = read(results, guess_object=True)
    assert each["object_share"].iloc[0] == pytest.approx(30, abs=4)
    assert "guessed from the background's colours" in text
    give_objects(images)
    masked, _, text = read(results)
    assert masked["object_share"].iloc[0] == pytest.approx(100 * 96 * 116 / 192**2, abs=0.5)
    centre = masked.groupby("method")["object_energy"].mean()
    assert centre["centre prior"] > centre["random map"] + 10
    assert "energy in the object" in text


def test_without_any_mask_nothing_is_written(results, images):
    shutil.rmtree(images / "ground_truth")
    for scores in (results / "runs").glob("*/*/*/*/scores.csv"):
        pd.read_csv(scores).assign(mask="").to_csv(scores, index=False)
    assert write_looking(results, "mine", say=lambda _: None) == []
    assert not (results / "tables").exists()


def test_an_image_whose_defect_is_unknown_is_no_good_image(results, images):
    """Left out of pixel AUROC, where its defect would count as background."""
    run = read_runs(results)[0]
    scores = run.scores()
    scores.loc[scores["label"] == 1, "mask"] = ["", *scores["mask"].tolist()[-8:]]
    scene = Scene.of(run, scores)
    assert scene.known.sum() == len(scores) - 1
    look = Look.at(scene, run.maps())
    assert len(look.each["defect_energy"]) == 8
    assert len(look.labels) == len(scores) - 1


def test_runs_of_different_images_are_not_compared(results):
    folder = results / "runs/mine/plate/se/seed1"
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    scores.iloc[::-1].to_csv(folder / "scores.csv", index=False)
    with pytest.raises(InputError, match=r"se/seed1 and .*none/seed0 were tested with different"):
        read(results)


def test_training_images_are_not_asked_for(results, images):
    assert not (images / "train").exists()
    assert len(read(results)[0]) == 7


def test_maps_of_another_kind_need_a_model(results):
    assert write_looking(results, "mine", Saliency("layercam"), say=lambda _: None) == []


def test_intervals_have_the_seeds_spread(tmp_path, images):
    for variant in ("none", "se"):
        for seed in (0, 1):
            options = {"images": images, "maps": True, "map_views": 2}
            make_run(tmp_path, "mine", "plate", variant, seed, **options)
    place = tmp_path / "runs/mine/plate"
    shutil.copy(place / "none/seed0/maps.npz", place / "se/seed0/maps.npz")  # no difference there
    maps = np.load(place / "none/seed1/maps.npz")["maps"]
    np.savez(place / "se/seed1/maps.npz", maps=np.ones_like(maps))
    paired = pd.read_csv(write_looking(tmp_path, "mine", say=lambda _: None)[1])
    paired = paired.set_index(["method", "against", "measure"])
    row = paired.loc[("AttentDifferNet (SE)", "DifferNet", "pixel_auroc")]
    assert row["difference"] < -5
    assert row["high"] == 0


def test_seeds_are_not_drawn_as_images_are():
    """With one image right for each seed, equal draws would never be below the true mean."""
    looks = {}
    for seed, right in enumerate(np.eye(4)):
        for variant, each in (("none", 0 * right), ("se", right)):
            looks["plate", variant, seed] = Look({"pointing": each}, {}, {}, np.ones(4))
    row = _paired_table("mine", looks).iloc[0]
    assert row["low"] < row["difference"] == 25 < row["high"]


def test_images_without_an_object_are_not_measured_by_it():
    objects = np.zeros((2, SIZE, SIZE), dtype=bool)
    objects[0] = True
    scene = Scene(np.array([0, 1]), np.zeros_like(objects), objects)
    assert Look.at(scene, np.ones((2, 4, 4), np.float32)).measured == {"object_energy": 100}


def test_masks_without_any_object_measure_nothing(results, images):
    give_objects(images)
    for mask in images.glob("foreground/*/*.png"):
        Image.fromarray(np.zeros((192, 192), dtype=np.uint8)).save(mask)
    each, _, text = read(results)
    assert set(MEASURES) - set(each) == {"object_energy"}
    assert " and unknown." in text


def test_images_are_drawn_again_within_each_label():
    drawn = []
    whole = {"pro": lambda weights: drawn.append(weights) or weights[:, 0]}
    Look({}, {"pro": 0.5}, whole, np.array([0, 0, 0, 1, 1])).drawn("pro")
    np.testing.assert_allclose(drawn[0][:, :3].sum(1), 3)
    np.testing.assert_allclose(drawn[0][:, 3:].sum(1), 2)
