"""Notebooks in kernels: what fails is one sentence; slots of GPUs."""

import errno
import json
import os
import threading

import nbformat
import pytest

from adnlib import execution
from adnlib.errors import InputError
from adnlib.execution import NotebookError, execute


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Executes these lines as a notebook; the path of its log."""
    monkeypatch.setattr(execution, "PROJECT", tmp_path)
    (tmp_path / "notebooks").mkdir()

    def call(code, **parameters):
        cell = nbformat.v4.new_code_cell("word = 'default'", metadata={"tags": ["parameters"]})
        cells = [cell, nbformat.v4.new_code_cell(code)]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(content, tmp_path / "notebooks" / "one.ipynb")
        execute("one", tmp_path / "out.ipynb", parameters, tmp_path / "log.txt", {"ADNLIB_E": "5"})
        return (tmp_path / "log.txt").read_text()

    yield call
    os.environ.pop("ADNLIB_E", None)


@pytest.mark.slow
def test_a_notebook_gets_parameters_and_environment_and_is_logged(notebook, tmp_path):
    code = "import os; print(word, os.environ['ADNLIB_E'], os.getcwd())"
    assert f"given 5 {tmp_path}" in notebook(code, word="given")
    assert (tmp_path / "out.ipynb").is_file()


@pytest.mark.slow
def test_a_mistake_in_the_input_is_its_own_sentence(notebook):
    code = "class InputError(ValueError): ...\nraise InputError('the folder is empty: fill it.')"
    with pytest.raises(NotebookError) as caught:
        notebook(code)
    assert str(caught.value) == "the folder is empty: fill it."


@pytest.mark.slow
def test_a_dead_kernel_is_not_tried_again(notebook, tmp_path):
    code = "import os\nopen('times', 'a').write('x')\nos._exit(9)"
    with pytest.raises(NotebookError, match="its kernel died, most often for lack of memory"):
        notebook(code)
    assert (tmp_path / "times").read_text() == "x"


def test_a_kernel_that_does_not_start_is_tried_twice(notebook, monkeypatch):
    times = []

    def no_answer(*_, **__):
        times.append(1)
        if len(times) % 2:
            raise RuntimeError("Kernel didn't respond in 180 seconds")

    monkeypatch.setattr(execution.papermill, "execute_notebook", no_answer)
    assert "did not start (attempt 1)" in notebook("")
    assert len(times) == 2

    def never(*_, **__):
        raise RuntimeError("Kernel didn't respond in 180 seconds")

    monkeypatch.setattr(execution.papermill, "execute_notebook", never)
    with pytest.raises(NotebookError, match="its kernel did not start twice"):
        notebook("")


def test_a_run_that_ends_without_metrics_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "execute", lambda *_: None)
    cell = {"title": "a run", "settings": {}, "select": []}
    plan = {"results": str(tmp_path), "gpus": [], "threads": 1, "cells": {"runs/a": cell}}
    plan |= {"todo": ["runs/a"], "started": 0.0, "jobs": 1, "command": []}
    assert not execution.run_cell(plan, "runs/a")
    told = json.loads((tmp_path / "runs" / "a" / "failed.json").read_text())
    assert told == {"reason": "the notebook ended without writing metrics.json"}


def test_what_fails_behind_the_metrics_leaves_the_run_done(tmp_path, monkeypatch, capsys):
    def full(_, notebook, *__):
        (notebook.parent / "metrics.json").write_text('{"auroc_last": 0.5}')
        raise InputError("cannot write the notebook (No space left on device).")

    monkeypatch.setattr(execution, "execute", full)
    cell = {"title": "a run", "settings": {}, "select": []}
    plan = {"results": str(tmp_path), "gpus": [], "threads": 1, "cells": {"runs/a": cell}}
    plan |= {"todo": ["runs/a"], "started": 0.0, "jobs": 1, "command": [], "cluster": "slurm"}
    assert execution.run_cell(plan, "runs/a")
    assert "a run  AUROC 50.0" in capsys.readouterr().out
    assert not (tmp_path / "runs/a/failed.json").exists()


@pytest.mark.parametrize("file", ["runs/a/failed.json", "notebooks/03_tables.failed.json"])
@pytest.mark.parametrize("room", [True, False])
def test_a_full_disk_is_called_so(tmp_path, monkeypatch, capsys, file, room):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(execution.papermill, "execute_notebook", full)
    if not room:
        monkeypatch.setattr(execution, "write_json", full)
    cell = {"title": "a run", "settings": {}, "select": []}
    plan = {"results": str(tmp_path), "gpus": [], "threads": None, "cells": {"runs/a": cell}}
    plan |= {"todo": ["runs/a"], "started": 0.0, "jobs": 1, "command": [], "cluster": None}
    if file.startswith("runs"):
        assert not execution.run_cell(plan, "runs/a")
    else:
        assert not execution.run_notebook(plan, "03_tables", {})
    reason = f"cannot write '{(tmp_path / file).parent}' (No space left on device): make room"
    assert reason in capsys.readouterr().out
    assert (tmp_path / file).is_file() == room
    if room:
        assert json.loads((tmp_path / file).read_text())["reason"].startswith(reason)


def test_each_gpu_takes_its_runs_and_the_next_one_waits(tmp_path):
    plan = {"results": str(tmp_path), "gpus": ["4", "7"], "jobs": 2, "threads": 3}
    third = []

    def take_third():
        with execution._gpu(plan) as environment:
            third.append(environment["CUDA_VISIBLE_DEVICES"])

    with execution._gpu(plan) as first:
        with execution._gpu(plan) as second:
            assert first["CUDA_VISIBLE_DEVICES"] == "4"
            assert second["CUDA_VISIBLE_DEVICES"] == "7"
            assert second["OMP_NUM_THREADS"] == "3"
            thread = threading.Thread(target=take_third)
            thread.start()
            thread.join(0.3)
            assert third == []
        thread.join(5)
    assert third == ["7"]


def test_on_the_cpu_no_gpu_is_hidden_or_shown(tmp_path):
    with execution._gpu({"results": str(tmp_path), "gpus": [], "threads": 1}) as environment:
        assert "CUDA_VISIBLE_DEVICES" not in environment
    assert not list(tmp_path.iterdir())


def test_a_job_of_a_cluster_keeps_the_threads_and_the_gpu_that_it_was_given(tmp_path):
    with execution._gpu({"results": str(tmp_path), "gpus": [], "threads": None}) as environment:
        assert not {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"} & set(environment)
