"""The explorer without a browser: what its widgets hold, and that a mistake becomes a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ipywidgets import HTML, Button, Dropdown, SelectionSlider, Text, Widget
from synthetic import make_pictures, make_run

from adnlib.errors import InputError
from adnlib.exhibits import closeup, open_run
from adnlib.explorer import MOST, Explorer
from adnlib.misses import count, worst
from adnlib.threshold import threshold_for_fpr


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results folders: a run with everything, and one with scores alone, of other settings."""
    root = tmp_path_factory.mktemp("results")
    pictures = make_pictures(root / "images" / "plates")
    make_run(root / "a", "plates", "plates", images=pictures, maps=True, held_out=9)
    make_run(root / "a", "plates", "plates", seed=1, epochs=8)
    make_run(root / "b", "mtd", "magnetic_tile", "se")
    return root


def find(widget: Widget, kind: type[Widget], description: str = "") -> list[Widget]:
    """All widgets of that kind below this one, in the page's order."""
    own = isinstance(widget, kind) and description in getattr(widget, "description", "")
    below = [w for child in getattr(widget, "children", ()) for w in find(child, kind, description)]
    return [widget] * own + below


def text(explorer: Explorer) -> str:
    return "\n".join(widget.value for widget in find(explorer, HTML))


def thumbnails(explorer: Explorer) -> list[Button]:
    buttons = find(explorer, Button)
    return [b for b in buttons if "adn-thumbnail" in b._dom_classes and b.layout.display != "none"]


def choose(explorer: Explorer, run: int, selection: str = "last") -> SelectionSlider:
    runs, epochs = find(explorer, Dropdown)
    runs.index = run
    epochs.value = selection
    return find(explorer, SelectionSlider)[0]


def test_it_lists_runs_of_several_folders_and_settings(results: Path) -> None:
    [runs, epochs] = find(Explorer(results), Dropdown)
    assert [label for label, _ in runs.options] == [
        "a: plates/plates/none/seed0",
        "a: plates/plates/none/seed1",
        "b: mtd/magnetic_tile/se/seed0",
    ]
    assert [value for _, value in epochs.options] == [
        "last",
        "selected",
        "best_on_test",
        "averaged",
    ]
    [one, _] = find(Explorer(results / "b"), Dropdown)
    assert [label for label, _ in one.options] == ["mtd/magnetic_tile/se/seed0"]
    folder = results / "b/runs/mtd/magnetic_tile/se/seed0"
    [alone, _] = find(Explorer(folder), Dropdown)
    assert alone.value == folder


@pytest.mark.parametrize("selection", ["last", "selected"])
def test_it_begins_where_held_out_images_put_it(results: Path, selection: str) -> None:
    explorer = Explorer(results)
    choose(explorer, 0, selection)
    assert explorer.exhibit is not None
    assert explorer.exhibit.held_out is not None
    expected = threshold_for_fpr(explorer.exhibit.held_out[f"score_{selection}"], 0.01)
    assert explorer.threshold == expected.value
    assert expected.sentence in text(explorer)
    choose(explorer, 1)
    assert "promises nothing" in text(explorer)


def test_a_table_of_no_held_out_image_is_none(tmp_path: Path) -> None:
    table = make_run(tmp_path, held_out=1) / "holdout.csv"
    pd.read_csv(table).head(0).to_csv(table, index=False)
    assert "promises nothing" in text(Explorer(tmp_path))


def test_what_it_shows_is_what_the_pure_functions_say(results: Path) -> None:
    explorer = Explorer(results)
    slider = choose(explorer, 0)
    assert explorer.exhibit is not None
    scores = explorer.exhibit.scores
    pictures = set()
    for index in range(len(slider.options)):
        slider.index = index
        counts = count(scores["label"], scores["score_last"], explorer.threshold)
        shown = text(explorer)
        assert f"<td>{counts.true_positives}<small>true positives" in shown
        assert f"<td>{counts.false_positives}<small>false alarms" in shown
        assert f"False alarms: {counts.false_positives}" in shown
        assert f"Missed anomalies: {counts.false_negatives}" in shown
        both = pd.concat(worst(scores, "score_last", explorer.threshold, MOST))
        assert [button.tooltip for button in thumbnails(explorer)] == both["path"].tolist()
        pictures.add(explorer._picture.value)
    assert len(pictures) == len(slider.options) == 18


def test_the_histogram_and_its_slider_have_words(results: Path) -> None:
    explorer = Explorer(results)
    choose(explorer, 0)
    assert 'alt="Histogram of anomaly scores from ' in text(explorer)
    assert "8 good and 9 anomalous test images, 9 held-out good ones" in text(explorer)
    assert "'aria-label', 'Threshold'" in text(explorer)


