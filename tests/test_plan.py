"""Plans: which runs there are on the data that lie there, and what is said of the rest."""

import dataclasses
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from adnlib import machine, places, plan
from adnlib.errors import InputError
from adnlib.folders import run_folder
from adnlib.grid import Options
from adnlib.parameters import project_path
from adnlib.plan import Cell, make_plan
from adnlib.run_settings import Settings


@pytest.fixture
def images(tmp_path):
    """Folders of empty images: two of MVTec AD's categories, and a set that nobody knows."""
    root = tmp_path / "images"
    for category in ("mvtec/bottle", "mvtec/metal-nut", "my set/cup"):
        for part in ("train/good", "test/good", "test/crack"):
            (root / category / part).mkdir(parents=True)
            (root / category / part / "0.png").touch()
    return root


@pytest.fixture
def options(images, tmp_path):
    return Options(profile="paper", data_root=images, results=tmp_path / "results", device="cpu")


def titles(options, **changes):
    return [cell.title for cell in make_plan(dataclasses.replace(options, **changes)).cells]


def finish(cell, **changes):
    s = cell.settings
    folder = run_folder(Path(s.results), s.dataset, s.category, s.variant, s.seed)
    folder.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.asdict(s) | changes
    (folder / "params.json").write_text(json.dumps({"settings": settings}))
    (folder / "metrics.json").write_text("{}")


def test_the_paper_grid_takes_all_that_is_found_and_names_the_rest_once(options, tmp_path):
    made = make_plan(options)
    assert len(made.cells) == 3 * 3 * 3
    assert {(c.settings.dataset, c.settings.category) for c in made.cells} == {
        ("mvtec_ad", "bottle"),
        ("mvtec_ad", "metal_nut"),
        ("my_set", "cup"),
    }
    notes = "\n".join(made.notes)
    assert notes.count("insplad_fault is not under") == notes.count("mtd is not under") == 1
    assert notes.count("mvtec_ad lacks cable, capsule, ") == 1
    assert notes.count("mvtec_ad/bottle has 1/1/1 images") == 1
    assert "demo" not in notes
    assert not (tmp_path / "results").exists()


def test_the_demo_needs_no_data_root_and_is_planned_before_it_is_drawn(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "DEMO_ROOT", tmp_path / "not drawn yet")
    made = make_plan(Options(device="cpu", results=tmp_path / "results"))
    assert len(made.cells) == 18
    assert {cell.settings.data_root for cell in made.cells} == {str(tmp_path / "not drawn yet")}
    assert not list(tmp_path.iterdir())


def test_options_choose_runs(options):
    chosen = {"categories": ("Bottle", "cup"), "attention": ("se",), "seeds": (5, 5)}
    assert titles(options, **chosen) == ["mvtec_ad/bottle se seed 5", "my_set/cup se seed 5"]
    chosen = {"profile": "demo", "datasets": ("my set",), "attention": ("none",), "seeds": (0,)}
    assert titles(options, **chosen) == ["my_set/cup none seed 0"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ("mvtec_da",)}, "no data set 'mvtec_da': did you mean 'mvtec_ad'?"),
        ({"categories": ("botle",)}, "no category 'botle': did you mean 'bottle'?"),
        ({"datasets": ("mtd",)}, "mtd is not under .* and left out; it comes from http"),
        ({"datasets": ("wafer",), "categories": ("a",)}, "semiconductor_wafer is not under .*"),
        ({"data_root": None}, "needs --data-root DIR"),
        ({"data_root": None, "datasets": ("cups",)}, "'cups': choose .* own needs --data-root DIR"),
        ({"data_root": Path("no such folder")}, "no such folder"),
        ({"device": "tpu0"}, "device is 'tpu0'"),
        ({"device": "cuda:1", "cluster": "slurm"}, "on a cluster choose auto, cpu or cuda"),
        ({"cluster": "slum"}, "there is no Snakemake profile .*/slum/config.yaml"),
    ],
)
def test_what_cannot_be_planned_is_said(options, changes, message):
    with pytest.raises(InputError, match=message):
        make_plan(dataclasses.replace(options, **changes))


def test_a_gpu_that_is_absent_is_refused(options, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="torch sees 0 CUDA devices"):
        make_plan(dataclasses.replace(options, device="cuda"))


def test_a_category_that_cannot_be_used_is_told_and_the_others_are_run(options, images):
    shutil.rmtree(images / "mvtec/bottle/train")
    shutil.rmtree(images / "my set/cup/test/crack")
    made = make_plan(options)
    assert {cell.settings.category for cell in made.cells} == {"metal_nut"}
    no_train, no_anomalies = made.unusable
    assert no_train.startswith("mvtec_ad/bottle: ")
    assert "train/good" in no_train
    assert no_anomalies.startswith("my_set/cup: ")
    assert "test/<defect>" in no_anomalies
    with pytest.raises(InputError, match="has no training images"):
        make_plan(dataclasses.replace(options, categories=("bottle",)))


