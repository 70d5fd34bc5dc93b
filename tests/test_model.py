import contextlib
import copy
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from adnlib import AttentDifferNet, InputError, model_files
from adnlib.attention import ATTENTION
from adnlib.datasets import read_samples
from adnlib.demo import make_demo
from adnlib.explain import saliency
from adnlib.inputs import good_files
from adnlib.model_settings import find_device
from adnlib.training import hold_out
from adnlib.views import draw_angles

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 3}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=generator)


@pytest.fixture
def folder(tmp_path, images):
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.fixture(scope="module")
def model(images):
    return AttentDifferNet(attention="se", **TINY).fit(images)


def test_it_is_shown_with_what_was_fitted_and_what_its_threshold_promises(model):
    shown = model._repr_html_()
    assert "attention=&#x27;se&#x27;, image_size=64" in shown
    assert "4 images, 1 held out, 1 epochs" in shown
    assert f"{model.threshold.value:.4g}. {model.threshold.sentence}" in shown
    fresh = AttentDifferNet(**TINY)._repr_html_()
    assert "not yet" in fresh
    assert "threshold" not in fresh


def test_images_of_every_kind_give_the_same_scores(model, images, folder):
    expected = model.score(images)
    assert expected.shape == (5,)
    assert torch.equal(model.score(folder), expected)
    assert torch.equal(model.score(str(folder)), expected)
    files = [folder / f"{i}.png" for i in range(5)]
    opened = [Image.open(path) for path in files]
    arrays = [np.asarray(image) for image in opened]
    for given in (files, map(str, files), opened, arrays, np.stack(arrays), list(images)):
        assert torch.equal(model.score(given), expected)
    assert torch.equal(model.score([files[0], opened[1], arrays[2]]), expected[:3])
    with os.scandir(folder) as entries:  # paths that are no Path
        given = sorted(entries, key=lambda entry: entry.name)
    assert torch.equal(model.score(given[0]), expected[:1])
    assert torch.equal(model.score([given[0], arrays[1]]), expected[:2])
    for one in (files[3], opened[3], arrays[3], images[3]):
        assert torch.equal(model.score(one), expected[3:4])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "there are no images"),
        (np.zeros((64, 64, 3), np.float32), r"float32 \(64, 64, 3\) is no image: give uint8"),
        (np.zeros((64, 64), np.uint8), "is no image"),
        (np.zeros((64, 64, 4), np.uint8), "is no image"),
        (np.zeros((0, 64, 3), np.uint8), "is no image"),
        ([1, 2], "int is no image"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"\(2, 3, 32, 32\) holds no images"),
        (torch.zeros(2, 3, 64, 64), "float32"),
        (torch.zeros(0, 3, 64, 64, dtype=torch.uint8), "holds no images"),
        (Image.new("F", (64, 64)), "floating-point"),
        ("nowhere", "'nowhere' does not exist"),
        (["nowhere.png"], "there is no 'nowhere.png': check the path"),
        ("good/*.jpg", r"patterns are for the shell; in Python give glob.glob\('good/\*.jpg'\)"),
        (["0.png", "good/?.jpg"], "patterns are for the shell"),
        (5, "int is no image"),
        ("a" * 300, "cannot be read .File name too long"),
    ],
)
def test_what_is_no_image_is_said_in_one_sentence(model, given, message):
    with pytest.raises(InputError, match=message) as refused:
        model.score(given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ask", [read_samples, good_files, model_files.read, make_demo])
def test_a_path_that_cannot_be_asked_about_is_named(ask):
    """As one below a folder that may not be read, which for root there is none of."""
    with pytest.raises(InputError, match=r"xx.*File name too long"):
        ask(Path("x" * 300))


def test_an_images_score_depends_on_nothing_but_the_image(model, images):
    """To the last digit: not on how many there are, nor on its place or neighbours."""
    expected = model.score(images)
    assert torch.equal(model.score(images.flip(0)), expected.flip(0))
    assert torch.equal(model.score(images[2:3]), expected[2:3])
    assert torch.equal(model.score(images.repeat(4, 1, 1, 1)), expected.repeat(4))


def test_fit_holds_out_what_the_threshold_is_made_from(images):
    many = images.repeat(4, 1, 1, 1)
    model = AttentDifferNet(**TINY)
    assert (model.threshold, model.heat_scale, model.fitted) == (None, None, None)
    model.fit(many, holdout=0.25, fpr=0.2)
    held = many[hold_out(20, 0.25, seed=0)]
    assert model.threshold.normal_scores == tuple(sorted(model.score(held).tolist()))
    assert model.threshold.value == model.score(held).max()
    assert (model.fitted.images, model.fitted.held_out, model.fitted.epochs) == (15, 5, 1)
    assert np.isfinite([model.fitted.train_loss, model.fitted.holdout_loss]).all()
    maps = [model.explain(image) for image in held]
    assert max(heat.max().item() for heat in maps) <= model.heat_scale
    assert AttentDifferNet(**TINY).fit(many, holdout=0).threshold is None


def test_calibrate_counts_and_moves_the_threshold_only_where_asked(images):
    model = AttentDifferNet(**TINY)
    with pytest.raises(InputError, match="has no threshold"):
        model.calibrate(images)
    before = model.fit(images).threshold.value
    assert (model.calibrate(images).threshold.value, model.threshold.anomalies) == (before, 5)
    assert model.calibrate(images, balance=True).threshold.rule == "balance"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"holdout": 1}, "holdout is 1"),
        ({"holdout": -0.1}, "holdout is -0.1"),
        ({"fpr": 0}, "fpr is 0"),
        ({"fpr": 2}, "fpr is 2"),
    ],
)
def test_wrong_shares_are_refused_before_anything_is_read(wrong, message):
    with pytest.raises(InputError, match=message):
        AttentDifferNet(**TINY).fit("nowhere", **wrong)


