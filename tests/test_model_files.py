"""Saved models: the same scores from them, and one sentence for each way in which one is bad."""

import dataclasses
import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adnlib import AttentDifferNet, InputError, model_files, networks
from adnlib.weights import Weights

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 2}


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def model(images):
    return AttentDifferNet(attention="se", **TINY).fit(images)


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def folder(kept, tmp_path):
    """A saved model to be damaged."""
    return shutil.copytree(kept, tmp_path / "model")


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as error:
        AttentDifferNet.load(folder)
    text = str(error.value)
    assert str(folder) in text
    assert "\n" not in text
    assert len(text) < 600
    return text


def forge(folder: Path, **changes) -> None:
    """Change the description as a hostile writer would: with digests that are right."""
    path = folder / model_files.JSON_NAME
    description = json.loads(path.read_text())
    for name, value in changes.items():
        at = description
        *parents, last = name.split("__")
        for parent in parents:
            at = at[parent]
        at[last] = value
    digest = model_files._sha256(folder / model_files.TENSORS_NAME)
    path.write_text(model_files.render(description | {"tensors_sha256": digest}))


@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "none"},
        {"attention": "se"},
        {"attention": "cbam"},
        {"attention": "se", "standardize": True},
        {"backbone": "resnet18"},
    ],
    ids=str,
)
@pytest.mark.parametrize("self_contained", [False, True])
def test_saved_and_loaded_it_scores_the_same(tmp_path, images, settings, self_contained):
    model = AttentDifferNet(**TINY | settings).fit(images, holdout=0.4)
    model.save(tmp_path / "new" / "model", self_contained)
    loaded = AttentDifferNet.load(tmp_path / "new" / "model")
    assert torch.equal(loaded.score(images), model.score(images))
    assert repr(loaded) == repr(model)
    for name in ("threshold", "heat_scale", "fitted"):
        assert getattr(loaded, name) == getattr(model, name)


def test_a_folder_with_its_convolutions_needs_no_name_of_weights(model, images, tmp_path):
    model.save(tmp_path, self_contained=True)
    path = tmp_path / model_files.JSON_NAME
    description = json.loads(path.read_text())
    del description["settings"]["weights"]
    path.write_text(model_files.render(description))
    assert torch.equal(AttentDifferNet.load(tmp_path).score(images), model.score(images))


@pytest.mark.parametrize("there", [False, True])
def test_what_a_killed_save_left_goes_with_the_next(model, tmp_path, there):
    folder = tmp_path / "m"
    left = (folder if there else tmp_path) / ".adnlib-killed.part"
    left.mkdir(parents=True)
    model.save(folder)
    assert not left.exists()


def test_before_a_fit_there_is_no_threshold_to_keep(tmp_path):
    AttentDifferNet(**TINY).save(tmp_path)
    assert AttentDifferNet.load(tmp_path).threshold is None


def test_the_users_own_weights_are_kept_whole_and_their_path_is_not(tmp_path, images):
    own = AttentDifferNet(**TINY)
    convolutions = {
        f"features.{name}": t.contiguous() for name, t in own.embedding.network.state_dict().items()
    }
    path = tmp_path / "own.safetensors"
    save_file(convolutions, path)
    model = AttentDifferNet(**TINY | {"weights": str(path)}).fit(images)
    model.save(tmp_path / "model")
    path.unlink()
    loaded = AttentDifferNet.load(tmp_path / "model")
    assert torch.equal(loaded.score(images), model.score(images))
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()
    loaded.save(tmp_path / "again")
    again = AttentDifferNet.load(tmp_path / "again")
    assert torch.equal(again.score(images), model.score(images))
    assert again.embedding.weights_sha256 == model.embedding.weights_sha256


def test_imagenets_weights_are_named_by_their_hash_or_inside(tmp_path, images, monkeypatch):
    drawn = AttentDifferNet(**TINY).embedding.network.state_dict()
    tensors = {f"features.{name}": tensor for name, tensor in drawn.items()}

    def here(sha256):
        monkeypatch.setattr(networks, "load_alexnet", lambda _: Weights(tensors, sha256, "test"))

    here("a" * 64)
    model = AttentDifferNet(**TINY | {"weights": "imagenet"}, attention="se").fit(images)
    model.save(tmp_path / "named")
    model.save(tmp_path / "inside", self_contained=True)
    named, inside = (load_file(tmp_path / n / "model.safetensors") for n in ("named", "inside"))
    assert {n for n in inside.keys() - named.keys() if "attention" in n or "flow" in n} == set()
    assert len(inside) - len(named) == 10
    assert torch.equal(AttentDifferNet.load(tmp_path / "named").score(images), model.score(images))
    here("b" * 64)
    assert "other ImageNet weights" in refused(tmp_path / "named")
    monkeypatch.setattr(networks, "load_alexnet", None)
    loaded = AttentDifferNet.load(tmp_path / "inside")
    assert torch.equal(loaded.score(images), model.score(images))
    assert loaded.embedding.weights_sha256 == "a" * 64
    loaded.save(tmp_path / "again")
    here("a" * 64)
    again = AttentDifferNet.load(tmp_path / "again")
    assert torch.equal(again.score(images), model.score(images))


