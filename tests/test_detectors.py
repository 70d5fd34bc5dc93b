import numpy as np
import pytest
import torch

from adnlib import AttentDifferNet
from adnlib.detectors import Gaussian, Neighbours
from adnlib.errors import InputError

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 1, "flow_width": 8}
TINY |= {"test_views": 3, "device": "cpu"}


def some(images, seed=0, views=3, features=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, views, features, generator=generator)


def test_gaussian_is_the_shrunk_mahalanobis_distance():
    """Ledoit and Wolf's shrinkage and the distance, written anew."""
    good, test = some(20).double(), some(4, seed=1).double()
    x = good.flatten(0, 1).numpy()
    mean = x.mean(0)
    x = x - mean
    count, features = x.shape
    sample = x.T @ x / count
    target = np.trace(sample) / features * np.eye(features)
    spread = np.mean([((np.outer(row, row) - sample) ** 2).sum() for row in x]) / count
    shrinkage = min(spread / ((sample - target) ** 2).sum(), 1)
    inverse = np.linalg.inv((1 - shrinkage) * sample + shrinkage * target)
    off = test.numpy() - mean
    expected = np.einsum("nvf,fg,nvg->nv", off, inverse, off).mean(1) / features
    np.testing.assert_allclose(Gaussian().fit(good).score(test), expected, rtol=1e-8)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_neighbours_is_the_mean_distance_to_the_nearest(k):
    good, test = some(5).double(), some(4, seed=1).double()
    distances = torch.cdist(test.flatten(0, 1), good.flatten(0, 1))
    expected = distances.sort(1).values[:, :k].mean(1).view(4, 3).mean(1)
    torch.testing.assert_close(Neighbours(k).fit(good).score(test), expected)


@pytest.mark.parametrize("k", [0, 16])
def test_neighbours_that_there_are_not(k):
    with pytest.raises(InputError, match=r"neighbours is .* from 1 to 15"):
        Neighbours(k).fit(some(5))


@pytest.mark.parametrize("attention", ["none", "se", "cbam", "coordinate"])
@pytest.mark.parametrize("detector", [Gaussian, Neighbours])
def test_attention_couples_to_what_is_no_flow(attention, detector):
    """The same road as the flow's up to the embedding: untrained blocks in a random backbone."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (14, 3, 64, 64), dtype=torch.uint8, generator=generator)
    images[-3:, :, 16:48, 16:48] = 255
    model = AttentDifferNet(attention=attention, attention_training="frozen", **TINY)
    embedded = model.embed(images, model.test_angles(len(images)))
    scores = detector().fit(embedded[:8]).score(embedded[8:])
    assert scores.shape == (6,)
    assert scores[3:].min() > scores[:3].max()
    plain = AttentDifferNet(attention="none", **TINY).embed(images, model.test_angles(14))
    assert torch.equal(embedded, plain) == (attention == "none")
