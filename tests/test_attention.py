import numpy as np
import pytest
import torch
from torch import nn

from adnlib.attention import ATTENTION, create_attention
from adnlib.errors import InputError

CONTROLS = ["identity", "constant"]
BLOCKS = [name for name in ATTENTION if name != "none"]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def test_se_is_the_published_formula():
    block = create_attention("se", 32, 4, 7, 0.5)
    features = torch.randn(2, 32, 5, 7)
    w1, b1 = block.fc1.weight[:, :, 0, 0], block.fc1.bias
    w2, b2 = block.fc2.weight[:, :, 0, 0], block.fc2.bias
    squeezed = features.mean((2, 3))
    gate = sigmoid(torch.relu(squeezed @ w1.T + b1) @ w2.T + b2)
    torch.testing.assert_close(block(features), features * gate[:, :, None, None])


def test_cbam_is_the_published_formula():
    block = create_attention("cbam", 32, 8, 7, 0.5)
    features = torch.randn(2, 32, 9, 9)
    w1, b1 = block.mlp[0].weight[:, :, 0, 0], block.mlp[0].bias
    w2, b2 = block.mlp[2].weight[:, :, 0, 0], block.mlp[2].bias

    def mlp(x):
        return torch.relu(x @ w1.T + b1) @ w2.T + b2

    gate = sigmoid(mlp(features.mean((2, 3))) + mlp(features.flatten(2).max(2).values))
    features_1 = features * gate[:, :, None, None]
    stacked = torch.stack([features_1.mean(1), features_1.max(1).values], 1)
    patches = nn.functional.unfold(stacked, 7, padding=3)
    spatial = sigmoid(block.conv.weight.flatten() @ patches).view(2, 1, 9, 9)
    torch.testing.assert_close(block(features), features_1 * spatial)


