import pytest
import torch
from torch import nn

from adnlib.attention import create_attention
from adnlib.coupling import couple, uncouple
from adnlib.errors import InputError


def test_uncouple_restores_the_very_same_outputs():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    x = torch.randn(2, 3, 9, 9)
    before, names = network(x), list(network.state_dict())
    couple(
        network,
        {"1": create_attention("se", 8, 2, 7, 0.5), "2": create_attention("cbam", 8, 2, 7, 0.5)},
    )
    assert not torch.equal(network(x), before)
    uncouple(network)
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == names


def test_unknown_site_is_named():
    with pytest.raises(InputError, match="'7'"):
        couple(nn.Sequential(nn.ReLU()), {"7": nn.Sigmoid()})
