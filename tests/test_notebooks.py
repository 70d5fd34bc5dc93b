"""The notebooks as they are committed, and each of them run from top to bottom on tiny settings."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jupytext
import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
from synthetic import make_pictures

from adnlib import datasets
from adnlib.figures import breadth
from adnlib.folders import run_folder
from adnlib.images import read_image
from adnlib.parameters import project_path
from adnlib.run_settings import Settings

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TINY = {"image_size": 256, "flow_width": 16, "epochs": 1, "test_views": 1}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4), request.param


def test_names():
    assert [path.stem for path in NOTEBOOKS] == [
        "00_quickstart",
        "01_datasets",
        "02_train",
        "03_tables",
        "04_roc",
        "05_gradcam",
        "06_study",
        "07_report",
        "08_explore",
        "09_robustness",
        "10_saliency",
    ]


def test_committed_without_outputs_and_paired_with_its_text(notebook):
    content, path = notebook
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    text = jupytext.read(path.with_suffix(".py"))
    both = [[(c.cell_type, c.source) for c in n.cells] for n in (content, text)]
    assert both[0] == both[1], "run: jupytext --sync notebooks/*.py"


def test_shape(notebook):
    """A title, a question, a parameters cell of plain literals, short cells with prose between."""
    content, _ = notebook
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    assert content.cells[0].source.startswith("# ")
    assert "**Question.**" in content.cells[0].source
    assert code[0].metadata.tags == ["parameters"]
    for statement in ast.parse(code[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    assert "check_parameters" in code[1].source
    assert max(len(cell.source.splitlines()) for cell in code[1:]) <= 15


def test_a_table_is_read_with_its_categories_as_names(notebook):
    """`records.read_tidy` takes a category "03" or "null" for a name; pandas alone does not."""
    assert "read_csv" not in notebook[1].with_suffix(".py").read_text(encoding="utf-8")


def test_train_parameters_are_the_librarys_defaults():
    content = nbformat.read(FOLDER / "02_train.ipynb", as_version=4)
    cell = next(cell for cell in content.cells if cell.metadata.get("tags") == ["parameters"])
    given = {s.targets[0].id: ast.literal_eval(s.value) for s in ast.parse(cell.source).body}
    assert given == dataclasses.asdict(Settings())


def test_long_names_of_categories_do_not_overlap_among_the_pictures(tmp_path):
    folder = make_pictures(tmp_path / ("plates" * 9))
    *_, cell = [c for c in jupytext.read(FOLDER / "01_datasets.py").cells if c.cell_type == "code"]
    place = SimpleNamespace(folder=folder, category=folder.name)
    names = {"with_images": [place], "pictures": 2, "plt": plt}
    exec(cell.source, names | {"datasets": datasets, "read_image": read_image})
    assert all(breadth(axis.title) < 2 for axis in plt.gcf().axes)
    plt.close()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


def execute(name, folder, **parameters):
    papermill.execute_notebook(
        FOLDER / f"{name}.ipynb",
        folder / f"{name}.ipynb",
        parameters,
        progress_bar=False,
        cwd=FOLDER,
        start_timeout=180,
    )


@pytest.mark.slow
def test_quickstart(results):
    execute("00_quickstart", results, **TINY, weights="random", save_to=str(results / "saved"))
    assert (results / "saved" / "model.safetensors").exists()


@pytest.mark.slow
def test_datasets(results):
    execute("01_datasets", results, pictures=3)


@pytest.mark.slow
def test_train_then_tables_and_figures(results):
    more = {"results": str(results), "weights": "random", "train_views": 1, "map_views": 1}
    more |= {"save_model": True}
    for attention in ("none", "se"):
        execute("02_train", results, attention=attention, **more, **TINY)
    folder = run_folder(results, "demo_parts", "bracket", "se", 0)
    assert 0 <= json.loads((folder / "metrics.json").read_text())["auroc_last"] <= 1
    for name, made in (("03_tables", "auroc.csv"), ("06_study", "paired.csv")):
        execute(name, results, results=str(results))
        assert (results / "tables" / made).exists()
    for name in ("04_roc", "05_gradcam"):
        execute(name, results, results=str(results), dataset="demo_parts")
        assert (results / "figures" / f"{name[3:]}_demo_parts.png").exists()
    assert (results / "tables" / "localization_demo_parts.md").exists()
    listed = os.path.relpath(
        results / "figures" / "gradcam_demo_parts_images.csv", project_path("")
    )
    execute("05_gradcam", results, results=str(results), dataset="demo_parts", named=listed)
    execute("10_saliency", results, run=str(folder), views=1)
    execute("08_explore", results, results=str(results))
    shown = (results / "08_explore.ipynb").read_text(encoding="utf-8")
    assert "DifferNet on demo_parts/bracket" in shown
    assert "held-out normal images" in shown
    some = {"corruptions": "darker, jpeg", "severities": 3, "images": 2}
    execute("09_robustness", results, results=str(results), dataset="demo_parts", **some)
    assert (results / "tables" / "robustness_demo_parts.md").exists()
    assert (results / "figures" / "robustness_demo_parts.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("02_train", ["atention", "cbam"], "there is no parameter 'atention': did you mean"),
        ("00_quickstart", ["dataset", "demo_part"], "there is no demo set 'demo_part': did you"),
        ("01_datasets", ["pictures", "0"], "pictures is 0: give a number above 0"),
        ("01_datasets", ["data_root", str(FOLDER)], "holds no images of a category: give a folder"),
    ],
)
def test_a_mistyped_parameter_stops_papermill_before_anything_is_written(
    tmp_path, name, given, message
):
    place = {"02_train": "results", "00_quickstart": "save_to"}.get(name)
    options = ["-p", *given, *(["-p", place, tmp_path / "results"] if place else [])]
    command = ["-m", "papermill", FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb"]
    done = subprocess.run(
        [sys.executable, *command, *options], capture_output=True, text=True, cwd=FOLDER
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "results").exists()
