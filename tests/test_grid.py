"""Grid files and options: what is read, what is put in their place, what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from adnlib.errors import InputError
from adnlib.grid import GRIDS, Grid, Options, make_grid, read_grid
from adnlib.parameters import project_path
from adnlib.run_settings import Settings
from adnlib.schema import OUTSIDE, grid_schema, meanings


@dataclasses.dataclass
class General:
    kept: int = 0
    """Of the general class."""
    changed: int = 0
    """What it no longer means."""


@dataclasses.dataclass
class Special(General):
    changed: int = 1
    """What it means
    here."""


def write(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text)
    return str(path)


def test_shipped_grids_are_whole():
    names = sorted(path.stem for path in project_path(GRIDS).glob("*.yaml"))
    assert names == ["demo", "paper", "smoke", "study", "study_cpu"]
    for name in names:
        grid = make_grid(Options(profile=name))
        assert grid.attention[:3] == ("none", "se", "cbam")


def test_the_demo_is_18_runs_and_the_paper_has_no_settings_but_the_defaults():
    demo, paper = read_grid("demo"), read_grid("paper")
    assert demo.datasets is not None
    assert len(demo.datasets) * len(demo.variants()) == 18
    assert paper == Grid("paper", paper.title, None, ("none", "se", "cbam"), (0, 1, 2), {})
    assert Settings(**paper.variants()[0]) == Settings()
    runs = [(variant["seed"], variant["attention"]) for variant in paper.variants()]
    assert runs == [(seed, name) for seed in range(3) for name in ("none", "se", "cbam")]


def test_a_grid_of_ones_own(tmp_path):
    text = """
        title: Mine
        datasets: {MVTec: [Metal-Nut, screw], my-set: all}
        attention: [cbam_frozen]
        seeds: [3]
        settings: {learning_rate: 1e-3, epochs: 4}
    """
    grid = read_grid(write(tmp_path, text))
    assert grid.name == "own"
    assert grid.datasets == {"mvtec_ad": ("metal_nut", "screw"), "my_set": None}
    (variant,) = grid.variants()
    assert variant == {
        "learning_rate": 1e-3,
        "epochs": 4,
        "attention": "cbam",
        "attention_training": "frozen",
        "seed": 3,
    }
    assert Settings(**variant).variant == "cbam_frozen"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes: [0]", "no key 'sedes': did you mean 'seeds'?"),
        ("settings: {epoch: 3}", "no setting 'epoch': did you mean 'epochs'?"),
        ("settings: {seed: 3}", "seed does not belong under settings"),
        ("settings: [epochs]", "settings is ['epochs']"),
        ("settings: {epochs: 1.5}", "settings.epochs is 1.5: give a whole number"),
        ("settings: {learning_rate: fast}", "settings.learning_rate is 'fast': give a number"),
        ("settings:", "settings is None: give names with their values"),
        ("settings: {image_size: 255}", "image_size is 255"),
        ("seeds: 3", "seeds is 3: give a list of whole numbers"),
        ("seeds: [true]", "seeds.0 is True: give a whole number"),
        ("seeds: []", "seeds is []"),
        ("attention: [non]", "attention is 'non'"),
        ("attention: [simam_frozen]", "attention is 'simam_frozen'"),  # nothing to be frozen
        ("settings: {backbone: vgg}", "backbone is 'vgg': choose one of alexnet, "),
        ("settings: {attention_stages: [1, 5]}", "settings.attention_stages is [1, 5]"),
        ("datasets: [mvtec_ad]", "datasets is ['mvtec_ad']"),
        ("datasets: {mvtec_ad: bottle}", "datasets.mvtec_ad is 'bottle': give a list of names"),
        ("seeds: [0", "is not YAML"),
        ("datasets: {}", "datasets is {}: give data sets with their categories, or all"),
        ("seeds: [2026-13-01]", "is not YAML: month must be in 1..12"),
        ("datasets: most", "datasets is 'most': give data sets with their categories, or all"),
        ("", "the file is None: give a grid of runs"),
    ],
)
def test_what_is_wrong_in_a_grid_file_is_named(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        make_grid(Options(profile=write(tmp_path, text)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "stages"), [("5", "5"), ("1,5", "1,5"), ("all", "all")])
def test_stages_are_words_in_a_grid_file_and_on_the_command_line(tmp_path, text, stages):
    grid = make_grid(Options(profile=write(tmp_path, f"settings: {{attention_stages: '{text}'}}")))
    assert grid.settings["attention_stages"] == stages
    grid = make_grid(Options(profile=write(tmp_path, f"settings:\n  attention_stages: {text}")))
    assert grid.settings["attention_stages"] == stages
    grid = make_grid(Options(profile="demo", settings={"attention_stages": text}))
    assert grid.settings["attention_stages"] == stages


def test_a_file_of_weights_may_lie_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    grid = make_grid(Options(settings={"weights": "~/mine.pth"}))
    assert grid.settings["weights"] == str(tmp_path / "mine.pth")


@pytest.mark.parametrize(("text", "epochs"), [("8", 8), ("010", 10)])
def test_a_number_on_the_command_line_is_decimal(text, epochs):
    assert make_grid(Options(settings={"epochs": text})).settings["epochs"] == epochs


def test_the_schema_for_editors_is_this_one():
    written = json.loads(project_path("workflow/grid.schema.json").read_text())
    assert written == grid_schema(), "run: python -m adnlib.schema > workflow/grid.schema.json"
    Draft202012Validator.check_schema(written)
    for path in project_path(GRIDS).glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../grid.schema.json"


def test_the_schema_describes_every_setting_with_its_default():
    properties = grid_schema()["properties"]["settings"]["properties"]
    defaults = dataclasses.asdict(Settings())
    assert {*properties, *OUTSIDE} == set(defaults)
    for name, schema in properties.items():
        assert schema["default"] == defaults[name]
        assert len(schema["description"]) > 10


def test_a_field_that_is_given_anew_has_its_new_meaning():
    expected = {"kept": "Of the general class.", "changed": "What it means here."}
    assert meanings(Special) == expected


def test_an_unknown_profile_names_the_nearest_and_a_missing_file_itself(tmp_path):
    with pytest.raises(InputError, match="no profile 'papers': did you mean 'paper'"):
        read_grid("papers")
    with pytest.raises(InputError, match=r"cannot read the grid file .*none\.yaml"):
        read_grid(str(tmp_path / "none.yaml"))


def test_options_come_before_the_grid_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = Options(
        datasets=("demo-parts", "MVTec"),
        attention=("se",),
        seeds=(7,),
        settings={
            "epochs": "3",
            "learning_rate": "2e-4",
            "weights": "mine.pth",
            "save_model": "yes",
        },
        device="cpu",
        on_bad_image="skip",
    )
    grid = make_grid(options)
    assert grid.datasets == {"demo_parts": None, "mvtec_ad": None}
    (variant,) = grid.variants()
    settings = Settings(**variant)
    assert (settings.attention, settings.seed, settings.epochs) == ("se", 7, 3)
    assert (settings.learning_rate, settings.save_model) == (2e-4, True)
    assert settings.weights == str(tmp_path / "mine.pth")
    assert (settings.device, settings.on_bad_image) == ("cpu", "skip")
    assert settings.image_size == read_grid("demo").settings["image_size"]


def test_a_chosen_data_set_keeps_the_categories_of_the_grid_file(tmp_path):
    profile = write(tmp_path, "datasets: {MVTec: [Metal-Nut], my-set: all}")
    grid = make_grid(Options(profile, datasets=("mvtec_ad", "my set", "another")))
    assert grid.datasets == {"mvtec_ad": ("metal_nut",), "my_set": None, "another": None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": "3"}, "did you mean 'epochs'"),
        ({"epochs": "many"}, "epochs is 'many'"),
        ({"epochs": "0"}, "epochs is 0"),
        ({"learning_rate": "[1"}, "learning_rate is '\\[1'"),
        ({"seed": "1"}, "use --seeds"),
        ({"results": "here"}, "use --results"),
    ],
)
def test_a_wrong_assignment_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        make_grid(Options(settings=given))


def test_the_command_of_options_gives_them_again(tmp_path):
    profile = write(tmp_path, "seeds: [0]")
    options = Options(profile, data_root=tmp_path, settings={"epochs": "3"}, device="cpu")
    assert options.command() == [
        *("./run_all.sh", "--profile", profile),
        *("--data-root", str(tmp_path), "--device", "cpu", "--set", "epochs=3"),
    ]
    assert Options(cluster="slurm").command()[-2:] == ["--cluster", "slurm"]
    more = Options(results=tmp_path, on_bad_image="skip").command()
    assert more[-4:] == ["--results", str(tmp_path), "--on-bad-image", "skip"]
    assert Options(force=True).command()[-1] == "--force"
    fields = {field.name for field in dataclasses.fields(Options)}
    chosen = {"datasets", "categories", "attention", "seeds"}
    assert fields - chosen - {"jobs"} == {
        *("profile", "data_root", "results", "settings", "device", "on_bad_image", "cluster"),
        "force",
    }, "a new option belongs into command(), or among those that choose runs"
