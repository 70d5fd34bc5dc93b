"""Nothing here opens an image, so empty files stand for them."""

import os
import random
from pathlib import Path

import pandas as pd
import pytest

from adnlib import datasets
from adnlib.catalogue import CATALOGUE, ImageCounts
from adnlib.errors import InputError
from adnlib.files import image_files
from adnlib.masks import check_masks, foregrounds

REAL = Path(
    os.environ.get("ADNLIB_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def make(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def category(folder: Path) -> Path:
    return make(
        folder,
        "train/good/0.png",
        "train/good/1.png",
        "test/good/0.png",
        "test/crack/0.png",
        "test/crack/1.png",
        "ground_truth/crack/0_mask.png",
    )


def test_catalogue_holds_the_papers_sets():
    mvtec, insplad = CATALOGUE["mvtec_ad"].categories, CATALOGUE["insplad_fault"].categories
    assert len(mvtec) == 15
    assert len(insplad) == 5
    for categories, total in (
        (mvtec, ImageCounts(3629, 467, 1258)),
        (insplad, ImageCounts(9006, 2254, 402)),
        (CATALOGUE["mtd"].categories, ImageCounts(761, 191, 392)),
    ):
        counts = list(categories.values())
        assert (
            ImageCounts(
                sum(c.train_good for c in counts),
                sum(c.test_good for c in counts),
                sum(c.test_anomalous for c in counts),
            )
            == total
        )
    assert CATALOGUE["semiconductor_wafer"].categories == {}
    for info in CATALOGUE.values():
        assert info.title
        assert info.page
        assert info.licence


@pytest.mark.parametrize("at", ["", "mvtec_ad", "mvtec_ad/bottle"])
def test_find_takes_data_sets_or_one_set_or_one_category(tmp_path, at):
    folder = category(tmp_path / "mvtec_ad" / "bottle")
    assert datasets.find(tmp_path / at) == [datasets.Found("mvtec_ad", "bottle", folder)]


def test_find_knows_a_category_given_as_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(category(tmp_path / "mvtec_ad" / "bottle"))
    assert datasets.find(Path()) == [datasets.Found("mvtec_ad", "bottle", Path())]


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("mvtec/bottle", ("mvtec_ad", "bottle")),
        ("MVTec-AD/Metal Nut", ("mvtec_ad", "metal_nut")),
        ("mvtec_anomaly_detection/mvtec_anomaly_detection/wood", ("mvtec_ad", "wood")),
        (
            "InsPLAD-fault/unsupervised_anomaly_detection/glass-insulator",
            ("insplad_fault", "glass_insulator"),
        ),
        ("unsupervised_anomaly_detection/vari-grip", ("insplad_fault", "vari_grip")),
        ("wafer/Type 1", ("semiconductor_wafer", "type_1")),
        ("elpv/mono", ("elpv", "mono")),
    ],
)
def test_find_normalises_names(tmp_path, folder, found):
    category(tmp_path / folder)
    [there] = datasets.find(tmp_path)
    assert (there.dataset, there.category) == found
    assert there.folder == tmp_path / folder
    assert datasets.locate(tmp_path, Path(folder).parent.name, Path(folder).name) == there.folder


def test_insplad_fault_as_downloaded(tmp_path):
    assets = {
        "glass-insulator": ["missing-cap"],
        "lightning-rod-suspension": ["rust"],
        "polymer-insulator-upper-shackle": ["rust"],
        "vari-grip": ["bird-nest", "rust"],
        "yoke-suspension": ["rust"],
    }
    for asset, defects in assets.items():
        folder = tmp_path / "unsupervised_anomaly_detection" / asset
        make(folder, "train/good/a-1.jpg", "test/good/a-2.jpg")
        make(folder, *(f"test/{defect}/a-3.jpg" for defect in defects))
    found = datasets.find(tmp_path)
    assert datasets.absent("insplad_fault", found) == []
    for item, (asset, defects) in zip(found, assets.items(), strict=True):
        assert item.folder.name == asset
        assert datasets.locate(tmp_path, "InsPLAD-fault", asset) == item.folder
        samples = datasets.read_samples(item.folder)
        datasets.check_for_auroc(samples)
        assert list(samples["defect"]) == ["good", "good", *defects]


def test_a_wafer_folder_holds_any_types(tmp_path):
    for wafer in ("type_1", "Type-2", "03"):
        category(tmp_path / "semiconductor_wafer" / wafer)
    found = datasets.find(tmp_path)
    assert {item.dataset for item in found} == {"semiconductor_wafer"}
    assert [item.category for item in found] == ["03", "type_1", "type_2"]
    for item in found:
        samples = datasets.read_samples(datasets.locate(tmp_path, "wafer", item.category))
        assert datasets.check_counts(item.dataset, item.category, samples) is None


