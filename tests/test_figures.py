"""ROC and Grad-CAM figures, from made-up runs: what they show, and by which rule."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from synthetic import make_grid, make_pictures, make_run, set_metrics

from adnlib import figures, heatmaps
from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.map_kinds import Saliency
from adnlib.overlays import COLOUR_MAPS, draw_maps, overlay
from adnlib.records import read_runs
from adnlib.selection import SCALE_PERCENTILE, choose, choose_images, colour_scales


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were to be saved."""
    caught: list[Figure] = []

    def keep(figure: Figure, path: Path) -> list[Path]:
        path.parent.mkdir(exist_ok=True)
        caught.append(figure)
        return []

    for module in (figures, heatmaps):
        monkeypatch.setattr(module, "save", keep)
    return caught


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two categories with images and maps, two seeds of plain and SE."""
    for category in ("bracket", "plate"):
        images = make_pictures(tmp_path / "images" / category, good=5, anomalous=7, size=48)
        make_grid(tmp_path, "demo_parts", [category], images=images, maps=True)
    return tmp_path


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def scores_of(values: list[float], good: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(len(values))],
            "label": [0] * good + [1] * (len(values) - good),
            "defect": "good",
            "mask": "",
            "score_last": values,
        }
    )


def test_roc_files_are_written_and_the_same_each_time(results: Path) -> None:
    written = figures.draw_roc(results, "demo_parts")
    assert [path.name for path in written] == ["roc_demo_parts.png", "roc_demo_parts.pdf"]
    first = [path.read_bytes() for path in written]
    figures.draw_roc(results, "demo_parts")
    assert [path.read_bytes() for path in written] == first


@pytest.mark.parametrize("count", [1, 2, 3, 5, 15])
def test_roc_has_a_square_panel_for_each_category(
    tmp_path: Path, drawn: list[Figure], count: int
) -> None:
    names = [f"part{i:02d}" for i in range(count)]
    make_grid(tmp_path, categories=names, variants=("none", "cbam_frozen"), seeds=2)
    figures.draw_roc(tmp_path, "mvtec_ad")
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == names
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_window_extent()
        assert box.width == pytest.approx(box.height)
        assert box.width / figure.dpi > 1.5  # inches
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "DifferNet",
        "AttentDifferNet (CBAM), untrained",
    ]


def test_long_names_of_panels_keep_clear_of_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    names = [f"polymer_insulator_upper_shackle_{letter}" for letter in "abcdefghij"]
    make_grid(tmp_path, categories=names, variants=("none",), seeds=1)
    figures.draw_roc(tmp_path, "mvtec_ad")
    drawn[0].draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in drawn[0].axes]
    for left, right in itertools.pairwise(boxes):
        assert left.x1 < right.x0 or right.x0 < left.x0  # the next row's first


def test_roc_legend_gives_mean_and_std_of_the_last_epoch(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    folders = [make_run(tmp_path, seed=seed) for seed in range(2)]
    for folder, good in zip(folders, ([0.0, 1.0], [0.0, 3.0]), strict=True):
        scores = pd.DataFrame({"label": [0, 0, 1, 1], "score_last": [*good, 2.0, 2.0]})
        others = {"score_selected": 0.0, "score_best_on_test": 0.0, "score_averaged": 0.0}
        scores = scores.assign(path="a.png", defect="good", mask="", **others)
        scores.to_csv(folder / "scores.csv", index=False)
        set_metrics(folder, test_images=4)
    figures.draw_roc(tmp_path, "mvtec_ad")
    (axes,) = drawn[0].axes
    assert axes.get_legend().get_texts()[0].get_text() == "75.0 ± 35.4"
    assert len(axes.collections) == 1  # the band
    assert "band: lowest to highest seed" in " ".join(texts(drawn[0])).replace("\n", " ")


def test_roc_marks_curves_of_fewer_seeds(tmp_path: Path, drawn: list[Figure]) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=["none"], seeds=1)
    make_grid(tmp_path, categories=["bottle"], variants=["se"], seeds=2)
    figures.draw_roc(tmp_path, "mvtec_ad")
    plain, attention = drawn[0].axes[0].get_legend().get_texts()
    assert plain.get_text().endswith(" †")
    assert "†" not in attention.get_text()
    assert "† from fewer seeds" in " ".join(texts(drawn[0])).replace("\n", " ")
    keys = [f"runs/mvtec_ad/bottle/se/seed{seed}" for seed in range(3)]
    plan = {"results": str(tmp_path), "cells": {key: {"title": key} for key in keys}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    figures.draw_roc(tmp_path, "mvtec_ad")
    assert drawn[1].axes[0].get_legend().get_texts()[1].get_text().endswith(" †")


def test_one_seed_has_neither_std_nor_band(tmp_path: Path, drawn: list[Figure]) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=["none"], seeds=1, weights="random")
    figures.draw_roc(tmp_path, "mvtec_ad")
    (axes,) = drawn[0].axes
    assert "±" not in axes.get_legend().get_texts()[0].get_text()
    assert not axes.collections
    assert any("RANDOM WEIGHTS" in text for text in texts(drawn[0]))


def test_damaged_scores_are_left_out_and_named(tmp_path: Path, drawn: list[Figure]) -> None:
    make_run(tmp_path, seed=0)
    (make_run(tmp_path, seed=1) / "scores.csv").write_text("path,label\na.png,x\n")
    with pytest.warns(UserWarning, match=r"seed1 is damaged"):
        figures.draw_roc(tmp_path, "mvtec_ad")
    (tmp_path / "runs/mvtec_ad/bottle/none/seed0/scores.csv").write_text("")
    with pytest.warns(match="2 run"), pytest.raises(InputError, match="readable"):
        figures.draw_roc(tmp_path, "mvtec_ad")


def test_images_are_chosen_by_gain_of_percentile() -> None:
    #            good: median is 3   | anomalous
    plain = scores_of([1, 5, 3, 2, 4, 9, 0, 2.5, 9, 9], good=5)
    attention = scores_of([1, 5, 3, 2, 4, 0, 9, 4.5, 3.5, 9], good=5)
    chosen = choose_images({"se": attention, "none": plain}, anomalous=3)
    assert chosen["path"].tolist() == ["2.png", "6.png", "9.png", "5.png"]
    assert chosen["gain"].tolist()[1:] == [100, 0, -100]
    assert np.isnan(chosen["gain"].iloc[0])
    assert chosen["rule"].tolist() == [
        "median score of DifferNet",
        "rank 1 of 5 by gain of AttentDifferNet (SE)",
        "rank 3 of 5 by gain of AttentDifferNet (SE)",
        "rank 5 of 5 by gain of AttentDifferNet (SE)",
    ]
    one = choose_images({"se": attention, "none": plain}, anomalous=1)
    assert one["path"].tolist() == ["2.png", "9.png"]


def test_the_gain_is_attentions_and_not_a_controls() -> None:
    plain = scores_of([1, 2, 3, 4, 0, 9], good=4)
    better = scores_of([1, 2, 3, 4, 9, 0], good=4)
    controls = {"none": plain, "identity": plain, "constant": better, "none_standardized": better}
    with_attention = choose_images({**controls, "se_frozen": better}, anomalous=1)
    assert with_attention["gain"].tolist()[1:] == [100]
    assert with_attention["rule"].iloc[1].endswith("gain of AttentDifferNet (SE), untrained")
    without = choose_images(controls, anomalous=1)
    assert without["gain"].isna().all()
    assert without["rule"].iloc[1] == "rank 1 of 2 by path"


def test_without_a_pair_images_are_spaced_by_path() -> None:
    chosen = choose_images({"se": scores_of([3, 1, 2, 5, 4, 6, 9, 8], good=3)}, anomalous=3)
    assert chosen["path"].tolist() == ["2.png", "3.png", "5.png", "7.png"]
    assert chosen["rule"].iloc[-1] == "rank 5 of 5 by path"
    assert len(choose_images({"se": scores_of([1, 2], good=1)}, anomalous=3)) == 2


def test_runs_on_different_images_are_not_laid_side_by_side() -> None:
    plain = scores_of([1, 2, 3], good=1)
    other = plain.assign(path=["0.png", "x.png", "2.png"])
    with pytest.raises(InputError, match="different images"):
        choose_images({"none": plain, "se": other})


def test_overlay_depends_on_the_scale_and_not_on_the_map() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    faint = overlay(image, np.full((2, 2), 0.1, np.float32), scale=1.0)
    strong = overlay(image, np.full((2, 2), 1.0, np.float32), scale=1.0)
    beyond = overlay(image, np.full((2, 2), 5.0, np.float32), scale=1.0)
    assert faint[0, 0, 2] > faint[0, 0, 0]  # blue
    assert strong[0, 0, 0] > strong[0, 0, 2]  # red
    assert np.array_equal(strong, beyond)
    white = overlay(image + 255, np.full((2, 2), 1.0, np.float32), scale=1.0)
    assert np.allclose(white - strong, 0.5)


def test_gradcam_figure_and_its_list(results: Path) -> None:
    png, pdf, listed = heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)
    assert png.stat().st_size > 10_000
    assert pdf.read_bytes().startswith(b"%PDF")
    table = pd.read_csv(listed)
    assert len(table) == 2 * (1 + 2)
    assert table.groupby("category")["label"].apply(list).to_dict() == {
        "bracket": [0, 1, 1],
        "plate": [0, 1, 1],
    }
    assert table["seed"].unique().tolist() == [0]
    maps = np.load(results / "runs/demo_parts/plate/se/seed0/maps.npz")["maps"].astype(np.float32)
    scores = pd.read_csv(results / "runs/demo_parts/plate/se/seed0/scores.csv").set_index("path")
    own = np.percentile(maps.reshape(len(maps), -1), SCALE_PERCENTILE, axis=1)
    scores["scale"] = np.maximum(own, own[scores["label"] == 0].max())
    plates = table[table["category"] == "plate"]
    expected = scores.loc[plates["path"], "scale"].to_numpy()
    assert plates["scale_se"].to_numpy() == pytest.approx(expected, rel=1e-4)


def test_no_normal_image_glows_and_a_map_decades_stronger_shows_its_own() -> None:
    maps = np.ones((4, 10, 10)) * np.array([1, 5, 2, 3e6])[:, None, None]
    assert colour_scales(maps, [0, 0, 1, 1]).tolist() == [5, 5, 5, 3e6]
    assert (colour_scales(np.zeros((2, 3, 3)), [0, 1]) > 0).all()


def test_gradcam_panels_rows_and_labels(results: Path, drawn: list[Figure]) -> None:
    heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)
    (figure,) = drawn
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * 3 * 3  # categories, images, and input, plain, SE
    outlined = [axes for axes in pictures if axes.collections]
    assert len(outlined) == 2 * 2 * 3  # not the normal ones
    shown = texts(figure)
    assert shown.count("normal") == 2
    assert shown.count("scratch") == 4
    assert {"input", "DifferNet", "bracket", "plate"} < set(shown)
    assert sum(bool(re.fullmatch(r"\S+ · P\d+", text)) for text in shown) == 2 * 3 * 2


def test_a_figure_is_remade_from_its_list_of_images(results: Path, drawn: list[Figure]) -> None:
    table = pd.read_csv(heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)[-1])
    mine = results / "mine.csv"
    table[table["category"] == "plate"].iloc[::-1].to_csv(mine, index=False)
    remade = pd.read_csv(heatmaps.draw_gradcam(results, "demo_parts", named=mine)[-1])
    assert remade["path"].tolist() == pd.read_csv(mine)["path"].tolist()
    assert set(remade["rule"]) == {"named"}
    assert len([axes for axes in drawn[1].axes if axes.images]) == 3 * 3
    assert not any("chosen by" in text or "median score" in text for text in texts(drawn[1]))


def test_without_photographs_no_pixel_of_theirs_is_shown(
    results: Path, drawn: list[Figure]
) -> None:
    heatmaps.draw_gradcam(results, "demo_parts", anomalous=1)
    heatmaps.draw_gradcam(results, "demo_parts", anomalous=1, photographs=False)
    photographs, silhouettes = (
        [axes.images[0].get_array() for axes in figure.axes if axes.images] for figure in drawn
    )
    assert len(photographs) == len(silhouettes)
    row = silhouettes[0]
    assert np.allclose(row[..., 0], row[..., 1])
    assert 150 / 255 - 0.01 <= row.min() < row.max() <= 240 / 255 + 0.01
    assert len(np.unique(photographs[0])) > len(np.unique(row))
    assert "silhouettes" in " ".join(texts(drawn[1]))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("category,path\nplate,test/nowhere.png\n", "no test image 'test/nowhere.png'"),
        ("category,path\nplat,test/good/0.png\n", "no category with runs 'plat': did you .*plate"),
        ("image\nplate\n", "no list of images"),
        ("", "no list of images"),
    ],
)
def test_a_wrong_list_of_images_is_refused(results: Path, content: str, complaint: str) -> None:
    mine = results / "mine.csv"
    mine.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=complaint):
        heatmaps.draw_gradcam(results, "demo_parts", named=mine)
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        heatmaps.draw_gradcam(results, "demo_parts", named=results / "nowhere.csv")


def test_long_names_keep_clear_of_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    names = ["polymer_insulator_upper_shackle", "lightning_rod_suspension_and_its_cap"]
    for name in names:
        images = make_pictures(tmp_path / "images" / name)
        for part in ("test", "ground_truth"):
            (images / part / "scratch").rename(images / part / "a_scratch_through_the_whole_cap")
        make_run(tmp_path, "own", name, images=images, maps=True)
    heatmaps.draw_gradcam(tmp_path, "own", anomalous=1)
    told = [text for text in drawn[0].texts if text.get_text() in names]
    first, second = sorted((text.get_window_extent() for text in told), key=lambda box: box.x0)
    assert first.x1 < second.x0
    kinds = [text for text in drawn[0].texts if "scratch" in text.get_text()]
    assert len(kinds) == 2
    for text in kinds:
        assert text.get_window_extent().width <= 1.2 * drawn[0].dpi  # a picture and the gap


def test_the_legend_names_the_seed_that_is_shown(results: Path, drawn: list[Figure]) -> None:
    heatmaps.draw_gradcam(results, "demo_parts", anomalous=1)
    assert "1 seed (0)" in " ".join(texts(drawn[0])).replace("\n", " ")


def test_the_legend_says_by_whose_scores_images_were_chosen(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    images = make_pictures(tmp_path / "images" / "plate", good=5, anomalous=5, size=48)
    make_run(tmp_path, "own", "plate", "none", images=images, maps=True)
    heatmaps.draw_gradcam(tmp_path, "own")
    make_run(tmp_path, "own", "plate", "cbam", images=images, maps=True)
    heatmaps.draw_gradcam(tmp_path, "own", anomalous=1)
    alone, pair = (" ".join(texts(figure)).replace("\n", " ") for figure in drawn)
    assert "Normal image: median score of DifferNet. " in alone
    assert alone.endswith(
        "Anomalous images: evenly spaced, from first to last, in the ranking by path."
    )
    assert "Anomalous image: middle of the ranking by gain of AttentDifferNet (CBAM). Gain:" in pair


def test_colours_for_grey_print_rise_in_lightness(results: Path, drawn: list[Figure]) -> None:
    image = torch.full((3, 8, 8), 120, dtype=torch.uint8)
    ramp = np.linspace(0, 1, 8, dtype=np.float32)[None].repeat(8, 0)
    weights = np.array([0.299, 0.587, 0.114])
    rising = {
        colours: (np.diff(overlay(image, ramp, 1.0, colours)[0] @ weights) > 0).all()
        for colours in COLOUR_MAPS
    }
    assert rising == {"jet": False, "viridis": True}
    heatmaps.draw_gradcam(results, "demo_parts", colours="viridis")
    assert "viridis colours half over" in " ".join(texts(drawn[0])).replace("\n", " ")
    with pytest.raises(InputError, match="colours is 'grey': choose one of jet, viridis"):
        heatmaps.draw_gradcam(results, "demo_parts", colours="grey")


def test_a_variant_without_that_seed_stays_blank(results: Path, drawn: list[Figure]) -> None:
    images = results / "images" / "plate"
    make_run(results, "demo_parts", "plate", "cbam", seed=3, images=images, maps=True)
    heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)
    assert len([axes for axes in drawn[0].axes if axes.images]) == 2 * 3 * 3


def test_missing_images_are_an_input_error_that_names_the_folder(results: Path) -> None:
    (results / "images").rename(results / "moved")
    with pytest.raises(InputError, match=r"no longer in .*images/bracket"):
        heatmaps.draw_gradcam(results, "demo_parts")


def test_no_room_for_the_list_of_images_is_one_sentence(
    results: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(InputError, match="No space left on device"):
        heatmaps.draw_gradcam(results, "demo_parts", anomalous=1)


def test_runs_without_maps_are_an_input_error(tmp_path: Path) -> None:
    make_run(tmp_path)
    with pytest.raises(InputError, match=r"maps\.npz.* with map_views above 0"):
        heatmaps.draw_gradcam(tmp_path, "mvtec_ad")
    with pytest.raises(InputError, match=r"kind \(gradient_\w+\).*run it again, with save_model"):
        heatmaps.draw_gradcam(tmp_path, "mvtec_ad", kind=Saliency("gradient"))


def test_damaged_maps_are_left_out_and_named(results: Path, drawn: list[Figure]) -> None:
    for seed in range(2):
        folder = results / f"runs/demo_parts/plate/se/seed{seed}"
        (folder / "maps.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.warns(UserWarning, match=r"plate/se/seed0 is damaged"):
        heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)
    assert len([axes for axes in drawn[0].axes if axes.images]) == 3 * 3 + 3 * 2


def test_every_variant_has_a_line_of_its_own() -> None:
    variants = [*ATTENTION, *(f"{name}_frozen" for name, kind in ATTENTION.items() if kind.learns)]
    looks = [figures.line_style(variant) for variant in variants]
    assert len({(str(look["color"]), str(look["linestyle"])) for look in looks}) == len(variants)


def test_every_trained_attention_has_dashes_of_its_own() -> None:
    dashes = {str(figures.line_style(name)["linestyle"]) for name in ATTENTION}
    assert len(dashes) == len(ATTENTION)


@pytest.mark.parametrize("quality", [-2.0, -1.0, 0.0, 2.0])
def test_a_panels_legend_covers_no_curve(
    tmp_path: Path, drawn: list[Figure], quality: float
) -> None:
    make_grid(tmp_path, categories="abcd", variants=("none", "se", "cbam"), quality=quality)
    figures.draw_roc(tmp_path, "mvtec_ad")
    drawn[0].draw_without_rendering()
    for axes in drawn[0].axes:
        legend = axes.get_legend().get_window_extent()
        for line in axes.lines[1:]:
            curve = line.get_path().transformed(axes.transData)
            assert not curve.intersects_bbox(legend, filled=False)


def test_a_dashed_line_is_not_hidden_by_a_whole_one_at_the_same_place(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    make_grid(tmp_path, categories=["bottle"], variants=("none", "se", "cbam"), quality=99)
    figures.draw_roc(tmp_path, "mvtec_ad")
    _, none, se, cbam = drawn[0].axes[0].lines
    assert none.get_zorder() > cbam.get_zorder() > se.get_zorder()


def test_a_maps_unit_does_not_change_its_picture() -> None:
    image = torch.full((3, 16, 16), 90, dtype=torch.uint8)
    maps = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert draw_maps(image, {"a": maps[0] * 2**-60}) == draw_maps(image, {"a": maps[0]})
    faint, strong = (colour_scales(m.numpy(), [0, 1, 1]) for m in (maps * 2**-60, maps))
    assert faint == pytest.approx(strong * 2**-60, abs=0)


def test_a_category_is_shown_by_the_seed_that_most_variants_have(tmp_path: Path) -> None:
    images = make_pictures(tmp_path / "images" / "plate", good=3, anomalous=3, size=48)
    for variant, seed in (("none", 0), ("none", 1), ("se", 1)):
        make_run(tmp_path, "mine", "plate", variant, seed, images=images, maps=True)
    assert choose(read_runs(tmp_path), 1)[0].seed == 1


def test_the_bars_number_is_the_strongest_normal_maps(tmp_path: Path) -> None:
    images = make_pictures(tmp_path / "images" / "plate", good=3, anomalous=3, size=48)
    folder = make_run(tmp_path, "mine", "plate", images=images, maps=True)
    maps = np.load(folder / "maps.npz")["maps"].astype(np.float32)
    own = np.percentile(maps.reshape(len(maps), -1), SCALE_PERCENTILE, axis=1)
    assert own[3:].max() > own[:3].max()
    shown = choose(read_runs(tmp_path), 1)[0].normal["none"]
    assert shown == pytest.approx(own[:3].max(), rel=1e-4)


def test_the_maps_are_those_of_the_chosen_images(tmp_path: Path) -> None:
    images = make_pictures(tmp_path / "images" / "plate", good=3, anomalous=3, size=48)
    folder = make_run(tmp_path, "mine", "plate", images=images, maps=True)
    maps = np.load(folder / "maps.npz")["maps"]
    [chosen] = choose(read_runs(tmp_path), 2)
    places = [int(Path(path).stem) for path in chosen.images["path"]]
    assert places[1:] == [3, 5]  # behind three good ones
    np.testing.assert_array_equal(chosen.maps["none"], maps[places])


def test_each_picture_is_on_its_own_scale(
    results: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    scales: list[float] = []

    def watched(image: torch.Tensor, heat: np.ndarray, scale: float, colours: str) -> np.ndarray:
        scales.append(scale)
        return overlay(image, heat, scale, colours)

    monkeypatch.setattr(heatmaps, "overlay", watched)
    listed = pd.read_csv(heatmaps.draw_gradcam(results, "demo_parts", anomalous=2)[-1])
    expected = [*listed["scale_none"], *listed["scale_se"]]
    assert sorted(scales) == pytest.approx(sorted(expected), rel=1e-4)
    assert len({f"{scale:.6g}" for scale in scales}) > 4
