import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torchvision.models import resnet18

from adnlib import AttentDifferNet, InputError
from adnlib.attention import ATTENTION

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


def test_folder_files_and_tensor_give_the_same_scores(model, images, folder):
    expected = model.score(images)
    assert expected.shape == (5,)
    assert torch.equal(model.score(folder), expected)
    files = [folder / f"{i}.png" for i in (3, 1)]
    angles = model.test_angles(2)
    assert torch.equal(
        model.score(files), model.score_embeddings(model.embed(images[[3, 1]], angles))
    )


def test_an_images_score_does_not_depend_on_the_batch(model, images):
    """Test angles are drawn image after image, so the first images of a longer list keep theirs."""
    torch.testing.assert_close(model.score(images[:2]), model.score(images)[:2])


def test_score_is_the_mean_of_squares_over_views(model, images):
    angles = model.test_angles(len(images))
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
    np.testing.assert_allclose(model.score(images), untrained, rtol=1e-6)
    np.testing.assert_allclose(model.fit(images).score(images)[::2], trained, rtol=1e-6)


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


def test_a_model_with_a_given_backbone_keeps_none_of_it(tmp_path, images):
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "mine.pth")
    settings = {**TINY, "weights": str(tmp_path / "mine.pth"), "backbone": "resnet18"}
    model = AttentDifferNet(attention="eca", **settings).fit(images)
    model.save(tmp_path)
    kept = safe_open(tmp_path / "model.safetensors", "pt").keys()
    assert {name for name in kept if not name.startswith("flow.")} == {
        f"embedding.network.layer{stage}.attention.conv.weight" for stage in (1, 2, 3, 4)
    }
    assert torch.equal(AttentDifferNet.load(tmp_path).score(images), model.score(images))


def test_test_angles():
    model = AttentDifferNet(**TINY)
    assert torch.equal(model.test_angles(4), model.test_angles(4))
    assert not torch.equal(model.test_angles(4), AttentDifferNet(**TINY, seed=1).test_angles(4))
    grid = AttentDifferNet(**{**TINY, "test_views": 4, "test_angles": "grid"})
    assert grid.test_angles(1).tolist() == [[0, 90, 180, 270]]


@pytest.mark.parametrize("attention", ATTENTION)
def test_saved_and_loaded_it_scores_the_same(tmp_path, images, attention):
    model = AttentDifferNet(attention=attention, **TINY).fit(images)
    model.save(tmp_path)
    loaded = AttentDifferNet.load(tmp_path)
    assert torch.equal(loaded.score(images), model.score(images))
    assert repr(loaded) == repr(model)


def test_damaged_models_are_refused(tmp_path, model):
    model.save(tmp_path / "good")

    def broken(name, damage):
        folder = tmp_path / name
        shutil.copytree(tmp_path / "good", folder)
        damage(folder)
        with pytest.raises(InputError, match=name):
            AttentDifferNet.load(folder)

    def edit(**changes):
        def damage(folder):
            path = folder / "model.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

        return damage

    def truncate(folder):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])

    broken("no_description", lambda folder: (folder / "model.json").unlink())
    broken("no_tensors", lambda folder: (folder / "model.safetensors").unlink())
    broken("cut_description", lambda folder: (folder / "model.json").write_text("{"))
    broken("cut_tensors", truncate)
    broken("newer", edit(format=99))
    broken("other_weights", edit(weights_sha256="0" * 64))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"atention": "se"}, "no setting 'atention': did you mean 'attention'"),
        ({"epochs": "many"}, "epochs is 'many', which is no int"),
        ({"epochs": True}, "epochs is True"),
        ({"test_angles": "regular"}, "random, grid"),
        ({"test_views": 0}, "test_views"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"device": "cuda:77"}, "cuda:77"),
    ],
)
def test_bad_settings_are_named(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        AttentDifferNet(**{**TINY, **settings})


def test_an_int_may_stand_for_a_float():
    assert AttentDifferNet(**TINY, max_angle=90).settings.max_angle == 90
