"""Decoded images in memory, in a file and on a GPU: the same wherever they lie."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from adnlib import AttentDifferNet, machine, pixels
from adnlib.errors import InputError
from adnlib.images import load_images
from adnlib.pixels import Pixels, allocate

COUNT, SIZE = 12, 64
BYTES = COUNT * 3 * SIZE**2
TINY = {"weights": "random", "image_size": SIZE, "scales": 1, "flow_blocks": 2, "flow_width": 16}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADNLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for number in range(COUNT):
        image = generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "good" / f"{number:02}.png")
    return tmp_path / "good"


def read(folder, gigabytes):
    paths = sorted(path.name for path in folder.iterdir())
    return load_images(folder, paths, SIZE, memory_budget=gigabytes)[0]


def test_more_than_the_budget_lies_in_a_file_that_leaves_nothing_behind(folder, cache):
    kept, on_disk = read(folder, BYTES / 1e9), read(folder, (BYTES - 1) / 1e9)
    assert not kept.on_disk
    assert on_disk.on_disk
    assert list(cache.iterdir()) == []
    assert on_disk.shape == kept.shape == (COUNT, 3, SIZE, SIZE)
    for chosen in (3, slice(2, 5), torch.tensor([7, 0, 7]), torch.arange(COUNT) % 2 == 0):
        assert torch.equal(on_disk[chosen], kept[chosen])
    for one, other in zip(on_disk, kept, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("gigabytes", [1, 1e-6], ids=["memory", "file"])
def test_a_part_of_a_part_is_a_selection_without_a_copy(folder, cache, gigabytes):
    whole = read(folder, gigabytes)
    odd = whole.part(torch.arange(COUNT) % 2 == 1)
    last = odd.part(slice(-2, None))
    assert len(odd) == COUNT // 2
    assert odd.on_disk == whole.on_disk
    assert torch.equal(odd[0], whole[1])
    assert torch.equal(last[:], whole[torch.tensor([9, 11])])
    assert last._stored.data_ptr() == whole._stored.data_ptr()


def test_a_model_is_the_same_from_memory_and_from_a_file(folder, cache):
    def fitted(budget):
        model = AttentDifferNet(epochs=2, test_views=2, memory_budget=budget, **TINY)
        model.fit(folder)
        return model, model.score(folder)

    in_memory, scores = fitted(1.0)
    from_file, same = fitted(1e-6)
    assert torch.equal(scores, same)
    assert torch.equal(in_memory.explain(folder / "03.png"), from_file.explain(folder / "03.png"))


def test_a_fit_takes_out_a_few_images_at_a_time(monkeypatch):
    taken = []
    take = Pixels.__getitem__
    monkeypatch.setattr(Pixels, "__getitem__", lambda *of: taken.append(take(*of)) or taken[-1])
    images = torch.randint(0, 256, (20, 3, SIZE, SIZE)).to(torch.uint8)
    AttentDifferNet(epochs=1, test_views=2, **TINY).fit(Pixels(images), holdout=0.9)
    assert max(len(some) for some in taken) <= 16  # of 18 that are held out


def test_the_budget_is_not_what_a_model_is(tmp_path):
    AttentDifferNet(memory_budget=1e-6, **TINY).save(tmp_path)
    assert AttentDifferNet.load(tmp_path).settings.memory_budget == 0


def test_without_a_budget_it_is_a_quarter_of_the_machines_memory(cache, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 4 * BYTES)
    assert not allocate(COUNT, SIZE).on_disk
    assert allocate(COUNT + 1, SIZE).on_disk


def test_a_budget_beyond_the_memory_is_told(cache):
    with pytest.raises(InputError, match=r"more than there is memory: set memory_budget"):
        allocate(10**10, 512, budget=1e12)


def test_a_disk_without_room_is_named_with_what_to_do(cache):
    with pytest.raises(
        InputError,
        match=r"images take 7\d{6}\.\d GB, more than memory_budget's 0\.5 GB, and '.*cache' cannot "
        r"keep them \(too little is free\): make room there, set ADNLIB_CACHE",
    ):
        allocate(10**10, 512, budget=0.5)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADNLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file' cannot keep them"):
        allocate(COUNT, SIZE, budget=1e-6)


def test_a_negative_budget_is_refused():
    with pytest.raises(InputError, match="memory_budget is -1"):
        AttentDifferNet(memory_budget=-1.0, **TINY)


RESIDENT = """
from pathlib import Path
import numpy as np, torch
from adnlib.pixels import allocate

def highest():
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return 1024 * int(line.split()[1])

def use(images):
    for number in range(len(images)):
        images.put(number, np.full((3, 448, 448), number % 251, dtype=np.uint8))
    for some in torch.randperm(len(images)).split(24):
        assert torch.equal(images[some][:, 0, 5, 5], (some % 251).to(torch.uint8))

use(allocate(48, 448, budget=1))  # for what the libraries need themselves
before = highest()
use(allocate(1500, 448, budget={budget}))
print(highest() - before, 1500 * 3 * 448**2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's high-water mark")
@pytest.mark.parametrize(("budget", "resident"), [(1, (0.9, 1.3)), (0.01, (0.0, 0.3))])
def test_images_in_a_file_are_not_resident(cache, budget, resident):
    program = [sys.executable, "-c", RESIDENT.format(budget=budget)]
    told = subprocess.run(program, capture_output=True, text=True, check=True)
    grown, size = map(int, told.stdout.split())
    assert resident[0] < grown / size < resident[1]


class FakeDevice:
    type = "cuda"


def test_on_a_gpu_that_is_too_small_they_stay_where_they_are(folder, monkeypatch):
    images = read(folder, 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (pixels._GPU_SHARE * BYTES - 1, 0))
    assert images.near(FakeDevice()) is images
    assert images.near(torch.device("cpu")) is images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_they_are_the_same(folder, cache):
    device = torch.device("cuda")
    on_disk = read(folder, 1e-6)
    there = on_disk.near(device)
    assert there[:].device.type == "cuda"
    assert torch.equal(there[torch.tensor([5, 2])].cpu(), on_disk[torch.tensor([5, 2])])


def test_a_tensor_becomes_pixels_as_it_is():
    tensor = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    images = Pixels(tensor)
    assert torch.equal(images[:], tensor)
    assert len(images) == 5
