"""Which arithmetic of the convolutions is the quickest on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from neurodeploy.distill.recipe import Precision
from neurodeploy.networks import winograd

SHARE = 0.8
"""Share of another one's time below which an arithmetic of larger rounding errors is chosen."""


@cache
def quickest(device: torch.device) -> Precision:
    """``"bf16"``, ``"winograd"`` or ``"fp32"``, by a small convolution that is timed on a CPU, forward and backward.

    There products of tiles (AMX) are several times as fast in bf16 as in float32, but those of vectors alone may be
    slower; Winograd's transforms save the time of most products. On a GPU it is bf16 where it has that.
    """
    if device.type != "cpu":
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    seconds = {name: _seconds(name) for name in _CONVOLUTIONS if name != "bf16" or _has_bf16()}
    chosen: Precision = "fp32"
    for name in ("winograd", "bf16"):  # the smaller errors first
        if seconds.get(name, float("inf")) < SHARE * seconds[chosen]:
            chosen = name
    return chosen


def _has_bf16() -> bool:
    """Whether the processor has instructions for bf16; without them torch computes it by float32, slowly."""
    checks = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    return any(check is not None and check() for check in checks)


_CONVOLUTIONS: dict[str, tuple[torch.dtype, Callable[..., Tensor]]] = {
    "fp32": (torch.float32, partial(torch.nn.functional.conv2d, padding=1)),
    "winograd": (torch.float32, partial(winograd.conv2d, padding=(1, 1), dilation=(1, 1))),
    "bf16": (torch.bfloat16, partial(torch.nn.functional.conv2d, padding=1)),
}


def _seconds(name: str, rounds: int = 4) -> float:
    """The quickest of ``rounds`` passes of a 3 x 3 convolution of 64 channels over 4 pictures of 32 x 32, both ways."""
    dtype, convolve = _CONVOLUTIONS[name]
    picture = torch.ones(4, 64, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.ones(64, 64, 3, 3, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    bias = torch.zeros(64, dtype=dtype, requires_grad=True)
    seconds = []
    for _ in range(rounds + 1):  # the first one prepares
        start = time.perf_counter()
        result = convolve(picture, weight, bias)
        result.backward(torch.ones_like(result))  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