def test_find_passes_over_what_is_hidden_or_no_category(tmp_path):
    category(tmp_path / "elpv" / "mono")
    make(tmp_path, "__MACOSX/elpv/mono/train/good/0.png", ".cache/a/b/train/good/0.png")
    make(tmp_path, "elpv/readme.txt", "elpv/pictures/0.png", "lost+found/b/train/good/0.png")
    assert [f.category for f in datasets.find(tmp_path)] == ["mono"]


def test_find_looks_three_folders_deep(tmp_path):
    third = category(tmp_path / "a" / "b" / "c")
    category(tmp_path / "a" / "b" / "d" / "e")
    assert datasets.find(tmp_path) == [datasets.Found("b", "c", third)]


def test_what_lies_in_a_category_is_no_other_one(tmp_path):
    folder = category(tmp_path / "my_set" / "cup")
    category(folder / "old")
    assert datasets.find(tmp_path) == [datasets.Found("my_set", "cup", folder)]


def test_absent_names_the_rest_of_the_catalogue(tmp_path):
    for name in CATALOGUE["insplad_fault"].categories:
        if name != "vari_grip":
            category(tmp_path / "insplad" / name)
    assert datasets.absent("insplad_fault", datasets.find(tmp_path)) == ["vari_grip"]
    assert datasets.absent("my_set", []) == []


@pytest.mark.parametrize(
    ("dataset", "name", "says"),
    [
        ("mvtc_ad", "bottle", "did you mean 'mvtec_ad'"),
        ("mvtec_ad", "botle", "did you mean 'bottle'"),
        ("mvtec_ad", "zipper", "https://www.mvtec.com"),
        ("mvtec_ad", "zzz", "which holds bottle, screw"),
        ("mtd", "magnetic_tile", "which holds mvtec_ad: put it there .see https://github.com/abin"),
        ("q", "r", "choose one"),
    ],
)
def test_locate_names_what_there_is_instead(tmp_path, dataset, name, says):
    category(tmp_path / "mvtec_ad" / "bottle")
    category(tmp_path / "mvtec_ad" / "screw")
    with pytest.raises(InputError, match=says):
        datasets.locate(tmp_path, dataset, name)


def test_no_category_has_the_name_of_the_row_of_means(tmp_path):
    category(tmp_path / "my_set" / "Mean")
    with pytest.raises(InputError, match="mean is the row of means in tables: rename"):
        datasets.locate(tmp_path, "my_set", "Mean")


def test_locate_refuses_two_folders_of_one_name(tmp_path):
    category(tmp_path / "mvtec" / "bottle")
    category(tmp_path / "mvtec_ad" / "bottle")
    with pytest.raises(InputError, match=r"both in .*mvtec/bottle.* and .*mvtec_ad/bottle"):
        datasets.locate(tmp_path, "mvtec_ad", "bottle")


