"""Archives are made here, good and hostile; what is refused must leave nothing behind."""

import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from adnlib import archives, datasets, members
from adnlib.archives import unpack
from adnlib.errors import InputError

PARTS = ("train/good/0.png", "test/good/0.png", "test/missing-cap/0.png")
INSPLAD = [f"{a}/{part}" for a in ("glass-insulator", "vari-grip") for part in PARTS]
MVTEC = [
    *(f"{category}/{part}" for category in ("bottle", "metal_nut") for part in PARTS),
    "bottle/ground_truth/missing-cap/0_mask.png",
    "license.txt",
]
INCOMPRESSIBLE = os.urandom(20_000)


def make_zip(path: Path, *names: str | zipfile.ZipInfo, content: bytes = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name in names:
            out.writestr(name, content)
    return path


def make_tar(path: Path, *names: str | tarfile.TarInfo, content: bytes = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".xz": "w:xz", ".gz": "w:gz"}.get(path.suffix, "w")
    quick = {"preset": 0} if mode == "w:xz" else {}
    with tarfile.open(path, mode, encoding="utf-8", **quick) as out:
        for name in names:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> list[str]:
    """Everything below, hidden things too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def root(tmp_path):
    """A data root that is not empty, and what must not change around it."""
    (tmp_path / "data" / "keep").mkdir(parents=True)
    (tmp_path / "data" / "keep" / "me.txt").write_text("kept")
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path: (folder / path).read_bytes() for path in tree(folder) if (folder / path).is_file()
    }


def refuses(archive: Path, root: Path, says: str, **options) -> None:
    before = tree(root.parent), contents(root.parent)
    with pytest.raises(InputError, match=says) as caught:
        unpack(archive, root, **options)
    assert "\n" not in str(caught.value)
    assert (tree(root.parent), contents(root.parent)) == before


@pytest.mark.parametrize("top", ["", "unsupervised_anomaly_detection/", "a/InsPLAD-fault/", "./"])
def test_insplad_fault_comes_out_alike_with_and_without_its_own_folder(tmp_path, root, top):
    archive = make_zip(
        tmp_path / "unsupervised_anomaly_detection.zip",
        *([top] if top else []),
        *(top + name for name in INSPLAD),
    )
    done = unpack(archive, root)
    name = "InsPLAD-fault" if "InsPLAD" in top else "unsupervised_anomaly_detection"
    assert done == archives.Unpacked(root / name, len(INSPLAD), 0)
    found = datasets.find(root)
    assert [(f.dataset, f.category, f.folder) for f in found] == [
        ("insplad_fault", "glass_insulator", root / name / "glass-insulator"),
        ("insplad_fault", "vari_grip", root / name / "vari-grip"),
    ]
    samples = datasets.read_samples(found[0].folder)
    assert list(samples["defect"]) == ["good", "good", "missing-cap"]
    assert (found[0].folder / samples["path"][2]).read_bytes() == b"image"
    assert not [path for path in tree(root) if path.startswith(".")]


@pytest.mark.parametrize("top", ["", "./", "mvtec_anomaly_detection/"])
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.xz"])
def test_mvtec_is_named_by_its_archive_and_keeps_its_licence(tmp_path, root, top, suffix):
    archive = make_tar(
        tmp_path / f"mvtec_anomaly_detection{suffix}", *(top + name for name in MVTEC)
    )
    done = unpack(archive, root)
    assert done.folder == root / "mvtec_anomaly_detection"
    assert (done.folder / "license.txt").read_bytes() == b"image"
    assert [(f.dataset, f.category) for f in datasets.find(root)] == [
        ("mvtec_ad", "bottle"),
        ("mvtec_ad", "metal_nut"),
    ]
    samples = datasets.read_samples(datasets.locate(root, "mvtec_ad", "bottle"))
    assert samples["mask"][2] == "ground_truth/missing-cap/0_mask.png"


@pytest.mark.parametrize(
    ("name", "names", "target", "lands"),
    [
        ("bottle.tar.xz", ["bottle/"], "", "mvtec_ad/bottle"),
        ("bottle.tar.xz", ["bottle/"], "mvtec", "mvtec/bottle"),
        ("bottle (1).tar.xz", [""], "", "mvtec_ad/bottle"),
        ("vari-grip.zip", ["vari-grip/"], "", "insplad_fault/vari-grip"),
        ("magnetic_tile.zip", ["magnetic_tile/"], "", "mtd/magnetic_tile"),
        ("mvtec_anomaly_detection.tar.xz", ["bottle/"], "mvtec_ad", "mvtec_ad/bottle"),
        ("hazelnut_toy.zip", ["hazelnut/"], "", "hazelnut_toy/hazelnut"),
        ("any.zip", ["my_set/hazelnut/"], "", "my_set/hazelnut"),
        ("mtd.zip", ["images/magnetic_tile/"], "", "mtd/magnetic_tile"),
        ("power.zip", ["insulator/"], "", "power/insulator"),
        ("wafer.zip", ["wafer/type_1/", "wafer/type_2/"], "", "wafer/type_1"),
    ],
)
def test_where_an_archive_lands(tmp_path, root, name, names, target, lands):
    make = make_zip if name.endswith(".zip") else make_tar
    archive = make(tmp_path / name, *(top + part for top in names for part in PARTS))
    unpack(archive, root / target)
    assert (root / lands / "train/good/0.png").is_file()
    assert len(datasets.find(root)) == len(names)


def test_categories_of_one_set_come_one_after_the_other(tmp_path, root):
    for category in ("bottle", "cable"):
        names = ["license.txt", *(f"{category}/{part}" for part in PARTS)]
        unpack(make_tar(tmp_path / f"{category}.tar.xz", *names, content=category.encode()), root)
    assert [f.category for f in datasets.find(root)] == ["bottle", "cable"]
    assert (root / "mvtec_ad" / "license.txt").read_text() == "bottle"
    assert not [path for path in tree(root) if "/." in path]


def test_an_archive_that_does_not_tell_its_data_set(tmp_path, root):
    archive = make_zip(tmp_path / "my_part.zip", *(f"my_part/{part}" for part in PARTS))
    refuses(archive, root, "nothing tells its data set: give that as --dataset")
    for name in ("../up", "a/b", ".hidden", "test", "Train", "c:", "..", "a\\b"):
        refuses(archive, root, "cannot be a data set's folder", dataset=name)
    assert unpack(archive, root, "my_set").folder == root / "my_set"
    assert [(f.dataset, f.category) for f in datasets.find(root)] == [("my_set", "my_part")]


def test_only_images_and_texts_come_out_and_nothing_is_executable(tmp_path, root):
    program = zipfile.ZipInfo("mtd/magnetic_tile/train/good/1.png")
    program.external_attr = (stat.S_IFREG | stat.S_ISUID | 0o777) << 16
    archive = make_zip(
        tmp_path / "mtd.zip",
        *(f"mtd/magnetic_tile/{part}" for part in PARTS),
        program,
        *("mtd/README.md", "mtd/setup.exe", "mtd/magnetic_tile/train/good/Thumbs.db", "mtd/0.png"),
        *("__MACOSX/mtd/magnetic_tile/train/good/._0.png", "mtd/.DS_Store", "mtd/.git/config"),
    )
    done = unpack(archive, root)
    assert tree(done.folder) == sorted(
        [
            *("README.md", "magnetic_tile", "magnetic_tile/train", "magnetic_tile/train/good"),
            *("magnetic_tile/test", "magnetic_tile/test/good", "magnetic_tile/test/missing-cap"),
            *(f"magnetic_tile/{part}" for part in (*PARTS, "train/good/1.png")),
        ]
    )
    assert (done.files, done.left_out) == (5, 3)
    mode = (done.folder / "magnetic_tile/train/good/1.png").stat().st_mode
    assert not mode & (stat.S_ISUID | 0o111)


def test_names_of_macos_are_utf8_without_saying_so(tmp_path, root):
    archive = make_zip(tmp_path / "my_set.zip", *PARTS, "train/good/größe.png")
    archive.write_bytes(
        archive.read_bytes().replace(struct.pack("<H", 0x800) + b"\x08\0", b"\0\0\x08\0")
    )
    assert not zipfile.ZipFile(archive).infolist()[-1].flag_bits & 0x800
    unpack(archive, root, "own")
    assert (root / "own" / "my_set" / "train" / "good" / "größe.png").is_file()


def typed(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.png", "'../evil.png', which leads out of its folder"),
        ("bottle/train/good/../../../../evil.png", "leads out"),
        ("__MACOSX/../../evil.png", "leads out"),
        ("bottle/..", "leads out"),
        ("/evil.png", "absolute"),
        ("//host/evil.png", "absolute"),
        ("C:/evil.png", "absolute"),
        ("bottle/c:evil.png", "absolute"),
        ("..\\evil.png", "backslash"),
        ("bottle\\train\\good\\1.png", "backslash"),
        ("bottle/train/good/0.png", "there twice"),
        ("bottle/train/good/0.PNG", "by case"),
        ("Bottle/Train/good/0.png", "by case"),
        ("bottle/train/good/0.png/1.png", "there twice"),
        ("bottle/train/good", "there twice"),
        (typed("bottle/train/good/1.png", stat.S_IFLNK), "a link or special file"),
        (typed("bottle/train/good/1.png", stat.S_IFCHR), "a link or special file"),
        (typed("bottle/train/good/1.png", stat.S_IFIFO), "a link or special file"),
        (typed("__MACOSX/x", stat.S_IFLNK), "a link or special file"),
        ("bottle/train/good/" + "x" * 300 + ".png", "cannot be unpacked"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_names_in_a_zip(tmp_path, root, name, says):
    refuses(make_zip(tmp_path / "mvtec_ad.zip", *MVTEC, name), root, says)


def test_two_unicode_forms_of_a_name(tmp_path, root):
    names = ("bottle/train/good/\u00e9.png", "bottle/train/good/e\u0301.png")
    refuses(make_zip(tmp_path / "mvtec_ad.zip", *MVTEC, *names), root, "Unicode form")


@pytest.mark.parametrize(("byte", "says"), [(b"\0", "no name of a file"), (b"\xff", "UTF-8")])
def test_bytes_in_a_zip_that_are_no_name(tmp_path, root, byte, says):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC, "bottle/train/good/q.png")
    archive.write_bytes(archive.read_bytes().replace(b"q.png", byte + b".png"))
    refuses(archive, root, says)


def test_a_zip_flagged_utf8_that_is_not(tmp_path, root):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC, "bottle/train/good/\u00e9.png")
    archive.write_bytes(archive.read_bytes().replace("\u00e9".encode(), b"\xff\xfe"))
    refuses(archive, root, "damaged or cut short")


def test_an_encrypted_zip(tmp_path, root):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    blob = bytearray(archive.read_bytes())
    blob[blob.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(blob)
    refuses(archive, root, "'license.txt', which is encrypted")


def link(kind: bytes, name: str = "bottle/train/good/1.png", to: str = "/etc") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../evil.png", "leads out"),
        ("/evil.png", "absolute"),
        ("bottle\\evil.png", "backslash"),
        ("bottle/train/good/0.png", "there twice"),
        ("bottle/train/good/\udcff.png", "UTF-8"),
        (link(tarfile.SYMTYPE), "a link or special file"),
        (link(tarfile.SYMTYPE, "bottle/train", ".."), "a link or special file"),
        (link(tarfile.LNKTYPE, to="../../keep/me.txt"), "a link or special file"),
        (link(tarfile.CHRTYPE), "a link or special file"),
        (link(tarfile.FIFOTYPE), "a link or special file"),
        (link(tarfile.GNUTYPE_SPARSE), "a link or special file"),
        (link(b"Z"), "a link or special file"),
    ],
)
def test_hostile_members_of_a_tar(tmp_path, root, name, says):
    path = tmp_path / "mvtec_ad.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as out:
        for each in (*MVTEC, name):
            out.addfile(tarfile.TarInfo(each) if isinstance(each, str) else each)
    refuses(path, root, says)


def test_a_nul_in_an_extended_header(tmp_path, root):
    info = tarfile.TarInfo("bottle/train/good/1.png")
    info.pax_headers = {"path": "bottle/train/good/1\0.png"}
    refuses(make_tar(tmp_path / "mvtec_ad.tar", *MVTEC, info), root, "no name of a file")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.9])
def test_an_archive_cut_short(tmp_path, root, suffix, kept):
    make = make_zip if suffix == ".zip" else make_tar
    archive = make(tmp_path / f"mvtec_ad{suffix}", *MVTEC, content=INCOMPRESSIBLE)
    blob = archive.read_bytes()
    archive.write_bytes(blob[: int(kept * len(blob))])
    refuses(archive, root, "is damaged or cut short .*: download it again")


def test_a_tar_cut_between_two_members(tmp_path, root):
    archive = make_tar(tmp_path / "mvtec_ad.tar", *MVTEC)
    archive.write_bytes(archive.read_bytes()[: 2 * 512 * 3])
    refuses(archive, root, "no end mark")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_one_wrong_byte_is_noticed(tmp_path, root, suffix):
    make = make_zip if suffix == ".zip" else make_tar
    archive = make(tmp_path / f"mvtec_ad{suffix}", *MVTEC, content=INCOMPRESSIBLE)
    blob = bytearray(archive.read_bytes())
    blob[len(blob) // 2] ^= 1
    archive.write_bytes(blob)
    refuses(archive, root, "damaged")


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path, root):
    archive = make_tar(tmp_path / "mvtec_ad.tar", *MVTEC)
    blob = bytearray(archive.read_bytes())
    blob[4 * 1024 + 150] ^= 1
    archive.write_bytes(blob)
    refuses(archive, root, "no end mark")


@pytest.mark.parametrize("says_it_has", [1, 10_000_000])
def test_a_zip_that_holds_more_or_less_than_it_says(tmp_path, root, says_it_has):
    archive = make_zip(tmp_path / "mtd.zip", "a/train/good/0.png", content=bytes(1_000_000))
    blob = bytearray(archive.read_bytes())
    struct.pack_into("<I", blob, blob.rindex(b"PK\x01\x02") + 24, says_it_has)
    archive.write_bytes(blob)
    refuses(archive, root, "damaged")


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_an_archive_larger_than_the_disk(tmp_path, root, monkeypatch, suffix):
    make = make_zip if suffix == ".zip" else make_tar
    archive = make(tmp_path / f"mvtec_ad{suffix}", *MVTEC, content=bytes(1_000_000))
    free = shutil.disk_usage(root)._replace(free=2_000_000)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: free)
    refuses(archive, root, "more than the 0.0 GB that are free")


def test_an_archive_of_too_many_files(tmp_path, root, monkeypatch):
    monkeypatch.setattr(members, "MOST_MEMBERS", 3)
    refuses(make_zip(tmp_path / "mvtec_ad.zip", *MVTEC), root, "more than 3 files")


@pytest.mark.parametrize("suffix", [".tar", ".tar.xz"])
def test_endless_padding(tmp_path, root, monkeypatch, suffix):
    monkeypatch.setattr(members, "_LARGEST_READ", 2**16)
    archive = make_tar(tmp_path / f"mvtec_ad{suffix}", *MVTEC)
    more = bytes(2**17)
    archive.write_bytes(
        archive.read_bytes() + (lzma.compress(more) if suffix == ".tar.xz" else more)
    )
    refuses(archive, root, "goes on after its end")


@pytest.mark.parametrize("size", [2**40, -(2**40), -512])  # the last leads back to its header
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE])
def test_a_header_of_any_size_fills_no_memory_and_ends(tmp_path, root, kind, size):
    info = tarfile.TarInfo("bottle/train/good/1.png")
    info.type, info.size = kind, size
    archive = tmp_path / "mvtec_ad.tar"
    headers = tarfile.TarInfo("license.txt").tobuf() + info.tobuf(tarfile.GNU_FORMAT)
    archive.write_bytes(headers + bytes(10240))
    refuses(archive, root, r"damaged" if size < 0 else r"damaged|more than the .* GB")


@pytest.mark.parametrize(
    ("name", "names", "says"),
    [
        ("mvtec_ad.zip", [], "holds no images in folders train and test"),
        ("mvtec_ad.zip", ["bottle/0.png", "bottle/train/good/readme.txt"], "holds no images"),
        ("all.zip", ["a/x/train/good/0.png", "b/y/test/good/0.png"], r"several data sets \(a, b\)"),
        ("mvtec_ad.rar", ["bottle/train/good/0.png"], "is no archive: give a .zip"),
    ],
)
def test_archives_of_something_else(tmp_path, root, name, names, says):
    refuses(make_zip(tmp_path / name, *names), root, says)


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_a_web_page_in_the_place_of_an_archive(tmp_path, root, suffix):
    page = tmp_path / f"mvtec_ad{suffix}"
    page.write_text("<html>quota exceeded</html>" * 100)
    refuses(page, root, "damaged")


def test_wrong_paths(tmp_path, root):
    refuses(tmp_path / "no.zip", root, "is no file")
    refuses(root, root, "is no archive")
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    before = tree(tmp_path)
    for target in (archive, archive / "below"):
        with pytest.raises(InputError, match=r"is a file|cannot be unpacked"):
            unpack(archive, target)
    assert tree(tmp_path) == before


def test_an_archive_that_may_not_be_read_is_named_and_not_the_folder(tmp_path, root, monkeypatch):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    monkeypatch.setattr(os, "access", lambda path, _: path != archive)
    refuses(archive, root, "mvtec_ad.zip' may not be read: change its permissions")


@pytest.mark.parametrize(
    "there", ["mvtec_ad/bottle/train/good", "mvtec_ad/bottle", "mvtec/bottle/test"]
)
def test_what_exists_is_never_overwritten(tmp_path, root, there):
    (root / there).mkdir(parents=True)
    (root / there / "mine.png").write_text("mine")
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    refuses(archive, root, "bottle' is there already and is not overwritten")
    refuses(archive, root / "mvtec_ad" if there.startswith("mvtec_ad") else root, "there already")


def test_unpacking_twice_says_that_it_is_there(tmp_path, root):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    unpack(archive, root)
    refuses(archive, root, "mvtec_ad/bottle' is there already")


def test_folders_made_for_nothing_are_taken_away(tmp_path):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC, content=INCOMPRESSIBLE)
    blob = bytearray(archive.read_bytes())
    blob[len(blob) // 2] ^= 1
    archive.write_bytes(blob)
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, tmp_path / "new" / "data")
    assert tree(tmp_path) == ["mvtec_ad.zip"]


def test_a_full_disk_or_an_interruption_leaves_nothing(tmp_path, root, monkeypatch):
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    before = tree(tmp_path)
    written = []

    def fails(error):
        def write(path, member):
            if len(written) == 3:
                raise error
            written.append(path.write_bytes(b"") if path.parent.is_dir() else None)

        return write

    for error, caught in (
        (OSError(28, "No space left on device"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        written.clear()
        monkeypatch.setattr(archives, "_write_file", fails(error))
        with pytest.raises(caught):
            unpack(archive, root)
        assert tree(tmp_path) == before


def test_room_is_measured_without_what_a_killed_call_left(tmp_path, root, monkeypatch):
    left = root / ".adnlib-killed.part"
    left.mkdir(parents=True)
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda _: usage._replace(free=0 if left.exists() else 2**30)
    )
    unpack(make_zip(tmp_path / "mvtec_ad.zip", *MVTEC), root)
    assert not left.exists()


def test_a_category_goes_into_the_folder_where_one_stands(tmp_path, root, monkeypatch):
    home = root / "mvtec_ad"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    unpack(make_zip(tmp_path / "mvtec_ad.zip", *MVTEC), Path())
    assert [found.category for found in datasets.find(home)] == ["bottle", "metal_nut"]


def test_moving_in_is_undone_where_it_fails_midway(tmp_path, root, monkeypatch):
    (root / "mvtec_ad" / "cable" / "train").mkdir(parents=True)
    archive = make_zip(tmp_path / "mvtec_ad.zip", *MVTEC)
    rename = Path.rename

    def fails(self, to):
        if self.name == "metal_nut":
            raise PermissionError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fails)
    refuses(archive, root, "Permission denied")
