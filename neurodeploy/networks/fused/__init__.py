"""The spiking activations as single passes over memory, compiled from ``fused.c``; torch's operators where it is not.

Without the compiled library, on another device than the CPU, or for numbers of another format than float32 and
bfloat16, :func:`takes` says no, and the callers compute with torch.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from neurodeploy.networks.compiled import loaded

ABI = 2
"""``ND_ABI`` of fused.c."""

KINDS = {torch.float32: 0, torch.bfloat16: 1}
SURROGATES = ("triangle", "atan", "sigmoid", "superspike")
"""In the order of fused.c."""

SOURCE = Path(__file__).with_name("fused.c")
LIBRARY = "_fused.so"
SMALLEST_SHARE = 1 << 15
"""Values a thread has to have for another one to pay."""


@cache
def _library() -> ctypes.CDLL | None:
    handle = loaded(Path(__file__).with_name(LIBRARY), "nd_fused_abi", ABI)
    if handle is None:
        return None
    address, count, number, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    handle.nd_lif_forward.argtypes = (
        *(address, count, address, address, address, count, small, number, number, small, small),
    )
    handle.nd_lif_backward.argtypes = (
        *(address, count, address, address, count, address, count, small),
        *(number, number, number, small, small, small),
    )
    handle.nd_levels_forward.argtypes = (
        *(address, address, address, count, number, number, number, number, small, small),
    )
    handle.nd_levels_backward.argtypes = (
        *(address, address, address, address, count, number, number, number, number, small, small),
    )
    for function in (
        handle.nd_lif_forward,
        handle.nd_lif_backward,
        handle.nd_levels_forward,
        handle.nd_levels_backward,
    ):
        function.restype = None
    return handle


def available() -> bool:
    """Whether this installation has the compiled library."""
    return _library() is not None


def takes(x: Tensor) -> bool:
    """Whether these functions compute on a tensor: on the CPU, float32 or bfloat16, dense in memory."""
    return x.device.type == "cpu" and x.dtype in KINDS and x.numel() > 0 and available() and _is_dense(x)


def takes_steps(x: Tensor) -> bool:
    """:func:`takes` for (T, ...): every step dense, the steps one after another, or one step seen T times."""
    return takes(x[0]) and (x.shape[0] == 1 or x.stride(0) in (0, x[0].numel()))


def _is_dense(x: Tensor) -> bool:
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _handle() -> ctypes.CDLL:
    handle = _library()
    if handle is None:
        raise RuntimeError("the compiled activations are not there; ask takes() first")
    return handle


def _parts(size: int) -> Tensor:
    block = int(_handle().nd_fused_block())
    return torch.empty((size + block - 1) // block, dtype=torch.float32)


def _threads(size: int) -> int:
    return max(1, min(torch.get_num_threads(), size // SMALLEST_SHARE))


def _like(x: Tensor, pattern: Tensor) -> Tensor:
    """``x`` with the strides of ``pattern``, copied where they differ."""
    if x.stride() == pattern.stride() and x.dtype == pattern.dtype:
        return x
    return torch.empty_strided(pattern.shape, pattern.stride(), dtype=pattern.dtype).copy_(x)


def lif_forward(x: Tensor, theta: float, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of :func:`neurodeploy.networks.neurons.lif`.

    Args:
        x: (T, ...) currents that :func:`takes_steps` takes.
        theta: The threshold.
        keep: Share of the membrane kept a step.

    Returns:
        The membrane before its reset and the spikes, (T, ...) as x; the number of spikes, a float64 scalar.
    """
    one, steps = x[0], x.shape[0]
    size = one.numel()
    strides = (size, *one.stride())
    membrane, spikes = (torch.empty_strided(x.shape, strides, dtype=x.dtype) for _ in range(2))
    parts = _parts(size)
    _handle().nd_lif_forward(
        *(x.data_ptr(), x.stride(0) if steps > 1 else size, membrane.data_ptr(), spikes.data_ptr(), parts.data_ptr()),
        *(size, steps, theta, keep, KINDS[x.dtype], _threads(size)),
    )
    return membrane, spikes, parts.sum(dtype=torch.float64)


def lif_backward(
    grad: Tensor, membrane: Tensor, theta: float, keep: float, every: float, surrogate: str, *, repeated: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of the scan with respect to its currents and its threshold.

    Args:
        grad: (T, ...) gradient of the spikes; one that is expanded over T is not copied.
        membrane: What :func:`lif_forward` gave. Its memory is used for the result, so it is gone afterwards.
        theta: The threshold.
        keep: Share of the membrane kept a step.
        every: Gradient of the number of spikes.
        surrogate: One of :data:`SURROGATES`.
        repeated: Every step had the same current: the gradients of the steps are summed.

    Returns:
        (T, ...), or (1, ...) where ``repeated``; a float64 scalar.
    """
    steps, size = membrane.shape[0], membrane[0].numel()
    if steps > 1 and grad.stride(0) == 0:
        grad, g_stride = _like(grad[0], membrane[0]), 0
    else:
        grad, g_stride = _like(grad, membrane), size
    if repeated:
        grad_x = torch.empty_strided((1, *membrane.shape[1:]), membrane.stride(), dtype=membrane.dtype)
    else:
        grad_x = membrane.detach()
        torch.autograd.graph.increment_version(membrane)  # a second backward through it is refused, as it must be
    parts = _parts(size)
    _handle().nd_lif_backward(
        *(grad.data_ptr(), g_stride, membrane.data_ptr(), grad_x.data_ptr(), 0 if repeated else size, parts.data_ptr()),
        *(size, steps, theta, keep, every, KINDS[membrane.dtype], SURROGATES.index(surrogate), _threads(size)),
    )
    return grad_x, parts.sum(dtype=torch.float64)


def levels_forward(x: Tensor, before: float, inverse: float, after: float, count: int) -> tuple[Tensor, Tensor]:
    """``clip(ceil((x - before) * inverse - after), 0, count)`` of a dense tensor, and its sum, a float64 scalar."""
    out = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    size, parts = x.numel(), _parts(x.numel())
    _handle().nd_levels_forward(
        *(x.data_ptr(), out.data_ptr(), parts.data_ptr(), size, before, inverse, after, float(count)),
        *(KINDS[x.dtype], _threads(size)),
    )
    return out, parts.sum(dtype=torch.float64)


def levels_backward(
    grad: Tensor, x: Tensor, inverse: float, low: float, high: float, every: float
) -> tuple[Tensor, Tensor]:
    """``(grad + every) * inverse`` where ``low < x * inverse < high``, else 0; and the sum of minus that times x."""
    grad = _like(grad, x)
    out = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    size, parts = x.numel(), _parts(x.numel())
    _handle().nd_levels_backward(
        *(grad.data_ptr(), x.data_ptr(), out.data_ptr(), parts.data_ptr(), size, inverse, low, high, every),
        *(KINDS[x.dtype], _threads(size)),
    )
    return out, parts.sum(dtype=torch.float64)
