"""The report's page: whole without a network, on a phone and on a wide screen."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from synthetic import make_grid, make_pictures, make_run

from adnlib import execution, figures, forest, heatmaps, overview, report, study
from adnlib.comparison import auroc_table
from adnlib.records import asked_seeds, read_runs

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# The page in a frame as wide as a screen tells its own width, and pictures that did not load.
FRAME = """<iframe src="{page}" style="border:0;width:{width}px;height:3000px"></iframe>
<pre id="told"></pre>
<script>onmessage = event => {{ told.textContent = JSON.stringify(event.data) }}</script>"""
TELL = """<script>onload = () => parent.postMessage({
  width: innerWidth,
  content: document.documentElement.scrollWidth,
  pictures: document.images.length,
  broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).length,
}, "*")</script></body>"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reported grid: two of the paper's sets and a demo set, one run missing, one failed."""
    root = tmp_path_factory.mktemp("results")
    pictures = make_pictures(root / "images" / "bottle")
    for variant in ("none", "se", "cbam"):
        make_run(root, "mvtec_ad", "bottle", variant, images=pictures, maps=True)
        make_grid(root, "mtd", ["magnetic_tile"], [variant], seeds=3)
    make_grid(root, "demo_parts", ["bracket"])
    keys = [f"runs/mvtec_ad/bottle/{v}/seed{s}" for v in ("none", "se", "cbam") for s in (0, 1)]
    cells = {key: {"title": key[5:]} for key in keys}
    plan = {"results": str(root), "cells": cells, "threads": 1, "title": "two & two", "gpus": []}
    (root / "plan.json").write_text(json.dumps(plan))
    failed = root / keys[1] / "failed.json"
    failed.parent.mkdir()
    failed.write_text(json.dumps({"reason": "made to fail"}))
    study.write_study(root)
    report.write_tables(root)
    forest.draw_paired(root)
    heatmaps.draw_gradcam(root, "mvtec_ad")
    figures.draw_roc(root, "mtd")
    assert execution.run_report(plan)
    return root


@pytest.fixture(scope="module")
def html(results: Path) -> str:
    """The page's text."""
    return (results / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    assert not re.findall(r"<(?:script|link|iframe)\b", html)
    assert set(re.findall(r'src="([^"]{0,22})', html)) == {"data:image/png;base64,"}
    assert "url(" not in html


@pytest.mark.slow
def test_the_contents_lead_to_every_part(html: str) -> None:
    contents = html[: html.index("<h2")]
    linked = re.findall(r'<a href="#([^"]+)"', contents)
    assert linked == re.findall(r'<h2 id="([^"]+)"', html)
    assert len(linked) == 6


@pytest.mark.slow
def test_every_picture_is_whole_and_described(html: str) -> None:
    pictures = re.findall("<img[^>]*>", html)
    assert len(pictures) == 3
    for picture in pictures:
        assert re.search('alt="[^"]{10,}"', picture)
        content = picture.partition("base64,")[2].partition('"')[0]
        Image.open(io.BytesIO(base64.b64decode(content))).load()


@pytest.mark.slow
def test_it_holds_numbers_differences_failures_and_no_code(html: str) -> None:
    for part in (
        "<title>AttentDifferNet: two &amp; two</title>",
        "ours beside the published AUROC",
        "Not finished (3)",
        "mvtec_ad/bottle/none/seed1: made to fail",
        "mvtec_ad/bottle/se/seed1: not run to its end",
        "a CPU, 2 threads",
        "torch 2.15.0",
        "95 % bootstrap",
    ):
        assert part in html, part
    assert "check_parameters" not in html
    assert "Parameters</h2>" not in html


@pytest.mark.slow
def test_without_a_study_and_maps_there_is_a_report_and_no_old_figure(tmp_path: Path) -> None:
    make_grid(tmp_path, "mtd", ["magnetic_tile"], ["none", "se"])
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "figures" / "gradcam_mtd.png")  # of former runs
    (tmp_path / "notebooks").mkdir()
    plan = {"results": str(tmp_path), "threads": 1, "title": "bare", "gpus": []}
    assert execution.run_report(plan)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "magnetic_tile" in page
    assert "<img" not in page
    for notebook in ("06_study", "04_roc", "05_gradcam"):  # not an empty part
        assert f"yet: <code>{notebook}</code>" in page


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser_no_picture_is_broken_and_nothing_overflows(
    html: str, tmp_path: Path, width: int
) -> None:
    seen = look(html, tmp_path, width)
    assert seen["width"] == width
    assert seen["content"] <= width
    assert (seen["pictures"], seen["broken"]) == (3, 0)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_the_browser_would_see_both(tmp_path: Path) -> None:
    seen = look(
        '<p style="width:900px">wide</p><img src="data:image/png;base64,AAAA"></body>',
        tmp_path,
        400,
    )
    assert seen["content"] > 400
    assert seen["broken"] == 1


