"""A GPU's way through the code, where there is none: by torch's fake tensors.

They hold no numbers, but have a shape and a device, and torch refuses to compute with two devices,
as it does on a GPU. The backward pass and recordings want a real one and are left out; a kernel
that torch knows no shapes of is replaced by two.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from adnlib import AttentDifferNet, embedding_flow, training
from adnlib.attention import ATTENTION
from adnlib.networks import NETWORKS
from adnlib.pixels import Pixels
from adnlib.precision import PRECISIONS

TINY = {"weights": "random", "image_size": 64, "scales": 1, "flow_blocks": 2, "flow_width": 16}
TINY |= {"epochs": 1, "test_views": 2, "batch_images": 2, "device": "cpu"}
IMAGES = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)


class Waits(TorchDispatchMode):
    """Counts what lets the program wait for the GPU, and answers where a number is asked for.

    Those are numbers and tensors that come back, and what goes there without `non_blocking`, such
    as positions on the CPU that a tensor there is indexed with. Of what goes there all is counted,
    too: none of it may be recorded.
    """

    count = sent = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs, aten = kwargs or {}, torch.ops.aten
        if operation is aten._local_scalar_dense.default:
            self.count += args[0].is_cuda
            return 1
        result = operation(*args, **kwargs)
        if operation in (aten._to_copy.default, aten.copy_.default):
            source = args[operation is aten.copy_.default]
            back = source.is_cuda and not result.is_cuda
            there = result.is_cuda and not source.is_cuda
            self.count += back or (there and not kwargs.get("non_blocking"))
            self.sent += there
        elif operation in (aten.index.Tensor, aten.index_put_.default):
            self.count += args[0].is_cuda and not all(i is None or i.is_cuda for i in args[1])
        return result


def as_it_is(work, _):
    return work


@contextmanager
def gpu(model: AttentDifferNet, replayed=as_it_is) -> Iterator[Waits]:
    """Within, the model is on a GPU, and works go through `replayed` in place of `Replayed`."""
    room = patch.object(torch.cuda, "mem_get_info", lambda _: (1 << 40, 1 << 40))
    kernel = patch.object(torch, "cudnn_convolution_relu", lambda *given: F.conv2d(*given).relu())
    fitting, scoring = (
        patch.object(module, "Replayed", replayed) for module in (training, embedding_flow)
    )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with room, kernel, fitting, scoring, fake, Waits() as waits:
        for module in model.modules():
            for name, tensor in module.named_parameters(recurse=False):
                moved = torch.empty_like(tensor, device="cuda")
                module.register_parameter(name, nn.Parameter(moved, tensor.requires_grad))
            for name, tensor in module.named_buffers(recurse=False):
                module.register_buffer(name, torch.empty_like(tensor, device="cuda"))
        assert model.device.type == "cuda"
        yield waits


def train(model: AttentDifferNet, images: torch.Tensor) -> None:
    def backward(loss: torch.Tensor) -> None:
        assert loss.device.type == "cuda"
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)

    with patch.object(torch.Tensor, "backward", backward):
        for _ in model.train_epochs(images):
            pass


SETTINGS = [
    {},
    {"scales": 2, "image_size": 128},
    *({"attention": name} for name in ATTENTION if name != "none"),
    {"attention": "cbam", "attention_training": "frozen"},
    {"view_bank": 6},
    {"flow_average": 0.9},
    *({"backbone": name, "attention": "se"} for name in NETWORKS if name != "alexnet"),
    {"test_angles": "grid"},
    {"standardize": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_all_tensors_are_on_the_gpu_that_meet_there(settings):
    size = settings.get("image_size", 64)
    images = torch.zeros(5, 3, size, size, dtype=torch.uint8)
    model = AttentDifferNet(**TINY | settings)
    with gpu(model):
        train(model, images)
        embedded = model.embed(images, model.test_angles(5))
        assert embedded.device.type == "cpu"
        assert model.score_embeddings(embedded).shape == (5,)
        assert model.loss_embeddings(embedded) == 1  # the number that is always read


def test_two_devices_are_refused():
    model = AttentDifferNet(**TINY)
    with gpu(model):
        model.embedding.mean = torch.zeros(1, 3, 1, 1)
        with pytest.raises(RuntimeError, match=r"same device|different devices"):
            model.embedding.embed(IMAGES.to("cuda"), torch.zeros(8, 2))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_do_not_wait_for_the_gpu_and_can_be_recorded(settings):
    """However many steps an epoch has, as often it waits; and what is recorded sends it nothing."""
    size = settings.get("image_size", 64)
    found, sent = [], []

    def unrecorded(work, _):
        def noted(*inputs):
            before = waits.sent
            made = work(*inputs)
            sent.append(waits.sent - before)
            return made

        return noted

    for images in (2, 8):
        model = AttentDifferNet(**TINY | settings)
        with gpu(model, unrecorded) as waits:
            train(model, torch.zeros(images, 3, size, size, dtype=torch.uint8))
            model.scorer()(torch.zeros(3, size, size, dtype=torch.uint8))
        found.append(waits.count)
    assert 0 < found[0] == found[1]
    assert len(sent) == 1 + 1 + 4 + 1
    assert set(sent) == {0}


def test_more_test_images_do_not_wait_more_often_for_the_gpu():
    """Those that fit there are moved together, and their embeddings come back together."""
    found = []
    for images in (IMAGES, IMAGES.repeat(8, 1, 1, 1)):
        model = AttentDifferNet(**TINY)
        with gpu(model) as waits:
            embedded = model.embed(Pixels(images), model.test_angles(len(images)))
        assert (len(embedded), embedded.device.type) == (len(images), "cpu")
        found.append(waits.count)
    assert 0 < found[0] == found[1]


class Formats(TorchDispatchMode):
    """Notes what number formats convolutions and the flow's products are in."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.mm, self.addmm = set(), set(), set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **kwargs or {})
        name = operation.overloadpacket.__name__
        if name in vars(self):
            getattr(self, name).update(tensor.dtype for tensor in (*args[:2], result))
        return result


@pytest.mark.filterwarnings("ignore:precision is:UserWarning")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_only_convolutions_leave_fp32(precision):
    model = AttentDifferNet(precision=precision, **TINY)
    with (
        patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
        patch("torch.cuda.is_bf16_supported", lambda *_: True),
        gpu(model),
        Formats() as formats,
    ):
        train(model, IMAGES)
        model.score_embeddings(model.embed(IMAGES, model.test_angles(8)))
    assert formats.convolution == {PRECISIONS[precision] or torch.float32}
    assert formats.mm == {torch.float32}
    assert not formats.addmm  # slower there
