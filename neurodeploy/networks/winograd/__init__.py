"""3 x 3 convolutions in training by Winograd's F(4 x 4, 3 x 3): a quarter of the products, in float32.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308): of a tile d of 6 x 6 inputs and
a kernel g, the 4 x 4 outputs are ``A^T [(G g G^T) * (B^T d B)] A``, the products summed over the channels by matrix
products. The transforms are compiled from ``winograd.c``, the matrix products are torch's. The gradients are the exact
adjoints of these very steps. Rounding errors are some ten times those of a plain float32 convolution, of the order of
1e-6 of the largest output; what is exported does not depend on it, because the integer grid and every score use plain
convolutions.

A dilated convolution is a plain one of the pictures that its taps see: every second, fourth, ... row and column.
Where :func:`takes` says no, torch's own convolution computes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ABI = 1
"""``ND_ABI`` of winograd.c."""
SOURCE = Path(__file__).with_name("winograd.c")
LIBRARY = "_winograd.so"

LANES = 16
"""Channels that the transforms take at once; both numbers of channels are multiples of it."""
TILE, PRODUCTS = 4, 36
CHUNK_BYTES = 4 << 20
"""What the products of one pass may take, so that they are still in the cache when they are read."""

_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div(24)
KERNEL_MATRIX = torch.kron(_KERNEL, _KERNEL).float()
"""(36, 9): G g G^T of a flattened kernel."""


@cache
def _library() -> ctypes.CDLL | None:
    file = Path(__file__).with_name(LIBRARY)
    if not file.is_file():
        return None
    try:
        handle = ctypes.CDLL(str(file))
        if int(handle.nd_winograd_abi()) != ABI:
            return None
    except (OSError, AttributeError):
        return None
    address, sizes = ctypes.c_void_p, (*(ctypes.c_int64,) * 5, ctypes.c_int)
    handle.nd_to_products.argtypes = (address, address, *sizes)
    handle.nd_to_products_adjoint.argtypes = (address, address, *sizes)
    handle.nd_from_products.argtypes = (address, address, address, *sizes)
    handle.nd_from_products_adjoint.argtypes = (address, address, *sizes)
    return handle


def available() -> bool:
    """Whether this installation has the compiled transforms."""
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
        kernel, bias = _kernel_products(weight), bias.contiguous()
        out = torch.empty((x.shape[0], weight.shape[0], *x.shape[2:]), dtype=x.dtype, memory_format=torch.channels_last)
        widest = max(weight.shape[:2])
        for part in _chunks(x, widest):
            products = torch.bmm(_to_products(x[part]), kernel, out=_room(x[part], weight.shape[0]))
            _call("nd_from_products", out[part], products, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        kernel = _kernel_products(weight).transpose(1, 2)
        grad_x = torch.zeros_like(x, memory_format=torch.channels_last) if wants_x else None
        grad_kernel = torch.zeros(PRODUCTS, weight.shape[1], weight.shape[0]) if wants_weight else None
        for part in _chunks(x, max(weight.shape[:2])):
            products = _room(grad[part], weight.shape[0])
            _call("nd_from_products_adjoint", grad[part], products)
            if grad_kernel is not None:
                grad_kernel.baddbmm_(_to_products(x[part]).transpose(1, 2), products)
            if grad_x is not None:
                back = torch.bmm(products, kernel, out=_room(x[part], weight.shape[1]))
                _call("nd_to_products_adjoint", grad_x[part], back)
        grad_weight = None
        if grad_kernel is not None:
            flat = KERNEL_MATRIX.t() @ grad_kernel.view(PRODUCTS, -1)
            grad_weight = flat.view(3, 3, weight.shape[1], weight.shape[0]).permute(3, 2, 0, 1)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wants_bias else None


def _kernel_products(weight: Tensor) -> Tensor:
    """(K, C, 3, 3) -> (36, C, K)."""
    outputs, inputs = weight.shape[:2]
    flat = weight.detach().permute(2, 3, 1, 0).reshape(9, inputs * outputs)
    return (KERNEL_MATRIX @ flat).view(PRODUCTS, inputs, outputs)


def _tiles(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)


def _chunks(x: Tensor, channels: int) -> list[slice]:
    """Parts of the batch whose products fit into :data:`CHUNK_BYTES`, one picture at least."""
    threads = torch.get_num_threads()
    each = max(1, CHUNK_BYTES * threads // (4 * PRODUCTS * channels * _tiles(x[:1])))
    return [slice(first, first + each) for first in range(0, x.shape[0], each)]


def _room(x: Tensor, channels: int) -> Tensor:
    """Memory for the products of x, (36, tiles, channels); planes are shifted so that they do not share cache sets."""
    tiles = _tiles(x)
    plane = tiles * channels + LANES
    return torch.empty(PRODUCTS * plane).as_strided((PRODUCTS, tiles, channels), (plane, channels, 1))


def _to_products(x: Tensor) -> Tensor:
    products = _room(x, x.shape[1])
    _call("nd_to_products", x, products)
    return products


def _call(name: str, values: Tensor, products: Tensor, *more: Tensor) -> None:
    """Calls a transform between (B, C, H, W), channels last, and its products."""
    handle = _library()
    if handle is None:
        raise RuntimeError("the compiled transforms are not there; ask takes() first")
    count, channels, height, width = values.shape
    threads = min(torch.get_num_threads(), count)
    sizes = (count, height, width, channels, products.stride(0), threads)
    getattr(handle, name)(values.data_ptr(), *(tensor.data_ptr() for tensor in more), products.data_ptr(), *sizes)