def look(html: str, folder: Path, width: int) -> dict[str, Any]:
    """What Chromium tells of the page on a screen so wide."""
    page, frame = folder / "page.html", folder / "frame.html"
    page.write_text(html.replace("</body>", TELL), encoding="utf-8")
    frame.write_text(FRAME.format(page=page.as_uri(), width=width))
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--no-first-run", "--disable-component-update", "--disable-sync", "--disable-quic"),
        *(f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"),
    )
    done = subprocess.run(
        [str(CHROMIUM), *options, frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    [told] = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout)
    return json.loads(told)


def test_our_numbers_stand_beside_the_published_and_short_cells_are_marked(tmp_path: Path) -> None:
    make_grid(tmp_path, "mtd", ["magnetic_tile"], ["none", "se"], seeds=2)
    keys = [f"runs/mtd/magnetic_tile/{v}/seed{s}" for v in ("none", "se") for s in range(3)]
    cells = {key: {"title": key} for key in keys}
    (tmp_path / "plan.json").write_text(json.dumps({"cells": cells}))
    found = read_runs(tmp_path)
    table = auroc_table(found, asked_seeds(tmp_path))
    assert table["fewer_seeds"].all()
    [sheet] = overview.published_sheets(found, table)
    [row] = sheet.rows
    best = table[(table["variant"] == "none") & (table["epoch_selection"] == "best_on_test")]
    mean = best["mean"].iloc[0]
    assert row[:2] == ["magnetic_tile", "DifferNet"]
    assert row[4].endswith("†")
    assert row[6:] == ["97.70", f"{mean - 97.7:+.2f}"]
    assert "confidence" in sheet.notes[0]
    assert best["difference"].iloc[0] == pytest.approx(mean - 97.7)
    assert len(overview.unfinished(tmp_path)) == 2


def test_of_one_category_no_mean_stands_beside_the_published_numbers(tmp_path: Path) -> None:
    for categories in (["bottle"], ["bottle", "screw"]):
        make_grid(tmp_path / str(len(categories)), "mvtec_ad", categories, ["none"], seeds=1)
    sheets = []
    for folder in sorted(tmp_path.iterdir()):
        found = read_runs(folder)
        sheets += overview.published_sheets(found, auroc_table(found))
    names = [[line[0] for line in sheet.rows] for sheet in sheets]
    assert names == [["bottle"], ["bottle", "screw", "mean of 2"]]


@pytest.mark.slow
def test_a_thousand_runs_become_tables_and_report_within_a_minute(tmp_path: Path) -> None:
    categories = [f"part{index}" for index in range(25)]
    make_grid(tmp_path, "mvtec_ad", categories, ("none", "se", "cbam", "se_frozen"), seeds=10)
    (tmp_path / "notebooks").mkdir()
    began = time.process_time(), os.times().children_user
    report.write_tables(tmp_path)
    study.write_study(tmp_path)
    forest.draw_paired(tmp_path)
    figures.draw_roc(tmp_path, "mvtec_ad")
    plan = {"results": str(tmp_path), "threads": 1, "title": "many", "gpus": []}
    assert execution.run_report(plan)
    # Seconds of the CPU, so that other work on the machine does not count; the kernel is a child.
    spent = time.process_time() - began[0] + os.times().children_user - began[1]
    assert spent < 60
    runs = re.findall(r">250</td>", (tmp_path / "report.html").read_text())
    assert len(runs) == 4  # a variant's
