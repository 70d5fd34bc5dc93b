"""The benchmark times two ways to the same numbers, and says so in its last line."""

import copy
import os
import re
import subprocess
from pathlib import Path

import accuracy
import growth
import many
import pandas as pd
import published
import pytest
import throughput
import torch
from published import ManyViews, PublishedDetector

from adnlib import AttentDifferNet
from adnlib.demo import make_demo
from adnlib.images import read_image
from adnlib.run_settings import Settings
from adnlib.runs import Run
from adnlib.views import rotate

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_demo(folder, size=80, train=3, good=1, anomalous=2)
    return folder / "demo_parts" / "bracket"


def test_the_published_way_gives_the_librarys_numbers(category):
    """The same view through PIL and torchvision, and through ours: one latent vector, one loss."""
    path = category / "test" / "good" / "000.png"
    model = AttentDifferNet(**TINY)
    (view,) = ManyViews([path], 64, torch.tensor([[33.0]]))[0]
    ours = rotate(read_image(path, 64)[None], torch.tensor([33.0], dtype=torch.float64))
    expected = model.flow(model.embedding(ours))
    found = PublishedDetector(model)(view[None])
    for of_ours, of_theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(of_theirs, of_ours, rtol=1e-4, atol=1e-5)


def test_an_epoch_trains_the_flow_alone(category):
    model = AttentDifferNet(**TINY)
    detector = PublishedDetector(model)
    before = {name: weight.clone() for name, weight in detector.state_dict().items()}
    paths = sorted((category / "train" / "good").iterdir())
    detector.train_epoch(paths, detector.optimizer())
    changed = {name for name, now in detector.state_dict().items() if not now.equal(before[name])}
    assert changed
    assert all(name.startswith("flow") for name in changed)
    assert all(weight.grad is not None for weight in detector.features.parameters())
    torch.testing.assert_close(
        model.flow.state_dict(), {n[5:]: w for n, w in before.items() if n.startswith("flow.")}
    )


@pytest.mark.parametrize("attention", ["none", "se"])
def test_both_ways_train_to_the_same_weights(category, attention):
    """Speed costs no AUROC: from the same order and angles, epochs of either leave one detector."""
    training = {"epochs": 5, "train_views": 2, "batch_images": 2, "learning_rate": 0.01}
    model = AttentDifferNet(**TINY, **training, attention=attention)
    untrained = copy.deepcopy([model.flow, model.embedding.network])
    detector = PublishedDetector(model)
    optimizer = detector.optimizer()
    paths = sorted((category / "train" / "good").iterdir())
    for _ in range(5):
        detector.train_epoch(paths, optimizer)
    images = torch.stack([read_image(path, 64) for path in paths])
    list(model.train_epochs(images))
    for parts in zip(
        untrained,
        (model.flow, model.embedding.network),
        (detector.flow, detector.features),
        strict=True,
    ):
        for before, ours, theirs in zip(*(part.parameters() for part in parts), strict=True):
            if ours.requires_grad:
                assert (ours - theirs).norm() <= 0.01 * (ours - before).norm()
    scores = model.score_embeddings(model.embed(images, model.test_angles(len(images))))
    torch.testing.assert_close(detector.score(paths), scores, rtol=1e-3, atol=0)


