"""The command line: exit codes, one sentence for each mistake, a dry run that writes nothing."""

import signal
import subprocess
import sys

import pytest

from adnlib import cli, grid_commands, places, scheduling
from adnlib.parameters import project_path


@pytest.fixture
def run_all(tmp_path, monkeypatch, capsys):
    """`run-all` with these words and results in an empty folder; exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "DEMO_ROOT", tmp_path / "demo")
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)

    def call(*words):
        code = cli.main(["run-all", "--results", "results", "--device", "cpu", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "dmo"], "no profile 'dmo': did you mean 'demo'?"),
        (["--dataset", "demo_part"], "no data set 'demo_part': did you mean 'demo_parts'?"),
        (["--dataset", "my set"], "no data set 'my_set'"),
        (["--category", "brackets"], "no category 'brackets': did you mean 'bracket'?"),
        (["--attention", "sse"], "attention is 'sse'"),
        (["--seeds", "one"], "--seeds got 'one'"),
        (["--seeds", "²"], "--seeds got '²'"),
        (["--seeds", "-1"], "-1"),
        (["--set", "epoch=3"], "no setting 'epoch': did you mean 'epochs'?"),
        (["--set", "epochs"], "'epochs' is no assignment"),
        (["--set", "image_size=128"], "image_size is 128"),
        (["--device", "tpu0"], "device is 'tpu0'"),
        (["--device", "mps"], "device is 'mps'"),
        (["--cluster", "slum"], "there is no Snakemake profile"),
        (["--cluster", "./slum"], "/slum/config.yaml: --cluster takes"),
        (["--jobs", "0"], "'0' is no whole number above 0"),
        (["--on-bad-image", "keep"], "on_bad_image is 'keep'"),
        (["--profile", "paper"], "needs --data-root DIR"),
        (["--profile", "paper", "--data-root", "nowhere"], "nowhere"),
        (["--data-root", "~nobody_at_all/x"], "home directory"),
        (["--results", "x" * 300], "File name too long"),
        (["--set", "weights=~nobody_at_all/w.pth"], "weights is '~nobody_at_all/w.pth'"),
        (["--set", "epochs=2026-13-01"], "epochs is '2026-13-01'"),
        (["--set", "weight_decay=-1"], "weight_decay is -1"),
        (["--datset", "mtd"], "no option --datset: did you mean --dataset?"),
        (["--data-rot=a"], "no option --data-rot=a: did you mean --data-root?"),
        (["paper"], "no option paper: see --help"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(run_all, tmp_path, words, message):
    code, out, err = run_all(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"), [("--results", "cannot write to"), ("--data-root", "does not exist")]
)
def test_links_in_a_circle_are_no_place(run_all, tmp_path, option, message):
    circle = tmp_path / "a"
    circle.symlink_to(circle)
    code, _, err = run_all("--dry-run", option, str(circle))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_dry_run_prints_the_plan_and_writes_nothing(run_all, tmp_path, monkeypatch):
    monkeypatch.setattr(scheduling, "carry_out", None)
    code, out, _ = run_all("--dry-run", "--seeds", "0,1 2", "--attention", "none", "se")
    assert code == 0
    assert "runs: 18, 0 of them done" in out
    assert out.count("to do") == 18
    assert "demo_wafer/chip se seed 2" in out
    assert not list(tmp_path.iterdir())


def test_options_reach_the_plan(run_all, monkeypatch, tmp_path):
    handed = []
    monkeypatch.setattr(scheduling, "carry_out", lambda *given: handed.append(given) or 0)
    code, _, _ = run_all(
        *("--dataset", "demo_parts", "--seeds", "4", "--attention", "cbam", "--jobs", "2"),
        *("--set", "epochs=7", "--set", "test_views=5", "--no-keep-going"),
    )
    assert code == 0
    ((made, keep_going),) = handed
    (cell,) = made.cells
    assert cell.title == "demo_parts/bracket cbam seed 4"
    assert (cell.settings.epochs, cell.settings.test_views) == (7, 5)
    assert (made.jobs, made.cluster, keep_going) == (2, None, False)
    assert made.results == tmp_path / "results"


def test_a_dry_run_for_a_cluster_says_where_it_would_run(run_all):
    code, out, _ = run_all("--dry-run", "--cluster", "slurm")
    assert code == 0
    assert f"each is a job with 0 GPU, on the cluster of {project_path('workflow/profiles')}" in out
    assert out.count("to do") == 18


def test_an_interruption_is_one_sentence(run_all, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(scheduling, "carry_out", interrupted)
    code, _, err = run_all()
    assert code == 130
    assert err == "\ninterrupted; the same command goes on from here\n"


def test_an_interruption_that_a_library_makes_another_error_of_is_one(monkeypatch, capsys):
    def loading(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError("maximum recursion depth exceeded") from None

    monkeypatch.setattr(grid_commands, "_run_all", loading)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        assert cli.main(["run-all"]) == 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


def test_a_step_without_its_plan_says_who_writes_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(grid_commands, "end_with", lambda _: None)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    assert cli.main(["cell", str(tmp_path / "plan.json"), "runs/a"]) == 2
    assert "./run_all.sh, which writes it" in capsys.readouterr().err


def test_help_names_the_front_door_and_every_option(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["run-all", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ./run_all.sh ")
    for option in ("--profile", "--data-root", "--set", "--dry-run", "./run_all.sh test"):
        assert option in text


@pytest.mark.slow
def test_the_package_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "adnlib", "run-all", "--help"],
        cwd=project_path("."),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: ./run_all.sh ")