@pytest.mark.parametrize(("channels", "kernel"), [(16, 3), (64, 3), (192, 5), (256, 5), (512, 5)])
def test_eca_is_the_published_formula(channels, kernel):
    """The kernels are those that the paper's equation 12 gives for these channels."""
    block = create_attention("eca", channels, 16, 7, 0.5)
    features = torch.randn(2, channels, 5, 7)
    (weight,) = block.parameters()
    assert weight.numel() == kernel
    means = np.pad(features.mean((2, 3)).numpy(), ((0, 0), (kernel // 2, kernel // 2)))
    weight = weight.detach().numpy().ravel()
    logits = [[row[c : c + kernel] @ weight for c in range(channels)] for row in means]
    gate = sigmoid(torch.tensor(np.array(logits)))
    torch.testing.assert_close(block(features), features * gate[:, :, None, None])


def test_coordinate_attention_is_the_published_formula():
    block = create_attention("coordinate", 32, 8, 7, 0.5)
    features = torch.randn(2, 32, 5, 7)
    shared, rows, columns = (
        (layer.weight[:, :, 0, 0], layer.bias[:, None])
        for layer in (block.squeeze[0], block.conv_h, block.conv_w)
    )

    def gates(means, own):
        f = shared[0] @ means + shared[1]
        f = f * (f + 3).clamp(0, 6) / 6  # h-swish
        return sigmoid(own[0] @ f + own[1])

    along_rows = gates(features.mean(3), rows)
    along_columns = gates(features.mean(2), columns)
    expected = features * along_rows[:, :, :, None] * along_columns[:, :, None, :]
    torch.testing.assert_close(block(features), expected)


def test_simam_is_the_published_formula():
    features = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    x = features.numpy()
    expected = np.empty_like(x)
    for n, c in np.ndindex(2, 4):
        t, mean, variance = x[n, c], x[n, c].mean(), x[n, c].var()
        energy = 4 * (variance + 1e-4) / ((t - mean) ** 2 + 2 * variance + 2e-4)
        expected[n, c] = t / (1 + np.exp(-1 / energy))
    np.testing.assert_allclose(create_attention("simam", 4, 16, 7, 0.5)(features), expected)


def test_simam_survives_a_map_of_one_place():
    assert create_attention("simam", 4, 16, 7, 0.5)(torch.randn(2, 4, 1, 1)).isfinite().all()


def test_controls():
    features = torch.randn(2, 8, 5, 7)
    assert create_attention("identity", 8, 16, 7, 0.5)(features) is features
    assert torch.equal(create_attention("constant", 8, 16, 7, 0.5)(features), features * 0.5)
    assert torch.equal(create_attention("constant", 8, 16, 7, 0.3)(features), features * 0.3)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("se", 2 * 64 * 4 + 4 + 64),  # 2 C^2 / r, and biases
        ("cbam", 2 * 64 * 4 + 4 + 64 + 2 * 7 * 7),
        ("eca", 3),  # k
        ("coordinate", 3 * 64 * 4 + 4 + 2 * 64),  # 3 C^2 / r, and biases
        ("simam", 0),
        ("identity", 0),
        ("constant", 0),
    ],
)
def test_parameter_count_and_gradients(name, parameters):
    block = create_attention(name, 64, 16, 7, 0.5)
    assert sum(p.numel() for p in block.parameters()) == parameters
    assert ATTENTION[name].learns == bool(parameters)
    features = torch.randn(2, 64, 8, 8, requires_grad=True)
    output = block(features)
    assert output.shape == features.shape
    output.square().sum().backward()
    assert features.grad.abs().min() > 0
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_residual_adds_the_output_to_the_input(name):
    features = torch.randn(2, 16, 6, 6)
    plain = create_attention(name, 16, 16, 7, 0.5)
    residual = create_attention(name, 16, 16, 7, 0.5, residual=True)
    if name == "identity":
        assert residual(features) is features
        return
    residual.block.load_state_dict(plain.state_dict())
    torch.testing.assert_close(residual(features), features + plain(features))


@pytest.mark.parametrize("name", ["se", "cbam", "eca", "coordinate"])
def test_open_gates_begin_near_one_and_can_learn(name):
    features = 100 * torch.randn(2, 64, 8, 8)  # as large as ImageNet's, which shut random gates
    block = create_attention(name, 64, 16, 7, 0.5, opened=True)
    plain = create_attention(name, 64, 16, 7, 0.5)
    assert [p.shape for p in block.parameters()] == [p.shape for p in plain.parameters()]
    gate = 1 / (1 + np.exp(-5)) ** (2 if name in ("cbam", "coordinate") else 1)
    torch.testing.assert_close(block(features), features * gate)
    assert (plain(features) / features).mean() < 0.6
    adam = torch.optim.Adam(block.parameters())
    for _ in range(2):  # the layers before those at zero learn from the second step on
        adam.zero_grad()
        block(features).square().sum().backward()
        adam.step()
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


def test_none_is_no_module():
    assert create_attention("none", 64, 16, 7, 0.5) is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("sse", 64, 16, 7, 0.5), "sse"),
        (("se", 64, 0, 7, 0.5), "attention_reduction"),
        (("cbam", 64, 65, 7, 0.5), "attention_reduction"),
        (("coordinate", 64, 65, 7, 0.5), "attention_reduction"),
        (("cbam", 64, 16, 6, 0.5), "attention_kernel"),
    ],
)
def test_bad_settings_are_named(arguments, named):
    with pytest.raises(InputError, match=named):
        create_attention(*arguments)


@pytest.mark.parametrize("name", ["simam", "constant"])
def test_gates_that_cannot_be_opened_are_named(name):
    with pytest.raises(InputError, match=f"attention_open.*{name}"):
        create_attention(name, 64, 16, 7, 0.5, opened=True)


def test_the_factory_lists_what_it_makes():
    assert list(ATTENTION) == ["none", "se", "cbam", "eca", "coordinate", "simam", *CONTROLS]
