"""The explore notebook as a page: voila serves it, and a browser moves the threshold."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright
from synthetic import make_pictures, make_run

from adnlib.explorer import MOST
from adnlib.misses import count, start, thresholds, worst

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "08_explore.ipynb"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
PATIENCE = 60_000  # ms, for what takes a second or so on an idle machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with images, maps and held-out scores."""
    root = tmp_path_factory.mktemp("results")
    pictures = make_pictures(root / "images" / "plates")
    return make_run(root, "plates", "plates", images=pictures, maps=True, held_out=9)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where voila serves the committed notebook."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("voila") / "log"
    command = [sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}"]
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, "--Voila.ip=127.0.0.1"], stdout=file, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        _wait_for(f"{url}voila/static/", server, log)
        yield url
    finally:
        server.terminate()  # it ends its kernels; should it be killed, they end by themselves
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def page(address: str) -> Iterator[Page]:
    """The page, loaded; whatever is not on this machine is refused."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        page = browser.new_page(viewport={"width": 1300, "height": 1300})
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.route("**/*", _refuse_other_hosts)
        page.goto(address)
        yield page
        browser.close()


def test_the_page_follows_the_threshold_and_opens_a_miss(page: Page, run: Path) -> None:
    scores = pd.read_csv(run / "scores.csv", keep_default_na=False)
    held_out = pd.read_csv(run / "holdout.csv", keep_default_na=False)
    began = start(scores, held_out, "score_last")
    steps = thresholds(scores["score_last"], began.value).tolist()
    at = steps.index(began.value)

    _name(page, run.parents[4])
    expect(page.get_by_label("Run", exact=True)).to_contain_text("plates/plates/none/seed0")
    expect(page.get_by_text(began.sentence)).to_be_visible()
    _expect(page, scores, steps[at])
    histogram = page.locator(".adn-chart img")
    pictures = [histogram.get_attribute("src")]

    expect(histogram).to_have_attribute("alt", re.compile("^Histogram of anomaly scores from "))
    slider = page.get_by_role("slider", name="Threshold", exact=True)
    slider.focus()
    for key, moved in (("ArrowLeft", -1), ("ArrowLeft", -2), ("ArrowRight", -1), ("End", None)):
        slider.press(key)
        _expect(page, scores, steps[-1] if moved is None else steps[at + moved])
        expect(histogram).not_to_have_attribute("src", str(pictures[-1]))
        pictures.append(histogram.get_attribute("src"))

    lowest = worst(scores, "score_last", steps[-1], MOST)[1].iloc[0]
    page.locator("button.adn-thumbnail:visible").first.click()
    closeup = page.locator(".closeup")
    expect(closeup).to_contain_text(lowest["path"])
    expect(closeup).to_contain_text("White outline")
    images = closeup.locator("img")
    expect(images).to_have_count(2)
    for image in images.all():
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 200

    page.get_by_role("button", name="Back to where it began").click()
    _expect(page, scores, steps[at])


@pytest.mark.parametrize("width", [420, 1300])
def test_nothing_overflows(page: Page, run: Path, tmp_path: Path, width: int) -> None:
    pictures = run.parents[4] / "images" / "plates"
    _name(page, make_run(tmp_path, "plates" * 9, "plates" * 9, images=pictures, maps=True))
    heading = page.locator(".adn-explorer b").first
    expect(heading).to_contain_text("plates" * 9)
    page.get_by_role("slider").press("End")
    thumbnail = page.locator("button.adn-thumbnail:visible").first
    expect(thumbnail).to_have_attribute(
        "title", re.compile("^test/scratch/")
    )  # no false alarm left
    thumbnail.click()
    expect(page.locator(".closeup img")).to_have_count(2)
    page.set_viewport_size({"width": width, "height": 1300})
    page.wait_for_function(f"innerWidth === {width}")
    for element in ("document.documentElement", "document.querySelector('#rendered_cells')"):
        # A busy browser may lose the first event, and the layout with it.
        fits = f"dispatchEvent(new Event('resize')) && {element}.scrollWidth <= {width}"
        page.wait_for_function(fits)
        assert page.evaluate(f"{element}.scrollWidth") <= width
    assert heading.evaluate("heading => heading.getBoundingClientRect().right") <= width


def test_a_folder_without_runs_is_said_on_the_page(page: Page, tmp_path: Path) -> None:
    _name(page, tmp_path)
    expect(page.get_by_role("alert")).to_have_text(
        re.compile(rf"^No finished run lies in {re.escape(str(tmp_path))}: run ./run_all.sh")
    )
    expect(page.get_by_role("slider")).to_be_hidden()


def _name(page: Page, folder: Path) -> None:
    """Type the folder whose runs are to be found."""
    place = page.get_by_label("Results in")
    place.fill(str(folder))
    place.press("Enter")


def _expect(page: Page, scores: pd.DataFrame, threshold: float) -> None:
    """Wait until counts and thumbnails are those of this threshold."""
    counts = count(scores["label"], scores["score_last"], threshold)
    expect(page.locator("table.counts td:has(small)")).to_have_text(
        [
            f"{counts.true_positives}true positives",
            f"{counts.false_negatives}missed (false negatives)",
            f"{counts.false_positives}false alarms (false positives)",
            f"{counts.true_negatives}true negatives",
        ]
    )
    shown = pd.concat(worst(scores, "score_last", threshold, MOST))
    buttons = page.locator("button.adn-thumbnail:visible")
    expect(buttons).to_have_count(len(shown))
    for button, sample in zip(buttons.all(), shown.to_dict("records"), strict=True):
        expect(button).to_have_attribute("title", sample["path"])
        expect(button).to_have_css("background-image", re.compile("^url.*data:image/jpeg;base64,"))


def _refuse_other_hosts(route: Route) -> None:
    if urlsplit(route.request.url).hostname == "127.0.0.1":
        route.continue_()
    else:
        route.abort()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody answers there, if only with an error."""
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"voila does not answer:\n{log.read_text()}")
