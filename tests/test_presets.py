import pytest

from adnlib.errors import InputError
from adnlib.model_settings import ModelSettings
from adnlib.presets import PRESETS, fit_settings


def test_paper_is_the_default_and_the_others_take_less_time():
    assert ModelSettings(**fit_settings("paper")) == ModelSettings()
    epochs = [ModelSettings(**PRESETS[name]).epochs for name in ("quick", "standard", "paper")]
    assert epochs == sorted(epochs)


def test_quick_takes_at_most_ten_minutes_for_200_images_on_two_cores():
    """By the speeds that were measured there: 35 views/s at 448 px, 1 s a step of the flow."""
    settings = ModelSettings(**PRESETS["quick"])
    assert (settings.image_size, settings.flow_width, settings.scales) == (448, 2048, 3)
    epoch = 180 * settings.train_views / 35 + -(-180 // settings.batch_images)
    assert settings.epochs * epoch + 20 * settings.test_views / 35 < 600
    assert settings.epochs * 65 + 20 * settings.test_views / 35 < 600  # with attention, measured


def test_single_settings_go_over_the_file_and_the_file_over_the_preset(tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("epochs: 5\nlearning_rate: 1e-4\n")
    found = fit_settings("quick", config, {"epochs": "6", "attention": "se"})
    own = {"epochs": 6, "learning_rate": 1e-4, "attention": "se"}
    assert found == PRESETS["quick"] | own
    (tmp_path / "empty.yaml").touch()
    assert fit_settings("quick", tmp_path / "empty.yaml") == PRESETS["quick"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epoch: 5", "no setting 'epoch': did you mean 'epochs'"),
        (b"epochs: many", "epochs is 'many'"),
        (b"epochs: -1", "epochs is -1"),
        (b"- epochs", "it holds a list"),
        (b"5", "it holds a int"),
        (b"epochs: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not YAML"),
        (b"a: !!python/object/apply:os.system [ls]", "is not YAML"),
        (b"3: 4", "no setting '3'"),
        (b"seed: .nan", "seed is nan"),
        (b"data_root: x", "no setting 'data_root'"),
        (b"[" * 5000, "is not YAML"),
    ],
)
def test_a_bad_settings_file_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        fit_settings("paper", path)
    assert "settings.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_absent_settings_file_and_unknown_names(tmp_path):
    with pytest.raises(InputError, match="cannot read the settings file"):
        fit_settings("paper", tmp_path / "no.yaml")
    with pytest.raises(InputError, match="no preset 'quik': did you mean 'quick'"):
        fit_settings("quik")
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        fit_settings("quick", single={"epoch": "3"})
