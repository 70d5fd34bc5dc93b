"""Every command and every program that the documentation shows is run, here or elsewhere.

They are run as they stand, word by word, in a folder that has what they name; only the settings
behind the presets are tiny, and what schedules runs is asked for its plan (`--dry-run`).
"""

import importlib
import re
import shlex
import shutil
import tarfile
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import adnlib
from adnlib import cli, presets
from adnlib.export import export_model, noise

ROOT = Path(__file__).parents[1]
NAMES = ("README.md", "REPRODUCING.md", "docs/*.md", "benchmarks/README.md", "results/*/README.md")
PAGES = [page for name in NAMES for page in sorted(ROOT.glob(name))]
TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 2}
# What is no command of ours, or needs what a test machine may lack; each is tried elsewhere.
ELSEWHERE = {
    r"git clone .*": "the checkout that these tests are in",
    r"./run_all\.sh test": "this",
    r"./run_all\.sh": "tests/test_run_all.py, and CI with the smoke profile",
    r".*--cluster .*": "tests/test_workflow.py, where there is a SLURM",
    r"cp -r workflow/profiles/slurm my_cluster": "tests/test_cluster.py",
    r".*pip install .*": "run_all.sh",
    r"conda .*": "no conda on CI",
    r"snakemake .*": "run_all.sh",
    r"(\.venv/bin/)?voila .*": "tests/test_explore_page.py",
    r"CUDA_VISIBLE_DEVICES=.*": "needs GPUs",
    r"./run_all\.sh .*precision=tf32.*": "needs a GPU",
    r"bash benchmarks/gpu\.sh .*": "needs a GPU",
    r"DIR/.*": "folders, no command",
    r"folder > .*": "a drawing, no command",
}


def blocks(page, language):
    """The fenced blocks of a page in that language; "" for those that name none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [content for named, content in found if named == language]


def commands():
    """Page and line of every command, continued lines joined and comments cut off."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"\s+#.*|^#.*", "", line).strip()
                if words and not any(re.fullmatch(known, words) for known in ELSEWHERE):
                    yield pytest.param(words, id=f"{page.relative_to(ROOT)}: {words}")


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the examples name: photos, a data root, and a model of those photos."""
    folder = tmp_path_factory.mktemp("user")
    for index in range(12):
        draw(folder / "photos" / "good" / f"{index}.png", index)
    for index in range(3):
        draw(folder / "photos" / "new" / f"{index}.png", 100 + index)
    sets = {
        "mvtec_ad": ("bottle", "screw", "transistor"),
        "mtd": ("magnetic_tile",),
        "my_set": ("my_part",),
    }
    for name, categories in sets.items():
        for category in categories:
            for split in ("train/good", "test/good", "test/dent"):
                draw(folder / "DIR" / name / category / split / "0.png", 0)
                draw(folder / "DIR" / name / category / split / "1.png", 1)
    for name in ("new_1.png", "new_2.png", "packed/capsule/train/good/0.png"):
        draw(folder / name, 7)
    with tarfile.open(folder / "mvtec_anomaly_detection.tar.xz", "w:xz") as archive:
        archive.add(folder / "packed" / "capsule", "mvtec_anomaly_detection/capsule")
    with zipfile.ZipFile(folder / "unsupervised_anomaly_detection.zip", "w") as archive:
        inside = "unsupervised_anomaly_detection/glass-insulator/train/good/0.png"
        archive.write(folder / "new_1.png", inside)
    model = adnlib.AttentDifferNet(**TINY).fit(folder / "photos" / "good")
    model.save(folder / "my_model")
    for name in ("my_model.onnx", "my_model.pt2"):
        export_model(model, folder / name, noise(2, TINY["image_size"]))
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    room = shutil.disk_usage(folder)._replace(free=10**12)  # which the paper's grid asks for
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(presets, "PRESETS", {n: v | TINY for n, v in presets.PRESETS.items()})


@pytest.mark.slow
@pytest.mark.parametrize("line", list(commands()))
def test_a_command_does_what_it_says(here, line):
    words = shlex.split(line)
    if words[0] == "./run_all.sh":
        rest = [word for word in words[1:] if word != "--dry-run"]
        assert cli.main(["run-all", *rest, "--dry-run"]) == 0
    elif words[0] == "adnlib":
        given = words[1 : words.index(">")] if ">" in words else words[1:]
        extra = ["--force"] if given[0] in ("fit", "export") else []
        assert cli.main([*given, *extra]) == 0
    elif words[0] == "papermill":
        check_papermill(words)
    elif words[0] == "python":  # tests/test_throughput.py and its like run them
        importlib.import_module(Path(words[1]).stem)._parser().parse_args(words[2:])
    else:
        pytest.fail(f"no test knows how to run {line!r}")


def check_papermill(words):
    """The notebook is there and has these parameters; tests/test_notebooks.py runs it."""
    content = nbformat.read(ROOT / words[1], as_version=4)
    cell = next(cell for cell in content.cells if cell.metadata.get("tags") == ["parameters"])
    for name in (words[i + 1] for i, word in enumerate(words) if word == "-p"):
        assert re.search(rf"^{name} = ", cell.source, re.MULTILINE), name


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=str)
def test_a_program_runs(here, monkeypatch, page):
    class Tiny(adnlib.AttentDifferNet):
        def __init__(self, **settings):
            super().__init__(**settings | TINY)

    monkeypatch.setattr(adnlib.model, "AttentDifferNet", Tiny)
    names = {}
    for block in blocks(page, "python"):
        exec(block, names)


def test_every_page_is_looked_through():
    pages = {str(page.relative_to(ROOT)) for page in PAGES}
    assert pages >= {"README.md", "docs/export.md", "results/reference/README.md"}
    assert len(list(commands())) >= 30
