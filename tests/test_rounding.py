"""Rounding by hand is what hardware with the format does, and measures what a run measures."""

import pandas as pd
import pytest
import rounding
import torch

from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.demo import make_demo
from adnlib.precision import PRECISIONS
from adnlib.run_settings import Settings
from adnlib.runs import Run

SMALL = EmbeddingSettings(weights="random", image_size=64, scales=1)


def test_tf32_has_ten_bits_of_fraction_and_fp32s_range():
    step = 2.0**-10
    values = torch.tensor([1 + step, 1 + 0.4 * step, 1 + 0.6 * step, -1 - 0.6 * step, 3e38, 1e-37])
    expected = [1 + step, 1, 1 + step, -1 - step]
    found = rounding.rounded(values, "tf32")
    assert found[:4].tolist() == expected
    assert found[4:].tolist() == pytest.approx(values[4:].tolist(), rel=2**-11, abs=0)
    many = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    errors = ((rounding.rounded(many, "tf32") - many) / many).abs()
    assert 2**-12 < errors.max() <= 2**-11


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_it_is_the_formats_own_arithmetic(precision):
    """By hand and by torch's autocast the same numbers go wrong by the same amount; sums in another
    order are rounded to another side now and then."""
    views = torch.randint(0, 256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    views = views.to(torch.uint8)

    def embedded(of: EmbeddingSettings, by_hand: str = "fp32") -> torch.Tensor:
        embedding = MultiScaleEmbedding(of, 0)
        rounding.round_convolutions(embedding.network, by_hand)
        with torch.no_grad():
            return embedding(views)

    exact = embedded(SMALL)
    native = embedded(EmbeddingSettings(**{**vars(SMALL), "precision": precision}))
    by_hand = embedded(SMALL, precision)
    error = (native - exact).norm().item()
    assert (by_hand - exact).norm().item() == pytest.approx(error, rel=0.1)
    assert (by_hand - native).norm() < 0.7 * error


def measured(folder, *options: str) -> pd.DataFrame:
    """The table of a training of 3 epochs on a few demo images in `folder`, seed 1."""
    make_demo(folder, size=256, train=5, good=2, anomalous=2)
    data = ["--data", str(folder / "demo_parts" / "bracket"), "--device", "cpu"]
    small = ["--weights", "random", "--flow-width", "16", "--views", "2", "--seeds", "1"]
    out = ["--epochs", "3", "--evaluate-every", "2", "--out", str(folder / "out.csv")]
    assert rounding.main([*data, *small, *out, *options]) == 0
    return pd.read_csv(folder / "out.csv")


def test_in_fp32_it_measures_what_a_run_measures(tmp_path, capsys):
    table = measured(tmp_path, "--precision", "fp32", "bf16")
    printed = capsys.readouterr().out
    assert set(table["precision"]) == {"fp32", "bf16"} < PRECISIONS.keys()
    run = Run(
        Settings(
            dataset="demo_parts",
            category="bracket",
            data_root=str(tmp_path),
            results=str(tmp_path / "results"),
            weights="random",
            image_size=256,
            flow_width=16,
            epochs=3,
            evaluate_every=2,
            test_views=2,
            map_views=0,
            device="cpu",
            seed=1,
        )
    )
    run.load_images()
    run.train(say=lambda _: None)
    of_run = table[table["precision"] == "fp32"].set_index("epoch")["auroc"]
    assert of_run.to_dict() == pytest.approx(
        {row["epoch"]: 100 * row["test_auroc"] for row in run.history.to_dict("records")}, abs=1e-3
    )
    assert f"{of_run[3]:.2f}" in printed.partition("bf16")[0]


@pytest.mark.filterwarnings("ignore:precision is 'bf16'")
def test_a_device_may_compute_in_the_format_itself(tmp_path, monkeypatch):
    made = []
    new_model = rounding.new_model
    monkeypatch.setattr(rounding, "new_model", lambda *of: made.append(new_model(*of)) or made[-1])
    monkeypatch.setattr(rounding, "round_convolutions", None)  # not to be called
    table = measured(tmp_path, "--precision", "bf16", "--native")
    assert [model.settings.precision for model in made] == ["bf16"]
    assert table["native"].all()


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--evaluate-every", "0", "--evaluate-every takes a number above 0."),
        (
            "--attention",
            "se",
            "attention changes the embeddings as it learns: leave out --attention.",
        ),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, capsys, option, value, says):
    assert rounding.main(["--data", str(tmp_path), option, value]) == 2
    assert capsys.readouterr().err == f"error: {says}\n"
