"""The grid that is asked for: a grid file, with what the command line puts in place of its parts.

Names and values are checked here; whether the data lie there is `plan`'s question.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from adnlib.catalogue import category_name, dataset_name
from adnlib.errors import InputError, one_line
from adnlib.parameters import project_path
from adnlib.run_settings import DEFAULTS, Settings
from adnlib.schema import ALL, check_grid
from adnlib.settings import check_names
from adnlib.variants import variant_settings

GRIDS = Path("workflow/grids")
OWN_OPTIONS = {
    "dataset": "--dataset",
    "category": "--category",
    "attention": "--attention",
    "seed": "--seeds",
    "data_root": "--data-root",
    "results": "--results",
    "device": "--device",
    "on_bad_image": "--on-bad-image",
}
"""Settings that `--set` leaves to an option of their own."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for; what is empty is left to the grid file."""

    profile: str = "demo"
    """A grid file of `workflow/grids` without its suffix, or the path of one."""
    data_root: Path | None = None
    results: Path | None = None
    """Default: `results/<profile>` in the repository."""
    datasets: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    attention: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Values as typed; they are read like YAML."""
    device: str | None = None
    on_bad_image: str | None = None
    jobs: int | None = None
    cluster: str | None = None
    """What `cluster.find_profile` takes; None for this machine."""
    force: bool = False
    """Whether finished runs whose settings were others are made anew."""

    def command(self) -> list[str]:
        """The command that asks for this, without its choice of runs."""
        given = {
            "--profile": self.profile
            if not _names_a_file(self.profile)
            else Path(self.profile).resolve(),
            "--data-root": self.data_root and self.data_root.resolve(),
            "--results": self.results and self.results.resolve(),
            "--device": self.device,
            "--on-bad-image": self.on_bad_image,
            "--cluster": self.cluster,
        }
        words = [word for name, value in given.items() if value for word in (name, str(value))]
        sets = [word for item in self.settings.items() for word in ("--set", "=".join(item))]
        return ["./run_all.sh", *words, *sets, *["--force"] * self.force]


@dataclass(frozen=True)
class Grid:
    """Data sets x attention x seeds with the settings that all its runs share.

    `datasets` gives the categories of each data set, None for all that are found; `datasets` itself
    is None for every data set that is found.
    """

    name: str
    title: str
    datasets: Mapping[str, tuple[str, ...] | None] | None
    attention: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]

    def variants(self) -> list[dict[str, Any]]:
        """The settings of each attention and seed, by seed first."""
        return [
            {**self.settings, **variant_settings(name), "seed": seed}
            for seed in self.seeds
            for name in self.attention
        ]


def make_grid(options: Options) -> Grid:
    """The profile's grid file with the options in the place of its parts.

    Raises:
        InputError: the profile is unknown or wrong, or a setting has an unknown name or a wrong
            value.
    """
    grid = read_grid(options.profile)
    for name in options.settings:
        if name in OWN_OPTIONS:
            raise InputError(f"--set does not take {name}: use {OWN_OPTIONS[name]}.")
    check_names(options.settings, DEFAULTS)
    settings = {name: read_value(text) for name, text in options.settings.items()}
    own = {"device": options.device, "on_bad_image": options.on_bad_image}
    datasets = grid.datasets
    if options.datasets:
        chosen = map(dataset_name, options.datasets)
        datasets = {name: (grid.datasets or {}).get(name) for name in chosen}
    grid = dataclasses.replace(
        grid,
        datasets=datasets,
        attention=options.attention or grid.attention,
        seeds=options.seeds or grid.seeds,
        settings={
            **grid.settings,
            **typed(settings),
            **{name: value for name, value in own.items() if value},
        },
    )
    for variant in grid.variants():
        Settings(**variant)
    return grid


def read_grid(profile: str) -> Grid:
    """The grid file of that name or path.

    Raises:
        InputError: there is none, it is no YAML, or it has an unknown key or a wrong value.
    """
    path = Path(profile)
    if not _names_a_file(profile):
        folder = project_path(GRIDS)
        known = [file.stem for file in folder.glob("*.yaml")]
        if not known:
            raise InputError(f"there is no {folder}: run this in a checkout of the repository.")
        check_names([profile], known, "profile")
        path = folder / f"{profile}.yaml"
    content = read_yaml(path, "grid file")
    try:
        return _grid(path.stem, content)
    except InputError as error:
        raise InputError(f"in the grid file {path}: {error}") from error


def _names_a_file(profile: str) -> bool:
    return Path(profile).suffix in (".yaml", ".yml")


def _grid(name: str, content: Any) -> Grid:
    if isinstance(content, dict) and isinstance(content.get("settings"), dict):
        content = {**content, "settings": typed(content["settings"])}
    check_grid(content)
    datasets = content.get("datasets", ALL)
    return Grid(
        name=name,
        title=content.get("title", name),
        datasets=None
        if datasets == ALL
        else {
            dataset_name(str(dataset)): None if chosen == ALL else tuple(map(category_name, chosen))
            for dataset, chosen in datasets.items()
        },
        attention=tuple(content.get("attention", ["none"])),
        seeds=tuple(content.get("seeds", [0])),
        settings=content.get("settings", {}),
    )


def read_yaml(path: Path, what: str) -> Any:
    """What a YAML file holds.

    Args:
        what: the kind of file, for an error's sentence.

    Raises:
        InputError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"the {what} {path} is not YAML: {one_line(error)}.") from error


def read_value(text: str) -> Any:
    """A value as typed on the command line, read like YAML."""
    try:
        return int(text) if text.isdecimal() else yaml.safe_load(text)  # to YAML 1.1 010 is eight
    except (yaml.YAMLError, ValueError):  # such as 2026-13-01, which is no date
        return text


def typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the values that YAML 1.1 misreads put right, and a weights file's whole
    path.

    Raises:
        InputError: the path begins with an unknown user's home.
    """
    mended = _weights_from_here(settings)
    for name, value in settings.items():
        if isinstance(DEFAULTS.get(name), float) and isinstance(value, str):
            # YAML 1.1 reads 2e-4, without a point, as text. What is text indeed, Settings names.
            with contextlib.suppress(ValueError):
                mended[name] = float(value)
        if name == "attention_stages" and type(value) is int:
            mended[name] = str(value)  # one stage; "1,5" is text to YAML
    return mended


def _weights_from_here(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the path that a file of weights has for a kernel which is elsewhere."""
    if settings.get("weights", "imagenet") in ("imagenet", "random"):
        return dict(settings)
    file = str(settings["weights"])
    try:
        return {**settings, "weights": str(Path(file).expanduser().resolve())}
    except RuntimeError as error:
        raise InputError(f"weights is {file!r}: give a file ({error}).") from None
