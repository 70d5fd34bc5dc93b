"""The front door before Python: which interpreter is taken, and what is installed when.

The interpreters are small scripts that write down what they are asked; nothing is installed.
"""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adnlib.parameters import project_path

TOOLS = [
    "bash",
    "cat",
    "cksum",
    "cp",
    "dirname",
    "flock",
    "grep",
    "mkdir",
    "rm",
    "sleep",
    "tail",
    "touch",
]
PYTHON = """#!/usr/bin/env bash
# VERSION, READY, PIP and ENSUREPIP are set above; $0.installed says that pip has been there.
case "$*" in
"-P - "*) [[ $READY == yes || -f $0.installed ]] ;;
*version_info*) ((VERSION >= 11)) ;;
"-c import ensurepip, venv") [[ $ENSUREPIP == yes ]] ;;
"--version") echo "Python 3.$VERSION" ;;
"-m venv --clear "*)
    mkdir -p "$4/bin"
    touch "$4/pyvenv.cfg"
    cp "$0" "$4/bin/python"
    ;;
"-m pip --version") [[ $0 == */bin/python ]] ;;
"-m pip install "*)
    echo "pip $*" >>"$CALLS"
    [[ $PIP == slow ]] && exec sleep 60
    [[ $PIP == steady ]] && sleep 2
    [[ $PIP == broken ]] && { echo "ERROR: no network"; exit 1; }
    [[ $PIP == sources ]] && {
        echo "  error: [Errno 2] No such file or directory: 'x86_64-linux-gnu-gcc'"
        echo "  ERROR: Failed building wheel for immutables"
        echo "Failed to build immutables"
        echo "╰─> immutables"
        exit 1
    }
    [[ $PIP == pins && $* == *" -c "* ]] && { echo "ERROR: No matching distribution"; exit 1; }
    touch "$0.installed"
    ;;
*) echo "3.$VERSION: $*" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "check out"
    (root / "bin").mkdir(parents=True)
    for name in ("run_all.sh", "pyproject.toml", "requirements.lock"):
        shutil.copy(project_path(name), root)
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to(shutil.which(tool))
    return root


def add_python(checkout, name, version, ready="no", pip="works", ensurepip="yes"):
    settings = f"VERSION={version} READY={ready} PIP={pip} ENSUREPIP={ensurepip}"
    path = checkout / "bin" / name
    path.write_text(PYTHON.replace("\n", f"\n{settings} CALLS='{checkout}/calls'\n", 1))
    path.chmod(0o755)


def start(checkout, *words):
    return subprocess.Popen(
        ["bash", str(checkout / "run_all.sh"), *words],
        cwd=checkout.parent,
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def call(checkout, *words):
    process = start(checkout, *words)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def installations(checkout):
    calls = checkout / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


def test_an_environment_that_has_the_checkout_is_used(checkout):
    add_python(checkout, "python3", 12, ready="yes")
    add_python(checkout, "python3.14", 14)
    code, out, err = call(checkout, "--profile", "paper", "--set", "a=b c")
    assert (code, out, err) == (0, "3.12: -P -m adnlib run-all --profile paper --set a=b c\n", "")
    tested = call(checkout, "test", "-k", "grid")[1].splitlines()[-1]
    assert tested.startswith("3.12: -P -m pytest -n auto ")
    assert tested.endswith(" -k grid")
    assert not (checkout / ".venv").exists()


def test_else_the_newest_python_with_wheels_makes_one_and_installs_once(checkout):
    add_python(checkout, "python3", 10)
    add_python(checkout, "python3.11", 11)
    add_python(checkout, "python3.13", 13)
    add_python(checkout, "python3.15", 15)
    (checkout / "bin" / "python3.14").write_text("#!/bin/sh\nexit 127\n")  # a shim for nothing
    (checkout / "bin" / "python3.14").chmod(0o755)
    code, out, err = call(checkout)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"Making {checkout}/.venv with Python 3.13 ...",
        f"Installing into {checkout}/.venv (once; a few minutes and GB) ...",
        "3.13: -P -m adnlib run-all",
    ]
    (pip,) = installations(checkout)
    assert f"-e {checkout}[test] -c {checkout}/requirements.lock" in pip

    assert call(checkout)[1] == "3.13: -P -m adnlib run-all\n"
    assert len(installations(checkout)) == 1

    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert "Installing into" in call(checkout)[1]
    assert len(installations(checkout)) == 2


def test_where_the_pinned_versions_cannot_be_had_the_ranges_are_taken(checkout):
    add_python(checkout, "python3.12", 12, pip="pins")
    code, out, _ = call(checkout)
    assert code == 0
    assert "The versions of requirements.lock cannot be had for this Python" in out
    assert [" -c " in pip for pip in installations(checkout)] == [True, False]


def test_an_installation_that_fails_names_its_log_and_is_done_again(checkout):
    add_python(checkout, "python3.12", 12, pip="broken")
    code, _, err = call(checkout)
    assert code == 2
    assert err == (
        f"error: the installation failed: ERROR: no network Its log: {checkout}/.venv/install.log\n"
    )
    call(checkout)
    assert len(installations(checkout)) == 2


def test_what_cannot_be_compiled_is_named(checkout):
    add_python(checkout, "python3.15", 15, pip="sources")
    code, _, err = call(checkout)
    assert code == 2
    assert "immutables has no wheel for this Python and cannot be compiled: put Python 3.13" in err
    assert len(installations(checkout)) == 2


def test_an_interrupted_installation_says_so_and_is_done_again(checkout):
    add_python(checkout, "python3.12", 12, pip="slow")
    process = start(checkout)
    deadline = time.monotonic() + 20
    while not installations(checkout):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "interrupted; the same command goes on from here\n"
    add_python(checkout, "python3.12", 12)
    shutil.copy(checkout / "bin" / "python3.12", checkout / ".venv" / "bin" / "python")
    assert call(checkout)[0] == 0


def test_of_two_first_calls_one_installs_and_the_other_waits(checkout):
    add_python(checkout, "python3.12", 12, pip="steady")
    processes = [start(checkout) for _ in range(2)]
    outs = sorted((process.communicate(timeout=30)[0] for process in processes), key=len)
    assert [process.returncode for process in processes] == [0, 0]
    assert len(installations(checkout)) == 1
    waiting = f"Another call is installing into {checkout}/.venv; waiting for it ...\n"
    assert outs[0] == f"{waiting}3.12: -P -m adnlib run-all\n"


@pytest.mark.parametrize(
    ("version", "ensurepip", "message"),
    [
        (10, "yes", "no Python 3.11 or newer is on PATH"),
        (12, "no", "python3 cannot make virtual environments: install its venv package"),
    ],
)
def test_without_a_usable_python_there_is_one_sentence(checkout, version, ensurepip, message):
    add_python(checkout, "python3", version, ensurepip=ensurepip)
    code, out, err = call(checkout)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (checkout / ".venv").exists()


def test_a_folder_that_is_no_environment_is_left_alone(checkout):
    add_python(checkout, "python3.12", 12)
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "letter").touch()
    code, _, err = call(checkout)
    assert code == 2
    assert "is no virtual environment" in err
    assert (checkout / ".venv" / "letter").exists()


def test_help_needs_no_installation(checkout):
    shutil.copytree(project_path("adnlib"), checkout / "adnlib")
    (checkout / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    code, out, _ = call(checkout, "--help")
    assert code == 0
    assert out.startswith("usage: ./run_all.sh ")
    assert not (checkout / ".venv").exists()
