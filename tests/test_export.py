"""Exported detectors: the same scores, and one sentence for each file that is none."""

import csv
import importlib.metadata
import json
import resource

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from adnlib import AttentDifferNet, InputError, cli, export, onnx_files
from adnlib.export import ScoringGraph, export_model, noise
from adnlib.model_schema import EXPORT_FORMAT
from adnlib.onnx_files import OnnxModel
from adnlib.scoring import load_detector
from adnlib.threshold import threshold_for_fpr

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 3}
IMAGES = noise(6, 64)


def fitted(**settings):
    return AttentDifferNet(**{**TINY, **settings}).fit(IMAGES, holdout=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = fitted(attention="cbam")
    model.save(tmp_path_factory.mktemp("model") / "m")
    model.folder = tmp_path_factory.getbasetemp() / "model0" / "m"
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    export_model(model, path, IMAGES)
    return path


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, pixels in enumerate(noise(4, 80)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return folder


def test_the_graph_scores_several_images_as_the_model_scores_each(model):
    with torch.no_grad():
        scores = ScoringGraph(model).eval()(IMAGES)
    torch.testing.assert_close(scores, model.score(IMAGES), rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"attention": "se", "scales": 3, "image_size": 256, "test_views": 2},
        {"attention": "eca", "standardize": True},
        {"attention": "coordinate", "attention_place": "relu", "attention_residual": True},
        {"attention": "simam", "test_angles": "grid"},
        {"backbone": "resnet18", "attention": "se"},
        {"backbone": "efficientnet_b0"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_kind_of_detector_gives_its_own_scores(tmp_path, settings, suffix):
    size = settings.get("image_size", 64)
    model = AttentDifferNet(**{**TINY, **settings}).fit(noise(3, size), holdout=0)
    assert export_model(model, tmp_path / f"m{suffix}", noise(2, size)) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == [f"m{suffix}"]


def test_an_onnx_file_is_a_detector_with_its_settings_and_threshold(model, exported):
    found = OnnxModel.load(exported)
    assert found.threshold == model.threshold
    assert found.settings == model.settings
    assert repr(found) == repr(model).replace("AttentDifferNet", "OnnxModel")
    torch.testing.assert_close(found.score(IMAGES), model.score(IMAGES), rtol=1e-5, atol=0)
    assert torch.equal(found.score(IMAGES)[1:2], found.score(IMAGES[1]))


def test_an_onnx_files_threshold_can_be_moved_as_a_models(model, exported):
    found = [load_detector(path, "cpu", fpr=0.5).threshold for path in (exported, model.folder)]
    assert found[0] == found[1] == threshold_for_fpr(model.threshold.normal_scores, 0.5)
    assert found[0] != model.threshold


def test_a_pt2_file_scores_any_number_of_images_in_torch_alone(model, tmp_path):
    export_model(model, tmp_path / "m.pt2", IMAGES)
    program = torch.export.load(tmp_path / "m.pt2", extra_files=(told := {"adnlib.json": ""}))
    for count in (1, 5):
        scores = program.module()(IMAGES[:count])
        torch.testing.assert_close(scores, model.score(IMAGES[:count]), rtol=1e-5, atol=0)
    assert json.loads(told["adnlib.json"])["threshold"]["value"] == model.threshold.value


@pytest.fixture
def call(monkeypatch, capfd):
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    return lambda *words: (cli.main([str(word) for word in words]), *capfd.readouterr())


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_the_commands_export_and_score(call, model, pictures, tmp_path):
    out = tmp_path / "m.onnx"
    code, told, _ = call("export", model.folder, "--out", out, "--images", pictures)
    assert code == 0
    assert "takes uint8 images (N, 3, 64, 64)" in told
    assert "checked with 4 images: scores differ from the model's by at most" in told
    native, exported = (rows(call("score", of, pictures)[1]) for of in (model.folder, out))
    scores = [[float(row.pop("score")) for row in lines] for lines in (native, exported)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-5)
    assert native == exported  # path, verdict, percentile
    renamed = tmp_path / "model"
    renamed.write_bytes(out.read_bytes())
    assert len(rows(call("score", renamed, pictures)[1])) == len(exported)
    code, _, err = call("score", model.folder / "model.json", pictures)
    assert (code, "or the folder of a model" in err) == (2, True)
    code, _, err = call("export", model.folder, "--out", out)
    assert (code, "--force to replace" in err) == (2, True)
    assert call("export", model.folder, "--out", out, "--force")[0] == 0


@pytest.mark.parametrize("words", [(), ("--force",)])
def test_a_folder_in_the_files_place_is_found_before_the_model_is_read(call, tmp_path, words):
    (tmp_path / "m.onnx").mkdir()
    code, _, err = call("export", "no model", "--out", tmp_path / "m.onnx", *words)
    assert (code, "m.onnx' is a folder: give another name." in err) == (2, True)


def test_an_export_that_scores_otherwise_is_not_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "anomaly_score", lambda latent: latent.square().sum((1, 2)))
    with pytest.raises(InputError, match=r"differs from the model's by .* it was not kept"):
        export_model(model, tmp_path / "m.pt2", IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_pt2_file_that_the_disk_does_not_take_gets_one_sentence(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*m\.pt2"):
            export_model(model, tmp_path / "m.pt2", IMAGES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_one_changed_byte_is_found(exported, tmp_path, place):
    content = bytearray(exported.read_bytes())
    content[int(place * len(content))] ^= 1
    changed = tmp_path / "m.onnx"
    changed.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: copy or export it again"):
        OnnxModel.load(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "was not written by adnlib export"),
        (b"no graph", "was not written by adnlib export"),
        (None, "is missing"),
    ],
)
def test_what_is_no_export_gets_one_sentence(tmp_path, content, message):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        OnnxModel.load(path)


def test_a_name_that_the_system_refuses_gets_one_sentence(tmp_path):
    # Python 3.14 says of it that it is no file, older ones hand on what the system says.
    with pytest.raises(InputError, match=r"cannot be read|is missing"):
        OnnxModel.load(tmp_path / f"{300 * 'm'}.onnx")


def test_a_file_cut_short_is_refused(exported, tmp_path):
    (tmp_path / "m.onnx").write_bytes(exported.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"was not written by|is damaged"):
        OnnxModel.load(tmp_path / "m.onnx")


def forged(exported, path, change):
    """A file that was changed by someone who can make digests."""
    graph = onnx.load(exported)
    texts = {entry.key: entry for entry in graph.metadata_props}
    description = json.loads(texts["adnlib"].value)
    change(graph, description)
    metadata = {}
    onnx_files.describe(metadata, description)
    del graph.metadata_props[:]
    helper.set_model_props(graph, metadata)
    path.write_bytes(graph.SerializeToString())
    onnx_files.seal(path)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", EXPORT_FORMAT + 1, "has format 2, and this adnlib reads 1: update adnlib"),
        ("format", 0, "export it again"),
        ("format", "x", "export it again"),
        ("threshold", {"value": 1}, "threshold does not fit"),
        ("settings", {"image_size": 10**9}, "settings.image_size does not fit"),
        ("settings", {"image_size": 128, "scales": 1}, "is no detector's"),
        ("settings", {"imagesize": 64}, "cannot be used: there is no setting"),
        ("weights_sha256", "../x", "weights_sha256 does not fit"),
    ],
)
def test_a_forged_description_is_checked(exported, tmp_path, key, value, message):
    path = forged(exported, tmp_path / "m.onnx", lambda _, told: told.update({key: value}))
    with pytest.raises(InputError, match=message):
        OnnxModel.load(path)


def test_a_graph_that_names_another_file_is_refused(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(4 * 64))

    def point_elsewhere(graph, _):
        tensor = next(t for t in graph.graph.initializer if len(t.raw_data) > 256)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="secret")

    with pytest.raises(InputError, match="cannot be run"):
        OnnxModel.load(forged(exported, tmp_path / "m.onnx", point_elsewhere))


