"""Number formats of the convolutions: how far they are from fp32, and that they stay together."""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from adnlib import AttentDifferNet
from adnlib.backbones import EmbeddingSettings, MultiScaleEmbedding
from adnlib.errors import InputError
from adnlib.export import export_model
from adnlib.flow import FlowSettings, build_flow
from adnlib.model_settings import ModelSettings
from adnlib.precision import PRECISIONS, check_precision, computing, rounding
from adnlib.training import Training, TrainingSettings

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 3}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=generator)


def embedding(precision, attention="none", size=64):
    settings = EmbeddingSettings(
        attention, weights="random", image_size=size, scales=1, precision=precision
    )
    return MultiScaleEmbedding(settings, seed=0)


def test_embeddings_are_as_far_from_fp32_as_the_format_is(images):
    """A bf16 has 8 bits, an fp16 11; five layers of sums round a few times their last one."""
    exact = embedding("fp32")(images)
    errors = {
        precision: ((embedding(precision)(images) - exact).norm() / exact.norm()).item()
        for precision in ("bf16", "fp16")
    }
    assert 2**-11 < errors["bf16"] < 2**-6
    assert 2**-14 < errors["fp16"] < 2**-9


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("attention", ["none", "se", "cbam"])
def test_the_pool_sums_in_fp32(images, precision, attention):
    half = embedding(precision, attention)
    with torch.no_grad(), computing(precision, CPU):
        maps = half.network(half.normalized(images))
    embedded = half(images)
    assert maps.dtype == PRECISIONS[precision]
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded, maps.float().mean((2, 3)), rtol=1e-6, atol=0)


