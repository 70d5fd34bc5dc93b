"""Statistics of made-up runs: what is averaged, paired and left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score
from synthetic import make_grid, make_run

from adnlib import forest, study
from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.evaluation import measures
from adnlib.looks import SELECTIONS
from adnlib.records import read_runs


def tables_of(results: Path) -> dict[str, pd.DataFrame]:
    """What `write_study` wrote."""
    return {path.stem: pd.read_csv(path) for path in study.write_study(results)[:4]}


def test_measures_at_hand() -> None:
    labels, scores = [0, 0, 0, 1, 1], [0.1, 0.6, 0.2, 0.5, 0.9]
    found = measures(labels, scores)
    assert found["auroc"] == pytest.approx(5 / 6)
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, scores))
    assert found["best_f1"] == pytest.approx(0.8)  # at 0.5: two found, one false alarm
    assert found["fpr_at_95_recall"] == pytest.approx(1 / 3)


def test_statistics_are_means_over_seeds(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=["none"], seeds=3)
    table = tables_of(tmp_path)["statistics"].set_index("epoch_selection")
    assert list(table.index) == list(SELECTIONS)
    runs = read_runs(tmp_path)
    for selection in SELECTIONS:
        areas = [
            100 * roc_auc_score(run.scores()["label"], run.scores()[f"score_{selection}"])
            for run in runs
        ]
        row = table.loc[selection]
        assert row["auroc"] == pytest.approx(np.mean(areas), abs=1e-3)
        assert row["std"] == pytest.approx(np.std(areas, ddof=1), abs=1e-3)
        assert row["low"] < row["auroc"] < row["high"]
        assert row["seeds"] == 3


def test_anomalous_images_are_measured_against_held_out_good_ones_too(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=["none"], seeds=2, held_out=9)
    make_run(tmp_path, category="screw", seed=0)
    table = tables_of(tmp_path)["statistics"].set_index(["category", "epoch_selection"])
    runs = [run for run in read_runs(tmp_path) if run.category == "bottle"]
    for selection in SELECTIONS:
        name, areas = f"score_{selection}", []
        for run in runs:
            good, test = run.held_out()[name], run.scores().query("label == 1")[name]
            areas.append(100 * roc_auc_score([0] * len(good) + [1] * len(test), [*good, *test]))
        row = table.loc["bottle", selection]
        assert row["held_out_auroc"] == pytest.approx(np.mean(areas), abs=1e-3)
        assert row["held_out_std"] == pytest.approx(np.std(areas, ddof=1), abs=1e-3)
        assert row["held_out_auroc"] != row["auroc"]
        assert np.isnan(table.loc[("screw", selection), "held_out_auroc"])
    measured = (tmp_path / "tables/statistics.md").read_text().split("points of AUROC")[0]
    [held, none] = [x for x in measured.splitlines() if x.startswith(("| bottle", "| screw"))]
    assert f"{table.loc[('bottle', 'last'), 'held_out_auroc']:.2f} ± " in held
    assert none.split("|")[6].strip() == "-"


def test_differences_are_paired_by_seed_and_category(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle", "screw", "pill"], variants=["none"], seeds=3)
    for category in ("bottle", "screw"):
        for seed in (1, 2, 7):  # 7 has no partner
            make_run(tmp_path, "mvtec_ad", category, "se", seed, quality=2.5)
    make_run(tmp_path, "elpv", "mono", "se")  # nor has this one
    paired = tables_of(tmp_path)["paired"]
    assert set(paired["dataset"]) == {"mvtec_ad"}
    last = paired[paired["epoch_selection"] == "last"].set_index("category")
    assert list(last.index) == ["bottle", "screw", "mean"]
    area = {
        (run.category, run.variant, run.seed): 100 * run.aurocs["last"]
        for run in read_runs(tmp_path, "mvtec_ad")
    }
    of = {
        category: [area[category, "se", s] - area[category, "none", s] for s in (1, 2)]
        for category in ("bottle", "screw")
    }
    for category, differences in of.items():
        assert last.loc[category, "difference"] == pytest.approx(np.mean(differences), abs=1e-3)
        assert pd.isna(last.loc[category, "p"])
    mean = last.loc["mean"]
    assert mean["difference"] == pytest.approx(np.mean([*of["bottle"], *of["screw"]]), abs=1e-3)
    assert (mean["pairs"], mean["seeds"]) == (2, 2)
    expected = stats.wilcoxon([np.mean(differences) for differences in of.values()]).pvalue
    assert mean["p"] == pytest.approx(expected, abs=1e-3)
    assert mean["high"] - mean["low"] < (last["high"] - last["low"]).drop("mean").max()
    assert len(tables_of(tmp_path)["delong"]) == 2 * 2 * len(SELECTIONS)


def test_what_the_choice_of_the_epoch_adds_is_seen_in_the_same_runs(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle", "screw"], variants=["none", "se"], seeds=3)
    table = tables_of(tmp_path)["choice"]
    assert len(table) == 2 * 3 * (len(SELECTIONS) - 1)
    assert set(table["epoch_selection"]) == set(SELECTIONS) - {"last"}
    best = table[table["epoch_selection"] == "best_on_test"].set_index(["category", "variant"])
    gained = {
        category: 100
        * np.mean(
            [
                run.aurocs["best_on_test"] - run.aurocs["last"]
                for run in read_runs(tmp_path)
                if (run.category, run.variant) == (category, "none")
            ]
        )
        for category in ("bottle", "screw")
    }
    for category, points in gained.items():
        assert best.loc[(category, "none"), "difference"] == pytest.approx(points, abs=1e-3)
    mean = best.loc[("mean", "none"), "difference"]
    assert mean == pytest.approx(np.mean(list(gained.values())), abs=1e-3)
    text = (tmp_path / "tables/statistics.md").read_text()
    assert "points of AUROC that the choice of the epoch adds" in text
    std = tables_of(tmp_path)["statistics"].set_index(["category", "variant", "epoch_selection"])
    assert f"± {std.loc[('screw', 'se', 'averaged'), 'std']:.2f} |" in text


def test_the_same_scores_differ_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(forest, "save", lambda figure, path: drawn.append(figure) or [path])
    for variant in ("none", "se"):
        folder = make_run(tmp_path, variant=variant)
        if variant == "se":
            scores = tmp_path / "runs/mvtec_ad/bottle/none/seed0/scores.csv"
            (folder / "scores.csv").write_text(scores.read_text())
    tables = tables_of(tmp_path)
    assert (tables["paired"][["difference", "low", "high"]] == 0).all(axis=None)
    assert tables["paired"]["p"].isna().all()
    assert (tables["delong"]["p"] == 1).all()
    forest.draw_paired(tmp_path)
    assert drawn[0].axes[0].get_xlim() == (-1, 1)


def test_a_difference_that_is_sure_is_in_the_figure() -> None:
    row = {"dataset": "mvtec_ad", "category": "bottle", "variant": "se", "seeds": 1}
    row |= {"epoch_selection": "last", "difference": 5.0, "low": 4.8, "high": 5.2}
    low, high = forest._figure(pd.DataFrame([row]), "").axes[0].get_xlim()
    assert low < 4.8 < 5.2 < high


def test_long_names_lie_within_the_figure() -> None:
    row = {"dataset": "unsupervised_power_line_components", "category": "mean", "variant": "se"}
    row |= {"epoch_selection": "last", "difference": 5.0, "low": 4.8, "high": 5.2, "seeds": 1}
    figure = forest._figure(pd.DataFrame([row]), "")
    figure.draw_without_rendering()
    (name,) = figure.axes[0].get_yticklabels()
    assert name.get_window_extent().x0 > 0


def test_without_a_pair_there_are_statistics_and_no_differences(tmp_path: Path) -> None:
    make_grid(tmp_path, variants=["se"])
    older = tmp_path / "figures" / "paired.png"  # of when the runs of DifferNet were there
    older.parent.mkdir()
    older.touch()
    tables = tables_of(tmp_path)
    assert len(tables["statistics"]) == 2 * len(SELECTIONS)
    assert tables["paired"].empty
    assert "difference" in tables["paired"]
    assert forest.draw_paired(tmp_path) == []
    assert not older.exists()
    assert "over DifferNet" not in (tmp_path / "tables/statistics.md").read_text()


def test_seeds_tested_with_different_images_are_named(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    path = make_run(tmp_path, seed=1) / "scores.csv"
    path.write_text(path.read_text().replace("good/003", "good/333"))
    with pytest.raises(InputError, match=r"seed1 and .*seed0 were tested with different images"):
        study.write_study(tmp_path)


def test_markdown_and_figure_show_every_selection(tmp_path: Path) -> None:
    make_grid(tmp_path, variants=["none", "se", "cbam_frozen"], weights="random")
    study.write_study(tmp_path)
    text = (tmp_path / "tables/statistics.md").read_text()
    assert text.count("RANDOM WEIGHTS") == 3
    headers = [line for line in text.splitlines() if "selected epoch" in line]
    assert len(headers) == 2
    for part in ("last epoch", "best on test", "scores averaged"):
        assert all(part in header for header in headers)
    assert text.count("AttentDifferNet (CBAM), untrained") == 2 + 3 + 3
    png, pdf = forest.draw_paired(tmp_path)
    assert png.stat().st_size > 10_000
    assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("variants", [["se"], ["se", "cbam", "eca", "constant"]])
def test_the_legend_keeps_clear_of_the_axis_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variants: list[str]
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(forest, "save", lambda figure, path: drawn.append(figure) or [path])
    make_grid(tmp_path, variants=["none", *variants])
    study.write_study(tmp_path)
    forest.draw_paired(tmp_path)
    drawn[0].draw_without_rendering()
    label, legend = (each.get_window_extent() for each in (drawn[0].texts[0], drawn[0].legends[0]))
    assert label.y0 > legend.y1
    assert legend.y0 >= 0
    assert min(axes.get_tightbbox().y0 for axes in drawn[0].axes) > label.y1


def test_names_of_categories_are_whole_in_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(forest, "save", lambda figure, path: drawn.append(figure) or [path])
    make_grid(tmp_path, "insplad_fault", ["polymer_insulator_upper_shackle"])
    study.write_study(tmp_path)
    forest.draw_paired(tmp_path)
    drawn[0].draw_without_rendering()
    assert min(axes.get_tightbbox().x0 for axes in drawn[0].axes) >= 0


def test_grey_print_tells_the_variants_of_the_differences_apart() -> None:
    names = [name for name in ATTENTION if name != "none"]
    names += [f"{name}_frozen" for name in names if ATTENTION[name].learns]
    names += [f"{name}_standardized" for name in ("none", *names)]
    looks = [forest._look(name) for name in names]
    told = {
        (look["marker"], look["markerfacecolor"] == "white", look["linewidth"]) for look in looks
    }
    assert len(told) == len(names)


def test_how_many_seeds_a_difference_is_of_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(forest, "save", lambda figure, path: drawn.append(figure) or [path])
    make_grid(tmp_path, categories=["screw"], variants=["none"], seeds=1)
    make_grid(tmp_path, categories=["screw"], variants=["se"], seeds=3)
    study.write_study(tmp_path)
    lines = (tmp_path / "tables/statistics.md").read_text().splitlines()
    seeds = [line.split("|")[3].strip() for line in lines if line.startswith("| screw")]
    assert seeds == ["1", "3", "1", "1", "3"]  # measures of both, the pair, choices of both
    forest.draw_paired(tmp_path)
    assert (
        "same seed and images; bars: 95 % bootstrap interval over images"
        in drawn[0].texts[0].get_text()
    )
    make_grid(tmp_path, categories=["bottle"], variants=["none", "se"], seeds=3)
    study.write_study(tmp_path)
    forest.draw_paired(tmp_path)
    assert "same seeds (1 to 3) and images" in drawn[1].texts[0].get_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "study_transistor"])
def test_the_committed_tables_are_those_of_the_committed_runs(tmp_path: Path, name: str) -> None:
    reference = Path(__file__).parents[1] / "results" / "reference" / name
    shutil.copytree(reference / "runs", tmp_path / "runs")
    study.write_study(tmp_path)
    for table in ("statistics.csv", "paired.csv", "delong.csv", "choice.csv"):
        made, committed = map(pd.read_csv, (tmp_path / "tables" / table, reference / table))
        pd.testing.assert_frame_equal(made, committed, rtol=0, atol=1e-3)


def test_runs_none_of_which_has_readable_scores_are_named(tmp_path: Path) -> None:
    (make_run(tmp_path) / "scores.csv").write_text("path\n")
    with (
        pytest.warns(UserWarning, match="1 run left out"),
        pytest.raises(InputError, match=r"None of the 1 finished runs in .* has readable scores"),
    ):
        study.write_study(tmp_path)


def test_the_same_images_under_other_labels_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, seed=0)
    path = make_run(tmp_path, seed=1) / "scores.csv"
    table = pd.read_csv(path)
    table.loc[0, "label"] = 1
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="tested with different images"):
        study.write_study(tmp_path)


def test_a_mean_is_of_as_many_seeds_as_its_category_with_the_fewest(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle"], seeds=3)
    make_grid(tmp_path, categories=["screw"], seeds=2)
    paired = tables_of(tmp_path)["paired"]
    assert set(paired.loc[paired["category"] == "mean", "seeds"]) == {2}
