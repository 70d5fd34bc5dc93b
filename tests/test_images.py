import io
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms import Resize

from adnlib.errors import InputError
from adnlib.images import load_images, read_image, read_mask, resize_image, upright_shape

SIZE = 16


def picture(width: int = 23, height: int = 37, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def resized(image: Image.Image, size: int = SIZE) -> torch.Tensor:
    """DifferNet's own way: torchvision's transform on PIL's RGB image."""
    return torch.from_numpy(np.array(Resize((size, size))(image.convert("RGB")))).permute(2, 0, 1)


def colours(path: Path) -> torch.Tensor:
    """The (3,) colour of an image of one colour."""
    pixels = read_image(path, SIZE)
    assert pixels.shape == (3, SIZE, SIZE)
    assert pixels.dtype == torch.uint8
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0]


@pytest.mark.parametrize("size", [8, 16, 23, 64])
@pytest.mark.parametrize("shape", [(23, 37), (64, 64), (16, 16), (1, 90)])
def test_pixels_equal_differnets(tmp_path, shape, size):
    image = picture(*shape)
    pixels = read_image(save(image, tmp_path / "a.png"), size)
    assert pixels.is_contiguous()
    assert torch.equal(pixels, resized(image, size))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("PNG", {}),
        ("bmp", {}),
        ("tif", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("webp", {"lossless": True}),
        ("jpg", {"quality": 95}),
        ("JPEG", {"progressive": True}),
    ],
)
def test_formats(tmp_path, suffix, options):
    path = save(picture(), tmp_path / f"a.{suffix}", **options)
    assert torch.equal(read_image(path, SIZE), resized(Image.open(path)))
    assert torch.equal(read_image(str(path), SIZE), read_image(path, SIZE))


def test_the_content_decides_the_format_not_the_suffix(tmp_path):
    path = save(picture(), tmp_path / "a.png", format="JPEG")
    assert torch.equal(read_image(path, SIZE), resized(Image.open(path)))


def test_the_first_of_many_frames_is_taken(tmp_path):
    """Drones write JPEGs with a preview as second frame; TIFF and WebP may hold a stack."""
    for name, kind in (("a.jpg", "MPO"), ("a.tif", "TIFF"), ("a.webp", "WEBP")):
        path = tmp_path / name
        first, second = picture(seed=1), picture(seed=2)
        first.save(path, format=kind, save_all=True, append_images=[second], quality=95)
        difference = read_image(path, SIZE).float() - resized(first).float()
        assert difference.abs().mean() < 15  # of frame 2 it would be about 30


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_grey_of_8_and_16_bits_is_the_same_picture(tmp_path, kind):
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    narrow = save(Image.fromarray(grey), tmp_path / f"8.{kind}")
    wide = save(Image.fromarray(grey.astype(np.uint16) * 257), tmp_path / f"16.{kind}")
    assert torch.equal(read_image(narrow, SIZE), resized(Image.fromarray(grey)))
    assert torch.equal(read_image(wide, SIZE), read_image(narrow, SIZE))


def test_16_bits_are_scaled_not_clipped(tmp_path):
    wide = np.full((9, 9), 0x8000, np.uint16)
    assert colours(save(Image.fromarray(wide), tmp_path / "a.png")).tolist() == [128] * 3
    big_endian = tmp_path / "a.tif"
    save(Image.frombytes("I;16B", (9, 9), wide.astype(">u2").tobytes()), big_endian)
    assert colours(big_endian).tolist() == [128] * 3


def test_one_bit_palette_and_cmyk(tmp_path):
    red = Image.new("RGB", (9, 9), (255, 0, 0))
    assert colours(save(Image.new("1", (9, 9), 1), tmp_path / "1.png")).tolist() == [255] * 3
    assert colours(save(red.convert("P"), tmp_path / "p.png")).tolist() == [255, 0, 0]
    assert colours(save(red.convert("CMYK"), tmp_path / "c.tif")).tolist() == [255, 0, 0]
    jpeg = colours(save(red.convert("CMYK"), tmp_path / "c.jpg", quality=100))
    assert (jpeg.int() - torch.tensor([255, 0, 0])).abs().max() < 5


