"""Scores of saved models under corruptions: what is measured, kept, and shown."""

import dataclasses
import json
import re
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adnlib import decline, exposure, runs
from adnlib.corruptions import corrupt
from adnlib.errors import InputError
from adnlib.evaluation import roc
from adnlib.exposure import KEPT
from adnlib.folders import HELD_OUT_SCORES, run_folder
from adnlib.images import read_image
from adnlib.model import AttentDifferNet
from adnlib.records import read_runs
from adnlib.robustness import COLUMNS, Measurement, measure
from adnlib.run_settings import Settings

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 2, "train_views": 2, "map_views": 0, "holdout": 0.5}
TINY_MODEL = {name: TINY[name] for name in TINY if name not in ("map_views", "holdout")}
SOME = Measurement(corruptions="darker, noise", severities="2 5")
ONE = Measurement(corruptions="noise", severities="5")


def quiet(line):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of two variants and two seeds on grey squares with a stain, models kept."""
    root = tmp_path_factory.mktemp("finished")
    generator = np.random.default_rng(0)
    for split, count in {"train/good": 6, "test/good": 5, "test/dent": 4}.items():
        folder = root / "data" / "sets" / "part" / split
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(90, 130, (64, 64, 3), dtype=np.uint8)
            if "dent" in split:
                pixels[20:40, 20:40] = 255
            Image.fromarray(pixels).save(folder / f"{i}.png")
    for attention in ("none", "se"):
        for seed in (0, 1):
            run = runs.Run(settings_of(root, attention=attention, seed=seed))
            run.load_images()
            run.train(quiet)
            run.finish()
            run._lock.close()
    return root


@pytest.fixture
def root(finished, tmp_path):
    """A copy of its own for each test; the images lie where the runs read them."""
    shutil.copytree(finished / "results", tmp_path / "results")
    return tmp_path / "results"


def settings_of(root, **more):
    return Settings(
        dataset="sets",
        category="part",
        data_root=str(root / "data"),
        results=str(root / "results"),
        **TINY | {"save_model": True} | more,
    )


def folder_of(root, variant="none", seed=0):
    return run_folder(root, "sets", "part", variant, seed)


@pytest.fixture
def scored(monkeypatch):
    """The scores that were asked for, one by one."""
    scores, scorer = [], AttentDifferNet.scorer

    def heard(model):
        look = scorer(model)

        def looked(image):
            scores.append(look(image))
            return scores[-1]

        return looked

    monkeypatch.setattr(AttentDifferNet, "scorer", heard)
    return scores


def test_the_numbers_are_those_of_the_saved_models_scores(root, finished):
    said = []
    table = measure(root, "sets", SOME, said.append)
    assert list(table) == list(COLUMNS)
    assert len(table) == 4 * 2 * 3  # runs, corruptions, severities with 0
    assert len(said) == 4 * 2
    assert "DifferNet, seed 0: noise" in said[0]
    folder = folder_of(root, "se", 1)
    model = AttentDifferNet.load(folder)
    samples = pd.read_csv(folder / "scores.csv")
    data = finished / "data" / "sets" / "part"
    labels, paths = samples["label"].to_numpy(), samples["path"].tolist()
    pictures = torch.stack([read_image(data / path, 64) for path in paths])
    held = [read_image(data / path, 64) for path in pd.read_csv(folder / HELD_OUT_SCORES)["path"]]
    limit = model.score(torch.stack(held)).max().item()
    rows = table.query("variant == 'se' and seed == 1 and corruption == 'noise'")
    untouched = model.score(pictures).numpy()
    for severity in (0, 2, 5):
        scores = model.score(corrupt(pictures, paths, "noise", severity)).numpy()
        [row] = rows[rows["severity"] == severity].to_dict("records")
        assert row["auroc"] == pytest.approx(100 * roc(labels, scores)["auroc"])
        assert row["false_alarms"] == pytest.approx(100 * (scores[labels == 0] > limit).mean())
        assert row["recall"] == pytest.approx(100 * (scores[labels == 1] > limit).mean())
        ratio = np.median(scores[labels == 0]) / np.median(untouched[labels == 0])
        assert row["good_score"] == pytest.approx(ratio)
    assert row["difference"] == pytest.approx(row["auroc"] - rows["auroc"].iloc[0])
    assert (row["good"], row["anomalous"], row["held_out"], row["views"]) == (5, 4, 3, 2)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert row["run_auroc"] == pytest.approx(100 * metrics["auroc_last"])
    written = pd.read_csv(root / "tables" / "robustness_sets.csv")
    pd.testing.assert_frame_equal(written, table, rtol=1e-4, check_dtype=False)


def test_what_was_scored_is_kept_and_an_interruption_loses_one_step(root, scored, monkeypatch):
    whole = measure(root, "sets", SOME, quiet)
    assert len(scored) == 4 * (9 + 3 + 2 * 2 * 9)  # untouched, held out, corrupted
    scored.clear()
    pd.testing.assert_frame_equal(measure(root, "sets", SOME, quiet), whole)
    assert not scored
    for kept in root.rglob(KEPT):
        kept.unlink()
    stop_at, change = ("noise", 5), exposure.corrupt

    def interrupted(images, names, kind, severity, seed):
        if (kind, severity) == stop_at:
            raise KeyboardInterrupt
        return change(images, names, kind, severity, seed)

    monkeypatch.setattr(exposure, "corrupt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(root, "sets", SOME, quiet)
    monkeypatch.setattr(exposure, "corrupt", change)
    scored.clear()
    pd.testing.assert_frame_equal(measure(root, "sets", SOME, quiet), whole)
    assert len(scored) == 3 * 9 + 3 * (9 + 3 + 2 * 2 * 9)


def test_more_corruptions_use_what_is_kept_and_other_parameters_do_not(root, scored):
    measure(root, "sets", dataclasses.replace(SOME, corruptions="darker"), quiet)
    scored.clear()
    measure(root, "sets", SOME, quiet)
    assert len(scored) == 4 * 2 * 9
    scored.clear()
    one_view = measure(root, "sets", dataclasses.replace(SOME, views=1), quiet)
    assert len(scored) == 4 * (9 + 3 + 2 * 2 * 9)
    assert set(one_view["views"]) == {1}
    fewer = measure(root, "sets", dataclasses.replace(SOME, images=3), quiet)
    assert set(fewer["good"]) == set(fewer["anomalous"]) == {3}
    paths = json.loads((folder_of(root) / KEPT).read_text())["made_with"]["images"]
    assert paths == [f"test/good/{i}.png" for i in (0, 2, 4)] + [
        f"test/dent/{i}.png" for i in (0, 2, 3)
    ]


def test_scores_of_another_model_or_damaged_ones_are_not_used(root, scored):
    measure(root, "sets", ONE, quiet)
    AttentDifferNet(**TINY_MODEL, seed=7).save(folder_of(root))
    (folder_of(root, "se") / KEPT).write_text('{"made_with": ')
    scored.clear()
    measure(root, "sets", ONE, quiet)
    assert len(scored) == 2 * (9 + 3 + 9)


def test_without_held_out_images_there_is_no_threshold(root):
    for variant in ("none", "se"):
        for seed in (0, 1):
            (folder_of(root, variant, seed) / HELD_OUT_SCORES).unlink()
    with pytest.warns(UserWarning, match=r"gets no threshold: it has no holdout\.csv"):
        table = measure(root, "sets", ONE, quiet)
    assert table[["false_alarms", "recall"]].isna().all(axis=None)
    assert table["auroc"].notna().all()
    assert decline.draw_decline(root, "sets", "false_alarms") == []
    text = decline.write_sheets(root, "sets").read_text()
    assert text.count("###") == 1


def test_held_out_images_that_are_gone_are_named(root):
    held = folder_of(root) / HELD_OUT_SCORES
    held.write_text(held.read_text().replace("train/good", "train/gone"))
    with pytest.warns(UserWarning, match=r"no longer in .*train/gone"):
        table = measure(root, "sets", ONE, quiet)
    assert table["recall"].isna().sum() == 2  # of the one run
    sheets = decline.write_sheets(root, "sets").read_text().split("###")[1:]
    seeds = [re.search(r"\d seeds? \([\d, ]+\)", sheet)[0] for sheet in sheets]
    assert seeds == ["2 seeds (0, 1)", "1 seed (1)", "1 seed (1)"]  # of AUROC, and of the others


def test_runs_without_a_model_are_left_out_or_say_how_to_get_one(root):
    (folder_of(root, "se", 1) / "model.json").unlink()
    with pytest.warns(UserWarning, match=r"1 run left out, which kept no model: .*se/seed1"):
        table = measure(root, "sets", ONE, quiet)
    assert len(table) == 3 * 2
    for model in root.rglob("model.json"):
        model.unlink()
    with pytest.raises(InputError, match="with --set save_model=true"):
        measure(root, "sets", ONE, quiet)


def test_damaged_runs_are_left_out_and_named(root):
    for file, (seed, name) in {"scores": (0, "defect"), "holdout": (1, "path")}.items():
        table = folder_of(root, "se", seed) / f"{file}.csv"
        pd.read_csv(table).drop(columns=name).to_csv(table, index=False)
    with pytest.warns(UserWarning, match=r"2 runs left out.*se/seed0 is damaged .*defect"):
        table = measure(root, "sets", ONE, quiet)
    assert set(table["variant"]) == {"none"}
    for scores in root.rglob("scores.csv"):
        scores.write_text("")
    with (
        pytest.warns(UserWarning, match=r"4 runs left out"),
        pytest.raises(InputError, match=r"None of the 4 runs of sets .* can be read"),
    ):
        measure(root, "sets", ONE, quiet)


def test_images_that_are_gone_or_damaged_are_named(root, tmp_path, finished):
    data = tmp_path / "moved"
    shutil.copytree(finished / "data" / "sets" / "part", data)
    for path in root.rglob("params.json"):
        params = json.loads(path.read_text())
        path.write_text(json.dumps(params | {"folder": str(data)}))
    bad = data / "test" / "good" / "1.png"
    bad.write_bytes(b"no image")
    with pytest.raises(InputError, match=r"test/good/1\.png' cannot be read as an image"):
        measure(root, "sets", ONE, quiet)
    bad.unlink()
    with pytest.raises(InputError, match=r"no longer in .*moved \(test/good/1\.png is missing\)"):
        measure(root, "sets", ONE, quiet)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"corruptions": "blurr"}, "no corruption 'blurr': did you mean 'blur'"),
        ({"corruptions": " "}, "corruptions is empty"),
        ({"severities": "1 9"}, "severity is 9"),
        ({"severities": "strong"}, "severities is 'strong': give whole numbers"),
        ({"views": -1}, "views is -1"),
        ({"views": 1.5}, "views is 1.5: give a whole number"),
        ({"images": "3"}, "images is '3': give a whole number"),
        ({"images": -2}, "images is -2"),
        ({"device": "gpu"}, "device is 'gpu'"),
    ],
)
def test_mistakes_in_what_is_asked_are_named(given, message):
    with pytest.raises(InputError, match=message):
        Measurement(**given)


def test_lists_are_read_as_papermill_gives_them():
    assert Measurement(severities=3).chosen_severities == [3]
    assert Measurement(severities="5,1 1").chosen_severities == [1, 5]
    assert Measurement(corruptions="noise blur").chosen_corruptions == ["blur", "noise"]
    assert len(Measurement().chosen_corruptions) == 7


def test_a_detector_of_stains_is_at_chance_where_all_is_noise(root, finished, monkeypatch):
    """Blind: scores are the brightest patch, which tells every stain until noise is everywhere."""

    def brightest(model):
        patches = partial(torch.nn.functional.avg_pool2d, kernel_size=4)
        return lambda image: (patches(image.double().mean(0, keepdim=True)).amax(), None)

    def white_noise(images, names, kind, severity, seed):
        draws = [np.random.default_rng([*name.encode()]) for name in names]
        pixels = [draw.integers(0, 256, images.shape[1:], dtype=np.uint8) for draw in draws]
        return torch.from_numpy(np.stack(pixels)) if severity == 5 else images

    monkeypatch.setattr(AttentDifferNet, "scorer", brightest)
    monkeypatch.setattr(exposure, "corrupt", white_noise)
    table = measure(root, "sets", SOME, quiet).groupby("severity")["auroc"].mean()
    assert table[0] == table[2] == 100
    assert 10 <= table[5] <= 90


def test_sheets_and_figures_are_of_what_all_variants_have(root):
    (folder_of(root, "se", 1) / "model.json").unlink()
    with pytest.warns(UserWarning, match="kept no model"):
        table = measure(root, "sets", ONE, quiet)
    text = decline.write_sheets(root, "sets").read_text()
    assert "RANDOM WEIGHTS" in text
    assert "1 seed (0)" in text  # seed 1 is DifferNet's alone
    [row] = table.query(
        "variant == 'none' and seed == 0 and corruption == 'noise' and severity == 5"
    ).to_dict("records")
    [line] = [line for line in text.splitlines() if line.startswith("| noise      | DifferNet")][:1]
    assert line.split("|")[-2].strip() == f"{row['auroc']:.2f}"
    first = [path.read_bytes() for path in decline.draw_decline(root, "sets")]
    assert [path.read_bytes() for path in decline.draw_decline(root, "sets")] == first
    assert decline.draw_decline(root, "sets", "recall")[0].name == "robustness_sets_recall.png"


def test_the_figure_has_a_panel_for_each_corruption_and_a_line_for_each_variant(root, monkeypatch):
    caught = []
    monkeypatch.setattr(decline, "save", lambda figure, path: caught.append(figure) or [])
    table = measure(root, "sets", SOME, quiet)
    decline.draw_decline(root, "sets")
    decline.draw_decline(root, "sets", "false_alarms")
    figure, alarms = caught
    noise, darker = figure.axes
    assert noise.get_ylabel() == "AUROC in percent"
    assert alarms.axes[0].get_ylabel() == "false alarms, percent"
    assert (noise.get_title(), darker.get_title()) == ("noise", "darker")
    lines = [line for line in noise.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 2
    rows = table.query("variant == 'none' and corruption == 'noise'")
    means = rows.groupby("severity")["auroc"].mean()
    np.testing.assert_allclose(lines[0].get_ydata(), means, rtol=1e-4)
    assert len(noise.collections) == 2  # bands over seeds
    [legend] = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["DifferNet", "AttentDifferNet (SE)"]


def test_nothing_measured_or_nothing_in_common_is_said(root):
    with pytest.raises(InputError, match="measure first"):
        decline.draw_decline(root, "sets")
    (folder_of(root, "se", 0) / "model.json").unlink()
    (folder_of(root, "none", 1) / "model.json").unlink()
    with pytest.warns(UserWarning, match="kept no model"):
        measure(root, "sets", ONE, quiet)
    with pytest.raises(InputError, match="No category and seed of sets was measured with all of"):
        decline.write_sheets(root, "sets")


def test_every_image_is_corrupted_by_its_own_name(monkeypatch):
    monkeypatch.setattr(exposure, "_BATCH", 2)
    seen = []
    monkeypatch.setattr(exposure, "corrupt", lambda images, names, *_: seen.extend(names) or images)
    exposed = exposure.Exposure.__new__(exposure.Exposure)
    exposed._paths, exposed._images = list("abcde"), torch.zeros(5, 3, 2, 2)
    exposed._score = lambda images: [0.0] * len(images)
    assert len(exposed._score_corrupted("noise", 1)) == 5
    assert seen == list("abcde")


def of_noise(*rows):
    columns = ["category", "variant", "seed", "auroc"]
    return pd.DataFrame(rows, columns=columns).assign(corruption="noise", severity=0)


def test_spread_is_over_seeds_and_not_over_categories():
    table = of_noise(
        *(("a", "none", 0, 90.0), ("a", "none", 1, 92.0)),
        *(("b", "none", 0, 50.0), ("b", "none", 1, 48.0)),
    )
    cell = decline._means(table, "auroc")["none", "noise"].loc[0]
    assert cell[["mean", "std", "min", "max"]].tolist() == [70, 0, 70, 70]


def test_a_category_with_more_seeds_weighs_no_more_than_another():
    rows = [("easy", "none", 0, 100.0), ("hard", "none", 0, 60.0), ("hard", "none", 1, 60.0)]
    table = of_noise(*rows).assign(run_auroc=[100.0, 60.0, 60.0])
    cell = decline._means(table, "auroc")["none", "noise"].loc[0]
    assert cell["mean"] == 80
    assert np.isnan(cell["std"])  # one seed alone has both
    assert decline._of_seeds(table, "run_auroc")["mean"] == 80


def test_variants_are_compared_on_categories_that_all_have():
    rows = ("a", "none", 0, 90.0), ("a", "se", 0, 92.0), ("b", "none", 0, 50.0)
    assert set(decline.of_all_variants(of_noise(*rows))["category"]) == {"a"}
    unscored = of_noise(*rows, ("b", "se", 0, np.nan))
    assert set(decline.of_all_variants(unscored)["category"]) == {"a"}


def test_held_out_scores_are_of_the_images_that_are_held_out(root):
    folder = folder_of(root)
    [run] = [run for run in read_runs(root, "sets") if run.folder == folder]
    before = exposure.Exposure(run, device="cpu").held_out()
    table = pd.read_csv(folder / HELD_OUT_SCORES)
    table.iloc[:1].to_csv(folder / HELD_OUT_SCORES, index=False)
    assert len(before) == len(table) > 1
    assert len(exposure.Exposure(run, device="cpu").held_out()) == 1


@pytest.mark.parametrize(
    ("name", "value"), [("RULES", -1), ("find_device", lambda _: torch.device("cuda"))]
)
def test_scores_by_other_rules_or_of_another_kind_of_device_are_not_used(
    root, monkeypatch, name, value
):
    [run] = [run for run in read_runs(root, "sets") if run.folder == folder_of(root)]
    exposure.Exposure(run, device="cpu").held_out()
    assert exposure.Exposure(run, device="cpu")._kept
    monkeypatch.setattr(exposure, name, value)
    assert not exposure.Exposure(run, device="cpu")._kept
