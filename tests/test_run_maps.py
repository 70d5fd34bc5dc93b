"""Maps of finished runs: kept ones are read, others made by the run's model, once."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import make_pictures, make_run

from adnlib import AttentDifferNet, heatmaps, run_maps
from adnlib.errors import InputError
from adnlib.explain import saliency
from adnlib.images import read_image
from adnlib.map_kinds import USUAL, Saliency
from adnlib.record import read_run
from adnlib.records import read_runs
from adnlib.run_maps import map_views, scores_and_maps, with_maps

TINY = {"weights": "random", "image_size": 128, "scales": 2, "flow_blocks": 2, "flow_width": 16}
ENERGY = Saliency("layercam", "energy", "before")


@pytest.fixture
def run(tmp_path):
    images = make_pictures(tmp_path / "images" / "plate", good=2, anomalous=2, size=64)
    options = {"images": images, "maps": True, "map_views": 2}
    folder = make_run(tmp_path, "mine", "plate", "se", **options, **TINY)
    AttentDifferNet(attention="se", test_views=3, **TINY).save(folder)
    return read_run(folder)


def test_what_the_run_kept_is_read(run):
    assert np.array_equal(scores_and_maps(run)[1], run.maps())


def test_maps_of_another_kind_are_the_models(run):
    scores, maps = scores_and_maps(run, ENERGY)
    model = AttentDifferNet.load(run.folder)
    images = [read_image(run.image_folder([]) / path, 128) for path in scores["path"]]
    expected = saliency(model, torch.stack(images), 2, ENERGY)
    np.testing.assert_allclose(maps, expected.numpy(), rtol=1e-4, atol=1e-7)


def test_they_are_made_once(run, monkeypatch):
    _, made = scores_and_maps(run, ENERGY)
    monkeypatch.setattr(run_maps, "saliency", None)
    assert np.array_equal(scores_and_maps(run, ENERGY)[1], made)


def test_they_are_made_anew_for_another_model_and_where_they_are_damaged(run):
    _, made = scores_and_maps(run, ENERGY)
    AttentDifferNet(attention="se", seed=1, test_views=3, **TINY).save(run.folder)
    _, anew = scores_and_maps(run, ENERGY)
    assert not np.allclose(anew, made)
    (run.folder / f"maps_{ENERGY.name}.npz").write_bytes(b"PK\x03\x04 cut off")
    np.testing.assert_allclose(scores_and_maps(run, ENERGY)[1], anew, rtol=1e-4, atol=1e-7)


def test_a_run_that_kept_no_maps_has_them_made_by_its_model(run):
    (run.folder / "maps.npz").unlink()
    assert with_maps([run])
    scores, maps = scores_and_maps(run)
    assert maps.shape == (len(scores), 7, 7)
    assert np.array_equal(run.maps(), maps)


def test_kept_maps_outlast_their_model(run):
    _, made = scores_and_maps(run, ENERGY)
    (run.folder / "model.json").unlink()
    assert with_maps([run], ENERGY)
    assert np.array_equal(scores_and_maps(run, ENERGY)[1], made)


def test_without_model_and_maps_there_is_nothing(run):
    (run.folder / "model.json").unlink()
    assert with_maps([run], USUAL)
    assert not with_maps([run], ENERGY)
    with pytest.raises(OSError, match=r"model\.json"):
        scores_and_maps(run, ENERGY)


def test_images_that_are_gone_are_named(run):
    next(run.image_folder([]).glob("test/good/*.png")).unlink()
    with pytest.raises(InputError, match=r"are no longer in .*plate"):
        scores_and_maps(run, ENERGY)


def test_a_run_whose_images_are_gone_is_not_called_damaged(run, tmp_path):
    next(run.image_folder([]).glob("test/good/*.png")).unlink()
    with pytest.raises(InputError, match=r"are no longer in .*plate"):
        heatmaps.draw_gradcam(tmp_path, "mine", kind=ENERGY)


def test_an_interruption_leaves_no_half_file_of_maps(run, monkeypatch):
    (run.folder / "maps.npz").unlink()

    def interrupted(file, **_):
        Path(file).write_bytes(b"PK\x03\x04 cut off")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scores_and_maps(run)
    assert not list(run.folder.glob("maps*"))
    scores, maps = scores_and_maps(run)
    assert len(maps) == len(scores)


def test_two_processes_may_make_the_same_maps(run, monkeypatch):
    write = np.savez_compressed

    def meanwhile_another(file, **content):
        write(file, **content)
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: 0)
            patched.setattr(np, "savez_compressed", write)
            scores_and_maps(run, ENERGY)

    monkeypatch.setattr(np, "savez_compressed", meanwhile_another)
    _, made = scores_and_maps(run, ENERGY)
    assert np.array_equal(scores_and_maps(run, ENERGY)[1], made)


def test_fewer_than_no_anomalous_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="anomalous is -1"):
        heatmaps.draw_gradcam(tmp_path, "mine", anomalous=-1)


def test_a_figure_of_another_kind_has_it_in_name_and_legend(run, tmp_path, monkeypatch):
    drawn = []
    save = heatmaps.save
    monkeypatch.setattr(heatmaps, "save", lambda *args: drawn.append(args[0]) or save(*args))
    written = heatmaps.draw_gradcam(tmp_path, "mine", kind=ENERGY)
    name = "gradcam_mine_layercam_energy_before"
    assert [path.name for path in written] == [f"{name}.png", f"{name}.pdf", f"{name}_images.csv"]
    texts = " ".join(" ".join(text.get_text().split()) for text in drawn[0].texts)
    assert "LayerCAM of the embedding's energy, before attention at the last epoch" in texts


def test_maps_of_other_numbers_of_views_do_not_stand_side_by_side(tmp_path):
    for seed, views in enumerate((4, 4, 0)):
        make_run(tmp_path, seed=seed, map_views=views, maps=views > 0)
    assert len(with_maps(read_runs(tmp_path))) == 2
    make_run(tmp_path, seed=3, map_views=2, maps=True)
    with pytest.raises(InputError, match=r"differ in map_views: 4 in 2 runs such.*2 in 1 run such"):
        with_maps(read_runs(tmp_path))


@pytest.mark.parametrize(("asked", "of_model", "views"), [(3, 8, 3), (0, 8, 4), (0, 2, 2)], ids=str)
def test_maps_are_of_no_more_views_than_the_model_has(tmp_path, asked, of_model, views):
    make_run(tmp_path, map_views=asked, test_views=of_model)
    assert map_views(read_runs(tmp_path)[0]) == views
