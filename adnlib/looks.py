"""A run's looks at its test and held-out images while it trains, and those that are reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch

from adnlib.evaluation import roc
from adnlib.model import AttentDifferNet
from adnlib.pixels import Pixels
from adnlib.training import Epoch

SELECTIONS = ("last", "selected", "best_on_test", "averaged")
"""Ways to choose the epoch whose scores are reported: the last one; the one with the lowest loss of
held-out good images; the one with the highest test AUROC, which looks at the test labels as
DifferNet's published code does and is optimistic. "averaged" are the means of the scores of the
last `AVERAGED` evaluations, against the swing from one to the next."""
AVERAGED = 3


class Looks:
    """What was seen of the images, look by look.

    Args:
        model: the detector that is trained.
        samples: the run's table; looked at are its splits "test" and "holdout", if there is one.
        images: gives those of a split, in the table's order.

    Attributes:
        splits: that are looked at.
        history: one row per look.
    """

    def __init__(
        self, model: AttentDifferNet, samples: pd.DataFrame, images: Callable[[str], Pixels]
    ) -> None:
        there = [split for split in ("test", "holdout") if (samples["split"] == split).any()]
        self._model = model
        self._samples = {split: samples[samples["split"] == split] for split in there}
        self._watched = {split: _Watched(model, images(split)) for split in there}
        self._rows: list[dict[str, float]] = []

    @property
    def splits(self) -> list[str]:
        return [*self._watched]

    @property
    def history(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows)

    def take(self, epoch: Epoch, seconds: Callable[[], float]) -> dict[str, float]:
        """Look at the images as the model is after that epoch; the history's row.

        Args:
            seconds: what a row has of it, asked when the images are scored.
        """
        embedded = {split: watched.look() for split, watched in self._watched.items()}
        scores = self._watched["test"].scores[-1]
        held = embedded.get("holdout")
        row = epoch.row() | {
            "holdout_loss": math.nan if held is None else self._model.loss_embeddings(held),
            "test_auroc": roc(self._samples["test"]["label"], scores)["auroc"],
            "seconds": seconds(),
        }
        self._rows.append(row)
        return row

    def selected(self) -> dict[str, int]:
        """The look that each choice falls on, from 0; none "selected" without held-out images."""
        history = self.history
        chosen = {"last": len(history) - 1}
        if "holdout" in self._watched:
            chosen["selected"] = int(history["holdout_loss"].argmin())
        return chosen | {"best_on_test": int(history["test_auroc"].argmax())}

    def scored(self, split: str) -> pd.DataFrame:
        """That split's samples, with a column of scores for each of `SELECTIONS`."""
        scores = self._watched[split].scores
        kept = {which: scores[look] for which, look in self.selected().items()}
        kept["averaged"] = torch.stack(scores[-AVERAGED:]).mean(0)
        columns = {f"score_{which}": values.numpy() for which, values in kept.items()}
        return self._samples[split].drop(columns="split").assign(**columns)

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from."""
        scores = {split: watched.scores for split, watched in self._watched.items()}
        return {"rows": self._rows, "scores": scores}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the looks at the same images that another had taken."""
        self._rows = state["rows"]
        for split, watched in self._watched.items():
            watched.scores = state["scores"][split]


class _Watched:
    """Images looked at again and again; a backbone that does not learn embeds them once.

    Attributes:
        scores: (N,) of each look.
    """

    def __init__(self, model: AttentDifferNet, images: Pixels) -> None:
        self.scores: list[torch.Tensor] = []
        self._model = model
        self._images = images
        self._angles = model.test_angles(len(images))
        self._kept: torch.Tensor | None = None

    def look(self) -> torch.Tensor:
        """Score the images; their embeddings."""
        if self._kept is None or self._model.embedding.trained:
            self._kept = self._model.embed(self._images, self._angles)
        self.scores.append(self._model.score_embeddings(self._kept))
        return self._kept
