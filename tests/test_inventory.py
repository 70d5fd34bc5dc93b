"""What `adnlib datasets` says of a folder. No image is opened, so empty files stand for them."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from adnlib import catalogue, cli, inventory
from adnlib.catalogue import CATALOGUE, ImageCounts
from adnlib.errors import InputError
from adnlib.inventory import render, take

PARTS = ("train/good/0.png", "test/good/0.png", "test/crack/0.png")


def make(folder: Path, *paths: str) -> Path:
    for path in paths or PARTS:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def make_archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for part in PARTS:
            out.writestr(f"my_part/{part}", b"")
    return path


@pytest.fixture
def command(monkeypatch, capsys):
    """`adnlib datasets` with these words; exit code, output and errors."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*words):
        code = cli.main(["datasets", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_a_category_is_counted(tmp_path):
    make(tmp_path / "mvtec_ad" / "bottle")
    make(tmp_path / "mvtec_ad" / "bottle", "test/a b/0.png", "test/a b/1.png")
    make(tmp_path / "mvtec_ad" / "bottle", "ground_truth/a b/1_mask.png")
    [category] = take(tmp_path).categories
    assert category.counts == ImageCounts(1, 1, 3)
    assert category.defects == {"a b": 2, "crack": 1}
    assert (category.masks, category.published, category.problem) == (1, False, "")
    [remark] = category.remarks
    assert "not the 209/20/63 that were published" in remark


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (PARTS[1:], "part has no training images: put good ones into train/good."),
        (PARTS[:1], "part has no test images"),
        (PARTS[::2], "part has no good test images"),
        (PARTS[:2], "part has no anomalous test images"),
        (("train/readme.txt",), "has no training images"),
        ((*PARTS, "test/loose.png"), "lies beside the folders"),
    ],
)
def test_a_category_that_cannot_be_used_says_why(tmp_path, paths, problem):
    make(tmp_path / "my_set" / "part", *paths)
    stock = take(tmp_path)
    [category] = stock.categories
    assert problem in category.problem
    assert "\n" not in category.problem
    assert stock.usable == 0
    words = " ".join(render(stock).split())
    assert f"! cannot be used: {category.problem}" in words


def test_a_category_that_is_there_twice_cannot_be_used(tmp_path):
    make(tmp_path / "mvtec" / "bottle")
    make(tmp_path / "mvtec_ad" / "bottle")
    stock = take(tmp_path)
    assert stock.usable == 0
    assert all("lies both in" in category.problem for category in stock.categories)
    assert not any(category.remarks for category in stock.categories)
    assert "1 of 15 categories in mvtec, mvtec_ad" in render(stock)


def test_published_counts_are_compared(tmp_path, monkeypatch):
    info = catalogue.DatasetInfo("Tiny", {"part": ImageCounts(1, 1, 1)}, "page", "terms", "all")
    monkeypatch.setitem(CATALOGUE, "tiny", info)
    for name in ("tiny/part", "mvtec_ad/bottle", "my_set/part"):
        make(tmp_path / name)
    equal = {c.found.dataset: c.published for c in take(tmp_path).categories}
    assert equal == {"tiny": True, "mvtec_ad": False, "my_set": None}


def test_the_text_is_aligned_and_says_everything_once(tmp_path):
    for name in ("bottle", "metal_nut"):
        make(tmp_path / "mvtec_ad" / name)
    make(tmp_path / "own set" / "part", *PARTS, *(f"test/defect {i}/0.png" for i in range(9)))
    make(tmp_path / "insplad" / "vari-grip")
    text = render(take(tmp_path))
    lines = text.split("\n")
    assert lines[:3] == [
        f"{tmp_path}: 4 of 4 categories can be used",
        "",
        "MVTec AD (mvtec_ad): 2 of 15 categories in mvtec_ad",
    ]
    assert lines[3:6] == [
        "  category   train good  test good  anomalous  masks  published  defects",
        "  bottle              1          1          1      0  differs    crack 1",
        "  metal_nut           1          1          1      0  differs    crack 1",
    ]
    assert max(map(len, lines[1:])) <= inventory.WIDTH
    assert "own_set (own): 1 category in own set" in lines
    assert "defect 8 1" in text
    assert "- not there: cable, capsule, carpet, grid" in text
    for dataset in ("mvtec_ad", "insplad_fault", "semiconductor_wafer", "mtd"):
        info = CATALOGUE[dataset]
        assert " ".join(text.split()).count(f"{info.page} ({info.licence}) {info.obtain}") == 1
    assert text.index("MVTec AD") < text.index("InsPLAD-fault") < text.index("own_set")
    there, missing = text.split("\nNot there:\n")
    assert "unsupervised_anomaly_detection.zip, linked from" in there
    assert [line for line in missing.split("\n") if line[2:3].strip()] == [
        "  Semiconductor Wafer (semiconductor_wafer)",
        "  MTD (mtd)",
        "  ELPV (elpv)",
    ]
    assert "demo" not in text.lower().replace(str(tmp_path), "")


