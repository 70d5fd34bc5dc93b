"""`adnlib fit` and `adnlib score`: what they give, and one sentence for each mistake."""

import contextlib
import csv
import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adnlib import AttentDifferNet, InputError, checkpoint, cli, fitting, model_files, scoring
from adnlib.fitting import Progress
from adnlib.lines import line_writer
from adnlib.parameters import project_path
from adnlib.run_settings import Settings

TINY = ["weights=random", "image_size=64", "scales=1", "flow_blocks=2", "flow_width=16"]
TINY = [word for text in [*TINY, "epochs=2", "test_views=2"] for word in ("--set", text)]


def draw(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for i in range(8):
        draw(root / "part" / "train" / "good" / f"{i}.png", i)
    for i in range(3):
        draw(root / "part" / "test" / "scratch" / f"{i}.png", 100 + i)
    return root


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """A command with these words in an empty folder; exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def called(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = cli.main([str(word) for word in words])
        return code, *capfd.readouterr()

    return called


@pytest.fixture(scope="module")
def model(data):
    folder = data / "model"
    assert (
        cli.main(["fit", str(data / "part"), "--out", str(folder), "--device", "cpu", *TINY]) == 0
    )
    return folder


def test_fit_says_what_came_out_and_how_far_it_is(call, data, tmp_path):
    code, out, err = call(
        *("fit", data / "part", "--out", "new/model", "--holdout", "0.25", *TINY),
        *("--anomalies", data / "part" / "test" / "scratch", "--attention", "se", "--seed", "3"),
    )
    assert code == 0
    assert "6 images trained on for 2 epochs, 2 held out" in out
    assert "2 held-out normal images cannot resolve a false-positive rate of 1 %" in out
    assert "of 3 labelled anomalies; of their kinds at least" in out
    assert [line.split()[1] for line in err.splitlines() if line.startswith("epoch")] == [
        "1/2",
        "2/2",
    ]
    found = AttentDifferNet.load("new/model")
    assert (found.settings.attention, found.settings.seed) == ("se", 3)
    assert found.threshold.anomalies == 3
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_the_rate_that_is_asked_for_is_the_thresholds(call, data, tmp_path):
    assert call("fit", data / "part", "--out", "m", "--fpr", "0.4", *TINY)[0] == 0
    assert AttentDifferNet.load(tmp_path / "m").threshold.fpr == 0.4


def test_balance_moves_the_threshold(call, data):
    anomalies = ("--anomalies", data / "part" / "test" / "scratch", "--balance")
    code, out, _ = call("fit", data / "part", "--out", "m", *anomalies, *TINY)
    assert code == 0
    assert "The threshold balances" in out
    assert AttentDifferNet.load("m").threshold.rule == "balance"


def test_without_held_out_images_there_are_scores_and_no_verdicts(call, data, tmp_path):
    code, out, _ = call("fit", data / "part", "--out", "m", "--holdout", "0", *TINY)
    assert code == 0
    assert "No threshold" in out
    code, out, err = call("score", "m", data / "part" / "train")
    assert code == 0
    assert "no threshold" in err
    code, _, err = call("score", "m", data / "part" / "train", "--fpr", "0.1")
    assert (code, "--fpr needs the scores of held-out images" in err) == (2, True)
    assert {row["verdict"] for row in csv.DictReader(io.StringIO(out))} == {""}
    kept = tmp_path / "s.csv"
    kept.write_text("the scores of yesterday")
    words = ["--heatmaps", "heat", "--out", kept, "--force"]
    code, _, err = call("score", "m", data / "part" / "train", *words)
    assert (code, "no scale for maps" in err) == (2, True)
    assert kept.read_text() == "the scores of yesterday"


def test_a_model_is_replaced_only_where_asked(call, data, model, tmp_path):
    words = ["fit", data / "part", "--out", "m", *TINY]
    assert call(*words)[0] == 0
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    code, _, err = call(*words, "--seed", "1")
    assert (code, "--force to replace" in err) == (2, True)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert call(*words, "--seed", "1", "--force")[0] == 0
    assert (tmp_path / "m" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("place", "step"), [(AttentDifferNet, "_scale_of_maps"), (model_files, "_flush")]
)
def test_a_model_that_came_meanwhile_is_not_replaced(
    call, data, model, tmp_path, monkeypatch, there, place, step
):
    done = getattr(place, step)

    def slowly(*given):
        if not (tmp_path / "m" / "model.json").exists():
            shutil.copytree(model, tmp_path / "m", dirs_exist_ok=True)
        return done(*given)

    if there:
        (tmp_path / "m").mkdir()
    monkeypatch.setattr(place, step, slowly)
    code, out, _ = call("fit", data / "part", "--out", "m", *TINY, "--seed", "1")
    assert (code, out.splitlines()[-1]) == (0, "model: 'm-2'")
    assert "'m' holds the model of another process" in out
    assert (tmp_path / "m" / "model.json").read_bytes() == (model / "model.json").read_bytes()
    assert AttentDifferNet.load(tmp_path / "m-2").settings.seed == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "'nowhere' does not exist"),
        (["{part}", "--set", "epoch=3"], "no setting 'epoch': did you mean 'epochs'?"),
        (["{part}", "--set", "epochs"], "is no assignment"),
        (["{part}", "--preset", "fast"], "no preset 'fast'"),
        (["{part}", "--attention", "sse"], "attention is 'sse'"),
        (["{part}", "--device", "gpu"], "device is 'gpu'"),
        (["{part}", "--device", "mps"], "device is 'mps'"),
        (["{part}", "--set", "adam_eps=-1"], "adam_eps is -1"),
        (["{part}", "--set", "learning_rate=.nan"], "learning_rate is nan"),
        (["{part}", "--set", "max_angle=.inf"], "max_angle is inf"),
        (["{part}", "--set", "test_views=5000"], "test_views is 5000: give at most 4096"),
        (["{part}", "--seed", "x"], "seed is 'x'"),
        (["{part}", "--seed", str(10**30)], "seed is"),
        (["{part}", "--holdout", "1"], "holdout is 1.0"),
        (["{part}", "--holdout", "nan"], "holdout is nan"),
        (["{part}", "--fpr", "0"], "fpr is 0.0"),
        (["{part}", "--fpr", "1e-320"], "fpr is 1e-320"),
        (["{part}", "--fpr", "few"], "invalid float value: 'few'"),
        (["{part}", "--config", "no.yaml"], "no.yaml"),
        (["{part}", "--balance"], "--balance needs labelled anomalies"),
        (["{part}", "--anomalies", "nowhere"], "'nowhere' does not exist"),
        (["{part}", "--anomalies", "{part}/train/good"], "both good and anomalous"),
        (["{part}", "--anomalies", "{part}"], "is good by its folder's name"),
        (["{part}", "--set", "holdout=0"], "is no setting of the model: give --holdout."),
        (["{part}", "--set", "on_bad_image=skip"], "model: give --on-bad-image."),
        (["{part}", "--anomalies", "{part}/test", "--holdout", "0"], "needs held-out images"),
        (["{part}/train/good/0.png"], "is a file"),
        (["{part}", "--out", "/proc/model"], "cannot write '/proc/model'"),
        (["{part}", "--out", "{part}"], "holds other things"),
        (["{part}", "--out", "{part}/train/good/0.png"], "is a file: give a new folder"),
        (["{part}", "--out", "{part}/train/good/0.png/m"], "train/good/0.png' is no folder"),
        (["{part}", "--out", "/proc/self/fd/99/m"], "cannot write '/proc/self/fd/99/m'"),
        ([""], "an empty path"),
        (["{part}", "--hold-out", "1"], "did you mean --holdout?"),
        (["x" * 300], "File name too long"),
        (["~nobody_at_all/x"], "home directory"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_mistake_in_fit_is_one_sentence_and_nothing_is_written(
    call, data, tmp_path, words, message
):
    words = [word.format(part=data / "part") for word in words]
    code, out, err = call("fit", "--out", "m", *TINY, *words)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert err.startswith("error: ")
    assert (err.count("\n"), out) == (1, "")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_fit_leaves_no_model(call, data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "new").mkdir()
    for where, name in ((Progress, "epoch"), (model_files, "_flush")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, interrupted)
            code, out, err = call("fit", data / "part", "--out", "new/m", *TINY)
        assert (code, out) == (130, "")
        assert "\ninterrupted; no model was written" in err
        assert not list((tmp_path / "new").iterdir())


def test_a_fit_goes_on_from_its_checkpoint_and_leaves_none(call, data, tmp_path, monkeypatch):
    told = Progress.epoch

    def interrupted(self, epoch):
        told(self, epoch)
        if epoch.epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "_EVERY", 0.0)
    words = ("fit", data / "part", "--out", "m", *TINY, "--set", "epochs=4")
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "epoch", interrupted)
        assert call(*words)[0] == 130
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["checkpoint.pt"]
    (tmp_path / "m" / "checkpoint.7.part.pt").touch()  # of a process that was killed
    (tmp_path / "m" / ".nfs1").touch()
    code, out, err = call(*words)
    assert code == 0
    assert [line.split()[1] for line in err.splitlines() if "loss" in line] == ["3/4", "4/4"]
    assert "trained on for 4 epochs" in out
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        *(".nfs1", "model.json", "model.safetensors")
    ]


def test_too_small_a_disk_is_found_before_training(call, data, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(model_files.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(fitting, "read_images", None)
    code, _, err = call("fit", data / "part", "--out", "m", *TINY)
    assert code == 2
    assert "more than is free" in err


def test_a_damaged_image_stops_a_fit_or_is_skipped(call, data, tmp_path):
    for i in range(4):
        draw(tmp_path / "good" / f"{i}.png", i)
    (tmp_path / "good" / "1.png").write_bytes(b"")
    code, _, err = call("fit", "good", "--out", "m", *TINY)
    assert (code, err.count("\n"), "1.png" in err) == (2, 1, True)
    code, out, err = call("fit", "good", "--out", "m", "--on-bad-image", "skip", *TINY)
    assert code == 0
    assert "note: skipped: 'good/1.png'" in err
    assert "2 images trained on" in out


def test_on_a_terminal_one_line_is_rewritten():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        progress = Progress(stream)
        progress.begin(1, AttentDifferNet(weights="random", image_size=64, scales=1, flow_width=8))
        progress.epoch(type("Epoch", (), {"epoch": 1, "train_loss": 1.0, "seconds": 2.0}))
        progress.end()
    assert terminal.getvalue().count("\n") == 1
    assert "about 6 min left" in terminal.getvalue()
    assert pipe.getvalue().count("\n") == 2
    assert "\r" not in pipe.getvalue()
    assert pipe.getvalue().startswith("1 good image read; training on ")


def test_progress_that_nobody_reads_any_more_stops_no_fit(call, data, tmp_path, monkeypatch):
    class Broken(io.StringIO):
        def flush(self):
            raise BrokenPipeError

    monkeypatch.setattr(fitting, "Progress", lambda: Progress(Broken()))
    assert call("fit", data / "part", "--out", "m", *TINY)[0] == 0
    assert (tmp_path / "m" / "model.json").is_file()


def read_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_are_the_models_own(call, data, model):
    code, out, err = call("score", model, data / "part")
    rows = read_rows(out)
    assert code == 0
    assert list(rows[0]) == ["path", "score", "verdict", "percentile", "error"]
    paths = [row["path"] for row in rows]
    assert len(paths) == 11
    detector = AttentDifferNet.load(model)
    scores = detector.score(paths).tolist()
    assert [np.float32(row["score"]) for row in rows] == [np.float32(s) for s in scores]
    for row, score in zip(rows, scores, strict=True):
        assert row["verdict"] == ("anomalous" if score > detector.threshold.value else "good")
        assert 0 <= float(row["percentile"]) <= 100
    assert "11 images in" in err


def test_another_rate_of_false_alarms_moves_the_verdicts_alone(call, data):
    folder = data / "part"
    assert call("fit", folder, "--out", "m", "--holdout", "0.5", *TINY)[0] == 0
    usual = read_rows(call("score", "m", folder)[1])
    code, out, err = call("score", "m", folder, "--fpr", "0.4")
    assert code == 0
    # Of four held-out scores the third, which two of five new ones exceed in the mean.
    limit = AttentDifferNet.load("m").threshold.normal_scores[2]
    above = {True: "anomalous", False: "good"}
    judged = [row | {"verdict": above[np.float32(row["score"]) > limit]} for row in usual]
    assert read_rows(out) == judged != usual
    assert f"threshold {limit:.6g}. By 4 held-out normal images, about 40 %" in err
    assert read_rows(call("score", "m", folder)[1]) == usual


def test_no_score_depends_on_batch_order_or_neighbours(call, data, model):
    paths = sorted(map(str, (data / "part").rglob("*.png")))
    expected = {row["path"]: row for row in read_rows(call("score", model, *paths)[1])}
    for batch, order in itertools.product((1, 3, 100), (1, -1)):
        _, out, _ = call("score", model, *paths[::order][2:], "--batch", batch)
        assert all(expected[row["path"]] == row for row in read_rows(out))


def test_words_stand_for_files_folders_globs_and_standard_input(call, data, model, monkeypatch):
    good = data / "part" / "train" / "good"
    listed = f"{good / '5.png'}\n\n{good / '6.png'}\r\n"
    code, out, _ = call("score", model, good / "[12].png", "-", good / "0.png", stdin=listed)
    assert code == 0
    assert [Path(row["path"]).stem for row in read_rows(out)] == ["1", "2", "5", "6", "0"]
    _, out, _ = call("score", model, data / "part" / "**" / "2.png")
    assert len(read_rows(out)) == 2
    monkeypatch.setenv("HOME", str(data))
    _, out, _ = call("score", model, "~/part/train/good/[12].png")
    assert [row["path"] for row in read_rows(out)] == [str(good / "1.png"), str(good / "2.png")]
    code, out, err = call("score", model, "-", stdin="\n")
    assert (code, read_rows(out)) == (0, [])
    assert err == "note: there are no images to score\n"


@pytest.mark.parametrize("name", ["a,b.png", 'a"b.png', "a\nb.png", "a\rb.png"])
def test_any_file_name_is_one_cell(tmp_path, name):
    with line_writer(tmp_path / "s.csv") as write:
        write(scoring.Line(name, 0.5, "good", 50.0))
    with (tmp_path / "s.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["path", name]
    assert b"\r\n" not in (tmp_path / "s.csv").read_bytes()


def test_a_glob_of_folders_and_files_gives_each_image_once(call, data, model):
    pattern = data / "part" / "train" / "**"
    assert len(read_rows(call("score", model, pattern)[1])) == len([*pattern.parent.rglob("*.png")])


def test_json_lines_go_into_a_file(call, data, model, tmp_path):
    words = ["score", model, data / "part", "--format", "jsonl", "--out", "s.jsonl"]
    assert call(*words)[:2] == (0, "")
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert len(rows) == 11
    assert list(rows[0]) == ["path", "score", "verdict", "percentile", "error"]
    assert rows[0]["error"] is None
    code, _, err = call(*words)
    assert (code, "--force" in err) == (2, True)
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 11
    assert call(*words, "--force")[0] == 0
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == 11


def test_two_do_not_write_one_file(tmp_path):
    out = tmp_path / "scores"
    with line_writer(out) as write:
        write(scoring.Line("a.png", 0.5))
        with (
            pytest.raises(InputError, match="another process is writing"),
            line_writer(out, force=True),
        ):
            pass
        write(scoring.Line("b.png", 0.5))
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize("line_format", ["csv", "jsonl"])
def test_a_file_is_replaced_no_sooner_than_with_the_first_line(tmp_path, line_format):
    out = tmp_path / "scores"
    out.write_text("older and longer than what comes in its place, a header and a line\n" * 9)
    before = out.read_text()
    with pytest.raises(InputError), line_writer(out, line_format, force=True):
        raise InputError("the first image cannot be read.")
    assert out.read_text() == before
    with line_writer(out, line_format, force=True) as write:
        write(scoring.Line("a.png"))
    assert len(out.read_text().splitlines()) == {"csv": 2, "jsonl": 1}[line_format]
    with line_writer(out, line_format, force=True):
        pass
    assert len(out.read_text().splitlines()) == {"csv": 1, "jsonl": 0}[line_format]


def bad_text(path: Path) -> None:
    path.write_text("I am no image")


def bad_bomb(path: Path) -> None:
    """A PNG whose header asks for 10^10 pixels."""
    whole = draw(path, 0).read_bytes()
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + whole[24:29]
    path.write_bytes(whole[:12] + header + zlib.crc32(header).to_bytes(4, "big") + whole[33:])


BAD = {
    "empty.png": Path.touch,
    "text.png": bad_text,
    "bomb.png": bad_bomb,
    "cut.png": lambda path: path.write_bytes(draw(path, 0).read_bytes()[:99]),
    "loop.png": lambda path: path.symlink_to(path.name),
    "dangling.png": lambda path: path.symlink_to("nowhere.png"),
    "pipe.png": os.mkfifo,
    "animated.gif.png": lambda path: Image.new("L", (9, 9)).save(
        path, "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)]
    ),
    "float.tif": lambda path: Image.new("F", (9, 9)).save(path),
    "line\nbreak.png": bad_text,
    "größe 漢字.png": bad_text,
    os.fsdecode(b"latin\xe9.png"): bad_text,
}


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_an_image_that_cannot_be_read_is_a_line_and_the_rest_goes_on(
    call, data, model, tmp_path, name
):
    (tmp_path / "new").mkdir()
    BAD[name](tmp_path / "new" / name)
    draw(tmp_path / "new" / "a good one.png", 1)
    draw(tmp_path / "new" / "zürich, 漢字.png", 1)
    code, out, err = call("score", model, "new")
    assert code == 1
    rows = read_rows(out)
    assert len(rows) == 3
    bad = [row for row in rows if row["error"]]
    written = name.encode("utf-8", "backslashreplace").decode()
    assert [row["path"] for row in bad] == [f"new/{written}"]
    assert "\n" not in bad[0]["error"]
    assert bad[0]["score"] == bad[0]["verdict"] == bad[0]["percentile"] == ""
    assert all(row["score"] for row in rows if not row["error"])
    assert "1 not read" in err
    code, out, _ = call("score", model, "new", "--format", "jsonl")
    assert code == 1
    assert len([json.loads(line) for line in out.splitlines()]) == 3
    code, out, err = call("score", model, "new", "--on-bad-image", "stop")
    assert (code, err.splitlines()[-1][:7]) == (2, "error: ")


def test_of_an_image_that_is_too_large_there_is_one_sentence(call, model, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    draw(tmp_path / "large.png", 0)
    code, out, err = call("score", model, "large.png")
    assert code == 1
    assert "(it has more than 2500 pixels)" in out
    assert "note:" not in err


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_of_an_animated_or_paged_file_the_first_picture_is_scored(call, model, tmp_path, kind):
    first, second = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / "one.png")
    first.save(tmp_path / "many.png", kind, save_all=True, append_images=[second], **options)
    rows = read_rows(call("score", model, "one.png", "many.png")[1])
    assert rows[0]["score"] == rows[1]["score"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.png"], "there is no 'nowhere.png'"),
        (["*.nothing"], "there is no '*.nothing'"),
        (["{empty}"], "holds no images"),
        (["{image}", "--batch", "0"], "'0' is no whole number above 0"),
        (["{image}", "--format", "xml"], "invalid choice: 'xml'"),
        (["{image}", "--device", "tpu"], "device is 'tpu'"),
        (["{image}", "--fpr", "2"], "fpr is 2.0"),
        (["{image}", "--out", "/proc/x.csv"], "cannot write '/proc/x.csv'"),
        (["{image}", "--out", "{empty}"], "cannot write"),
        (["{image}", "--out", "/dev/full", "--force"], "No space left on device"),
        (["{image}", "--heatmaps", "/proc/heat"], "cannot write '/proc/heat"),
        (["{image}", "--heatmap", "x"], "did you mean --heatmaps?"),
        (["x" * 300], "File name too long"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_mistake_in_score_is_one_sentence(call, data, model, tmp_path, words, message):
    (tmp_path / "empty").mkdir()
    names = {"empty": tmp_path / "empty", "image": data / "part" / "train" / "good" / "0.png"}
    code, out, err = call("score", model, *(word.format(**names) for word in words))
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out in ("", "path,score,verdict,percentile,error\n")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("nothing", "model.json' is missing"),
        ("file", "or the folder of a model"),
        ("run-all's folder", "model.json' is missing"),
    ],
)
def test_what_is_no_model_is_one_sentence(call, data, tmp_path, there, message):
    if there == "file":
        (tmp_path / "m").touch()
    elif there != "nothing":
        (tmp_path / "m").mkdir()
        (tmp_path / "m" / "params.json").touch()
    code, _, err = call("score", "m", data / "part")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_folder_that_links_to_itself_is_walked_once(call, data, model, tmp_path):
    draw(tmp_path / "new" / "a" / "1.png", 1)
    (tmp_path / "new" / "a" / "up").symlink_to("..")
    (tmp_path / "new" / "a" / "loop").symlink_to("loop")  # and leads nowhere
    _, out, err = call("score", model, "new")
    assert len(read_rows(out)) == 1
    assert "note: left out in 'new/a': 1 linked folder, such as 'up'; put what" in err


def test_heat_maps_lie_under_the_images_own_paths_and_replace_none(call, model, tmp_path):
    image = draw(tmp_path / "new" / "a.png", 1)
    draw(tmp_path / "b.png", 2)
    before = image.read_bytes()
    for name in ("new/a.png", str(image), "new/../b.png"):
        assert call("score", model, name, "--heatmaps", ".")[0] == 0
    assert image.read_bytes() == before
    with Image.open(tmp_path / "new" / "a.png.heat.png") as heat:
        assert (heat.size, heat.mode) == ((64, 53), "RGB")  # in the shape of the image
    assert scoring.heat_path(Path("h"), "/x/../y.jpg") == Path("h/x/__/y.jpg.heat.png")
    assert (tmp_path / "new" / "__" / "b.png.heat.png").is_file()


def test_pictures_of_heat_are_no_images_to_score(call, model, tmp_path):
    for name in ("a.png", "z.png"):
        draw(tmp_path / "new" / name, 1)
    for _ in range(2):
        for word in ("new", "new/**/*.png", "-"):
            listed = "\n".join(map(str, (tmp_path / "new").rglob("*.png")))
            code, out, _ = call("score", model, word, "--heatmaps", "new/heat", stdin=listed)
            assert (code, len(out.splitlines())) == (0, 3)
    maps = (tmp_path / "new" / "heat" / "new").rglob("*.heat.png")
    assert sorted(path.name for path in maps) == ["a.png.heat.png", "z.png.heat.png"]


def test_photographs_that_are_left_out_are_said(call, model, tmp_path):
    image = draw(tmp_path / "new" / "a.png", 1)
    for name in ("b.GIF", "c.heic", "notes.txt"):
        (tmp_path / "new" / name).write_bytes(image.read_bytes())
    code, out, err = call("score", model, "new")
    assert (code, len(out.splitlines())) == (0, 2)
    assert "note: left out in 'new': 2 of .gif, .heic; convert what is to be read" in err


def test_a_list_may_begin_with_a_byte_order_mark(call, model, tmp_path, monkeypatch, capfd):
    draw(tmp_path / "a.png", 1)
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfa.png\r\n"), newline="")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["score", str(model), "-"]) == 0
    assert capfd.readouterr().out.splitlines()[1].startswith("a.png,")


def test_good_images_stay_dark_and_the_highest_place_of_others_stands_out(
    data, model, monkeypatch, tmp_path
):
    detector, scales = AttentDifferNet.load(model), []

    def overlay(image, heat, scale):
        scales.append((heat.max(), scale))
        return np.zeros((*image.shape[1:], 3))

    monkeypatch.setattr(scoring, "overlay", overlay)
    path = str(data / "part" / "train" / "good" / "0.png")
    for scale in (1e9, 1e-9):
        detector.heat_scale = scale
        list(scoring.score_files(detector, [path], heatmaps=tmp_path))
    (highest, high), (_, low) = scales
    assert (high, low) == (1e9, highest)


def test_the_stream_is_read_no_further_than_two_batches_ahead(data, model):
    """Constant memory: of a million paths only a few are looked at before the first score."""
    taken = []
    path = str(data / "part" / "train" / "good" / "0.png")

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield path

    lines = scoring.score_files(AttentDifferNet.load(model), endless(), batch=4)
    for _, _ in zip(range(10), lines, strict=False):
        pass
    lines.close()
    assert len(taken) <= 16


def test_a_million_files_are_found_one_by_one(tmp_path, monkeypatch):
    for i in range(30):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "a.png").touch()
    opened = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: opened.append(place) or scan(place))
    found = scoring.find_images([str(tmp_path)], [])
    assert Path(next(found)).parent.name == "0"
    assert len(opened) == 2
    assert [Path(path).parent.name for path in found] == [str(i) for i in range(1, 30)]


def test_a_linked_folder_with_an_images_name_is_no_image(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "in" / "b.png").symlink_to(tmp_path)
    with pytest.warns(UserWarning, match="1 linked folder, such as 'b.png'"):
        found = [*scoring.find_images([str(tmp_path / "in")], [])]
    assert found == [str(tmp_path / "in" / "a.png")]


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() > 70:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:20])

    with monkeypatch.context() as patched, contextlib.ExitStack() as stack:
        patched.setattr(Path, "open", lambda path, *_, **__: Full(path, "w"))
        write = stack.enter_context(line_writer(tmp_path / "s.csv"))
        write(scoring.Line("a.png", 0.5, "good", 50.0))
        with pytest.raises(InputError, match=r"No space left .*make room"):
            write(scoring.Line("a long name.png", 0.5, "good", 50.0))
    text = (tmp_path / "s.csv").read_bytes().decode()
    assert text.endswith("\n")
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {5}


@pytest.mark.slow
def test_interrupted_in_the_middle_what_was_written_is_whole_lines(data, model, tmp_path):
    path = str(data / "part" / "train" / "good" / "0.png")
    command = [
        sys.executable,
        "-m",
        "adnlib",
        "score",
        str(model),
        "-",
        "--out",
        tmp_path / "s.csv",
    ]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project_path("."),
        # Tests that run in a shell's background were told to ignore Ctrl-C, and so would this.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        process.stdin.write(f"{path}\n" * 2000)
        process.stdin.flush()
        end = time.monotonic() + 120
        while time.monotonic() < end:
            time.sleep(0.05)
            if (tmp_path / "s.csv").is_file() and (tmp_path / "s.csv").stat().st_size > 200:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; every line that was written is whole"
    assert "Traceback" not in err
    text = (tmp_path / "s.csv").read_text()
    assert text.endswith("\n")
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {5}


def in_bash(command: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(words, capture_output=True, text=True, cwd=project_path("."))


@pytest.mark.parametrize(
    ("where", "code", "told"),
    [("| true", 0, ""), (">/dev/full", 2, "cannot write 'standard output' (No space left")],
)
def test_an_end_of_output_is_told_apart_from_a_full_disk(tmp_path, where, code, told):
    for kind in ("train/good", "test/good", "test/dent"):
        (tmp_path / "my_set" / "cup" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "my_set" / "cup" / kind / "0.png").touch()
    command = f"{sys.executable} -m adnlib datasets check {tmp_path} {where}"
    done = in_bash(command)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in done.stderr
    assert bool(done.stderr) == bool(told)


@pytest.mark.slow
def test_a_reader_who_has_enough_is_no_mistake(data, model):
    command = f"{sys.executable} -m adnlib score {model} {data / 'part'} --batch 1 | head -n 1"
    done = in_bash(command)
    assert done.stdout == "path,score,verdict,percentile,error\n"
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


@pytest.mark.slow
def test_closed_streams_are_empty_ones(data, model):
    image = data / "part" / "train" / "good" / "0.png"
    command = f"{sys.executable} -m adnlib score {model} - {image} <&- >&-"
    done = in_bash(command)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert done.stderr.startswith("1 image in ")


def test_scoring_needs_neither_jupyter_nor_the_workflow():
    lacking = ["IPython", "ipykernel", "ipywidgets", "jupyterlab", "nbformat", "papermill"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({[*lacking, 'snakemake', 'voila']})); "
        "import adnlib.lines, adnlib.scoring; print('loaded')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project_path("."))
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("fit", ["--out", "--preset", "--config", "--fpr", "--holdout", "--anomalies", "--force"]),
        ("score", ["--format", "--out", "--batch", "--heatmaps", "--on-bad-image", "exit code"]),
        ("export", ["--out", "--images", "--force", "exit code", ".onnx", ".pt2"]),
    ],
)
def test_help_has_every_option_and_examples(capsys, command, options):
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: adnlib {command} ")
    assert text.count(f"adnlib {command} ") >= 4
    for option in options:
        assert option in text


def test_a_gpu_without_room_is_said(data, monkeypatch, call):
    def train(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(AttentDifferNet, "fit", train)
    code, _, err = call("fit", data / "part", "--out", "m", *TINY)
    assert code == 2
    assert "the GPU has too little memory: end what else uses it" in err


@pytest.mark.parametrize("library", [torch, np], ids=["torch", "numpy"])
def test_a_machine_without_room_is_said(data, monkeypatch, call, library):
    monkeypatch.setattr(AttentDifferNet, "fit", lambda *_, **__: library.empty(10**15))
    code, _, err = call("fit", data / "part", "--out", "m", *TINY)
    assert code == 2
    assert err.endswith(
        "error: this machine has too little memory: end what else uses it, or train with a smaller "
        "batch_images or image_size.\n"
    )


def test_settings_are_listed_with_their_meanings(capsys):
    assert cli.main(["settings"]) == 0
    out = capsys.readouterr().out
    for field in dataclasses.fields(Settings):
        assert f"\n  {field.name} = {field.default!r}\n      " in out
