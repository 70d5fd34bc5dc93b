"""The lines of runs: how many are done, how long the rest takes, and who prints them."""

import pytest

from adnlib import progress
from adnlib.words import duration


def test_those_that_end_are_counted_once_and_written_down(tmp_path, capsys):
    cells = {key: {"title": key, "select": []} for key in ("a", "b", "done")}
    plan = {"results": str(tmp_path), "cells": cells, "todo": ["a", "b"], "command": []}
    plan |= {"cluster": "/a/profile", "jobs": None}
    for key in ("a", "a", "b"):
        progress.tell_run(plan, key, 1.0, "a reason")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["[2/3]", "[2/3]", "[3/3]"]
    told = (tmp_path / "progress.txt").read_text().splitlines()
    assert told == [f"{key}\t{line}" for key, line in zip("aab", lines, strict=True)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (28, "28 s"), (89, "89 s"), (240, "4 min"), (12000, "3 h 20 min")],
)
def test_durations_are_for_people(seconds, words):
    assert duration(seconds) == words


def test_the_time_left_follows_the_images_of_the_runs_that_wait(monkeypatch):
    monkeypatch.setattr(progress.time, "time", lambda: 1100.0)
    cells = {"small": {"images": 10}, "large": {"images": 90}}
    plan = {"cells": cells, "todo": list(cells), "started": 1000.0, "jobs": 1, "cluster": None}
    assert progress._seconds_left(plan, {"small"}) == pytest.approx(900)
    assert progress._seconds_left(plan, {"large"}) == pytest.approx(100 / 9)
    assert progress._seconds_left(plan, {"small", "large"}) == 0
    assert progress._seconds_left({**plan, "cluster": "/a/profile", "jobs": None}, {"small"}) == 0


def test_what_the_nodes_wrote_is_printed_once_and_by_whole_lines(tmp_path, capsys):
    file = tmp_path / progress.FILE
    file.write_text("a\t[1/2] first\nb\t[2/2] sec")
    assert progress.follow(tmp_path, 0) == 1
    assert capsys.readouterr().out == "[1/2] first\n"
    file.write_text("a\t[1/2] first\nb\t[2/2] second\n")
    assert progress.follow(tmp_path, 1) == 2
    assert capsys.readouterr().out == "[2/2] second\n"