def test_locate_in_missing_empty_and_wrong_places(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        datasets.locate(tmp_path / "no", "mvtec_ad", "bottle")
    with pytest.raises(InputError, match="holds no data"):
        datasets.locate(tmp_path, "mvtec_ad", "bottle")
    with pytest.raises(InputError, match="is a file"):
        datasets.locate(make(tmp_path, "file") / "file", "mvtec_ad", "bottle")


def test_read_samples_gives_one_table(tmp_path):
    samples = datasets.read_samples(category(tmp_path))
    expected = pd.DataFrame(
        [
            ("train/good/0.png", "train", 0, "good", ""),
            ("train/good/1.png", "train", 0, "good", ""),
            ("test/good/0.png", "test", 0, "good", ""),
            ("test/crack/0.png", "test", 1, "crack", "ground_truth/crack/0_mask.png"),
            ("test/crack/1.png", "test", 1, "crack", ""),
        ],
        columns=["path", "split", "label", "defect", "mask"],
    )
    pd.testing.assert_frame_equal(samples, expected)


def test_read_samples_of_nested_and_odd_names(tmp_path):
    odd = [
        "a b.PNG",
        "line\nbreak.jpg",
        "größe.Tiff",
        "日本.webp",
        "10.bmp",
        "9.jpeg",
        "deep/er/x.tif",
    ]
    make(tmp_path, *(f"Train/Good/{name}" for name in odd))
    make(tmp_path, "Train/Good/notes.txt", "Train/Good/.hidden.png", "Train/Good/.old/x.png")
    make(tmp_path, "Train/bad/x.png", "TEST/Normal/x.png", "TEST/Bird's nest/x.png")
    make(tmp_path, "TEST/Bird's nest/2/x.png", "Ground_Truth/bird's nest/2/x_mask.PNG")
    samples = datasets.read_samples(tmp_path)
    train = samples[samples["split"] == "train"]
    assert set(train["path"]) == {f"Train/Good/{name}" for name in odd}
    assert list(train["path"])[:2] == ["Train/Good/9.jpeg", "Train/Good/10.bmp"]
    test = samples[samples["split"] == "test"]
    assert list(test["defect"]) == ["good", "Bird's nest", "Bird's nest"]
    assert dict(zip(test["path"], test["mask"], strict=True)) == {
        "TEST/Normal/x.png": "",
        "TEST/Bird's nest/x.png": "",
        "TEST/Bird's nest/2/x.png": "Ground_Truth/bird's nest/2/x_mask.PNG",
    }
    assert all((tmp_path / path).is_file() for path in samples["path"])


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    make(tmp_path, *(f"train/good/{i}.png" for i in range(20)), "train/good/a/1.png")
    make(tmp_path, *(f"test/{kind}/{i}.png" for kind in ("b", "a", "good") for i in range(5)))
    make(tmp_path, *(f"ground_truth/a/{i}.{end}" for i in range(5) for end in ("png", "bmp")))
    expected = datasets.read_samples(tmp_path)
    walk, draw = os.walk, random.Random(0)

    def shuffled(*args, **kwargs):
        for place, children, files in walk(*args, **kwargs):
            draw.shuffle(files)
            draw.shuffle(children)
            yield place, children, files

    monkeypatch.setattr(os, "walk", shuffled)
    pd.testing.assert_frame_equal(datasets.read_samples(tmp_path), expected)
    assert list(expected["defect"]) == ["good"] * 26 + ["a"] * 5 + ["b"] * 5
    assert list(expected["mask"])[26:31] == [f"ground_truth/a/{i}.png" for i in range(5)]
    assert list(expected["path"])[9:12] == [f"train/good/{i}.png" for i in (9, 10, 11)]


def test_masks_pair_by_name_or_not_at_all(tmp_path):
    make(tmp_path, "train/good/0.png", "test/a/0.jpg", "test/a/1.png", "test/a/1.jpg")
    make(tmp_path, "test/b/0.png", "test/b/0(1).png", "test/merged/0.png")
    make(tmp_path, "ground_truth/a/0.png", "ground_truth/a/1_mask.png")
    make(tmp_path, "ground_truth/b/0.png", "ground_truth/b/0_mask.png", "ground_truth/c/0_mask.png")
    samples = datasets.read_samples(tmp_path)
    masks = dict(zip(samples["path"], samples["mask"], strict=True))
    assert {path: mask for path, mask in masks.items() if mask} == {
        "test/a/0.jpg": "ground_truth/a/0.png",
        "test/b/0.png": "ground_truth/b/0.png",  # the image's own name comes before _mask
    }
    warning = check_masks(tmp_path, samples)
    assert warning
    assert warning.startswith("3 of 5 masks")


def test_masks_are_found_in_the_other_form_of_unicode(tmp_path):
    """As where images came by way of macOS, and masks did not."""
    make(tmp_path, "train/good/0.png", "test/fe\u0302lure/e\u0301.png")
    mask = "ground_truth/f\u00ealure/\u00e9_mask.png"
    make(tmp_path, mask)
    assert list(datasets.read_samples(tmp_path)["mask"]) == ["", mask]


def test_the_objects_mask_of_an_image_that_lies_deeper_is_found(tmp_path):
    make(tmp_path, "test/good/2/x.png", "test/good/x.png", "foreground/good/2/x_mask.png")
    found = foregrounds(tmp_path, ["test/good/2/x.png", "test/good/x.png"])
    assert found == {"test/good/2/x.png": "foreground/good/2/x_mask.png"}


def test_check_masks_is_silent_where_all_fit_or_none_are(tmp_path):
    fits = category(tmp_path / "fits")
    assert check_masks(fits, datasets.read_samples(fits)) is None
    none = make(tmp_path / "none", "train/good/0.png")
    assert check_masks(none, datasets.read_samples(none)) is None


def test_read_samples_without_training_images(tmp_path):
    make(tmp_path, "test/good/0.jpg", "test/missing-cap/0.jpg", "train/bad/0.jpg")
    with pytest.raises(
        InputError, match=r"train/good \(found test/good, test/missing-cap, train/bad;"
    ):
        datasets.read_samples(tmp_path)
    samples = datasets.read_samples(tmp_path, need_train=False)
    assert list(samples["defect"]) == ["good", "missing-cap"]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], "no folders in train or test"),
        (["train/good/readme.txt", "train/good/.x.png"], "found train/good"),
        (["train/good/0.png", "test/0.png"], "test/0.png' lies beside the folders"),
    ],
)
def test_read_samples_refuses(tmp_path, paths, says):
    make(tmp_path, *paths)
    with pytest.raises(InputError, match=says):
        datasets.read_samples(tmp_path)


def test_read_samples_of_no_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist: give the folder of a category"):
        datasets.read_samples(tmp_path / "no")


