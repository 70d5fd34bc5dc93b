"""The number format of the backbone's convolutions. All else, the flow above all, is in fp32.

The flow reads variances so small that a format's rounding is a part of them. So training and
scoring are in one format, which the model's settings record, and the faster ones are judged by
AUROC (`benchmarks/README.md`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import Any

import torch

from adnlib.errors import InputError

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "tf32": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""By name, what the convolutions' inputs and weights are cast to; sums are in fp32 in each."""

SWITCHES = RLock()
"""Held while torch's switches, which belong to the process, are changed: threads take turns."""

_CUDNN: Any = torch.backends.cudnn  # whose parts mypy does not see
_MKLDNN: Any = torch.backends.mkldnn
_FLOAT32 = (_CUDNN.conv, torch.backends.cuda.matmul, _MKLDNN.conv, _MKLDNN.matmul)
_AMPERE = (8, 0)
_INSTRUCTIONS = {"fp16": ("avx512_fp16", "fp16_arith"), "bf16": ("avx512_bf16", "bf16")}
"""For a format, of x86 and of ARM, as torch calls them
(https://docs.pytorch.org/docs/stable/generated/torch.cpu.get_capabilities.html)."""


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device lacks: it would silently compute in another.

    A CPU without instructions for fp16 or bf16 computes them by a detour, which is warned of.

    Raises:
        InputError: TF32 is asked for where there is none, or bf16 of an NVIDIA GPU without it.
    """
    on_nvidia = device.type == "cuda" and torch.version.cuda is not None
    needs_ampere = ("tf32", "bf16") if on_nvidia else ("tf32",)
    is_ampere = on_nvidia and torch.cuda.get_device_capability(device) >= _AMPERE
    if precision in needs_ampere and not is_ampere:
        raise InputError(
            f"precision is {precision!r}, which {device} has not (NVIDIA's GPUs from Ampere on "
            f"have it): train in fp32, and use a model trained in {precision} on such a GPU."
        )
    if device.type == "cpu" and precision in _INSTRUCTIONS and not _computes(precision):
        warnings.warn(
            f"precision is {precision!r}, which this CPU has no instructions for: it will take "
            "several times as long as fp32.",
            stacklevel=1,  # so that it is said once, whoever asks
        )


def _computes(precision: str) -> bool:
    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in _INSTRUCTIONS[precision])


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Within, the forward pass on that device has its convolutions in that precision.

    By torch's autocast (https://docs.pytorch.org/docs/stable/amp.html), whose backward pass follows
    by itself, but for TF32: that is to be within `rounding`. float64 is left alone. Nothing cast is
    kept: within a program's autocast it would be, while attention learns.
    """
    dtype = PRECISIONS[precision]
    with (
        rounding(precision, device),
        torch.autocast(device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False),
    ):
        yield


@contextmanager
def rounding(precision: str, device: torch.device) -> Iterator[None]:
    """Within, float32 is computed as such, but for a GPU's convolutions if the precision is TF32.

    torch lets cuDNN's convolutions use TF32 unless told otherwise, and a program around this one,
    or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, may have it in the flow's products, too. Its autocast would
    have these in half precision, and keep what it once made of a weight that learns.
    """
    with SWITCHES:
        before = [operations.fp32_precision for operations in _FLOAT32]
        try:
            for operations in _FLOAT32:
                operations.fp32_precision = "ieee"
            if precision == "tf32":
                _CUDNN.conv.fp32_precision = "tf32"
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            for operations, precision_before in zip(_FLOAT32, before, strict=True):
                operations.fp32_precision = precision_before


@contextmanager
def plainly() -> Iterator[None]:
    """Within, torch makes what it makes by itself: in float32, on the CPU, able to learn.

    A program around this one may have another default device or type (while it is changed, threads
    take turns), or be in inference mode.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        with SWITCHES:
            before = torch.get_default_dtype()
            if before != torch.float32:
                stack.enter_context(SWITCHES)
                stack.callback(torch.set_default_dtype, before)
                torch.set_default_dtype(torch.float32)
        yield
