"""pip runs for real here, on a tiny archive in a local folder: no network."""

import hashlib
import importlib.util
import io
import tarfile

import pytest

from adnlib import package_index
from adnlib.errors import InputError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pip") is None, reason="pip is not installed in this environment"
)
MEMBER = "tiny_set-1.2/tiny_set/numbers.bin"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive whose setup.py leaves a trace when it is run, the only one that pip can find."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "tiny_set-1.2.tar.gz"
    setup = f"open({str(tmp_path / 'setup_was_run')!r}, 'w').close()\n"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (
            (
                "tiny_set-1.2/setup.py",
                setup + "from setuptools import setup; setup(name='tiny-set')",
            ),
            ("tiny_set-1.2/PKG-INFO", "Metadata-Version: 2.1\nName: tiny-set\nVersion: 1.2\n"),
            (MEMBER, "the numbers"),
        ):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_gives_the_member_without_running_setup_and_leaves_nothing(archive, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    data = package_index.read_member("tiny-set", "1.2", sha256(archive), MEMBER)
    assert data == b"the numbers"
    assert not (tmp_path / "setup_was_run").exists()
    assert list(scratch.iterdir()) == []


def test_pip_refuses_another_hash(archive, tmp_path):
    with pytest.raises(InputError, match="HASHES"):
        package_index.read_member("tiny-set", "1.2", "0" * 64, MEMBER)
    assert not (tmp_path / "setup_was_run").exists()


def test_the_hash_is_verified_here_as_well(archive, monkeypatch):
    monkeypatch.setattr(package_index, "_download", lambda *_: archive.read_bytes())
    with pytest.raises(InputError, match="SHA-256"):
        package_index.read_member("tiny-set", "1.2", "0" * 64, MEMBER)


def test_missing_member(archive, monkeypatch):
    monkeypatch.setattr(package_index, "_download", lambda *_: archive.read_bytes())
    with pytest.raises(InputError, match=r"no file other\.bin"):
        package_index.read_member("tiny-set", "1.2", sha256(archive), "other.bin")


def test_missing_package_is_told_in_pips_words(archive):
    with pytest.raises(InputError, match="other-set"):
        package_index.read_member("other-set", "1.2", "0" * 64, MEMBER)