@pytest.mark.skipif(os.name == "nt", reason="file names are no bytes there")
def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    make(tmp_path, "train/good/0.png")
    try:
        (tmp_path / "train/good" / os.fsdecode(b"gr\xf6.png")).touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    with pytest.raises(InputError, match="not named in UTF-8: rename it") as caught:
        datasets.read_samples(tmp_path)
    assert str(caught.value).encode()


@pytest.mark.parametrize(
    ("kept", "says"),
    [(["train"], "no test images"), (["train", 1], "no good test"), (["train", 0], "no anomalous")],
)
def test_auroc_needs_both_kinds_of_test_images(tmp_path, kept, says):
    samples = datasets.read_samples(category(tmp_path))
    datasets.check_for_auroc(samples)
    some = samples[samples["split"].eq("train") | samples["label"].isin(kept[1:])]
    with pytest.raises(InputError, match=f"screw has {says}"):
        datasets.check_for_auroc(some, "screw")


def test_check_counts_warns_where_they_differ(tmp_path):
    samples = datasets.read_samples(category(tmp_path))
    warning = datasets.check_counts("InsPLAD", "vari-grip", samples)
    assert warning
    assert "2/1/2" in warning
    assert "477/114/111" in warning
    assert datasets.check_counts("elpv", "mono", samples) is None
    assert datasets.check_counts("demo_parts", "bracket", samples) is None
    bottle = pd.DataFrame(
        [("train", 0)] * 209 + [("test", 0)] * 20 + [("test", 1)] * 63, columns=["split", "label"]
    )
    assert datasets.check_counts("mvtec_ad", "bottle", bottle) is None


def test_image_files_of_any_folder(tmp_path):
    make(tmp_path / "in", "10.png", "9.PNG", "sub/1.jpg", ".x.png", "notes.txt")
    assert image_files(tmp_path / "in") == ["9.PNG", "10.png", "sub/1.jpg"]
    with pytest.raises(InputError, match="holds no images"):
        image_files(make(tmp_path / "none", "a.txt"))
    with pytest.raises(InputError, match="does not exist"):
        image_files(tmp_path / "no")


def test_a_linked_folder_is_left_out_and_said(tmp_path):
    make(tmp_path, "in/a/0.png", "elsewhere/1.png")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="in': 1 linked folder, such as 'b'; put what"):
        assert image_files(tmp_path / "in") == ["a/0.png"]


def test_a_link_to_itself_is_no_folder(tmp_path):
    category = make(tmp_path / "set" / "part", "train/good/0.png")
    (tmp_path / "set" / "loop").symlink_to("loop")
    (category / "loop").symlink_to("loop")
    assert [found.folder for found in datasets.find(tmp_path / "set")] == [category]
    assert len(datasets.read_samples(category)) == 1


def test_decomposed_letters_sort_as_composed_ones(tmp_path):
    """File systems hold one or the other form of a name: the order must not depend on which."""
    for place, name in (("composed", "\u00e9.png"), ("decomposed", "e\u0301.png")):
        make(tmp_path / place, name, "z.png")
        assert image_files(tmp_path / place) == ["z.png", name]


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "name", "counts", "masks"),
    [
        ("mvtec_ad", "bottle", (209, 20, 63), 63),
        ("mvtec_ad", "screw", (320, 41, 119), 0),  # its images were renumbered, its masks were not
        ("mvtec_ad", "transistor", (213, 60, 40), 0),
        ("mtd", "magnetic_tile", (761, 191, 392), 392),
        ("elpv", "mono", (470, 118, 313), 0),
        ("hazelnut_toy", "hazelnut", (28, 6, 17), 17),
        ("insplad_samples", "glass-insulator", (0, 2, 4), 0),
    ],
)
def test_real_folders(dataset, name, counts, masks):
    if not (REAL / dataset).is_dir():
        pytest.skip(f"no {dataset} in {REAL}")
    samples = datasets.read_samples(datasets.locate(REAL, dataset, name), need_train=False)
    groups = samples.groupby(["split", "label"]).size()
    kinds = [("train", 0), ("test", 0), ("test", 1)]
    assert tuple(groups.get(kind, 0) for kind in kinds) == counts
    assert samples["mask"].ne("").sum() == masks
    assert datasets.check_counts(dataset, name, samples) is None


@pytest.mark.parametrize(
    ("count", "taken"), [(0, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4]), (3, [0, 2, 4]), (1, [2])]
)
def test_even_steps_reach_both_ends_and_one_is_the_middle(count, taken):
    assert datasets.at_even_steps(pd.DataFrame(index=range(5)), count).index.tolist() == taken
    assert datasets.at_even_steps(pd.DataFrame(index=[]), count).empty


def test_of_an_even_number_the_middle_is_the_one_before():
    assert datasets.at_even_steps(pd.DataFrame(index=range(4)), 1).index.tolist() == [1]
