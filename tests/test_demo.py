"""The demo sets: same seed same bytes, exact masks, MVTec AD's folders, and no folder lost."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adnlib.datasets import read_samples
from adnlib.demo import DEMO_SETS, draw_sample, make_demo
from adnlib.errors import InputError
from adnlib.masks import foregrounds

FEW = {"size": 64, "train": 2, "good": 1, "anomalous": 4}  # four: one defect has two pictures
# What 128 px can show of the subtlest defect; 256 px shows four times as many pixels.
FEWEST_PIXELS = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder, **FEW)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_folders_are_those_of_mvtec_ad(root: Path, dataset: str) -> None:
    category = root / dataset / DEMO_SETS[dataset]
    assert sorted(path.name for path in (category / "train/good").iterdir()) == [
        "000.png",
        "001.png",
    ]
    assert [path.name for path in (category / "test/good").iterdir()] == ["000.png"]
    defects = sorted(path.name for path in (category / "test").iterdir() if path.name != "good")
    assert len(defects) == 3
    bad = sorted(
        p.relative_to(category / "test") for d in defects for p in category.glob(f"test/{d}/*")
    )
    masks = sorted(
        p.relative_to(category / "ground_truth") for p in category.glob("ground_truth/*/*")
    )
    assert len(bad) == 4
    assert masks == sorted(p.with_name(f"{p.stem}_mask.png") for p in bad)


def test_files_are_pictures_of_the_size_asked_for(root: Path) -> None:
    for path in root.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (64, 64)
            if path.name.endswith("_mask.png"):
                assert picture.mode == "L"
                assert set(np.unique(np.asarray(picture))) == {0, 255}
            else:
                assert picture.mode == ("L" if "demo_wafer" in path.parts else "RGB")


def test_one_seed_gives_the_same_bytes_and_another_does_not(root: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "again", **FEW)
    make_demo(tmp_path / "other", **FEW, seed=1)
    first, again, other = hashes(root), hashes(tmp_path / "again"), hashes(tmp_path / "other")
    assert first == again
    pictures = [name for name in first if name.endswith(".png")]
    assert all(first[name] != other[name] for name in pictures if "_mask" not in name)


def test_a_picture_does_not_depend_on_how_many_are_drawn(root: Path, tmp_path: Path) -> None:
    make_demo(tmp_path, size=64, train=3, good=2, anomalous=5)
    few, more = hashes(root), hashes(tmp_path)
    assert {name: more[name] for name in few if name.endswith(".png")} == {
        name: digest for name, digest in few.items() if name.endswith(".png")
    }


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    make_demo(tmp_path, **FEW)
    assert np.array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert random.getstate() == python_state
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_a_defect_changes_the_picture_inside_its_mask_only(dataset: str) -> None:
    for index in range(9):
        picture, defect = draw_sample(dataset, "anomalous", index, size=128)
        assert defect != "good"
        change = np.abs(picture.image.astype(int) - picture.clean)
        changed = change if change.ndim == 2 else change.max(axis=2)
        assert not changed[~picture.mask].any()
        assert picture.mask.sum() >= FEWEST_PIXELS, (defect, index)
        assert picture.mask.mean() < 0.25, (defect, index)
        # The mask is no hull around the defect: most of it really changed.
        assert (changed[picture.mask] > 0).mean() > 0.8, (defect, index)


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_every_test_image_has_a_mask_of_its_object(root: Path, dataset: str) -> None:
    category = root / dataset / DEMO_SETS[dataset]
    test = read_samples(category).query("split == 'test'")["path"]
    objects = foregrounds(category, test)
    assert list(objects) == list(test)
    for path, mask in objects.items():
        kind, name = Path(path).parts[1:]
        assert mask == f"foreground/{kind}/{Path(name).stem}_mask.png"


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_the_object_holds_the_defect_and_leaves_room_for_the_ground(dataset: str) -> None:
    for index in range(9):
        picture, _ = draw_sample(dataset, "anomalous", index, size=128)
        assert picture.body[picture.mask].all()
        assert 0.1 < picture.body.mean() < 0.95
        assert picture.body[64].any()


@pytest.mark.parametrize("dataset", DEMO_SETS)
def test_good_pictures_vary_but_have_no_mask(dataset: str) -> None:
    first, second = (draw_sample(dataset, "good", index, size=64)[0] for index in range(2))
    assert not first.mask.any()
    assert np.array_equal(first.image, first.clean)
    assert np.abs(first.image.astype(int) - second.image).mean() > 2


def test_a_finished_set_is_left_alone(tmp_path: Path) -> None:
    make_demo(tmp_path, **FEW)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    make_demo(tmp_path, **FEW)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_other_settings_replace_the_whole_set(tmp_path: Path) -> None:
    make_demo(tmp_path, **FEW)
    make_demo(tmp_path, **{**FEW, "train": 1})
    for dataset, category in DEMO_SETS.items():
        assert len(list((tmp_path / dataset / category / "train/good").iterdir())) == 1
        assert json.loads((tmp_path / dataset / "demo.json").read_text())["train"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        DEMO_SETS
    )  # nothing left over


def test_a_folder_that_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    own = tmp_path / "demo_outdoor" / "holiday.txt"
    own.parent.mkdir()
    own.write_text("mine")
    with pytest.raises(InputError, match=r"demo_outdoor.*move it away"):
        make_demo(tmp_path, **FEW)
    assert own.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["demo_outdoor"]  # refused before drawing
    assert [path.name for path in own.parent.iterdir()] == ["holiday.txt"]


def test_a_full_disk_is_reported_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(InputError, match=r"demo_parts' \(No space left on device\)"):
        make_demo(tmp_path, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_cannot_be_put_in_place_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_demo(tmp_path, **FEW)
    before = hashes(tmp_path)
    rename = Path.rename

    def stubborn(self: Path, target: Path) -> Path:
        if target.name == "demo_parts" and self.name != "old":
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(InputError, match="Permission denied"):
        make_demo(tmp_path, **FEW, seed=1)
    assert hashes(tmp_path) == before


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(InputError, match="data"):
        make_demo(tmp_path / "data", **FEW)


@pytest.mark.parametrize(
    ("name", "value"), [("size", 63), ("train", 0), ("good", -1), ("anomalous", -1), ("seed", -1)]
)
def test_a_setting_out_of_range_is_named(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(InputError, match=name):
        make_demo(tmp_path, **{**FEW, name: value})
