"""The data sets of the paper and of this project: their names, categories, counts and terms.

It holds what was published, and nothing of what lies on disk.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import astuple, dataclass

MEAN = "mean"
"""The row of means over categories in every table, and so the name of none of them."""


@dataclass(frozen=True)
class ImageCounts:
    """Numbers of images of a category."""

    train_good: int
    test_good: int
    test_anomalous: int

    def __str__(self) -> str:
        return "/".join(map(str, astuple(self)))


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set.

    Attributes:
        title: its name in tables.
        categories: names, in the order of the tables, and counts where published; empty for a set
            whose categories are whatever lies in its folder.
        page: where to get it.
        licence: its terms.
        obtain: what to take from there, and what to do with it.
    """

    title: str
    categories: dict[str, ImageCounts | None]
    page: str
    licence: str
    obtain: str


_DRAWN = "drawn by ./run_all.sh"

CATALOGUE: dict[str, DatasetInfo] = {
    "mvtec_ad": DatasetInfo(
        "MVTec AD",
        {  # arXiv:2008.12577 and the set's own page agree on these
            "bottle": ImageCounts(209, 20, 63),
            "cable": ImageCounts(224, 58, 92),
            "capsule": ImageCounts(219, 23, 109),
            "carpet": ImageCounts(280, 28, 89),
            "grid": ImageCounts(264, 21, 57),
            "hazelnut": ImageCounts(391, 40, 70),
            "leather": ImageCounts(245, 32, 92),
            "metal_nut": ImageCounts(220, 22, 93),
            "pill": ImageCounts(267, 26, 141),
            "screw": ImageCounts(320, 41, 119),
            "tile": ImageCounts(230, 33, 84),
            "toothbrush": ImageCounts(60, 12, 30),
            "transistor": ImageCounts(213, 60, 40),
            "wood": ImageCounts(247, 19, 60),
            "zipper": ImageCounts(240, 32, 119),
        },
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        "CC BY-NC-SA 4.0",
        "mvtec_anomaly_detection.tar.xz, or the archives of single categories such as "
        "bottle.tar.xz; adnlib datasets unpack takes both",
    ),
    "insplad_fault": DatasetInfo(
        "InsPLAD-fault",
        {  # the unsupervised split of arXiv:2311.01619
            "glass_insulator": ImageCounts(2298, 581, 90),
            "lightning_rod_suspension": ImageCounts(462, 117, 50),
            "polymer_insulator_upper_shackle": ImageCounts(935, 235, 102),
            "vari_grip": ImageCounts(477, 114, 111),
            "yoke_suspension": ImageCounts(4834, 1207, 49),
        },
        "https://github.com/andreluizbvs/InsPLAD",
        "CC BY-NC 3.0",
        "unsupervised_anomaly_detection.zip, linked from the repository's README; adnlib datasets "
        "unpack takes it",
    ),
    "semiconductor_wafer": DatasetInfo(
        "Semiconductor Wafer",
        {},
        "https://doi.org/10.1007/s10845-021-01906-9",
        "private",
        "not available for download; if you have it, lay it out as "
        "semiconductor_wafer/<wafer type>/{train/good, test/good, test/<defect>}",
    ),
    "mtd": DatasetInfo(
        "MTD",
        {"magnetic_tile": ImageCounts(761, 191, 392)},  # the split published with DifferNet
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "free to use; cite Huang et al., The Visual Computer, 2020",
        "its images, put into mtd/magnetic_tile/{train/good, test/good, test/<defect>} by the "
        "split published with DifferNet",
    ),
    "elpv": DatasetInfo(
        "ELPV",  # solar cells: silicon that is public, beside the wafers that are not
        {"mono": None, "poly": None},
        "https://github.com/zae-bayern/elpv-dataset",
        "CC BY-NC-SA 4.0",
        "its images, put into elpv/{mono, poly}/{train/good, test/good, test/<defect>}",
    ),
    "demo_parts": DatasetInfo("Demo parts", {"bracket": None}, "adnlib.demo", "MIT", _DRAWN),
    "demo_outdoor": DatasetInfo("Demo outdoor", {"insulator": None}, "adnlib.demo", "MIT", _DRAWN),
    "demo_wafer": DatasetInfo("Demo wafer", {"chip": None}, "adnlib.demo", "MIT", _DRAWN),
}

_ALIASES = {
    "mvtec": "mvtec_ad",
    "mvtecad": "mvtec_ad",
    "mvtec_anomaly_detection": "mvtec_ad",
    "insplad": "insplad_fault",
    "unsupervised_anomaly_detection": "insplad_fault",  # what InsPLAD-fault's archive unpacks to
    "wafer": "semiconductor_wafer",
    "magnetic_tile_defects": "mtd",
}


def category_name(name: str) -> str:
    """A folder's name in lower case, with underscores for hyphens and spaces."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).strip().lower())


def dataset_name(name: str) -> str:
    """As `category_name`, and the catalogue's name for a data set that is known by another."""
    name = category_name(name)
    return _ALIASES.get(name, name)


def known_categories(dataset: str) -> dict[str, ImageCounts | None]:
    """As `DatasetInfo` has them; none of a data set that is not in the catalogue."""
    return CATALOGUE[dataset].categories if dataset in CATALOGUE else {}


def published_counts(dataset: str, category: str) -> ImageCounts | None:
    """How many images a category was published with, where that is known."""
    return known_categories(dataset_name(dataset)).get(category_name(category))
