"""Downloaded archives to folders that `datasets.find` understands.

MVTec AD's archive has its categories at the top; others have one folder around them, or hold one
category alone. All end as `<target>/<data set>/<category>/{train, test, ground_truth}`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adnlib.catalogue import CATALOGUE, category_name, dataset_name
from adnlib.datasets import SPLITS, find
from adnlib.errors import InputError
from adnlib.files import is_hidden, is_image
from adnlib.members import Member, archive_stem, open_archive
from adnlib.staging import staging, sweep

_LARGEST_TEXT = 2**20
_CHUNK = 2**20


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        folder: the data set's.
        files: number of files written.
        left_out: number of those that are no image of a category, nor a text such as a licence.
    """

    folder: Path
    files: int
    left_out: int


def unpack(archive: Path, target: Path, dataset: str | None = None) -> Unpacked:
    """Unpack a data set, or one category of it, into a folder of data sets.

    All or nothing: files come into a hidden folder and are moved at the end, and what exists is
    never overwritten. Owners, modes and times are not kept.

    Args:
        archive: zip or tar, as `members.open_archive` takes it.
        target: the folder of data sets, made if need be; or the data set's own folder.
        dataset: folder of the data set, for an archive that does not tell.

    Raises:
        InputError: the archive is refused, is of another layout, or of no known data set; its
            categories are there already; or the disk does not take them.
    """
    home = target
    try:
        near = _nearest(target)
        sweep(near)  # before its room is measured
        with open_archive(archive, shutil.disk_usage(near).free) as members:
            folder, places = _layout(archive, members, dataset)
            if dataset_name(target.absolute().name) != dataset_name(folder):
                home = target / folder
            _check_new(target, home, folder, places)
            _write(home, places)
    except OSError as error:
        raise InputError(
            f"{str(archive)!r} cannot be unpacked into {str(home)!r} "
            f"({error.strerror or error}), and nothing was left there: see to its room and "
            "permissions, or choose another folder."
        ) from None
    return Unpacked(home, len(places), len(members) - len(places))


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _layout(
    archive: Path, members: list[Member], dataset: str | None
) -> tuple[str, dict[PurePosixPath, Member]]:
    """The name for the data set's folder, and the files to write by their places in it."""
    stem = archive_stem(archive.name) or ""
    images = [member.path for member in members if is_image(member.path.name)]
    categories = {category for path in images if (category := _category_of(path))}
    within = PurePosixPath()
    if PurePosixPath() in categories:  # train and test lie at the top
        within = PurePosixPath(stem)
        categories = {within / category for category in categories}
    bases = {category.parent for category in categories}
    if not bases:
        raise InputError(
            f"{str(archive)!r} holds no images in folders train and test: give an archive in MVTec "
            "AD's layout."
        )
    if len(bases) > 1:
        raise InputError(
            f"{str(archive)!r} holds several data sets ({', '.join(sorted(map(str, bases)))}): "
            "unpack it by hand, each into a folder of its own."
        )
    [base] = bases
    names = {category_name(category.name) for category in categories}
    places = {}
    for member in members:
        path = within / member.path
        inside = not categories.isdisjoint(path.parents)
        if (inside and is_image(path.name)) or (
            (inside or path.parent == base) and _is_text(member)
        ):
            places[path.relative_to(base)] = member
    folder = dataset or _dataset_folder(archive, stem, base.name, names)
    if re.search(r"^$|[/\\:\0]", folder) or is_hidden(folder) or folder.lower() in SPLITS:
        raise InputError(f"{folder!r} cannot be a data set's folder: give another as --dataset.")
    return folder, places


def _category_of(path: PurePosixPath) -> PurePosixPath | None:
    """The folder around the first `train` or `test`."""
    for place in reversed(path.parents):
        if place.name.lower() in SPLITS:
            return place.parent
    return None


def _is_text(member: Member) -> bool:
    name = member.path.name.lower()
    return member.size <= _LARGEST_TEXT and (
        name.endswith((".md", ".txt")) or name in ("licence", "license", "readme")
    )


def _dataset_folder(archive: Path, stem: str, top: str, names: set[str]) -> str:
    """The top folder's name or the archive's, whichever is known; else what the categories tell."""
    for name in (top, stem):
        if dataset_name(name) in CATALOGUE:
            return name
    if top:
        return top
    alone = names == {category_name(stem)}
    for name, info in CATALOGUE.items():
        published = {category for category, counts in info.categories.items() if counts}
        if names == published or (alone and names < published):
            return name
    if alone:
        raise InputError(
            f"{str(archive)!r} holds the category {stem!r} alone, and nothing tells its data set: "
            "give that as --dataset NAME."
        )
    return stem


def _check_new(target: Path, home: Path, folder: str, places: Iterable[PurePosixPath]) -> None:
    categories = {place.parts[0] for place in places if len(place.parts) > 1}
    names = {category_name(category) for category in categories}
    there = [home / category for category in sorted(categories) if (home / category).exists()]
    if target.exists():
        there += [
            found.folder
            for found in find(target)
            if found.dataset == dataset_name(folder) and found.category in names
        ]
    if there:
        raise InputError(
            f"{str(there[0])!r} is there already and is not overwritten: move it away, or unpack "
            "into another folder."
        )


def _write(home: Path, places: dict[PurePosixPath, Member]) -> None:
    near = home if home.is_dir() else home.parent
    made = [place for place in (near, *near.absolute().parents) if not place.exists()]
    near.mkdir(parents=True, exist_ok=True)
    try:
        with staging(near) as beside:
            tree = beside / "new"
            tree.mkdir()
            for place, member in places.items():
                _write_file(tree / place, member)
            _move(tree, home)
    finally:
        for above in made:
            with suppress(OSError):  # it holds the data set
                above.rmdir()


def _write_file(path: Path, member: Member) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("xb") as out:
        # One byte more is asked for, so that a file that goes on beyond its size is seen.
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            out.write(chunk)
    if left:
        raise EOFError(f"{str(member.path)!r} has not the size that it says")


def _move(tree: Path, home: Path) -> None:
    if not home.exists():
        tree.rename(home)
        return
    moved = []
    try:
        for child in sorted(tree.iterdir()):
            if child.is_file() and (home / child.name).exists():
                continue  # the licence that another category brought
            child.rename(home / child.name)
            moved.append(child)
    except BaseException:
        for child in moved:
            (home / child.name).rename(child)
        raise