def test_every_look_turns_an_image_anew(category, monkeypatch):
    looks = []

    def noted(paths, size, angles):
        looks.append(ManyViews(paths, size, angles))
        return looks[-1]

    monkeypatch.setattr(published, "ManyViews", noted)
    detector = PublishedDetector(AttentDifferNet(**TINY, train_views=3))
    for _ in range(2):
        detector.train_epoch([category / "test" / "good" / "000.png"], detector.optimizer())
    first, second = (look[0] for look in looks)
    assert first.shape == (3, 3, 64, 64)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_what_it_prints_and_writes(category, tmp_path, capsys):
    small = ["--image-size", "256", "--views", "2", "--flow-width", "16", "--weights", "random"]
    out = tmp_path / "new" / "throughput.csv"
    options = ["--data", str(category), "--device", "cpu", "--test-images", "1", *small]
    options += ["--train-images", "2", "--precision", "fp32", "bf16", "--epochs", "3"]
    options += ["--out", str(out)]
    assert throughput.main(options) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    ratios = re.fullmatch(r"score_ratio=(\S+) train_ratio=(\S+) images_per_s=(\S+)", last)
    assert all(float(number) > 0 for number in ratios.groups())
    table = pd.read_csv(out).set_index(["implementation", "precision"])
    ways = [("published", "fp32"), ("adnlib", "fp32"), ("adnlib", "bf16")]
    assert table.index.tolist() == ways
    assert table["auroc"].between(0, 1).all()
    assert (table["epoch_seconds"] > 0).all()
    assert (table["epoch_seconds"] < table["train_seconds"]).all()  # of three
    rates = table["test_images_per_s"]
    assert float(ratios[1]) == pytest.approx(rates["adnlib", "fp32"] / rates[ways[0]], abs=0.02)
    in_fp32 = table.xs("fp32", level="precision")  # products in bf16 may be slower than all else
    assert (in_fp32["conv_tflops"] < in_fp32["matmul_tflops"]).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--published", "nowhere"], "'nowhere' is no checkout of DifferNet"),
        (["--out", "{file}/a.csv"], "give another path with --out"),
        (["--train-images", "-1"], "--train-images is -1: give a number above 0, or 0 for all"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    category, tmp_path, monkeypatch, capsys, wrong, message
):
    def measured(*_):
        pytest.fail("measured first")

    monkeypatch.setattr(throughput, "new_model", measured)
    (tmp_path / "file").touch()
    options = [word.format(file=tmp_path / "file") for word in wrong]
    out = [] if "--out" in wrong else ["--out", str(tmp_path / "a.csv")]
    assert throughput.main(["--data", str(category), *options, *out]) == 2
    assert message in capsys.readouterr().err


def test_the_operations_are_those_of_alexnets_five_convolutions():
    model = AttentDifferNet(weights="random", image_size=224, scales=1, flow_width=16, device="cpu")
    first, second = 55**2 * 64 * 3 * 11**2, 27**2 * 192 * 64 * 5**2
    others = 13**2 * 3**2 * (384 * 192 + 256 * 384 + 256 * 256)
    assert throughput._operations(model) == 2 * (first + second + others)


def finished_run(category, results, **settings):
    settings = {**TINY, "epochs": 1, "test_views": 4, "map_views": 0, **settings}
    where = {"data_root": str(category.parents[1]), "results": str(results), "device": "cpu"}
    own = {"dataset": "demo_parts", "category": "bracket", "save_model": True}
    run = Run(Settings(**own, **where, **settings))
    run.load_images()
    run.train(say=lambda _: None)
    return run, run.finish()


def test_angles_are_chosen_in_four_ways(category, tmp_path):
    even, metrics = finished_run(category, tmp_path / "even", test_angles="even")
    grid, of_grid = finished_run(category, tmp_path / "grid", test_angles="grid")
    asked = ["--views", "1", "4", "--draws", "5", "--timed", "0", "--device", "cpu"]
    out = ["--out", str(tmp_path / "curve")]
    assert accuracy.main([str(even.folder), str(grid.folder), *asked, *out]) == 0
    table = pd.read_csv(tmp_path / "curve.csv").set_index(["angles", "views"])
    found = table["auroc"].groupby(level=[0, 1]).first()  # both runs have the same model
    assert table["auroc"].groupby(level=[0, 1]).nunique().max() == 1
    assert found["even", 4] == pytest.approx(100 * metrics["auroc_last"], abs=0.01)
    assert found["grid", 4] == pytest.approx(100 * of_grid["auroc_last"], abs=0.01)
    drawn = table.loc[["own", "shared"]]
    assert (drawn["draws"] == 5).all()
    assert drawn["auroc"].between(drawn["auroc_min"], drawn["auroc_max"]).all()
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_models_that_embed_alike_share_their_views(category, tmp_path, monkeypatch):
    runs = [finished_run(category, tmp_path, seed=seed)[0] for seed in (0, 1)]  # random weights
    other = finished_run(category, tmp_path / "longer", epochs=2)[0]
    embedded = []
    embed = AttentDifferNet.embed
    monkeypatch.setattr(AttentDifferNet, "embed", lambda *a: embedded.append(a[0]) or embed(*a))
    asked = ["--views", "1", "--draws", "1", "--timed", "0", "--out", str(tmp_path / "curve")]
    folders = [str(run.folder) for run in (runs[0], other, runs[1])]
    assert accuracy.main([*folders, *asked, "--device", "cpu"]) == 0
    assert [model.settings.seed for model in embedded] == [0, 1]


