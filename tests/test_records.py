"""Which runs count as finished, and which may stand in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import make_grid, make_run, set_metrics

from adnlib.errors import InputError
from adnlib.folders import find_done
from adnlib.record import FinishedRun, read_run
from adnlib.records import asked_seeds, read_runs, read_tidy, readable
from adnlib.variants import variant_order, variant_title


def test_names_and_order_of_variants() -> None:
    variants = ["se_frozen_standardized", "se_standardized", "none_standardized"]
    variants += ["cbam_frozen", "se_frozen", "cbam", "none", "se"]
    variants += ["constant", "identity", "simam", "coordinate", "eca"]
    ordered = sorted(variants, key=variant_order)
    assert [variant_title(variant) for variant in ordered] == [
        "DifferNet",
        "AttentDifferNet (SE)",
        "AttentDifferNet (CBAM)",
        "AttentDifferNet (ECA)",
        "AttentDifferNet (coordinate)",
        "AttentDifferNet (SimAM)",
        "DifferNet, identity",
        "DifferNet, constant gate",
        "AttentDifferNet (SE), untrained",
        "AttentDifferNet (CBAM), untrained",
        "DifferNet, standardised features",
        "AttentDifferNet (SE), standardised features",
        "AttentDifferNet (SE), untrained, standardised features",
    ]


def test_runs_are_sorted_and_complete(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=("screw", "bottle"), variants=("se", "none"), seeds=11)
    found = read_runs(tmp_path)
    assert len(found) == 44
    assert [(run.category, run.variant) for run in found[::11]] == [
        ("bottle", "none"),
        ("bottle", "se"),
        ("screw", "none"),
        ("screw", "se"),
    ]
    assert [run.seed for run in found[:11]] == list(range(11))


def test_unfinished_and_damaged_runs_are_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, finished=False)
    (make_run(tmp_path, seed=2) / "metrics.json").write_text("{")
    (make_run(tmp_path, seed=3) / "params.json").unlink()
    (make_run(tmp_path, seed=4) / "scores.csv").unlink()
    set_metrics(make_run(tmp_path, seed=5), auroc_last=float("nan"))
    make_run(tmp_path, seed=6).rename(tmp_path / "runs/mvtec_ad/bottle/none/seed7")
    set_metrics(make_run(tmp_path, seed=8), auroc_last=93.0)  # percent
    with pytest.warns(UserWarning, match="7 run") as caught:
        found = read_runs(tmp_path)
    assert [run.seed for run in found] == [0]
    message = str(caught[0].message)
    assert "seed1 is not finished" in message
    assert " more." not in message
    for seed in (2, 3, 4, 5, 7, 8):
        assert f"seed{seed} is damaged (" in message


def test_one_run_is_read_whatever_lies_beside_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path, held_out=7)
    make_run(tmp_path, seed=1, epochs=8)
    run = read_run(folder)
    assert (
        repr(run)
        == "FinishedRun(mvtec_ad/bottle/none/seed0: AUROC 83.3 %, 100 to train and 30 to test)"
    )
    held_out = run.held_out()
    assert held_out is not None
    assert list(held_out) == list(run.scores())
    assert len(held_out) == 7
    assert read_run(make_run(tmp_path, seed=2)).held_out() is None
    with pytest.raises(InputError, match="seed3 is not finished: run it"):
        read_run(make_run(tmp_path, seed=3, finished=False))
    for nowhere in (tmp_path, tmp_path / "runs/mvtec_ad/bottle/none/seed7"):
        with pytest.raises(InputError, match=rf"No run lies in {nowhere}: give the folder of one"):
            read_run(nowhere)
    (folder / "params.json").write_text("{}")
    with pytest.raises(InputError, match=r"seed0 is damaged \(KeyError: 'settings'\): delete"):
        read_run(folder)


def test_finished_runs_are_found_from_three_heights(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "one", seed=seed) for seed in (2, 10)]
    folders.append(make_run(tmp_path / "two"))
    make_run(tmp_path / "two", seed=1, finished=False)
    assert find_done(tmp_path) == folders
    assert find_done(tmp_path / "one") == folders[:2]
    assert find_done(folders[1]) == [folders[1]]
    assert find_done(tmp_path / "nowhere") == []


def test_a_data_sets_name_is_no_pattern(tmp_path: Path) -> None:
    make_run(tmp_path, "v[2]")
    make_run(tmp_path, "mtd", "magnetic_tile")
    [found] = read_runs(tmp_path, "v[2]")
    assert found.dataset == "v[2]"
    for pattern in ("*", ""):
        with pytest.raises(InputError, match="No finished run"):
            read_runs(tmp_path, pattern)


@pytest.mark.parametrize("content", ["{", "{}", "[]", ""])
def test_a_damaged_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputError, match=r"plan\.json is damaged .* delete it"):
        asked_seeds(tmp_path)


def test_as_many_seeds_were_asked_for_as_of_the_fullest_cell(tmp_path: Path) -> None:
    assert asked_seeds(tmp_path) == {}
    runs = ["mvtec_ad/bottle/none/seed0", "mvtec_ad/bottle/none/seed1", "mvtec_ad/bottle/se/seed0"]
    cells = {f"runs/{run}": {} for run in [*runs, "mtd/magnetic_tile/none/seed0"]}
    (tmp_path / "plan.json").write_text(json.dumps({"cells": cells}))
    assert asked_seeds(tmp_path) == {"mvtec_ad": 2, "mtd": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop(columns="label"), "lacks label"),
        (lambda table: table[:-1], "rows for"),
        (lambda table: table.assign(score_last="x"), "could not convert"),
    ],
)
def test_scores_that_are_not_as_the_run_wrote_them_are_left_out(tmp_path, change, said) -> None:
    make_run(tmp_path, seed=0)
    file = make_run(tmp_path, seed=1) / "scores.csv"
    change(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.warns(UserWarning, match=rf"seed1 is damaged .*{said}"):
        [(run, _)] = readable(read_runs(tmp_path), FinishedRun.scores)
    assert run.seed == 0


def test_a_folder_without_finished_runs_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No finished run"):
        read_runs(tmp_path)
    make_run(tmp_path)
    with pytest.raises(InputError, match="there are runs of mvtec_ad"):
        read_runs(tmp_path, "mtd")


@pytest.mark.parametrize(
    "setting",
    [
        *({"epochs": 8}, {"image_size": 448}, {"new_setting": 1}),
        *({"test_views": 3}, {"holdout": 0.5}, {"learning_rate": 0.25}, {"max_angle": 5}),
        *({"precision": "bf16"}, {"test_angles": "grid"}),
    ],
)
def test_differing_settings_within_a_data_set_are_refused(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, category="screw", **setting)
    ((name, value),) = setting.items()
    with pytest.raises(
        InputError, match=rf"mvtec_ad differ in {name}: .*{value} in 1 run such"
    ) as error:
        read_runs(tmp_path)
    assert "screw/none/seed1" in str(error.value)


def test_runs_of_a_category_called_mean_are_refused(tmp_path: Path) -> None:
    make_grid(tmp_path, "mine", ["cup", "mean"])
    with pytest.raises(InputError, match=r"mine/mean/none/seed0 is of a category called mean"):
        read_runs(tmp_path)


def test_runs_from_before_a_setting_stand_beside_its_default(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, backbone="alexnet", attention_stages="all")
    assert len(read_runs(tmp_path)) == 2
    make_run(tmp_path, seed=2, backbone="resnet18")
    with pytest.raises(InputError, match=r"differ in backbone: alexnet in 2 .* resnet18 in 1"):
        read_runs(tmp_path)


def test_a_whole_number_is_the_same_however_it_was_given(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0, max_angle=180.0, holdout=0.0)
    make_run(tmp_path, seed=1, max_angle=180, holdout=0)
    assert len(read_runs(tmp_path)) == 2


def test_attention_that_is_not_known_is_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    make_run(tmp_path, variant="newest")
    with pytest.warns(UserWarning, match="attention 'newest' is unknown"):
        assert [run.variant for run in read_runs(tmp_path)] == ["none"]


def test_names_of_digits_stay_names(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("dataset,category,variant,auroc\n7,03,none,\n7,NA,se,1.5\n")
    table = read_tidy(file)
    assert table["category"].tolist() == ["03", "NA"]
    assert table["dataset"].tolist() == ["7", "7"]
    assert table["auroc"].isna().tolist() == [True, False]


def test_a_defect_may_be_called_na(tmp_path: Path) -> None:
    file = make_run(tmp_path) / "scores.csv"
    pd.read_csv(file, keep_default_na=False).replace("scratch", "NA").to_csv(file, index=False)
    [run] = read_runs(tmp_path)
    assert set(run.scores()["defect"]) == {"good", "NA"}
    assert set(run.scores()["mask"]) == {""}


def test_random_weights_do_not_stand_beside_others(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, weights="random")
    with pytest.raises(InputError, match=r"differ in weights: .*random in 1 run such"):
        read_runs(tmp_path)


def test_images_that_changed_between_runs_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, good=13)
    with pytest.raises(InputError, match=r"mvtec_ad/bottle differ in their images"):
        read_runs(tmp_path)


def test_what_does_not_change_the_numbers_may_differ(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    make_run(tmp_path, seed=1, device="cuda", data_root="elsewhere", weights="alexnet.pth")
    make_run(tmp_path, seed=2, memory_budget=2.0, save_model=True, on_bad_image="skip")
    make_run(tmp_path, dataset="mtd", category="magnetic_tile", epochs=8)
    assert len(read_runs(tmp_path)) == 4