def test_no_room_and_no_leave_to_write(options, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        make_plan(dataclasses.replace(options, results=tmp_path / "file"))
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**9, 0, 10**9))
    make_plan(options)
    with pytest.raises(InputError, match=r"has 1\.0 GB free and the runs need about 19\.\d GB"):
        make_plan(dataclasses.replace(options, settings={"save_model": "true"}))


def test_runs_that_are_done_need_no_more_room(options, monkeypatch):
    keep = dataclasses.replace(options, settings={"save_model": "true"})
    for cell in make_plan(keep).cells:
        finish(cell)
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**9, 10**9, 0))
    make_plan(keep)


@pytest.mark.parametrize(("jobs", "gigabytes"), [(1, "4.1"), (2, "6.2"), (99, "57.8")])
def test_too_little_room_for_checkpoints_is_a_note(options, monkeypatch, jobs, gigabytes):
    disk = namedtuple("disk", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**9, 0, 10**9))
    (note,) = [n for n in make_plan(dataclasses.replace(options, jobs=jobs)).notes if "checkp" in n]
    assert f"take about {gigabytes} GB, and 0.4 GB are free" in note
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk(10**12, 0, 10**12))
    assert "checkpoints" not in " ".join(make_plan(options).notes)


def test_a_run_is_done_until_a_setting_that_counts_is_changed(options):
    made = make_plan(dataclasses.replace(options, categories=("bottle",)))
    cell = made.cells[0]
    assert cell.state == "to do"
    finish(cell)
    assert cell.state == "done"
    harmless = {"device": "cuda", "data_root": "/elsewhere", "on_bad_image": "skip"}
    finish(cell, **harmless)
    assert cell.state == "done"
    finish(cell, epochs=5)
    assert cell.state == "stale"
    finish(cell)
    keep = Cell(dataclasses.replace(cell.settings, save_model=True))
    assert keep.state == "stale"
    finish(keep)
    assert cell.state == "done"
    (Path(cell.settings.results) / cell.key / "params.json").write_text("{")
    assert cell.state == "stale"


def test_finished_runs_of_other_settings_are_not_overwritten_unasked(options):
    chosen = dataclasses.replace(options, datasets=("my_set",), seeds=(0, 1))
    first, *others = make_plan(chosen).cells
    finish(first, epochs=5)
    with pytest.raises(InputError, match=r"seed0 holds a finished run with epochs = 5.* --force"):
        make_plan(chosen)
    assert make_plan(dataclasses.replace(chosen, force=True)).cells[0].state == "stale"
    finish(first)
    finish(others[-1], weights="random", epochs=5)
    beside = dataclasses.replace(chosen, seeds=(0,), force=True)
    with pytest.raises(InputError, match=r"seed1 holds a finished run with epochs = 5") as error:
        make_plan(beside)
    assert "--force" not in str(error.value)
    finish(others[-1], map_views=0, save_model=True, weights="elsewhere.pth")
    make_plan(beside)


@pytest.mark.parametrize("force", [False, True])
def test_no_run_is_made_beside_one_of_a_setting_that_there_is_no_more(options, force):
    chosen = dataclasses.replace(options, datasets=("my_set",), force=force)
    last, *others = make_plan(chosen).cells
    for cell in others:
        finish(cell, warp=3)
    with pytest.raises(InputError, match="a finished run with the setting warp, which this adnlib"):
        make_plan(chosen)
    for cell in others:
        finish(cell, warp=3, epochs=5)
    if force:
        make_plan(chosen)
    for cell in (last, *others):
        finish(cell, warp=3)
    make_plan(chosen)


def test_results_that_lie_deeper_in_the_folder_are_of_no_account(options):
    (cell, *_) = make_plan(dataclasses.replace(options, results=options.results / "old")).cells
    finish(cell, epochs=5)
    make_plan(options)


def test_the_record_is_what_the_workflow_reads(options):
    made = make_plan(dataclasses.replace(options, datasets=("my_set",), seeds=(0,), jobs=3))
    finish(made.cells[0])
    finish(made.cells[1], epochs=5)
    record = json.loads(json.dumps(made.record()))
    keys = [f"runs/my_set/cup/{variant}/seed0" for variant in ("none", "se", "cbam")]
    assert list(record["cells"]) == keys
    assert record["todo"] == keys[1:]
    assert record["stale"] == keys[1:2]
    assert record["jobs"] == 3
    cell = record["cells"][keys[1]]
    assert (cell["title"], cell["images"]) == ("my_set/cup se seed 0", 3)
    assert 5500 < cell["mem_mb"] < 6500
    assert (record["gpu"], record["cluster"]) == (0, None)
    assert Settings(**cell["settings"]) == made.cells[1].settings