def test_many_views_take_longer(category, tmp_path, capsys):
    run = finished_run(category, tmp_path)[0]
    far = ["--views", "1", "128", "--timed", "3", "--device", "cpu"]  # apart beyond any noise
    assert accuracy.main([str(run.folder), *far, "--out", str(tmp_path / "far")]) == 0
    milliseconds = pd.read_csv(tmp_path / "far.csv").groupby("views")["ms_an_image"].first()
    assert milliseconds[128] > milliseconds[1] > 0
    assert accuracy.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "far")]) == 2
    assert "error: " in capsys.readouterr().err


def test_wrong_input_is_one_sentence(category, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out.csv")]
    assert throughput.main(["--data", str(tmp_path / "nowhere"), *out]) == 2
    assert "does not exist" in capsys.readouterr().err
    options = ["--data", str(category), "--weights", "random", "--views", "1", "--epochs", "1"]
    small = ["--train-images", "1", "--test-images", "1", "--image-size", "256", "--device", "cpu"]
    small += ["--flow-width", "16"]
    assert throughput.main([*options, *small, *out, "--published", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert "is no checkout of DifferNet: it has no train.py" in error


def test_growth_changes_one_thing_at_a_time(category, tmp_path, capsys):
    small = ["--flow-width", "16", "--weights", "random", "--device", "cpu"]
    asked = ["--images", "2", "3", "--views", "1", "2", "--sizes", "256", "288"]
    out = ["--out", str(tmp_path / "new" / "growth")]
    assert growth.main(["--data", str(category), *small, *asked, *out]) == 0
    assert (tmp_path / "new" / "growth.png").stat().st_size > 5000
    table = pd.read_csv(tmp_path / "new" / "growth.csv")
    assert table["changed"].tolist() == ["images"] * 2 + ["views"] * 2 + ["size"] * 2
    assert table["images"].tolist() == [2, 3, 3, 3, 3, 3]
    assert (table[["train_seconds", "score_seconds"]] > 0).all(axis=None)
    assert (table["torch"] == torch.__version__).all()
    assert table["device"].notna().all()
    assert growth.main(["--data", str(tmp_path / "nowhere"), *small, *asked, *out]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_many_images_say_how_much_was_resident(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ADNLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(many, "_DRAWN", 2)
    small = ["--image-size", "256", "--flow-width", "16", "--weights", "random", "--device", "cpu"]
    out = ["--out", str(tmp_path / "many.csv")]
    assert many.main(["--images", "30", "--memory-budget", "0.001", *small, *out]) == 0
    table = pd.read_csv(tmp_path / "many.csv")
    assert table["part"].tolist() == ["read", "train", "score"]
    assert table["on_disk"].all()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"peak_gib={table['peak_gib'].max():.2f}"
    assert 0.1 < table["peak_gib"].max() < 8
    assert many.main(["--images", "0", *small, *out]) == 2
    assert "--images is 0" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mvtec_ad", "mvtec_anomaly_detection"])
def test_what_a_gpu_is_asked_finds_mvtec_ad_by_either_name(tmp_path, name):
    (tmp_path / name).mkdir()
    python = tmp_path / "bin" / "python"  # which says what it is asked
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    asked = subprocess.run(
        ["bash", Path(throughput.__file__).with_name("gpu.sh"), tmp_path],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 0, asked.stderr
    for category in ("bottle", "screw", "transistor"):
        assert f"--data {tmp_path / name / category} " in asked.stdout