def test_good_images_beside_others_are_not_trained_on(folder):
    for kind in ("good", "scratch"):
        (folder / kind).mkdir()
        shutil.copy(folder / "0.png", folder / kind)
    with pytest.raises(InputError, match="holds good images beside"):
        AttentDifferNet(**TINY).fit(folder)
    assert AttentDifferNet(**TINY).fit(folder / "good", holdout=0).fitted.images == 1


def test_a_data_set_is_no_folder_of_good_images(folder):
    for place in ("part/train/good", "part/test/good", "part/test/dent", "part/ground_truth/dent"):
        (folder / "sets" / place).mkdir(parents=True)
        shutil.copy(folder / "0.png", folder / "sets" / place)
    with pytest.raises(InputError, match="good images beside 'part/ground_truth/dent'"):
        good_files(folder / "sets")
    assert good_files(folder / "sets" / "part") == ["train/good/0.png"]


def test_a_model_that_was_trained_is_not_fitted_again(images, tmp_path):
    """Nor one whose fit was interrupted, nor one that a run saved: images were seen."""

    def interrupt(_):
        raise KeyboardInterrupt

    fitted, interrupted, of_a_run = (AttentDifferNet(**TINY) for _ in range(3))
    fitted.fit(images, holdout=0)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(images, on_epoch=interrupt)
    list(of_a_run.train_epochs(images))
    of_a_run.save(tmp_path)
    for model in (fitted, interrupted, of_a_run, AttentDifferNet.load(tmp_path)):
        with pytest.raises(InputError, match="trained already: make a new one"):
            model.fit(images, holdout=0.4)


def test_a_model_is_copied_and_pickled(images):
    model = AttentDifferNet(attention="se", **TINY)
    scores = model.score(images)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again.score(images), scores)


def test_folders_of_good_images_beside_each_other_are_all_taken(folder):
    parts = folder / "parts"
    for kind in ("Good", "normal", "scratch"):
        (parts / kind).mkdir(parents=True)
    shutil.copy(folder / "0.png", parts / "Good")
    shutil.copy(folder / "1.png", parts / "normal")
    assert good_files(parts) == ["Good/0.png", "normal/1.png"]
    shutil.copy(folder / "2.png", parts / "scratch")
    with pytest.raises(InputError, match="good images beside 'scratch'"):
        good_files(parts)


def test_explain_gives_one_map_in_the_scores_unit(model, images, folder):
    heat = model.explain(folder / "0.png")
    assert heat.shape == (64, 64)
    assert heat.min() >= 0
    torch.testing.assert_close(heat, model.explain(images[0]))
    with pytest.raises(InputError, match="explain got 5 images: give one at a time"):
        model.explain(images)