def test_the_options_of_a_failure_choose_that_run_alone(options):
    frozen = dataclasses.replace(options, categories=("cup",), attention=("se_frozen",), seeds=(1,))
    (cell,) = make_plan(frozen).cells
    words = dict(zip(cell.select[::2], cell.select[1::2], strict=True))
    again = dataclasses.replace(
        options,
        datasets=(words["--dataset"],),
        categories=(words["--category"],),
        attention=(words["--attention"],),
        seeds=(int(words["--seeds"]),),
    )
    assert make_plan(again).cells == (cell,)


@pytest.mark.parametrize(
    ("cores", "gib", "settings", "jobs", "threads"),
    [
        (2, 16, {}, 2, 1),
        (2, 8, {}, 1, 2),  # the paper's flow takes 6 GiB a run
        (2, 8, {"flow_width": "256"}, 2, 1),
        (1, 1, {}, 1, 1),
        (64, 4000, {}, 27, 2),  # no more than there are runs
    ],
)
def test_jobs_on_the_cpu_follow_cores_and_memory(
    options, monkeypatch, cores, gib, settings, jobs, threads
):
    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: gib * 2**30)
    made = make_plan(dataclasses.replace(options, settings=settings))
    assert (made.jobs, made.threads) == (jobs, threads)


def test_runs_that_are_done_take_no_cores_from_those_that_are_left(options, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "memory", lambda: 64 * 2**30)
    last, *others = make_plan(options).cells
    for cell in others:
        finish(cell)
    made = make_plan(options)
    assert (made.jobs, made.threads) == (1, 8)
    finish(last)
    assert make_plan(options).jobs == 1


def test_more_jobs_than_cores_have_a_thread_each(options, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    made = make_plan(dataclasses.replace(options, jobs=5))
    assert (made.jobs, made.threads) == (5, 1)


def test_the_memory_of_a_run_holds_the_budget_of_its_images(options):
    cell = make_plan(options).cells[0]
    more = Cell(dataclasses.replace(cell.settings, memory_budget=3.0))
    assert more.memory - cell.memory == 3 * 10**9


@pytest.mark.parametrize(
    ("device", "gpus"), [("auto", ("4", "7")), ("cuda", ("4", "7")), ("cuda:1", ("7",))]
)
def test_each_gpu_has_one_run_that_sees_it_as_the_first(options, monkeypatch, device, gpus):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: (9, 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(machine, "cores", lambda: 8)
    options = dataclasses.replace(options, device=device)
    made = make_plan(options)
    assert (made.gpus, made.jobs, made.threads) == (gpus, len(gpus), 8 // len(gpus))
    assert made.gpu == 1
    assert {cell.settings.device for cell in made.cells} == {"cuda"}
    for cell in made.cells[1:]:
        finish(cell)
    assert (make_plan(options).jobs, make_plan(options).threads) == (1, 8)


@pytest.mark.parametrize(("device", "gpu"), [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_on_a_cluster_nothing_is_taken_from_this_machine(options, monkeypatch, device, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    made = make_plan(dataclasses.replace(options, device=device, cluster="slurm"))
    assert (made.gpus, made.gpu, made.jobs, made.threads) == ((), gpu, None, None)
    assert {cell.settings.device for cell in made.cells} == {device}
    assert "--cluster slurm" in " ".join(made.command)
    record = json.loads(json.dumps(made.record()))
    assert record["cluster"] == str(project_path("workflow/profiles/slurm"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert make_plan(dataclasses.replace(options, device=device, cluster="slurm")).gpu == gpu


@pytest.mark.parametrize(("backbone", "features"), [("alexnet", 256), ("resnet18", 512)])
def test_the_memory_rule_knows_the_size_of_the_flow(backbone, features):
    from adnlib.flow import build_flow

    settings = Settings(flow_width=32, backbone=backbone)
    flow = build_flow(features * settings.scales, settings, seed=0)
    weights = sum(p.numel() for p in flow.parameters() if p.ndim == 2 and p.requires_grad)
    assert plan._parameters(settings) == weights


def test_demo_images_lie_in_the_project():
    assert project_path(places.DEMO_ROOT).parent.parent == Path(plan.__file__).parents[1]
