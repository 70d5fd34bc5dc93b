"""The road from `run-all` to tables, with notebooks that only pretend: they write files at once."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nbformat
import pytest
import yaml

from adnlib import cluster
from adnlib.execution import PROJECT

pytest.importorskip("snakemake", reason="Snakemake 9 needs Python 3.11")
pytestmark = pytest.mark.slow

TRAIN = """
import json, pathlib, time
settings = {n: v for n, v in globals().items() if n[0] != "_" and isinstance(v, (int, float, str))}
with open("calls.txt", "a") as file:
    file.write(f"{attention} {seed} {epochs}\\n")
if attention == "se" and pathlib.Path("fail").exists():
    raise ValueError("made to fail")
time.sleep(600 if pathlib.Path("wait").exists() else 0)
folder = pathlib.Path(results, "runs", dataset, category, attention, f"seed{seed}")
params = {"settings": settings, "variant": attention, "folder": data_root, "weights_sha256": ""}
params |= {"device": "", "git": None, "versions": {}}
(folder / "params.json").write_text(json.dumps(params))
(folder / "scores.csv").write_text("path,label,defect,mask,score_last\\n")
auroc = 0.5 + seed / 10 + epochs / 1000
metrics = {f"auroc_{which}": auroc for which in ("last", "selected", "best_on_test", "averaged")}
metrics |= {"train_images": 2, "test_images": 2, "seconds": 1}
(folder / "metrics.json").write_text(json.dumps(metrics))
time.sleep(600 if pathlib.Path("linger").exists() else 0)
"""
TABLES = """
import json, pathlib
root = pathlib.Path(results)
found = sorted((root / "runs").rglob("metrics.json"))
lines = [f"{p.parent.relative_to(root)} {json.loads(p.read_text())['auroc_last']}" for p in found]
(root / "tables").mkdir(exist_ok=True)
for suffix in ("csv", "md", "tex"):
    (root / "tables" / f"auroc.{suffix}").write_text("\\n".join(lines))
"""
STUDY = """
import pathlib
folder = pathlib.Path(results, "tables")
folder.mkdir(exist_ok=True)
for name in ("statistics.csv", "statistics.md", "paired.csv", "delong.csv", "choice.csv"):
    (folder / name).write_text("")
"""
FIGURE = """
import pathlib
folder = pathlib.Path(results, "figures")
folder.mkdir(exist_ok=True)
for suffix in ("png", "pdf"):
    (folder / f"KIND_{dataset}.{suffix}").write_text("")