def test_another_graph_is_refused(exported, tmp_path):
    def replace(graph, _):
        made = [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, 64, 64])]
        gone = [helper.make_tensor_value_info("scores", TensorProto.UINT8, ["n", 3, 64, 64])]
        node = helper.make_node("Identity", ["images"], ["scores"])
        graph.graph.CopyFrom(helper.make_graph([node], "g", made, gone))

    with pytest.raises(InputError, match="is no detector's"):
        OnnxModel.load(forged(exported, tmp_path / "m.onnx", replace))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "{folder}", "--out", "m.txt"), "ends in neither .onnx nor .pt2"),
        (("export", "nowhere", "--out", "m.onnx"), "is missing"),
        (("export", "{folder}", "--out", "m.onnx", "--images", "nowhere"), "nowhere"),
        (("export", "{folder}", "--out", "no/such/m.onnx"), "cannot write"),
        (("export", "{folder}"), "--out"),
        (("score", "{exported}", "{exported}", "--heatmaps", "heat"), "draws no maps"),
        (("score", "{exported}", "{exported}", "--device", "tpu"), "choose auto, cpu or cuda"),
        (("score", "{folder}.pt2", "{exported}"), "is missing"),
    ],
)
def test_mistakes_get_one_sentence(call, model, exported, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    named = [word.format(folder=model.folder, exported=exported) for word in words]
    code, _, err = call(*named)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_packages_that_are_not_there_are_named(model, tmp_path, monkeypatch):
    version = importlib.metadata.version

    def lacking(name):
        if name == "onnxscript":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", lacking)
    with pytest.raises(InputError, match=r"needs onnxscript.*pip install 'adnlib\[onnx\]'"):
        export_model(model, tmp_path / "m.onnx", IMAGES)


def test_without_onnxruntime_the_folder_is_asked_for(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="needs onnxruntime"):
        OnnxModel.load(exported)


def test_a_model_too_large_for_onnx_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_LARGEST_ONNX", 1000)
    with pytest.raises(InputError, match=r"an ONNX file holds 2: give a name that ends in \.pt2"):
        export_model(model, tmp_path / "m.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_gpu_is_asked_for_float32_and_one_that_cannot_be_used_is_said(exported, monkeypatch):
    """An onnxruntime that was made for CUDA falls back to the CPU without a word."""
    asked = []

    def session(content, options, providers):
        asked.append(providers)
        return made(content, options, providers=providers[-1:])

    made, cuda = onnxruntime.InferenceSession, "CUDAExecutionProvider"
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda])
    OnnxModel.load(exported, "auto")
    assert asked.pop() == [(cuda, {"use_tf32": "0"}), "CPUExecutionProvider"]
    OnnxModel.load(exported, "cpu")
    assert asked.pop() == ["CPUExecutionProvider"]
    with pytest.raises(InputError, match="onnxruntime cannot use CUDA here: choose cpu"):
        OnnxModel.load(exported, "cuda")


def test_scores_that_are_no_numbers_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("adnlib.export._difference", lambda *_: float("nan"))
    monkeypatch.setattr("adnlib.export._write_onnx", lambda _, path: path.touch())
    monkeypatch.setattr("adnlib.export._read_onnx", lambda path: None)
    with pytest.raises(InputError, match="it was not kept"):
        export_model(AttentDifferNet(**TINY), tmp_path / "m.onnx", noise(1, 64))
    assert not list(tmp_path.iterdir())