def test_score_is_the_mean_of_squares_over_views(model, images):
    angles = model.test_angles(1).expand(len(images), -1)
    embedded = model.embedding.embed(images, angles).flatten(0, 1)
    latent = model.flow(embedded)[0].detach().numpy().reshape(5, 3, -1)
    np.testing.assert_allclose(model.score(images), (latent**2).mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("attention", "untrained", "trained"),
    [
        ("none", [0.0557068288, 0.0557186417, 0.0558159239], [0.0554800779, 0.0555891246]),
        ("se", [0.0524320602, 0.0524248220, 0.0524314158], [0.0522076972, 0.0522067398]),
        ("cbam", [0.0523325168, 0.0523323566, 0.0523320027], [0.0521085076, 0.0521080010]),
    ],
)
def test_scores_are_those_of_before_other_backbones_and_places(attention, untrained, trained):
    """Written down when AlexNet, SE, CBAM and one placement were all that there was."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 128, 128), dtype=torch.uint8, generator=generator)
    model = AttentDifferNet(**{**TINY, "image_size": 128, "scales": 2, "attention": attention})
    angles = draw_angles(3, 3, torch.Generator().manual_seed(0), 180.0)

    def scores():
        return model.score_embeddings(model.embed(images, angles))

    # They differ by a thousandth from image to image; other processors round in the last digits.
    np.testing.assert_allclose(scores(), untrained, rtol=2e-5)
    model.fit(images, holdout=0)
    np.testing.assert_allclose(scores()[::2], trained, rtol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"attention_open": True, "attention_residual": True}])
def test_the_identity_changes_nothing(images, changes):
    plain = AttentDifferNet(**TINY)
    control = AttentDifferNet(attention="identity", **changes, **TINY)
    assert torch.equal(control.score(images), plain.score(images))
    assert torch.equal(control.fit(images).score(images), plain.fit(images).score(images))


@pytest.mark.parametrize("place", ["figure", "relu", "pool"])
def test_a_constant_gate_of_one_changes_nothing(images, place):
    control = AttentDifferNet(
        attention="constant", attention_gate=1.0, attention_place=place, **TINY
    )
    assert torch.equal(control.score(images), AttentDifferNet(**TINY).score(images))


@pytest.mark.parametrize("attention", ["se", "cbam", "eca", "coordinate"])
def test_open_gates_begin_near_differnet(images, attention):
    def distance(**changes):
        model = AttentDifferNet(attention=attention, **changes, **TINY)
        return (model.embed(images, angles) - plain).norm() / plain.norm()

    angles = AttentDifferNet(**TINY).test_angles(len(images))
    plain = AttentDifferNet(**TINY).embed(images, angles)
    assert distance(attention_open=True) < 0.1 < distance()


def test_a_model_with_a_given_backbone_holds_it_whole(tmp_path, images):
    given = tmp_path / "mine.pth"
    torch.save(resnet18(weights=None).state_dict(), given)
    settings = {**TINY, "weights": str(given), "backbone": "resnet18", "attention": "eca"}
    model = AttentDifferNet(**settings).fit(images)
    model.save(tmp_path / "saved")
    given.unlink()
    loaded = AttentDifferNet.load(tmp_path / "saved")
    assert torch.equal(loaded.score(images), model.score(images))
    assert loaded.embedding.weights_sha256 == model.embedding.weights_sha256


def test_test_angles():
    model = AttentDifferNet(**TINY)
    assert torch.equal(model.test_angles(4), model.test_angles(4))
    assert not torch.equal(model.test_angles(4), AttentDifferNet(**TINY, seed=1).test_angles(4))
    grid = AttentDifferNet(**{**TINY, "test_views": 4, "test_angles": "grid"})
    assert sorted(grid.test_angles(1)[0].tolist()) == [0, 90, 180, 270]
    even = AttentDifferNet(**{**TINY, "test_views": 4, "test_angles": "even", "max_angle": 40.0})
    assert sorted(even.test_angles(2)[1].tolist()) == [-30, -10, 10, 30]


@pytest.mark.parametrize("attention", ATTENTION)
def test_saved_and_loaded_it_scores_the_same(tmp_path, images, attention):
    model = AttentDifferNet(attention=attention, **TINY).fit(images)
    model.save(tmp_path)
    loaded = AttentDifferNet.load(tmp_path)
    assert torch.equal(loaded.score(images), model.score(images))
    assert repr(loaded) == repr(model)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"atention": "se"}, "no setting 'atention': did you mean 'attention'"),
        ({"epochs": "many"}, "epochs is 'many', which is no int"),
        ({"epochs": True}, "epochs is True"),
        ({"test_angles": "regular"}, "random, even, grid"),
        ({"test_views": 0}, "test_views"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 32}, "whole number from 0 to"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"device": "cuda:77"}, "cuda:77"),
        ({"device": "cuda:99999999999999999999"}, "choose auto"),
        ({"device": "cuda:\u0661"}, "choose auto"),  # a digit, and none of torch's
        ({"scales": 20_000}, "scales is 20000: give at most 8"),
        ({"attention": "eca", "attention_kernel": 99_999_999_999}, "give at most 101"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        AttentDifferNet(**{**TINY, **settings})


def test_an_int_may_stand_for_a_float():
    assert AttentDifferNet(**TINY, max_angle=90).settings.max_angle == 90


def test_the_device_is_where_the_model_was_moved_to():
    assert AttentDifferNet(**TINY).to("meta").device == torch.device("meta")


@pytest.mark.parametrize(
    "change", [lambda m: m.half(), lambda m: m.double(), lambda m: m.to(torch.bfloat16)]
)
def test_a_model_of_other_numbers_is_refused_and_stays_as_it_was(model, images, change):
    before = model.score(images)
    with pytest.raises(InputError, match="precision='fp16'"):
        change(model)
    assert torch.equal(model.to("cpu").float().score(images), before)


def test_making_a_model_leaves_all_random_generators_as_they_were(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    AttentDifferNet(attention="cbam", **TINY)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert not seeded


def test_test_angles_are_none_that_training_draws(model):
    for seed in (0, 3):
        again = AttentDifferNet(**TINY, seed=seed)
        of_training = torch.Generator().manual_seed(seed)
        drawn = draw_angles(100, 100, of_training, again.settings.max_angle)
        assert not torch.isin(again.test_angles(8), drawn).any()


def test_the_rate_and_the_seed_reach_the_threshold():
    generator = torch.Generator().manual_seed(0)
    many = torch.randint(0, 256, (20, 3, 64, 64), dtype=torch.uint8, generator=generator)
    found = AttentDifferNet(**TINY).fit(many, holdout=0.5, fpr=0.3).threshold
    assert (found.fpr, found.false_alarms) == (0.3, 2)
    model = AttentDifferNet(**TINY, seed=1).fit(many, holdout=0.25)
    held = model.score(many[hold_out(20, 0.25, 1)])
    assert model.threshold.normal_scores == tuple(sorted(held.tolist()))


def test_the_scale_of_maps_is_twice_the_highest_of_held_out_images(images):
    model = AttentDifferNet(**TINY).fit(images, holdout=0.5)
    held = images[hold_out(len(images), 0.5, 0)]
    highest = max(saliency(model, image[None]).max().item() for image in held)
    assert model.heat_scale == pytest.approx(2 * highest, rel=1e-5)


def test_the_loss_of_many_images_is_the_mean_of_each():
    generator = torch.Generator().manual_seed(0)
    many = torch.randint(0, 256, (17, 3, 64, 64), dtype=torch.uint8, generator=generator)
    many[16] = 0
    model = AttentDifferNet(**TINY)
    embedded = model.embed(many, model.test_angles(17))
    each = [model.loss_embeddings(one[None]) for one in embedded]
    assert model.loss_embeddings(embedded) == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize(
    ("capability", "serves"), [((6, 1), False), ((7, 5), True), ((9, 0), True)]
)
def test_a_gpu_that_torch_has_no_code_for_is_left_alone(capability, serves, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90a", "sm_75", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    if serves:
        assert find_device("auto").type == find_device("cuda").type == "cuda"
        return
    with pytest.warns(UserWarning, match=r"no code for a GPU as old .* the CPU is used"):
        assert find_device("auto").type == "cpu"
    with pytest.raises(InputError, match=r"device is 'cuda': .* Choose cpu"):
        find_device("cuda")


@pytest.mark.parametrize("surroundings", ["float64", "float16", "device", "inference", "no_grad"])
def test_what_a_program_has_set_torch_to_changes_nothing(surroundings, images, tmp_path):
    def made():
        model = AttentDifferNet(attention="se", **TINY).fit(images, holdout=0.4)
        model.save(tmp_path)
        again = AttentDifferNet.load(tmp_path)
        of_files = again.score([image.permute(1, 2, 0).numpy() for image in images])
        return model.score(images), of_files, again.explain(images[0]), again

    *expected, _ = made()
    with contextlib.ExitStack() as stack:
        if surroundings.startswith("float"):
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(getattr(torch, surroundings))
        elif surroundings == "device":
            stack.enter_context(torch.device("meta"))
        else:
            mode = torch.inference_mode if surroundings == "inference" else torch.no_grad
            stack.enter_context(mode())
        set_to = torch.get_default_dtype()
        *found, model = made()
        assert torch.get_default_dtype() == set_to
    assert all(map(torch.equal, found, expected))
    assert torch.equal(model.explain(images[0]), expected[2])  # outside again