@pytest.mark.parametrize("at", ["", "mvtec_ad", "mvtec_ad/bottle"])
def test_any_level_can_be_given(tmp_path, at):
    make(tmp_path / "mvtec_ad" / "bottle")
    stock = take(tmp_path / at)
    assert stock.usable == 1
    assert "MVTec AD (mvtec_ad): 1 of 15 categories" in render(stock)


def test_archives_are_named_until_they_are_unpacked(tmp_path):
    make(tmp_path / "mvtec_ad" / "bottle")
    for name in ("mvtec_anomaly_detection.tar.xz", "bottle.tar.xz", ".hidden.zip", "notes.txt"):
        (tmp_path / name).touch()  # the first two are what mvtec_ad/bottle came from
    for name in ("unsupervised_anomaly_detection.zip", "a b (1).zip", "mvtec_ad/cable.tar.xz"):
        (tmp_path / name).touch()
    stock = take(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in stock.archives] == [
        "a b (1).zip",
        "mvtec_ad/cable.tar.xz",
        "unsupervised_anomaly_detection.zip",
    ]
    assert f"  adnlib datasets unpack '{tmp_path}/a b (1).zip' {tmp_path}" in render(stock)


def test_nothing_is_opened_or_changed_in_a_folder_that_cannot_be_written(tmp_path):
    make(tmp_path / "my_set" / "part")
    (tmp_path / "my_set.zip").write_bytes(b"no archive")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    tmp_path.chmod(0o555)
    try:
        assert take(tmp_path).usable == 1
    finally:
        tmp_path.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_take_of_no_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        take(tmp_path / "no")


def test_exit_codes_of_check(command, tmp_path):
    code, out, err = command("check", tmp_path)
    assert (code, err) == (1, "")
    assert out.startswith(f"{tmp_path}: holds no data set\n")
    assert "https://github.com/andreluizbvs/InsPLAD (CC BY-NC 3.0)" in out
    make(tmp_path / "my_set" / "bad", "train/good/0.png")
    assert command("check", tmp_path)[0] == 1
    make(tmp_path / "my_set" / "part")
    assert command("check", tmp_path)[0] == 0


def test_unpack_then_check(command, tmp_path):
    archive = make_archive(tmp_path / "my_set.zip")
    code, out, _ = command("check", tmp_path)
    assert code == 1
    assert f"unpack {archive} {tmp_path}" in out
    code, out, err = command("unpack", archive, tmp_path)
    assert (code, err) == (0, "")
    assert out == f"3 files unpacked into {tmp_path}/my_set\n"
    code, out, _ = command("check", tmp_path)
    assert code == 0
    assert "my_set (own): 1 category in my_set" in out
    assert "Archives" not in out


def test_a_name_without_letters_in_the_locale_is_escaped(tmp_path, monkeypatch):
    make(tmp_path / "set" / "gr\u00f6\u00dfe")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main(["datasets", "check", str(tmp_path)]) == 0
    assert rb"  gr\xf6\xdfe  " in out.buffer.getvalue()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "nowhere"], "nowhere' does not exist"),
        (["check", "my_part.zip"], "is a file"),
        (["check"], "required: DIR; see --help"),
        (["unpack", "nowhere.zip", "data"], "is no file"),
        (["unpack", "my_part.zip", "data"], "give that as --dataset NAME"),
        (["unpack", "my_part.zip", "data", "--datset", "x"], "did you mean --dataset?"),
        (["unpack", "my_part.zip", "data", "--data", "x"], "did you mean --dataset?"),
        (["chek", "data"], "chek"),
        ([], "required: COMMAND"),
    ],
)
def test_a_mistake_is_one_sentence(command, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    make_archive(tmp_path / "my_part.zip")
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["my_part.zip"]


def test_neither_command_imports_torch(tmp_path):
    archive = make_archive(tmp_path / "my_part.zip")
    code = (
        "import sys; from adnlib.cli import main; "
        f"a = main(['datasets', 'unpack', {str(archive)!r}, {str(tmp_path)!r}, '--dataset', 'x']); "
        f"b = main(['datasets', 'check', {str(tmp_path)!r}]); "
        "print(a, b, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n0 0 False\n")
