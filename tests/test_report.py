"""The tables, from made-up runs with known numbers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic import make_grid, make_run, set_metrics

from adnlib import overview, report
from adnlib.catalogue import CATALOGUE
from adnlib.comparison import auroc_table, published_for
from adnlib.looks import SELECTIONS
from adnlib.records import read_runs
from adnlib.run_settings import Settings

MVTEC = list(CATALOGUE["mvtec_ad"].categories)


def table_of(results: Path) -> pd.DataFrame:
    """Tidy table with the keys as index."""
    table = auroc_table(read_runs(results))
    return table.set_index(["epoch_selection", "category", "variant"]).sort_index()


def grid_with(results: Path, values: dict[tuple[str, str], list[float]]) -> None:
    """Runs whose last AUROC is as given (percent), the best one point more."""
    for (category, variant), aurocs in values.items():
        for seed, auroc in enumerate(aurocs):
            folder = make_run(results, "mvtec_ad", category, variant, seed)
            of = {"last": auroc, "selected": auroc + 0.5, "best_on_test": auroc + 1}
            set_metrics(folder, **{f"auroc_{which}": v / 100 for which, v in of.items()})


def lines_of(markdown: str, heading: str) -> list[str]:
    """The lines of one section."""
    return markdown.split(f"{heading}\n")[1].split("\n### ")[0].splitlines()


def test_mean_and_std_over_seeds_for_each_epoch_selection(tmp_path: Path) -> None:
    grid_with(tmp_path, {("bottle", "none"): [90, 94], ("bottle", "se"): [95]})
    table = table_of(tmp_path)
    assert table.loc[("last", "bottle", "none"), "mean"] == pytest.approx(92)
    assert table.loc[("last", "bottle", "none"), "std"] == pytest.approx(8**0.5)
    assert table.loc[("best_on_test", "bottle", "none"), "mean"] == pytest.approx(93)
    assert table.loc[("selected", "bottle", "none"), "mean"] == pytest.approx(92.5)
    assert pd.isna(table.loc[("last", "bottle", "se"), "std"])
    assert table.loc[("last", "bottle", "none"), "seed_list"] == "0 1"
    assert table["fewer_seeds"].groupby("variant").all().to_dict() == {"none": False, "se": True}


def test_mean_row_is_over_categories_that_every_variant_has(tmp_path: Path) -> None:
    cells = {
        ("bottle", "none"): [90, 92],
        ("screw", "none"): [80, 86],
        ("cable", "none"): [10, 10],
        ("bottle", "se"): [96, 98],
        ("screw", "se"): [84, 82],
    }
    grid_with(tmp_path, cells)
    mean = table_of(tmp_path).loc[("last", "mean")]
    assert mean.loc["none", "mean"] == pytest.approx(87)
    assert mean.loc["none", "std"] == pytest.approx(8**0.5)  # of the seeds' means 85 and 89
    assert mean.loc["se", "std"] == pytest.approx(0)  # 90 and 90
    assert mean.loc["se", "averaged"] == "bottle screw"
    report.write_tables(tmp_path)
    text = (tmp_path / "tables/auroc.md").read_text()
    assert "| mean of 2 (of 3) |" in text
    assert "The mean is over bottle, screw" in text


def test_without_a_common_category_there_is_no_mean(tmp_path: Path) -> None:
    grid_with(tmp_path, {("bottle", "none"): [90], ("screw", "se"): [80]})
    assert "mean" not in table_of(tmp_path).index.get_level_values("category")
    report.write_tables(tmp_path)
    assert "No mean: no category" in (tmp_path / "tables/auroc.md").read_text()
    found = read_runs(tmp_path)
    summary = overview.summary_sheet(found, auroc_table(found))
    assert summary.rows == []
    assert "mvtec_ad has no mean: no category was run with every method." in summary.caption


def test_published_numbers_stand_only_where_they_belong(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=("bottle", "grid"))
    make_grid(tmp_path, "mtd", ["magnetic_tile"])
    make_grid(tmp_path, "elpv", ["bottle"])
    table = auroc_table(read_runs(tmp_path))
    last = table[table["epoch_selection"] == "last"]
    of = last.set_index(["dataset", "category", "variant"])
    assert of.loc[("mvtec_ad", "grid", "none"), "published"] == 84.0
    assert "issue tracker" in of.loc[("mvtec_ad", "grid", "none"), "published_source"]
    assert of.loc[("mvtec_ad", "grid", "none"), "published_method"] == "DifferNet"
    assert of.loc[("mvtec_ad", "grid", "none"), "published_confidence"] == "medium"
    assert pd.isna(of.loc[("mvtec_ad", "grid", "se"), "published"])
    # Two categories are not MVTec AD: not 94.69, but the mean of what was published for them.
    assert of.loc[("mvtec_ad", "mean", "none"), "published"] == pytest.approx((99.0 + 84.0) / 2)
    source = of.loc[("mvtec_ad", "mean", "none"), "published_source"]
    for part in ("mean of 2 category", "(one secondary copy); ", "issue tracker"):
        assert part in source
    assert pd.isna(of.loc[("mvtec_ad", "mean", "se"), "published"])
    assert of.loc[("mtd", "magnetic_tile", "none"), "published"] == 97.7
    assert of.loc["elpv", "published"].isna().all()


def test_controls_and_other_backbones_stand_beside_no_published_number(tmp_path: Path) -> None:
    variants = ("none", "se", "cbam", "eca", "coordinate", "simam", "identity", "constant")
    make_grid(tmp_path / "a", categories=MVTEC, variants=variants, seeds=1)
    published = table_of(tmp_path / "a").loc[("last", "mean"), "published"]
    assert set(published.dropna().index) == {"none", "se", "cbam"}
    make_grid(tmp_path / "b", categories=MVTEC, seeds=1, backbone="resnet18")
    assert table_of(tmp_path / "b")["published"].isna().all()
    report.write_tables(tmp_path / "b")
    assert "ImageNet weights, backbone resnet18," in (tmp_path / "b/tables/auroc.md").read_text()


def test_a_caption_names_every_setting_that_is_not_the_papers(tmp_path: Path) -> None:
    default = dataclasses.asdict(Settings())
    del default["results"]
    given = {"train_views": 1, "learning_rate": 0.01, "flow_width": 64, "evaluate_every": 2}
    make_run(tmp_path, **default | given | {"dataset": "mvtec_ad", "category": "bottle"})
    text = report.circumstances(read_runs(tmp_path))
    assert text.endswith(
        "ImageNet weights, 1 training view, learning rate 0.01, flow width 64, "
        "2 epochs between evaluations, 1 seed (0)"
    )


@pytest.mark.parametrize(
    ("weights", "words"),
    [("random", "random weights"), ("/some/where/alexnet.pth", "weights of alexnet.pth")],
)
def test_a_caption_says_which_weights(tmp_path: Path, weights: str, words: str) -> None:
    make_run(tmp_path, weights=weights)
    assert f", {words}, 1 seed (0)" in report.circumstances(read_runs(tmp_path))


def test_se_on_insplad_fault_stands_beside_the_number_of_senet(tmp_path: Path) -> None:
    categories = CATALOGUE["insplad_fault"].categories
    make_grid(tmp_path, "insplad_fault", categories, ["none", "se", "cbam"], seeds=1)
    mean = table_of(tmp_path).loc[("last", "mean")]
    assert mean.loc["none", "published"] == 92.46
    assert mean.loc["se", "published"] == 94.34
    assert mean.loc["se", "published_method"] == "AttentDifferNet (SENet)"
    assert pd.isna(mean.loc["cbam", "published"])


def test_published_mean_stands_beside_the_whole_data_set(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=MVTEC, variants=("none", "cbam_frozen"), seeds=1)
    mean = table_of(tmp_path).loc[("last", "mean")]
    assert mean.loc["none", "published"] == 94.69
    assert mean.loc["cbam_frozen", "published"] == 96.67
    assert mean.loc["cbam_frozen", "published_method"] == "AttentDifferNet"
    report.write_tables(tmp_path)
    text = (tmp_path / "tables/auroc.md").read_text()
    lines = lines_of(text, "### MVTec AD: AUROC in percent, last epoch")
    rows = [line for line in lines if line.startswith("| ")]
    assert [row.split()[1] for row in rows[2:-1]] == MVTEC
    assert rows[-1].startswith("| mean of 15 |")
    assert rows[-1].split("|")[-3:-1] == [
        value.rjust(len(name) + 2)
        for value, name in (
            ("94.69 ", "DifferNet, published"),
            ("96.67 ", "AttentDifferNet, published"),
        )
    ]


def test_markdown_states_settings_and_marks_the_best(tmp_path: Path) -> None:
    grid_with(
        tmp_path,
        {
            ("bottle", "none"): [90, 94],
            ("bottle", "se"): [95],
            ("screw", "none"): [80.001],
            ("screw", "se"): [80.004],
        },
    )
    report.write_tables(tmp_path)
    text = (tmp_path / "tables/auroc.md").read_text()
    heading = "### MVTec AD, 2 of 15 categories: AUROC in percent, last epoch"
    section = lines_of(text, heading)
    assert re.search(r"\| bottle +\| +92.00 ± 2.83 \| +\*\*95.00 †\*\* \| +99.00 \|", section[3])
    assert section[4].count("**80.00 †**") == 2  # equal to the digits shown
    caption = " ".join(section)
    for part in ("16 epochs", "128 px", "8 test views", "ImageNet weights", "2 seeds (0, 1)"):
        assert part in caption
    assert "attention trained jointly" in caption
    assert "arXiv:2008.12577 (one secondary copy) (confidence medium)" in caption
    assert "AttentDifferNet 96.67 (arXiv:2401.08686 abstract, confidence high)" in caption
    assert "best epoch on the test set (as DifferNet does, optimistic)" in text
    assert "RANDOM" not in text


def test_random_weights_and_demo_images_are_called_so(tmp_path: Path) -> None:
    make_grid(tmp_path, "demo_parts", ["bracket"], seeds=1, weights="random")
    report.write_tables(tmp_path)
    for ending in ("md", "tex"):
        text = (tmp_path / f"tables/auroc.{ending}").read_text()
        assert text.count("RANDOM WEIGHTS") == len(SELECTIONS)
        assert "Demo images demo" in text
        assert "One seed, so no standard deviation." in text
        assert "mean of" not in text  # it would repeat the only category
    assert "RANDOM WEIGHTS" in overview.closing_text(tmp_path)
    table = pd.read_csv(tmp_path / "tables/auroc.csv")
    assert table["demo_images"].all()
    assert table["weights_sha256"].isna().all()


def test_what_brightness_alone_tells_stands_below_the_tables(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=("bottle", "screw"))
    report.write_tables(tmp_path)
    assert "without a detector" not in (tmp_path / "tables/auroc.md").read_text()
    for seed in range(2):
        folder = tmp_path / f"runs/mvtec_ad/screw/se/seed{seed}"
        set_metrics(folder, told_by={"brightness": 1.0, "contrast": 0.7})
    report.write_tables(tmp_path)
    said = "AUROC without a detector: screw 100.0 by brightness alone."
    assert (tmp_path / "tables/auroc.md").read_text().count(said) == len(SELECTIONS)
    assert (tmp_path / "tables/auroc.tex").read_text().count(said) == len(SELECTIONS)


def test_latex_is_escaped_and_whole(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=("metal_nut", "screw"), variants=("none", "se", "cbam"))
    report.write_tables(tmp_path)
    text = (tmp_path / "tables/auroc.tex").read_text()
    assert r"metal\_nut & " in text
    assert re.search(r"\\textbf\{\d+\.\d\d \$\\pm\$ \d+\.\d\d\}", text)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == len(SELECTIONS)
    body = text.split(r"\midrule")[1]
    assert {line.count(" & ") for line in body.splitlines() if line.endswith(r"\\")} == {4}
    assert "%" not in text.replace("% needs", "").replace("{!}{%", "").replace(r"\%", "")


def test_csv_is_tidy_and_complete(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=("bottle", "screw", "pill"), variants=("none", "se"), seeds=3)
    report.write_tables(tmp_path)
    table = pd.read_csv(tmp_path / "tables/auroc.csv")
    assert len(table) == len(SELECTIONS) * (3 + 1) * 2
    assert not table.duplicated(["dataset", "category", "variant", "epoch_selection"]).any()
    assert (table["seeds"] == 3).all()
    assert (table[["epochs", "image_size", "test_views"]] == [16, 128, 8]).all(axis=None)
    assert set(table["weights"]) == {"imagenet"}
    assert not table["whole_catalogue"].any()
    trained = table["attention_training"].fillna("").groupby(table["variant"]).unique()
    assert trained.map(list).to_dict() == {"none": [""], "se": ["joint"]}
    counts = table[["train_images", "test_images"]]
    of_means = table["category"] == "mean"
    assert counts[of_means].isna().all(axis=None)
    assert (counts[~of_means] == [100, 30]).all(axis=None)


def test_summary_shows_numbers_and_where_everything_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = Path("results/demo")
    grid_with(results, {("bottle", "none"): [90.5], ("bottle", "se"): [95.25]})
    report.write_tables(results.absolute())
    text = overview.closing_text(results.absolute())
    assert re.search(r"^bottle +90.50 +95.25 < +99.00$", text, re.MULTILINE)
    assert "\n  results/demo/runs: 2 finished\n" in text
    assert "\n  results/demo/tables: auroc.csv, auroc.md, auroc.tex\n" in text


def test_a_seed_that_lacks_a_category_is_none_of_the_means(tmp_path: Path) -> None:
    grid_with(tmp_path, {("bottle", "none"): [90, 94], ("screw", "none"): [80]})
    mean = table_of(tmp_path).loc[("last", "mean", "none")]
    assert mean["mean"] == pytest.approx(86)  # of the cells 92 and 80
    assert (mean["seeds"], mean["seed_list"]) == (1, "0")
    assert pd.isna(mean["std"])
    assert mean["fewer_seeds"]


def test_fewer_seeds_than_were_asked_for_are_marked(tmp_path: Path) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=["none"])
    found = read_runs(tmp_path)
    for asked, fewer in (None, False), ({"mvtec_ad": 2}, False), ({"mvtec_ad": 3}, True):
        assert (auroc_table(found, asked)["fewer_seeds"] == fewer).all()


def test_standardised_runs_and_parts_of_a_set_stand_beside_no_published_number(
    tmp_path: Path,
) -> None:
    make_run(tmp_path, variant="none_standardized", standardize=True)
    assert auroc_table(read_runs(tmp_path))["published"].isna().all()
    for averaged in (["bottle", "mine"], [*MVTEC, "mine"]):
        assert published_for("mvtec_ad", "mean", "DifferNet", averaged) is None
