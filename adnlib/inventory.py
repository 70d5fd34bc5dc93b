"""What lies in a folder of data sets, what is missing there, and where to get it.

It reads folders, opens no image and no archive, and changes nothing.
"""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adnlib.catalogue import (
    CATALOGUE,
    ImageCounts,
    category_name,
    dataset_name,
    published_counts,
)
from adnlib.datasets import (
    Found,
    absent,
    check_for_auroc,
    count_images,
    find,
    locate,
    oddities,
    read_samples,
)
from adnlib.demo import DEMO_SETS
from adnlib.errors import InputError
from adnlib.files import is_hidden
from adnlib.members import archive_stem

WIDTH = 100
"""Characters in a line of text; paths and addresses are not broken."""

_NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Category:
    """A category on disk.

    Attributes:
        found: its names and folder.
        counts: its images, as far as they can be read.
        defects: how many images of each, in the order of the names.
        masks: number of test images that have one.
        published: whether the counts equal the published ones; None where none were published.
        problem: a sentence, if it cannot be used.
        remarks: sentences on what is odd in one that can be used.
    """

    found: Found
    counts: ImageCounts
    defects: dict[str, int]
    masks: int
    published: bool | None
    problem: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """What `take` found.

    Attributes:
        root: the folder.
        categories: all that lie there, sorted.
        archives: those that nothing there came from, going by their names.
    """

    root: Path
    categories: tuple[Category, ...]
    archives: tuple[Path, ...]

    @property
    def usable(self) -> int:
        """How many categories can be trained on and tested."""
        return sum(not category.problem for category in self.categories)


def take(root: Path) -> Inventory:
    """Look through a folder of data sets, one data set or one category.

    Raises:
        InputError: there is no such folder.
    """
    found = find(root)
    categories = tuple(_examine(root, item) for item in found)
    return Inventory(root, categories, tuple(_archives(root, found)))


def render(inventory: Inventory) -> str:
    """The inventory as text: the sets found, the sets absent, the archives to unpack."""
    root, categories = inventory.root, inventory.categories
    usable = f"{inventory.usable} of {len(categories)} categories can be used"
    lines = [f"{root}: {usable if categories else 'holds no data set'}"]
    sets = {category.found.dataset for category in categories}
    for dataset in sorted(sets, key=[*CATALOGUE, *sorted(sets)].index):
        here = [category for category in categories if category.found.dataset == dataset]
        lines += ["", *_render_set(root, dataset, here)]
    missing = [name for name in CATALOGUE if name not in sets and name not in DEMO_SETS]
    if missing:
        lines += ["", "Not there:"]
        for name in missing:
            lines += [f"  {CATALOGUE[name].title} ({name})", *_source(name)]
    if inventory.archives:
        lines += ["", "Archives that are not unpacked:"]
        for archive in inventory.archives:
            lines.append(
                "  " + shlex.join(["adnlib", "datasets", "unpack", f"{archive}", f"{root}"])
            )
    return "\n".join(lines)


def _examine(root: Path, found: Found) -> Category:
    name = found.category
    try:
        samples = read_samples(found.folder, need_train=False)
    except InputError as error:
        return Category(found, ImageCounts(0, 0, 0), {}, 0, None, str(error), ())
    counts, published = count_images(samples), published_counts(found.dataset, name)
    problem = ""
    try:
        locate(root, found.dataset, name)
        if not counts.train_good:
            raise InputError(f"{name} has no training images: put good ones into train/good.")
        check_for_auroc(samples, name)
    except InputError as error:
        problem = str(error)
    remarks = oddities(found.dataset, name, found.folder, samples)
    return Category(
        found,
        counts,
        dict(sorted(Counter(samples.loc[samples["label"] == 1, "defect"]).items())),
        int(samples["mask"].ne("").sum()),
        counts == published if published else None,
        problem,
        () if problem else tuple(remarks),
    )


def _archives(root: Path, found: list[Found]) -> Iterator[Path]:
    known = {item.dataset for item in found} | {item.category for item in found}
    for path in sorted([*root.glob("*"), *root.glob("*/*")]):
        stem = archive_stem(path.name)
        if (
            stem
            and known.isdisjoint((dataset_name(stem), category_name(stem)))
            and not any(map(is_hidden, path.relative_to(root).parts))
            and path.is_file()
        ):
            yield path


def _render_set(root: Path, dataset: str, categories: list[Category]) -> Iterator[str]:
    info = CATALOGUE.get(dataset)
    lacking = absent(dataset, [category.found for category in categories])
    here = len({category.found.category for category in categories})
    whole = f"{here} of {here + len(lacking)}" if info and info.categories else f"{here}"
    noun = "category" if whole == "1" else "categories"
    places = {category.found.folder.absolute().parent for category in categories}
    where = sorted(str(p.relative_to(root)) if root in p.parents else str(p) for p in places)
    title = f"{info.title} ({dataset})" if info else f"{dataset} (own)"
    yield f"{title}: {whole} {noun} in {', '.join(where)}"
    yield from _table(categories)
    for category in categories:
        if category.problem:
            yield from _wrapped(f"! cannot be used: {category.problem}")
        for remark in category.remarks:
            yield from _wrapped(f"- {remark}")
    if lacking:
        yield from _wrapped(f"- not there: {', '.join(lacking)}; get them here:")
        yield from _source(dataset)


def _table(categories: list[Category]) -> Iterator[str]:
    head = ("category", "train good", "test good", "anomalous", "masks", "published", "defects")
    rows = [
        (
            category.found.category,
            f"{category.counts.train_good}",
            f"{category.counts.test_good}",
            f"{category.counts.test_anomalous}",
            f"{category.masks}",
            {None: "-", True: "equal", False: "differs"}[category.published],
        )
        for category in categories
    ]
    widths = [max(map(len, column)) for column in zip(head[:6], *rows, strict=True)]

    def line(cells: Iterable[str]) -> str:
        aligned = zip(cells, widths, "<>>>><", strict=True)
        return "  " + "  ".join(f"{cell:{side}{width}}" for cell, width, side in aligned)

    yield f"{line(head[:6])}  {head[6]}"
    for category, row in zip(categories, rows, strict=True):
        start = line(row) + "  "
        defects = ", ".join(
            f"{name} {number}".replace(" ", _NO_BREAK) for name, number in category.defects.items()
        )
        room = max(WIDTH - len(start), 40)
        first, *others = _wrapped(defects, "", "", room) or ["-"]
        yield start + first
        yield from (" " * len(start) + other for other in others)


def _source(dataset: str) -> Iterator[str]:
    info = CATALOGUE[dataset]
    for sentence in (f"{info.page} ({info.licence})", info.obtain):
        yield from _wrapped(sentence, "    ", "    ")


def _wrapped(text: str, first: str = "  ", others: str = "    ", width: int = WIDTH) -> list[str]:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]