def test_back_to_where_it_began(results: Path) -> None:
    explorer = Explorer(results)
    slider = choose(explorer, 0)
    [back] = find(explorer, Button, "Back to")
    began = explorer.threshold
    assert back.disabled
    slider.index -= 3
    assert explorer.threshold < began
    assert not back.disabled
    back.click()
    assert explorer.threshold == began


def test_a_thumbnail_opens_its_image_with_the_map(results: Path) -> None:
    explorer = Explorer(results)
    slider = choose(explorer, 0)
    slider.index = len(slider.options) - 1  # nothing lies above it: all anomalies are missed
    *_, button = thumbnails(explorer)
    button.click()
    shown = text(explorer)
    assert f"<dd>{button.tooltip}</dd>" in shown
    assert shown.count("<figure><img src=") == 2
    assert "White outline" in shown
    assert "The map is of the last epoch, whichever" not in shown
    choose(explorer, 0, "selected")
    thumbnails(explorer)[0].click()
    assert "The map is of the last epoch, whichever" in text(explorer)


def test_missing_images_and_maps_are_said(results: Path) -> None:
    explorer = Explorer(results)
    choose(explorer, 1)
    assert ", no picture" in thumbnails(explorer)[0].description
    thumbnails(explorer)[0].click()
    assert "The image is no longer at" in text(explorer)
    exhibit = open_run(results / "a/runs/plates/plates/none/seed0")
    np.savez_compressed(results / "maps.npz", maps=np.zeros((2, 3, 3)))
    kept = exhibit.run.folder / "maps.npz"
    content = kept.read_bytes()
    try:
        kept.write_bytes((results / "maps.npz").read_bytes())
        damaged = closeup(open_run(exhibit.run.folder), 0, "last")
        kept.unlink()
        absent = closeup(open_run(exhibit.run.folder), 0, "last")
    finally:
        kept.write_bytes(content)
    assert "maps of this run cannot be read (maps.npz holds (2, 3, 3) for 17 test" in damaged
    assert "This run made no maps" in absent
    assert damaged.count("<img") == absent.count("<img") == 1


def test_a_folder_without_runs_is_one_sentence_and_can_be_changed(
    results: Path, tmp_path: Path
) -> None:
    explorer = Explorer(tmp_path / "<nowhere>")
    assert f"No finished run lies in {tmp_path}/&lt;nowhere&gt;: run ./run_all.sh" in text(explorer)
    assert explorer.exhibit is None
    for asked in (explorer.misses, lambda: explorer.threshold, lambda: explorer.column):
        with pytest.raises(InputError, match="No run is open"):
            asked()
    [place] = find(explorer, Text)
    place.value = str(results)
    assert "No finished run" not in text(explorer)
    alarms, missed = explorer.misses()
    assert set(alarms["label"]) <= {0}
    assert set(missed["label"]) == {1}
    for nothing in ("no such", "~nobody-of-that-name", "x" * 5000):
        place.value = nothing
        assert explorer.exhibit is None
        assert "No finished run lies in" in text(explorer)


def test_a_damaged_run_is_one_sentence_and_the_next_opens(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, seed=seed, held_out=3) for seed in range(5)]
    (folders[0] / "params.json").write_text("{")
    (folders[1] / "scores.csv").write_text("path,label\na,b\n")
    for folder, score in zip(folders[2:4], (np.nan, -1), strict=True):
        held_out = pd.read_csv(folder / "holdout.csv")
        held_out.assign(score_last=score).to_csv(folder / "holdout.csv", index=False)
    explorer = Explorer(tmp_path)
    [runs, _] = find(explorer, Dropdown)
    told = ["seed0 is damaged", "The scores in", "The scores in", "cannot be drawn"]
    for index, said in enumerate(told):
        runs.index = index
        assert said in text(explorer)
        assert explorer._body.layout.display == "none"
    runs.index = 4
    assert '<p role="alert">' not in text(explorer)
    assert explorer._body.layout.display == ""


def test_one_epochs_scores_may_be_beyond_drawing_and_anothers_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    scores.assign(score_selected=0).to_csv(folder / "scores.csv", index=False)
    explorer = Explorer(tmp_path)
    [_, epochs] = find(explorer, Dropdown)
    epochs.value = "selected"
    assert "cannot be drawn" in text(explorer)
    with pytest.raises(InputError, match="No run is open"):
        explorer.misses()
    epochs.value = "last"
    assert "cannot be drawn" not in text(explorer)
    assert len(explorer.misses()) == 2


def test_what_comes_from_files_is_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path, held_out=3)
    scores = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    evil = '<img src=x onerror="1">'
    scores.assign(path=evil, defect=evil, mask=evil).to_csv(folder / "scores.csv", index=False)
    explorer = Explorer(tmp_path)
    for button in thumbnails(explorer):
        button.click()
        assert "&lt;img src=x onerror=&quot;1&quot;&gt;" in text(explorer)
        assert evil not in text(explorer)
