"""What is being written lies in a hidden folder, and none stays for ever."""

import signal
import subprocess
import sys

import pytest

from adnlib import staging as module
from adnlib.staging import staging, sweep

WRITER = """
import sys, time
from pathlib import Path
from adnlib.staging import staging
with staging(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print(folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.name = process.stdout.readline().strip()
        yield process
        process.kill()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert (tmp_path / writer.name / "half").exists()
    with staging(tmp_path) as folder:
        assert [*tmp_path.iterdir()] == [folder]
    assert not [*tmp_path.iterdir()]


def test_what_a_running_process_writes_stays(tmp_path, writer):
    with staging(tmp_path):
        pass
    assert (tmp_path / writer.name / "half").exists()


def test_without_locks_nothing_is_taken_away(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(module.fcntl, "flock", none)
    with staging(tmp_path) as folder:
        sweep(tmp_path)
        assert folder.is_dir()
    assert not folder.exists()