def test_the_description_says_what_made_the_model(kept, model):
    description = json.loads((kept / "model.json").read_text())
    assert description["training"] == dataclasses.asdict(model.fitted)
    assert description["threshold"]["sentence"] == model.threshold.sentence
    assert {"python", "adnlib", "torch"} <= description["versions"].keys()
    assert {path.name for path in kept.iterdir()} == {"model.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_every_changed_byte_is_found(folder, name):
    path = folder / name
    whole = path.read_bytes()
    for position in [*range(0, len(whole), len(whole) // 25), len(whole) - 1]:
        changed = bytearray(whole)
        changed[position] ^= 1
        path.write_bytes(changed)
        refused(folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_bytes(pickle.dumps(print)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to(path.name)),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["missing", "empty", "cut", "longer", "pickle", "folder", "looping link", "pipe"],
)
def test_a_damaged_file_is_one_sentence(folder, name, damage):
    damage(folder / name)
    assert name in refused(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no JSON object"),
        ('{"format": NaN}', "NaN is no number"),
        ('{"format": 99}', "update adnlib"),
        ('{"format": 1}', "fit again"),
        ('{"format": "2"}', "changed since"),
        ('{"format": 1' + "0" * 5000 + "}", "damaged"),
        ("[" * 100_000, "damaged"),
        ("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("latin-1"), "damaged"),
        (" " * (33 << 20), "more than 32 MiB"),
    ],
    ids=["list", "nan", "newer", "older", "text", "huge number", "deep", "no JSON", "huge"],
)
def test_a_strange_description_is_one_sentence(folder, text, message):
    (folder / "model.json").write_text(text)
    assert message in refused(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": 3}, "settings"),
        ({"settings": {}}, "convolutions"),
        ({"settings__weights": "../../secret.pth"}, "lacks its convolutions"),
        ({"settings__weights": 3}, "lacks its convolutions"),
        ({"settings__flow_width": 10**9}, "flow_width"),
        ({"settings__flow_width": 32}, "does not fit"),
        ({"settings__flow_width": 16.0}, "flow_width is 16.0"),
        ({"settings__flow_blocks": 255}, "lacks or adds"),
        ({"settings__flow_blocks": -1}, "flow_blocks"),
        ({"settings__image_size": 10**6}, "image_size"),
        ({"settings__scales": 10**5}, "scales"),
        ({"settings__test_views": 10**8}, "test_views"),
        ({"settings__seed": 10**20}, "seed"),
        ({"settings__learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"settings__attention": "cbam"}, "lacks or adds"),
        ({"settings__attention": ["se"]}, "settings.attention"),
        ({"settings__shell": "rm"}, "no setting 'shell'"),
        ({"weights_sha256": "0" * 64}, "other ImageNet weights"),
        ({"weights_sha256": "../x"}, "weights_sha256"),
        ({"self_contained": "yes"}, "self_contained"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold__value": "high"}, "threshold.value"),
        ({"threshold__value": 10**400}, "damaged"),
        ({"threshold__value": None}, "threshold.value"),
        ({"threshold__rule": "eval"}, "threshold.rule"),
        ({"threshold__fpr": 7}, "threshold.fpr"),
        ({"threshold__normal_scores": []}, "normal_scores"),
        ({"threshold__normal_scores": ["a"]}, "normal_scores"),
        ({"threshold__found": -1}, "threshold.found"),
        ({"heat_scale": 0}, "heat_scale"),
        ({"training": {"images": 4}}, "training"),
        ({"extra": "../../x"}, "extra"),
    ],
    ids=str,
)
def test_a_forged_description_is_one_sentence(folder, changes, message):
    forge(folder, **changes)
    assert message in refused(folder)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_threshold_that_is_no_number_is_refused(folder, literal):
    path = folder / "model.json"
    text = path.read_text()
    value = json.loads(text)["threshold"]["value"]
    path.write_text(text.replace(f'"value": {value}', f'"value": {literal}'))
    refused(folder)


@pytest.mark.parametrize("missing", ["settings", "threshold", "tensors_sha256", "self_contained"])
def test_a_missing_field_is_named(folder, missing):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    del description[missing]
    path.write_text(model_files.render(description))
    assert missing in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"extra": torch.zeros(3)}, "lacks or adds 'extra'"),
        (lambda t: dict(list(t.items())[1:]), "lacks or adds"),
        (lambda t: {n: x * torch.nan if x.is_floating_point() else x for n, x in t.items()}, "not"),
        (lambda t: {n: x.double() if x.ndim == 2 else x for n, x in t.items()}, "does not fit"),
        (lambda t: {n: x[:1] for n, x in t.items()}, "does not fit"),
        (lambda t: {n: x + 10**9 * ("perm" in n) for n, x in t.items()}, "perm"),
        (lambda t: {n: torch.zeros(()) if "perm" in n else x for n, x in t.items()}, "damaged"),
        (lambda t: {}, "lacks or adds"),
    ],
    ids=["more", "fewer", "nan", "double", "cut", "permutation", "no dimension", "none"],
)
def test_forged_tensors_are_one_sentence(folder, change, message):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    forge(folder)
    assert message in refused(folder)


def test_a_pickle_with_a_right_digest_is_not_opened(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    forge(folder)
    assert "model.safetensors" in refused(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_full_disk_leaves_nothing_half_written(model, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write .*make room"):
            model.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_model_that_was_there(folder, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_files, "_flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_saving_leaves_other_files_alone(folder, model):
    (folder / "notes.txt").write_text("mine")
    model.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    AttentDifferNet.load(folder)


@pytest.mark.parametrize("where", ["/proc/model", "file/model"])
def test_a_place_that_cannot_be_written_is_named(model, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(InputError, match=f"cannot write '{where}'"):
        model.save(where)


def test_a_model_that_may_not_be_read_is_not_called_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "may not be read: change its permissions" in refused(folder)
