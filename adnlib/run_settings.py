"""The settings of a run: what the train notebook and a grid file may give."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from adnlib.attention import ATTENTION
from adnlib.errors import InputError
from adnlib.images import ON_BAD_IMAGE
from adnlib.model_settings import ModelSettings
from adnlib.settings import check_choice, check_positive, check_share
from adnlib.training import HOLDOUT
from adnlib.variants import FROZEN, STANDARDIZED


@dataclass(frozen=True)
class Settings(ModelSettings):
    """Everything that makes a run: the parameters of the train notebook."""

    dataset: str = "demo_parts"
    """Data set, by the catalogue's name or its folder's."""
    category: str = "bracket"
    """One of its categories."""
    data_root: str = "data/demo"
    """Folder that holds the data sets; a relative one is seen from the repository's root."""
    results: str = "results/notebook"
    """Folder for run folders, tables and figures; a relative one is seen from the same place."""
    holdout: float = HOLDOUT
    """Share of the good training images that is kept from training. The *selected* epoch is the one
    with their lowest loss. 0 trains on all, as DifferNet does, and selects none."""
    evaluate_every: int = 8
    """Epochs between two looks at the test set; the last epoch is always looked at."""
    map_views: int = 4
    """Views that the Grad-CAM map of a test image is the mean of; 0 makes no maps."""
    on_bad_image: str = "stop"
    """"stop" or "skip" at an image that cannot be read."""
    save_model: bool = False
    """Keep the trained model in the run's folder (690 MB at the paper's width)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(vars(self), "evaluate_every")
        check_share(vars(self), "holdout")
        check_choice(vars(self), "on_bad_image", ON_BAD_IMAGE)
        if not 0 <= self.map_views <= self.test_views:
            raise InputError(
                f"map_views is {self.map_views}: give a number from 0 to test_views "
                f"({self.test_views})."
            )

    def difference(self, found: Mapping[str, Any], apart: Collection[str]) -> str:
        """The first setting that a run had otherwise, in words; "" where none but those apart is.

        A setting that the run is older than had its default.
        """
        for field in dataclasses.fields(self):
            was, now = found.get(field.name, field.default), getattr(self, field.name)
            if field.name not in apart and was != now:
                return f"{field.name} = {was!r}, not {now!r}"
        return ""

    @property
    def variant(self) -> str:
        """The attention, whether it stays untrained, and whether features are standardised."""
        frozen = ATTENTION[self.attention].learns and self.attention_training == "frozen"
        return self.attention + FROZEN * frozen + STANDARDIZED * self.standardize


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}
"""Of a run by their names; what a run older than a setting had."""
