import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model

from adnlib import networks, weights
from adnlib.attention import create_attention
from adnlib.coupling import couple, uncouple
from adnlib.errors import InputError
from adnlib.networks import NETWORKS, build, layout, load_weights, sites

FEATURES = {"alexnet": 256, "resnet18": 512, "wide_resnet50_2": 2048, "efficientnet_b0": 1280}


def pixels(side, count=1):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_read_off_a_network_is_so(name):
    """Against the network itself; the features are those that its classifier takes."""
    found, network, seen = layout(name), build(name), {}
    for layer in found.channels:
        network.get_submodule(layer).register_forward_hook(
            lambda _, __, output, layer=layer: seen.update({layer: output.shape[1]})
        )
    with torch.no_grad():
        output = network(pixels(found.smallest))
    assert seen == dict(found.channels)
    assert output.shape == (1, found.features, 1, 1)
    assert found.features == FEATURES[name]
    assert found.smallest == (64 if name == "alexnet" else 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_torchvisions_but_for_its_head(name):
    torch.manual_seed(3)
    network = build(name)
    torch.manual_seed(3)
    reference = get_model(name, weights=None).eval()
    taken = []
    reference.avgpool.register_forward_hook(lambda _, inputs, __: taken.append(inputs[0]))
    x = pixels(64)
    with torch.no_grad():
        reference(x)
        assert torch.equal(network(x), taken[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_couples_and_is_taken_out_again(name):
    network = build(name).requires_grad_(False)
    names = list(network.state_dict())
    x = pixels(layout(name).smallest, 2)
    before = network(x)
    layers = sites(name, "figure", "all").values()
    channels = layout(name).channels
    couple(network, {c: create_attention("se", channels[c], 4, 7, 0.5) for c in layers})
    blocks = [network.get_submodule(layer).attention for layer in layers]
    output = network(x)
    assert not torch.equal(output, before)
    output.square().sum().backward()
    for block in blocks:
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    uncouple(network)
    assert torch.equal(network(x), before)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("place", "layers"),
    [
        ("figure", {"1": nn.MaxPool2d, "2": nn.MaxPool2d, "5": nn.ReLU}),
        ("relu", {"1": nn.ReLU, "2": nn.ReLU, "5": nn.ReLU}),
        ("pool", {"1": nn.MaxPool2d, "2": nn.MaxPool2d, "5": nn.MaxPool2d}),
    ],
)
def test_alexnets_placements(place, layers):
    """A stage is a convolution, its ReLU and, in three of the five, a max-pool."""
    network, found = build("alexnet"), sites("alexnet", place, "all")
    assert {stage: type(network.get_submodule(layer)) for stage, layer in found.items()} == layers
    for stage, layer in found.items():
        convolutions = [type(module) for module in network[: int(layer) + 1]].count(nn.Conv2d)
        assert convolutions == int(stage)


def test_any_subset_of_stages():
    assert sites("alexnet", "figure", "5,1") == {"1": "2", "5": "11"}
    assert sites("resnet18", "figure", "2 4") == {"2": "layer2", "4": "layer4"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("alexnet", "pools", "all"), "attention_place is 'pools': .* figure, relu, pool"),
        (("resnet18", "relu", "all"), "attention_place is 'relu': for resnet18"),
        (("alexnet", "figure", "1,3"), "attention_stages is '1,3': .* all or some of 1,2,5"),
        (("alexnet", "figure", ""), "attention_stages"),
    ],
)
def test_places_that_there_are_not(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        sites(*arguments)


@pytest.fixture(scope="module")
def state():
    """ResNet-18 as torchvision saves it, classifier and counters included."""
    return get_model("resnet18", weights=None).state_dict()


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_from_a_file(tmp_path, state, ending):
    path = tmp_path / f"mine.{ending}"
    (torch.save if ending == "pth" else save_file)(state, path)
    network = build("resnet18")
    sha256 = load_weights("resnet18", network, str(path))
    assert re.fullmatch("[0-9a-f]{64}", sha256)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])
    state_of_other = {**state, "bn1.running_var": state["bn1.running_var"] + 1}
    torch.save(state_of_other, tmp_path / "other.pth")
    assert load_weights("resnet18", network, str(tmp_path / "other.pth")) != sha256


def test_weights_of_another_network_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "mine.pth")
    with pytest.raises(InputError, match=r"mine\.pth' cannot be used \(.*layer1.*wide_resnet50_2"):
        load_weights("wide_resnet50_2", build("wide_resnet50_2"), str(tmp_path / "mine.pth"))


def test_torchvisions_weights_are_asked_for(monkeypatch, state):
    asked = []

    def fetch(url, **options):
        asked.append((url, options["check_hash"], options["weights_only"]))
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    network = build("resnet18")
    networks.load_weights("resnet18", network, "imagenet")
    assert asked == [("https://download.pytorch.org/models/resnet18-f37072fd.pth", True, True)]
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("name", ["resnet18", "wide_resnet50_2", "efficientnet_b0"])
def test_weights_out_of_reach_are_one_sentence(monkeypatch, name):
    def unreachable(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", unreachable)
    sentence = rf"^{name}'s .*no such host.*set `weights` to the path of {name}\S+\.pth, from https"
    with pytest.raises(InputError, match=sentence):
        weights.load_torchvision(name, {})