def test_transparent_pixels_lie_on_black(tmp_path):
    half = Image.new("RGBA", (9, 9), (200, 100, 50, 128))
    assert colours(save(half, tmp_path / "rgba.png")).tolist() == [100, 50, 25]
    clear = Image.new("LA", (9, 9), (200, 0))
    assert colours(save(clear, tmp_path / "la.png")).tolist() == [0, 0, 0]
    opaque = Image.new("RGBA", (9, 9), (200, 100, 50, 255))
    assert colours(save(opaque, tmp_path / "o.webp", lossless=True)).tolist() == [200, 100, 50]
    keyed = Image.new("RGB", (9, 9), (255, 0, 0)).convert("P")
    path = save(keyed, tmp_path / "p.png", transparency=keyed.getpixel((0, 0)))
    assert colours(path).tolist() == [0, 0, 0]


def test_exif_orientation_is_applied(tmp_path):
    image, exif = picture(), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    path = save(image, tmp_path / "a.png", exif=exif)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(read_image(path, SIZE), resized(upright))


@pytest.mark.parametrize(
    ("suffix", "orientation", "shape"),
    [("tif", 6, (37, 23)), ("tif", 3, (23, 37)), ("jpg", 6, (37, 23)), ("png", 1, (23, 37))],
)
def test_the_upright_shape_is_that_of_the_pixels_read(tmp_path, suffix, orientation, shape):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert upright_shape(save(picture(), tmp_path / f"a.{suffix}", exif=exif)) == shape


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("block", [b"Exif\0\0I am no EXIF", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_damaged_exif_block_turns_nothing(tmp_path, block):
    path = save(picture(), tmp_path / "a.png", exif=block)
    for found in (read_image(path, SIZE), resize_image(Image.open(path), SIZE)):
        assert torch.equal(found, resized(picture()))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    picture(200, 200).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_truncated_image_is_named(tmp_path, kind):
    whole = encoded(kind)
    path = written(tmp_path / "half.png", whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.png' cannot be read as an image"):
        read_image(path, SIZE)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.png", b"", "it is empty"),
        ("text.png", b"I am no image\n", "it is no BMP, JPEG, PNG, TIFF, WEBP file"),
        ("line\nbreak.png", b"x", "it is no"),
        ("other.png", encoded("GIF"), "it is no"),
    ],
)
def test_what_is_no_image_is_named_in_one_line(tmp_path, name, content, says):
    with pytest.raises(InputError, match=says) as caught:
        read_image(written(tmp_path / name, content), SIZE)
    assert repr(str(tmp_path / name)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no .*no\.png': check the path"):
        read_image(tmp_path / "no.png", SIZE)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"folder\.png.*it is a folder"):
        read_image(tmp_path / "folder.png", SIZE)


def test_pixels_without_an_8_bit_reading_are_refused(tmp_path):
    floating = Image.fromarray(np.zeros((9, 9), np.float32))
    with pytest.raises(InputError, match="floating-point"):
        read_image(save(floating, tmp_path / "f.tif"), SIZE)
    for value in (-1, 70000):
        path = save(Image.fromarray(np.full((9, 9), value, np.int32)), tmp_path / "i.tif")
        with pytest.raises(InputError, match="do not fit into 16 bits"):
            read_image(path, SIZE)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [150, 300])  # PIL refuses above twice the limit, else it warns
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    path = save(picture(20, 20), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(InputError, match=r"bomb\.png.* pixels"):
        read_image(path, SIZE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    read_image(path, SIZE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_raise_nothing_but_input_errors(tmp_path):
    draw = random.Random(0)
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        whole = encoded(kind)
        for _ in range(20):
            damaged = bytearray(whole[: draw.randrange(100, len(whole))])
            for _ in range(5):
                damaged[draw.randrange(100)] = draw.randrange(256)
            try:
                read_image(written(tmp_path / "a", bytes(damaged)), SIZE)
            except InputError:
                continue


def test_a_damaged_image_that_pil_has_opened_is_an_input_error():
    damaged = bytearray(encoded("PNG"))
    length = damaged.index(b"IDAT") - 4
    damaged[length : length + 4] = (1000).to_bytes(4, "big")  # what follows is no chunk
    with pytest.raises(InputError, match="given by PIL cannot be used"):
        resize_image(Image.open(io.BytesIO(damaged)), SIZE)


def folder_of(tmp_path: Path, count: int, bad: tuple[int, ...] = ()) -> list[str]:
    names = [f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        save(picture(seed=i), tmp_path / name)
        if i in bad:
            written(tmp_path / name, (tmp_path / name).read_bytes()[:200])
    return names


@pytest.mark.parametrize("workers", [1, 7])
def test_load_images_keeps_the_order(tmp_path, monkeypatch, workers):
    monkeypatch.setattr("adnlib.images.cores", lambda: workers)
    names = folder_of(tmp_path, 12)[::-1]
    images, kept = load_images(tmp_path, names, SIZE)
    assert images.shape == (12, 3, SIZE, SIZE)
    assert images[:].dtype == torch.uint8
    assert kept == list(range(12))
    for image, name in zip(images, names, strict=True):
        assert torch.equal(image, read_image(tmp_path / name, SIZE))


@pytest.mark.parametrize(
    ("choice", "advice"),
    [("stop", r"remove it, or skip it: on_bad_image skip\.$"), (None, r"remove it\.$")],
)
def test_the_first_bad_image_is_named_and_the_choice_where_there_is_one(tmp_path, choice, advice):
    names = folder_of(tmp_path, 12, bad=(3, 7))
    with pytest.raises(InputError, match=rf"3\.png.*{advice}"):
        load_images(tmp_path, names, SIZE, on_bad_image=choice)


def test_skip_warns_and_gives_the_kept_positions(tmp_path):
    names = folder_of(tmp_path, 12, bad=(0, 7))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        images, kept = load_images(tmp_path, names, SIZE, on_bad_image="skip")
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert all(f"{i}.png' cannot be read" in text for i, text in zip((0, 7), said, strict=True))
    assert kept == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert len(images) == 10
    for image, position in zip(images, kept, strict=True):
        assert torch.equal(image, read_image(tmp_path / names[position], SIZE))


@pytest.mark.filterwarnings("ignore:skipped")
def test_load_images_needs_one_good_image(tmp_path):
    names = folder_of(tmp_path, 2, bad=(0, 1))
    with pytest.raises(InputError, match=r"none of the 2 images can be read, such as .*0\.png"):
        load_images(tmp_path, names, SIZE, on_bad_image="skip")
    with pytest.raises(InputError, match="none of the 0 images"):
        load_images(tmp_path, [], SIZE)


def test_load_images_refuses_an_unknown_choice_and_more_than_memory(tmp_path):
    with pytest.raises(InputError, match="choose 'stop' or 'skip'"):
        load_images(tmp_path, ["a.png"], SIZE, on_bad_image="ignore")
    with pytest.raises(InputError, match="image_size lower"):
        load_images(tmp_path, ["a.png"] * 1000, 10_000_000)


def test_reading_leaves_pils_settings_alone(tmp_path):
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, warnings.filters[:])
    with pytest.raises(InputError):
        load_images(tmp_path, folder_of(tmp_path, 8, bad=(4,)), SIZE)
    after = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, warnings.filters[:])
    assert after == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255),
        Image.fromarray(np.eye(8, dtype=np.uint8)),  # some sets write 1 for a defect
        Image.fromarray(np.eye(8, dtype=np.uint16)),
        Image.fromarray(np.eye(8).astype(bool)),
        Image.fromarray(np.eye(8, dtype=np.uint8)[..., None] * np.uint8([255, 0, 0])),
    ],
    ids=["0 and 255", "0 and 1", "16 bits", "1 bit", "red"],
)
def test_masks_of_any_kind(tmp_path, mask):
    got = read_mask(save(mask, tmp_path / "a.png"), 16)
    assert got.dtype == torch.bool
    assert torch.equal(got, torch.eye(8).bool().repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_a_bad_mask_is_named(tmp_path):
    with pytest.raises(InputError, match=r"m\.png' cannot be read"):
        read_mask(written(tmp_path / "m.png", b""), SIZE)


@pytest.mark.data
def test_real_power_line_images_are_read():
    real = Path(
        os.environ.get("ADNLIB_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    )
    folder = real / "insplad_samples"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    images, kept = load_images(folder, paths, 64)
    assert kept == list(range(len(paths)))
    for image, path in zip(images, paths, strict=True):
        assert torch.equal(image, resized(Image.open(folder / path), 64))