@pytest.mark.filterwarnings("ignore:precision is:UserWarning")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_model_is_trained_saved_and_scores_in_its_precision(images, precision, tmp_path):
    model = AttentDifferNet(attention="se", precision=precision, **TINY).fit(images)
    model.save(tmp_path)
    again = AttentDifferNet.load(tmp_path)
    assert again.settings.precision == precision
    assert torch.equal(again.score(images), model.score(images))
    exact = AttentDifferNet(attention="se", **TINY).fit(images).score(images)
    assert not torch.equal(model.score(images), exact)
    torch.testing.assert_close(model.score(images), exact, rtol=0.05, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_attention_learns_in_half_precision_what_it_learns_in_fp32(precision):
    """The loss is a mean over places and features: unscaled, fp16 has no such small gradients."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 256, 256), dtype=torch.uint8, generator=generator)

    def learned(precision):
        parts = embedding(precision, "se", 256)
        before = [p.clone() for name, p in parts.named_parameters() if ".attention." in name]
        flow = build_flow(parts.features, FlowSettings(2, 16), 0)
        list(Training(parts, flow, images, TrainingSettings(epochs=2, train_views=2), seed=0))
        after = [p for name, p in parts.named_parameters() if ".attention." in name]
        return torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)])

    change = torch.nn.functional.cosine_similarity(learned(precision), learned("fp32"), dim=0)
    assert change > 0.99


_CUDNN, _MKLDNN = torch.backends.cudnn, torch.backends.mkldnn
_FLOAT32 = (_CUDNN.conv, torch.backends.cuda.matmul, _MKLDNN.conv, _MKLDNN.matmul)


def flags():
    """What float32 is computed as by convolutions and products, on a GPU and on the CPU."""
    return [operations.fp32_precision for operations in _FLOAT32]


@pytest.fixture
def loose():
    """A program around ours that has allowed TF32 everywhere."""
    before = flags()
    for operations in _FLOAT32:
        operations.fp32_precision = "tf32"
    yield
    for operations, precision in zip(_FLOAT32, before, strict=True):
        operations.fp32_precision = precision


@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32"])
def test_float32_is_rounded_where_that_is_the_precision_and_nowhere_else(loose, precision):
    with rounding(precision, CPU):
        assert flags() == ["tf32" if precision == "tf32" else "ieee", "ieee", "ieee", "ieee"]
    assert flags() == ["tf32"] * 4


def test_threads_of_two_precisions_take_turns_and_leave_the_switches(loose):
    def look(precision):
        with rounding(precision, CPU):
            first = flags()
            time.sleep(0.01)
            return first == flags() == ["tf32" if precision == "tf32" else "ieee", *["ieee"] * 3]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(look, ["fp32", "tf32", "bf16", "tf32"] * 5))
    assert flags() == ["tf32"] * 4


def test_a_program_that_used_torchs_older_switches_finds_them_again():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = False
        with rounding("fp32", CPU):
            pass
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32 is False
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_whatever_computes_does_so_in_float32(loose, images):
    """Convolutions and products of training, scores, losses and maps, forward and backward."""
    model = AttentDifferNet(attention="se", **TINY)
    seen = []

    def note(*_):
        seen.extend(flags())

    def forward(module, _, output):
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            note()
            if output.requires_grad:
                output.register_hook(note)

    handle = torch.nn.modules.module.register_module_forward_hook(forward)
    try:
        embedded = model.embed(images, model.test_angles(len(images)))
        for compute in (
            lambda: model.fit(images, holdout=0),
            lambda: model.score(images[:1]),
            lambda: model.score_embeddings(embedded),
            lambda: model.loss_embeddings(embedded),
            lambda: model.explain(images[0]),
        ):
            seen.clear()
            compute()
            assert seen
            assert set(seen) == {"ieee"}
    finally:
        handle.remove()


@pytest.mark.filterwarnings("ignore:precision is:UserWarning")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_program_that_autocasts_changes_nothing(images, precision):
    def fitted():
        model = AttentDifferNet(attention="se", precision=precision, **TINY | {"epochs": 3})
        losses = [epoch.train_loss for epoch in model.train_epochs(images)]
        return losses, model.score(images), model.explain(images[0])

    losses, scores, heat = fitted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, scores_again, heat_again = fitted()
    assert losses == again
    assert torch.equal(scores, scores_again)
    assert torch.equal(heat, heat_again)


@pytest.mark.parametrize(
    ("capability", "refused"), [((7, 5), {"tf32", "bf16"}), ((8, 0), set()), ((9, 0), set())]
)
def test_a_gpu_computes_what_it_has_instructions_for(capability, refused, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    for precision in PRECISIONS:
        if precision in refused:
            with pytest.raises(InputError, match=f"precision is '{precision}', which cuda has not"):
                check_precision(precision, torch.device("cuda"))
        else:
            check_precision(precision, torch.device("cuda"))


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_tf32_is_refused_where_there_is_none(device):
    if device == "auto" and torch.cuda.is_available():
        pytest.skip("auto is a GPU here")
    with pytest.raises(
        InputError, match=r"precision is 'tf32', which cpu has not .* train in fp32"
    ):
        AttentDifferNet(precision="tf32", device=device, **TINY)


@pytest.mark.parametrize(
    ("precision", "capability", "warned"),
    [
        ("bf16", "avx2", 1),
        ("bf16", "avx512_bf16", 0),
        ("fp16", "avx512_bf16", 1),
        ("fp16", "avx512_fp16", 0),
        ("bf16", "fp16_arith", 1),
        ("bf16", "bf16", 0),
        ("fp16", "fp16_arith", 0),
        ("fp32", "avx2", 0),
    ],
)
def test_a_detour_is_warned_of(precision, capability, warned, monkeypatch):
    has = {"avx512_f": True, "avx512_bf16": False, "bf16": False, capability: True}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_precision(precision, torch.device("cpu"))
    assert len(caught) == warned
    assert all("several times as long as fp32" in str(each.message) for each in caught)


def test_a_model_trained_in_tf32_does_not_load_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr("adnlib.embedding_flow.check_precision", lambda *_: None)
    AttentDifferNet(precision="tf32", **TINY).save(tmp_path)
    with pytest.raises(InputError, match=r"cannot be used: precision is 'tf32'"):
        AttentDifferNet.load(tmp_path, device="cpu")


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        InputError, match="precision is 'fp8': choose one of fp32, tf32, fp16, bf16"
    ):
        ModelSettings(precision="fp8")


def test_a_half_precision_model_is_not_exported_as_if_it_were_fp32(tmp_path, images):
    model = AttentDifferNet(precision="bf16", **TINY)
    with pytest.raises(InputError, match="computes in fp32, and the model in bf16"):
        export_model(model, tmp_path / "model.pt2", images)
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_is_used_where_it_is_the_precision_and_nowhere_else(images):
    device = torch.device("cuda")
    check_precision("tf32", device)
    views = images.to(device)
    exact, fast = (embedding(precision).to(device)(views) for precision in ("fp32", "tf32"))
    close = embedding("fp32")(images)
    assert (exact.cpu() - close).norm() / close.norm() < 2**-18
    assert 2**-15 < (fast.cpu() - close).norm() / close.norm() < 2**-9
