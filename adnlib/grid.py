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
from adnlib.errors import InputError
from adnlib.runs import Settings, project_path
from adnlib.settings import check_names

GRIDS = Path("workflow/grids")
ALL = "all"
FROZEN = "_frozen"
"""Behind an attention name of the grid: its blocks keep their random values."""

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

KEYS = {
    "title": "one line that says what the grid is for",
    "datasets": "for each data set a list of categories or all; or all, for every set there is",
    "attention": "none, se, cbam, and se_frozen, cbam_frozen for blocks that are not trained",
    "seeds": "whole numbers; each cell of the grid is run once with each",
    "settings": "what differs from the defaults of runs.Settings",
}
"""The keys of a grid file."""

_NOT_SETTINGS = ("dataset", "category", "attention", "seed", "results")


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

    def command(self) -> list[str]:
        """The command that asks for this, without its choice of runs."""
        given = {
            "--profile": self.profile
            if not _is_file(self.profile)
            else Path(self.profile).resolve(),
            "--data-root": self.data_root and self.data_root.resolve(),
            "--results": self.results and self.results.resolve(),
            "--device": self.device,
            "--on-bad-image": self.on_bad_image,
            "--cluster": self.cluster,
        }
        words = [word for name, value in given.items() if value for word in (name, str(value))]
        sets = [word for item in self.settings.items() for word in ("--set", "=".join(item))]
        return ["./run_all.sh", *words, *sets]


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
            {**self.settings, **_attention(name), "seed": seed}
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
    settings = {name: _read_value(text) for name, text in options.settings.items()}
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
            **_typed(settings),
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
    if not _is_file(profile):
        folder = project_path(GRIDS)
        known = [file.stem for file in folder.glob("*.yaml")]
        if not known:
            raise InputError(f"there is no {folder}: run this in a checkout of the repository.")
        check_names([profile], known, "profile")
        path = folder / f"{profile}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _check_grid(path.stem, content)
    except OSError as error:
        raise InputError(f"cannot read the grid file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"the grid file {path} is not YAML: {reason}.") from error
    except InputError as error:
        raise InputError(f"in the grid file {path}: {error}") from error


def _is_file(profile: str) -> bool:
    return Path(profile).suffix in (".yaml", ".yml")


def _check_grid(name: str, content: Any) -> Grid:
    if not isinstance(content, dict):
        raise InputError(f"it has no keys; give {', '.join(KEYS)}.")
    check_names(map(str, content), KEYS, "key")
    datasets = content.get("datasets", ALL)
    if datasets != ALL and not isinstance(datasets, dict):
        raise InputError(f"datasets is {datasets!r}: give data sets with their categories, or all.")
    settings = content.get("settings") or {}
    if not isinstance(settings, dict):
        raise InputError(f"settings is {settings!r}: give names with their values.")
    for setting in settings:
        if setting in _NOT_SETTINGS:
            raise InputError(
                f"{setting} does not belong under settings: the grid or an option sets it."
            )
    return Grid(
        name=name,
        title=str(content.get("title", name)),
        datasets=None
        if datasets == ALL
        else {
            dataset_name(str(dataset)): _categories(dataset, chosen)
            for dataset, chosen in datasets.items()
        },
        attention=_list("attention", content.get("attention", ["none"]), str),
        seeds=_list("seeds", content.get("seeds", [0]), int),
        settings=_typed(settings),
    )


def _categories(dataset: Any, chosen: Any) -> tuple[str, ...] | None:
    if chosen == ALL:
        return None
    return tuple(map(category_name, _list(f"{dataset}", chosen, str)))


def _list(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value or any(type(item) is not kind for item in value):
        wanted = "whole numbers" if kind is int else "names"
        raise InputError(f"{name} is {value!r}: give a list of {wanted} in brackets.")
    return tuple(value)


def _read_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Known names, with the values that YAML takes for something else than they are."""
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    check_names(map(str, settings), defaults)
    typed = dict(settings)
    for name, value in settings.items():
        if isinstance(defaults[name], float) and isinstance(value, str):
            # YAML 1.1 reads 2e-4, without a point, as text. What is text indeed, Settings names.
            with contextlib.suppress(ValueError):
                typed[name] = float(value)
    if typed.get("weights", "imagenet") not in ("imagenet", "random"):
        # A file: named from where the user is, but read by a kernel which is elsewhere.
        typed["weights"] = str(Path(str(typed["weights"])).expanduser().resolve())
    return typed


def _attention(name: str) -> dict[str, str]:
    base = name.removesuffix(FROZEN)
    if base in (name, "none"):
        return {"attention": name}
    return {"attention": base, "attention_training": "frozen"}
