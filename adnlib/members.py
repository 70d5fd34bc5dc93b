"""The files in a zip or tar archive, all of them checked before the first one is read.

It knows no data set and writes nothing: where files land is the matter of `archives`.
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from adnlib.errors import InputError, one_line
from adnlib.files import is_hidden

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tar.xz", ".tgz", ".txz")
MOST_MEMBERS = 1_000_000
"""MVTec AD has 7,000. A small file can hold more headers than memory can."""

_LARGEST_READ = 2**26
"""Bytes of a tar archive that are read at once, which covers all headers and padding there are."""


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        path: its name, which leads out of no folder.
        size: bytes that it says it has.
        open: gives its content.
    """

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class _Entry:
    """A member as it stands in the archive, unchecked."""

    name: str
    size: int
    folder: bool
    fault: str
    open: Callable[[], IO[bytes]]


def archive_stem(name: str) -> str | None:
    """A file's name without its archive's suffix and a browser's " (1)"; None for no archive."""
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return re.sub(r"\s*\([0-9]+\)$", "", name[: -len(suffix)]) or None
    return None


@contextmanager
def open_archive(archive: Path, room: int) -> Iterator[list[Member]]:
    """The files in an archive, in its order, without hidden ones.

    Args:
        archive: a file that ends in one of `SUFFIXES`.
        room: bytes that its content may take.

    Raises:
        InputError: it is no archive, may not be read, or is damaged; it holds more than there is
            room for; a member, hidden or not, is a link, special, encrypted, or named so that it
            would land elsewhere; or two would be one file where file systems take letters of either
            case, or of either Unicode form, as one. Damage is also found while members are read.
    """
    if archive_stem(archive.name) is None:
        raise InputError(f"{str(archive)!r} is no archive: give a {', '.join(SUFFIXES)} file.")
    if not archive.is_file():
        raise InputError(f"{str(archive)!r} is no file: give the archive that was downloaded.")
    if not os.access(archive, os.R_OK):
        raise InputError(f"{str(archive)!r} may not be read: change its permissions.")
    kind = _open_zip if archive.name.lower().endswith(".zip") else _open_tar
    try:
        with kind(archive) as entries:
            yield _check(archive, entries, room)
    except InputError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # the file system's; the archive's own lead nowhere, or to before its start
        raise InputError(
            f"{str(archive)!r} is damaged or cut short ({one_line(error)}): download it again."
        ) from None


_DAMAGE = (
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    OSError,  # gzip's
    ValueError,  # a name that is no UTF-8, or a negative offset
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def _check(archive: Path, entries: Iterator[_Entry], room: int) -> list[Member]:
    members: list[Member] = []
    left = room
    for number, entry in enumerate(entries):
        fault = _name_fault(entry.name) or entry.fault
        if fault:
            raise _refusal(archive, entry.name, fault)
        left -= entry.size
        if left < 0 or number == MOST_MEMBERS:
            raise InputError(
                f"{str(archive)!r} says that it holds more than the {room / 1e9:.1f} GB that are "
                f"free on the disk, or more than {MOST_MEMBERS} files: make room, or check where "
                "it comes from."
            )
        path = PurePosixPath(entry.name)
        if not entry.folder and not any(map(is_hidden, path.parts)):
            members.append(Member(path, entry.size, entry.open))
    _check_no_two_in_one_place(archive, members)
    return members


def _name_fault(name: str) -> str:
    if name in (".", "./"):  # the archive's own top, as `tar -c .` writes it
        return ""
    parts = name.split("/")
    if "\0" in name or not name.strip("/"):
        return "which is no name of a file"
    if re.search("[\ud800-\udfff]", name):  # how Python holds bytes that are no UTF-8
        return "which is not named in UTF-8"
    if "\\" in name:
        return "whose name has a backslash"
    if name.startswith("/") or any(re.match("[A-Za-z]:", part) for part in parts):
        return "which is an absolute name"
    return "which leads out of its folder" if ".." in parts else ""


def _check_no_two_in_one_place(archive: Path, members: list[Member]) -> None:
    def key(path: PurePosixPath) -> str:
        return unicodedata.normalize("NFC", str(path)).casefold()

    taken = {key(parent) for parent in {above for m in members for above in m.path.parents}}
    for member in members:
        if key(member.path) in taken:
            fault = "which is there twice, or differs from another by case or Unicode form alone"
            raise _refusal(archive, str(member.path), fault)
        taken.add(key(member.path))


def _refusal(archive: Path, name: str, fault: str) -> InputError:
    return InputError(
        f"{str(archive)!r} holds {name!r}, {fault}, and is not unpacked: download it from the data "
        "set's own page, or unpack it by hand."
    )


@contextmanager
def _open_zip(archive: Path) -> Iterator[Iterator[_Entry]]:
    with zipfile.ZipFile(archive) as opened:
        yield (_zip_entry(opened, info) for info in opened.infolist())


def _zip_entry(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    name = info.orig_filename  # `filename` is cut at a NUL
    fault = ""
    if not name.isascii() and not info.flag_bits & 0x800:
        # Without the flag zipfile reads code page 437, but macOS writes UTF-8 and no flag.
        name = name.encode("cp437").decode("utf-8", "surrogateescape")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        fault = "which is a link or special file"
    elif info.flag_bits & 0x1:
        fault = "which is encrypted"
    return _Entry(name, info.file_size, name.endswith("/"), fault, partial(opened.open, info))


@contextmanager
def _open_tar(archive: Path) -> Iterator[Iterator[_Entry]]:
    decompress: Any = {"xz": lzma.open, "gz": gzip.open}.get(archive.name.lower()[-2:], open)
    with decompress(archive, "rb") as stream:
        frugal: Any = _Frugal(stream)
        with tarfile.open(
            fileobj=frugal, mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as opened:
            yield _tar_entries(opened, frugal)


class _Frugal:
    """A stream that is read in small pieces: a header may claim more than there is memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)


def _tar_entries(opened: tarfile.TarFile, stream: _Frugal) -> Iterator[_Entry]:
    for info in opened:
        ordinary = info.isdir() or info.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        fault = "" if ordinary else "which is a link or special file"
        if info.size < 0:
            raise tarfile.ReadError("a size below 0")
        content = cast("Callable[[], IO[bytes]]", partial(opened.extractfile, info))
        yield _Entry(info.name, info.size, info.isdir(), fault, content)
    # tarfile takes a damaged header for the end; and a checksum comes after what it protects.
    stream.seek(opened.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end mark")
    if len(stream.read(_LARGEST_READ)) == _LARGEST_READ:
        raise tarfile.ReadError("it goes on after its end mark")
