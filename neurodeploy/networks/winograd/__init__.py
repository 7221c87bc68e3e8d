"""3 x 3 convolutions in training by Winograd's F(4 x 4, 3 x 3): a quarter of the products, in float32.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308): of a tile d of 6 x 6 inputs and
a kernel g, the 4 x 4 outputs are ``A^T [(G g G^T) * (B^T d B)] A``, the products summed over the channels by matrix
products; all of that is compiled from ``winograd.c``. The gradient of the input is the same convolution with the kernel
turned round, that of the kernel the adjoint of these steps. Rounding errors are some ten times those of a plain float32
convolution, of the order of 1e-5 of the largest value; what is exported does not depend on it, because the integer
grid and every score use plain convolutions.

A dilated convolution is a plain one of the pictures that its taps see: every second, fourth, ... row and column.
Where :func:`takes` says no, torch's own convolution computes.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from neurodeploy.networks.compiled import loaded

ABI = 3
"""``ND_ABI`` of winograd.c."""
SOURCE = Path(__file__).with_name("winograd.c")
LIBRARY = "_winograd.so"

LANES = 16
"""Channels that are computed at once; both numbers of channels are multiples of it."""
PRODUCTS = 36
WIDEST = {"none": 0, "plain": 0, "avx2": 1}
"""What ``NEURODEPLOY_KERNEL`` allows, as winograd.c counts; anything else allows everything."""

_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div(24)
KERNEL_MATRIX = torch.kron(_KERNEL, _KERNEL).float()
"""(36, 9): G g G^T of a flattened kernel."""


@cache
def _library() -> ctypes.CDLL | None:
    handle = loaded(Path(__file__).with_name(LIBRARY), "nd_winograd_abi", ABI)
    if handle is None:
        return None
    address, sizes = ctypes.c_void_p, (*(ctypes.c_int64,) * 5, *(ctypes.c_int,) * 2)
    handle.nd_winograd_room.argtypes, handle.nd_winograd_room.restype = (ctypes.c_int64,) * 2, ctypes.c_int64
    handle.nd_winograd_convolve.argtypes, handle.nd_winograd_convolve.restype = (*(address,) * 5, *sizes), None
    handle.nd_winograd_correlate.argtypes, handle.nd_winograd_correlate.restype = (*(address,) * 4, *sizes), None
    return handle


def available() -> bool:
    """Whether this installation has the compiled convolutions."""
    return _library() is not None


def takes(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> bool:
    """Whether :func:`conv2d` computes this itself: 3 x 3, float32 on the CPU, channels in 16s, the size kept.

    With a dilation, that has to divide the height and the width.
    """
    return (
        weight.shape[2:] == (3, 3)
        and tuple(padding) == tuple(dilation) == (dilation[0],) * 2
        and x.shape[2] % dilation[0] == x.shape[3] % dilation[0] == 0
        and weight.shape[0] % LANES == 0
        and weight.shape[1] % LANES == 0
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() > 0
        and available()
    )


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, *, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """:func:`torch.nn.functional.conv2d` with stride 1, with gradients.

    Args:
        x: (B, C, H, W).
        weight: (K, C, kh, kw).
        bias: (K,).
        padding: Zeros at the borders, by height and width.
        dilation: Distance of the taps.

    Returns:
        (B, K, H', W').
    """
    if not takes(x, weight, padding, dilation):
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)
    step = dilation[0]
    signal = _thinned(x, step) if step > 1 else x
    out: Tensor = _Convolution.apply(signal, weight, bias)  # type: ignore[no-untyped-call]
    return _joined(out, step) if step > 1 else out


def convolve_by_it(network: nn.Module) -> None:
    """Makes the convolutions of a network that is only run, a teacher, compute as :func:`conv2d` does.

    Of modules without convolutions of torch, it is the method ``convolve_by`` that does so.
    """
    for module in network.modules():
        convolve_by = getattr(module, "convolve_by", None)
        if convolve_by is not None:
            convolve_by(conv2d)
        if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward:
            continue
        plain = module.stride == (1, 1) and module.groups == 1 and module.padding_mode == "zeros"
        if plain and not isinstance(module.padding, str):
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Conv2d, x: Tensor) -> Tensor:
    bias = torch.zeros(module.out_channels, dtype=x.dtype, device=x.device) if module.bias is None else module.bias
    return conv2d(x, module.weight, bias, padding=module.padding, dilation=module.dilation)  # type: ignore[arg-type]


def _thinned(x: Tensor, step: int) -> Tensor:
    """(B, C, H, W) -> (B step^2, C, H / step, W / step): every step-th row and column, from each first one."""
    count, channels, height, width = x.shape
    parts = x.permute(0, 2, 3, 1).reshape(count, height // step, step, width // step, step, channels)
    parts = parts.permute(0, 2, 4, 5, 1, 3).reshape(count * step**2, channels, height // step, width // step)
    return parts.contiguous(memory_format=torch.channels_last)


def _joined(parts: Tensor, step: int) -> Tensor:
    """What :func:`_thinned` was made of; channels last."""
    count, channels, height, width = parts.shape[0] // step**2, *parts.shape[1:]
    whole = parts.view(count, step, step, channels, height, width).permute(0, 4, 1, 5, 2, 3)
    return whole.reshape(count, height * step, width * step, channels).permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad_x = grad_weight = None
        if wants_x:
            grad_x = _convolved(grad, weight.flip(2, 3).transpose(0, 1), torch.zeros(weight.shape[1]))
        if wants_weight:
            grad_weight = _correlated(x, grad)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wants_bias else None


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, K, H, W) of (B, C, H, W), (K, C, 3, 3) and (K,); pictures channels last."""
    outputs, inputs = weight.shape[:2]
    flat = weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    kernel = KERNEL_MATRIX @ flat  # (36, C K)
    shape = (x.shape[0], outputs, *x.shape[2:])
    out = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    shift = bias.detach().contiguous()
    _call("convolve", x, outputs, kernel, shift, out)
    return out


def _correlated(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weight, (K, C, 3, 3); pictures channels last."""
    inputs, outputs = x.shape[1], grad.shape[1]
    kernels = torch.zeros(_threads(x), PRODUCTS, inputs * outputs)
    _call("correlate", x, outputs, grad, kernels)
    flat = KERNEL_MATRIX.t() @ kernels.sum(0)
    return flat.view(3, 3, inputs, outputs).permute(3, 2, 0, 1)


def _threads(x: Tensor) -> int:
    return min(torch.get_num_threads(), x.shape[0])


def _call(name: str, x: Tensor, outputs: int, *others: Tensor) -> None:
    handle = _library()
    if handle is None:
        raise RuntimeError("the compiled convolutions are not there; ask takes() first")
    count, inputs, height, width = x.shape
    threads, widest = _threads(x), WIDEST.get(os.environ.get("NEURODEPLOY_KERNEL", ""), 2)
    room = torch.empty(threads * handle.nd_winograd_room(inputs, outputs))
    addresses = (tensor.data_ptr() for tensor in (x, *others, room))
    getattr(handle, f"nd_winograd_{name}")(*addresses, count, height, width, inputs, outputs, threads, widest)