"""
NOTEBOOKS = {
    "02_train": TRAIN,
    "03_tables": TABLES,
    "06_study": STUDY,
    "07_report": "",
    "04_roc": FIGURE.replace("KIND", "roc"),
    "05_gradcam": FIGURE.replace("KIND", "gradcam"),
}
GRID = """
datasets: {my_set: [cup]}
attention: [none, se]
settings: {image_size: 256, epochs: 2, weights: random, flow_width: 16}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkout with those notebooks, a data set of empty files and a finished grid."""
    root = make_project(tmp_path_factory.mktemp("first") / "check out")
    code, output = call(root)
    assert code == 0, output
    assert calls(root) == ["none 0 2", "se 0 2"]
    return root, output


@pytest.fixture
def project(finished: tuple[Path, str], tmp_path: Path) -> Iterator[Path]:
    """A copy of the finished one."""
    root = tmp_path / "check out"
    shutil.copytree(finished[0], root)
    yield root
    wait_for(lambda: not processes_of(root), 5)


@pytest.fixture
def fresh(project: Path) -> Path:
    """Without results."""
    shutil.rmtree(project / "results")
    return project


def make_project(root: Path) -> Path:
    for name in ("adnlib", "workflow"):
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "notebooks").mkdir()
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name, code in NOTEBOOKS.items():
        cells = [nbformat.v4.new_code_cell(code)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    for name in ("train/good", "test/good", "test/crack"):
        folder = root / "images" / "my_set" / "cup" / name
        folder.mkdir(parents=True)
        (folder / "0.png").touch()
    (root / "grid.yaml").write_text(GRID)
    return root


def start(project: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "adnlib", "run-all", "--profile", "grid.yaml"]
    return subprocess.Popen(
        [*command, "--data-root", "images", "--jobs", "2", *options],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "ADNLIB_TEST_PROJECT": str(project)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Tests that run in a shell's background were told to ignore Ctrl-C, and so would this.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def call(project: Path, *options: str) -> tuple[int, str]:
    process = start(project, *options)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def calls(project: Path) -> list[str]:
    """The runs that were started since the last question: attention, seed, epochs."""
    lines = called(project)
    (project / "calls.txt").unlink(missing_ok=True)
    return lines


def called(project: Path) -> list[str]:
    file = project / "calls.txt"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def table(project: Path) -> list[str]:
    return (project / "results/grid/tables/auroc.csv").read_text().splitlines()


def processes_of(project: Path) -> list[str]:
    mark = f"ADNLIB_TEST_PROJECT={project}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def wait_for(happened: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_each_run_has_its_line(finished: tuple[Path, str]) -> None:
    root, output = finished
    assert "[1/2] my_set/cup " in output
    assert "[2/2] my_set/cup " in output
    assert output.count("seed 0  AUROC 50.2  ") == 2
    assert len(table(root)) == 2
    assert (root / "results/grid/runs/my_set/cup/se/seed0/notebook.ipynb").is_file()
    assert (root / "results/grid/notebooks/04_roc_my_set.ipynb").is_file()
    plan = json.loads((root / "results/grid/plan.json").read_text())
    assert plan["todo"] == list(plan["cells"])


def test_what_is_done_is_not_done_again(project: Path) -> None:
    before = sorted((path, path.stat().st_mtime) for path in project.rglob("*.ipynb"))
    snakefile = project / "workflow/Snakefile"
    snakefile.write_text(snakefile.read_text() + "\nopen('of_today', 'w').close()\n")
    code, output = call(project)
    assert (project / "results/grid/of_today").exists(), output
    assert (code, calls(project)) == (0, []), output
    assert sorted((path, path.stat().st_mtime) for path in project.rglob("*.ipynb")) == before
    assert "my_set" in output


def test_grad_cam_is_not_asked_of_runs_without_maps(fresh: Path) -> None:
    code, output = call(fresh, "--set", "map_views=0")
    assert code == 0, output
    figures = fresh / "results/grid/figures"
    assert sorted(path.name for path in figures.iterdir()) == ["roc_my_set.pdf", "roc_my_set.png"]


def test_what_is_new_or_changed_is_run_and_nothing_else(project: Path) -> None:
    code, output = call(project, "--attention", "se", "--seeds", "0", "1")
    assert (code, calls(project)) == (0, ["se 1 2"]), output
    assert "[2/2] my_set/cup se seed 1" in output

    before = {path: path.read_bytes() for path in (project / "results").rglob("metrics.json")}
    code, output = call(project, "--seeds", "0", "1", "--set", "epochs=5")
    assert (code, calls(project)) == (2, []), output
    assert "holds a finished run with epochs = 2, not 5: give another folder" in output
    code, output = call(project, "--attention", "se", "--set", "epochs=5", "--force")
    assert (code, calls(project)) == (2, []), output  # DifferNet's run would not fit beside it
    assert {path: path.read_bytes() for path in before} == before

    code, output = call(project, "--seeds", "0", "1", "--set", "epochs=5", "--force")
    assert code == 0, output
    assert sorted(calls(project)) == ["none 0 5", "none 1 5", "se 0 5", "se 1 5"]


def test_killed_then_failing_then_whole(fresh: Path) -> None:
    (fresh / "wait").touch()
    with start(fresh) as process:
        wait_for(lambda: len(called(fresh)) == 2)
        process.kill()
    wait_for(lambda: not processes_of(fresh), 5)
    assert not list((fresh / "results").rglob("metrics.json"))

    calls(fresh)
    (fresh / "wait").unlink()
    (fresh / "fail").touch()
    code, output = call(fresh)
    assert code == 1
    assert "Traceback" not in output
    last = output[output.index("Not done (1)") :]
    log = fresh / "results/grid/runs/my_set/cup/se/seed0/log.txt"
    assert "my_set/cup se seed 0: ValueError: made to fail\n" in last
    assert f"log: {log}\n" in last
    assert "--dataset my_set --category cup --attention se --seeds 0" in last
    assert "made to fail" in log.read_text()
    assert len(table(fresh)) == 1

    assert calls(fresh) == ["none 0 2", "se 0 2"]
    (fresh / "fail").unlink()
    code, output = call(fresh)
    assert (code, calls(fresh)) == (0, ["se 0 2"]), output
    assert len(table(fresh)) == 2


def test_a_run_that_ended_as_its_call_was_killed_is_not_done_again(fresh: Path) -> None:
    (fresh / "linger").touch()
    with start(fresh, "--jobs", "1") as process:
        wait_for(lambda: list((fresh / "results").rglob("metrics.json")))
        process.kill()
    wait_for(lambda: not processes_of(fresh), 5)
    (ended,) = calls(fresh)

    (fresh / "linger").unlink()
    code, output = call(fresh, "--jobs", "1")
    assert code == 0, output
    assert sorted([ended, *calls(fresh)]) == ["none 0 2", "se 0 2"]


def test_when_nothing_new_ends_tables_and_report_still_say_what_is_missing(project: Path) -> None:
    (project / "fail").touch()
    results = project / "results/grid"
    made = [results / name for name in ("report.html", "tables/auroc.csv", "tables/paired.csv")]
    before = [path.stat().st_mtime for path in made]
    code, output = call(project, "--attention", "se", "--seeds", "1")
    assert (code, calls(project)) == (1, ["se 1 2"]), output
    assert all(path.stat().st_mtime > old for path, old in zip(made, before, strict=True))
    assert len(table(project)) == 2

    told = made[:2]
    before = [path.stat().st_mtime for path in told]
    code, output = call(project, "--seeds", "0")  # fewer, which are all there
    assert (code, calls(project)) == (0, []), output
    assert all(path.stat().st_mtime > old for path, old in zip(told, before, strict=True))


def test_an_interrupted_one_says_so(fresh: Path) -> None:
    (fresh / "wait").touch()
    process = start(fresh)
    wait_for(lambda: called(fresh))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.endswith("\ninterrupted; the same command goes on from here\n")
    assert "Traceback" not in output


def test_two_do_not_work_on_the_same_results(project: Path) -> None:
    with (project / "results/grid/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = call(project)
    assert code == 2
    assert "error: another run_all.sh works on" in output


@pytest.fixture
def on_slurm(fresh: Path) -> tuple[str, ...]:
    """The options that hand it to the SLURM of this machine, if it has one."""
    if not importlib.util.find_spec(cluster.PLUGIN):
        pytest.skip("needs the extra slurm of adnlib")
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no SLURM answers here")
    # Small enough for one node of two cores, and asked more often than a real one should be.
    profile = yaml.safe_load((PROJECT / "workflow/profiles/slurm/config.yaml").read_text())
    profile |= {"set-threads": {"run": 1}, "slurm-init-seconds-before-status-checks": 3}
    for resources in profile["set-resources"].values():
        resources["mem_mb"] = 1000
    (fresh / "my_cluster").mkdir()
    (fresh / "my_cluster/config.yaml").write_text(yaml.safe_dump(profile))
    return "--cluster", "./my_cluster", "--device", "cpu"


def test_slurm_runs_what_can_be_run_and_lists_the_rest(
    fresh: Path, on_slurm: tuple[str, ...]
) -> None:
    (fresh / "fail").touch()
    code, output = call(fresh, *on_slurm)
    assert code == 1
    assert "[2/2] " in output
    assert calls(fresh) == ["none 0 2", "se 0 2", "se 0 2"]  # each failure is tried once more
    last = output[output.index("Not done (1)") :]
    assert "my_set/cup se seed 0: ValueError: made to fail\n" in last
    assert "/check out/my_cluster' --dataset my_set --category cup --attention se" in last
    assert len(table(fresh)) == 1

    (fresh / "fail").unlink()
    code, output = call(fresh, *on_slurm)
    assert (code, calls(fresh)) == (0, ["se 0 2"]), output
    assert "done: notebook 03_tables" in output
    assert len(table(fresh)) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_its_scheduler_for_long(
    fresh: Path, on_slurm: tuple[str, ...], number: signal.Signals
) -> None:
    (fresh / "wait").touch()
    process = start(fresh, *on_slurm)
    wait_for(lambda: len(called(fresh)) == 2)
    process.send_signal(number)
    process.communicate(timeout=90)
    if number == signal.SIGKILL:  # its jobs go on until the next call
        assert processes_of(fresh)
        calls(fresh)
        (fresh / "wait").unlink()
        code, output = call(fresh, *on_slurm)
        assert (code, calls(fresh)) == (0, ["none 0 2", "se 0 2"]), output
