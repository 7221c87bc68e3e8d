"""Spiking activations with surrogate gradients: integer levels at one time step, LIF with hard reset over several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neurodeploy.networks import fused

Surrogate = Callable[[Tensor], Tensor]
"""Derivative of the spike with respect to (v - threshold) / scale, a window around 0 with area about 1."""


def _triangle(x: Tensor) -> Tensor:
    return (1.0 - x.abs()).clamp_(min=0.0)


def _atan(x: Tensor) -> Tensor:
    return 1.0 / (1.0 + (torch.pi * x).square())


def _sigmoid(x: Tensor) -> Tensor:
    s = torch.sigmoid(4.0 * x)
    return 4.0 * s * (1.0 - s)


def _superspike(x: Tensor) -> Tensor:
    return (1.0 + 2.5 * x.abs()).square().reciprocal()


SURROGATES: dict[str, Surrogate] = {
    "triangle": _triangle,
    "atan": _atan,
    "sigmoid": _sigmoid,
    "superspike": _superspike,
}


class Fired(NamedTuple):
    """What a spiking layer sends on, and the mean of it (a float32 scalar), through which gradients flow as well."""

    spikes: Tensor
    mean: Tensor


class _Digits(torch.autograd.Function):
    """Mean number of spikes that counts 0..D take as digits; see :mod:`neurodeploy.quantize.digits`.

    Backward: that of log2(1 + count), which the number of binary digits rises with: a smaller count saves the more the
    smaller it is. Saves the counts alone.
    """

    @staticmethod
    def forward(ctx: Any, counts: Tensor, digits: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(counts)
        total = torch.zeros((), device=counts.device)
        rest = counts
        for digit in digits:
            sent = (rest / digit).floor()
            rest = rest - digit * sent
            total = total + sent.sum(dtype=torch.float32)
        return total / counts.numel()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        (counts,) = ctx.saved_tensors
        (grad,) = grads
        if grad is None:
            return None, None
        return (grad / (math.log(2.0) * counts.numel())).to(counts.dtype) / (1.0 + counts), None


def mean_digits(counts: Tensor, digits: tuple[int, ...]) -> Tensor:
    """Mean number of spikes of neurons that send counts as digits.

    Args:
        counts: Integers 0..D of any shape and float dtype.
        digits: The largest first, the last 1.

    Returns:
        A float32 scalar.
    """
    mean: Tensor = _Digits.apply(counts, digits)  # type: ignore[no-untyped-call]
    return mean


WINDOW = (0.5, 0.5)
"""How far the gradient passes below the step from 0 to 1 and above the one from D - 1 to D, in steps."""


class _Levels(torch.autograd.Function):
    """count = #{i in 1..D: x > delta (i - 1/2)} = clip(ceil(x / delta - 1/2), 0, D); straight through in between.

    With ``first`` and ``spacing``: count = clip(ceil((x - first) / spacing), 0, D), the thresholds of the integer grid.
    Backward: d count / d x = 1 / delta and d count / d delta = -x / delta^2 where -1/2 < x / delta < D + 1/2, else 0
    (Esser et al., "Learned step size quantization", arXiv 1902.08153, with the output counted in steps). Saves x alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, levels: int, grid: tuple[float, float] | None) -> Any:
        ctx.save_for_backward(x, delta)
        ctx.levels = levels
        ctx.set_materialize_grads(False)
        if fused.takes(x):
            before, inverse, after = (0.0, 1.0 / float(delta), 0.5) if grid is None else (grid[0], 1.0 / grid[1], 0.0)
            counts, total = fused.levels_forward(x, before, inverse, after, levels)
        else:
            if grid is None:
                counts = (x * delta.reciprocal().to(x.dtype) - 0.5).ceil_().clamp_(0, levels)
            else:
                counts = (x - grid[0]).mul_(1.0 / grid[1]).ceil_().clamp_(0, levels)
            total = counts.sum(dtype=torch.float32)
        return counts, (total / x.numel()).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        x, delta = ctx.saved_tensors
        grad, every = _of_spikes_and_mean(grads, x)
        low, high = -WINDOW[0], ctx.levels + WINDOW[1]
        if fused.takes(x):
            grad_x, total = fused.levels_backward(grad, x, 1.0 / float(delta), low, high, float(every))
        else:
            scaled = x * delta.reciprocal().to(x.dtype)
            # one fused pass: the gradient where the input lies inside the window, else 0
            through = torch.ops.aten.hardtanh_backward(grad + every.to(grad.dtype), scaled, low, high)
            total = -(through * scaled).sum()
            grad_x = through * delta.reciprocal().to(through.dtype)
        return grad_x, (total.to(delta.dtype) / delta).reshape(delta.shape), None, None


def _of_spikes_and_mean(grads: tuple[Tensor | None, ...], like: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the spikes, and what that of their mean adds to each of them."""
    spikes, mean = grads
    every = torch.zeros((), device=like.device) if mean is None else mean / like.numel()
    return torch.zeros_like(like) if spikes is None else spikes, every


class _LifScan(torch.autograd.Function):
    """u_t = (1 - decay) v_(t-1) + x_t; s_t = [u_t > theta]; v_t = u_t (1 - s_t), v_0 = 0. Saves u alone.

    Backward, t = T-1 .. 0, with g_t the incoming gradient, gv = 0 at first and sg the surrogate's derivative at
    (u_t - theta) / theta, over theta: q = gv (1 - s_t) + (g_t - u_t gv) sg; dx_t = q; dtheta -= (g_t - u_t gv) sg
    u_t / theta; gv = (1 - decay) q.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, decay: float, surrogate: str, steps: int) -> Any:
        keep = 1.0 - decay
        currents = x if x.shape[0] == steps else x.expand(steps, *x.shape[1:])
        if fused.takes_steps(currents):
            membrane, spikes, total = fused.lif_forward(currents, float(theta), keep)
        else:
            membrane, spikes = _scan(currents, theta, keep)
            total = spikes.sum(dtype=torch.float32)
        ctx.save_for_backward(membrane, theta)
        ctx.keep, ctx.surrogate, ctx.repeated = keep, surrogate, x.shape[0] != steps
        ctx.set_materialize_grads(False)
        return spikes, (total / spikes.numel()).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        membrane, theta = ctx.saved_tensors
        grad, every = _of_spikes_and_mean(grads, membrane)
        if fused.takes_steps(membrane):
            settings = (float(theta), ctx.keep, float(every), ctx.surrogate)
            grad_x, grad_theta = fused.lif_backward(grad, membrane, *settings, repeated=ctx.repeated)
        else:
            grad_x, grad_theta = _scan_back(grad + every.to(grad.dtype), membrane, theta, ctx.keep, ctx.surrogate)
            grad_x = grad_x.sum(0, keepdim=True) if ctx.repeated else grad_x
        return grad_x, grad_theta.to(theta.dtype).reshape(theta.shape), None, None, None


def _scan(x: Tensor, theta: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    threshold = theta.to(x.dtype)
    membrane, spikes = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
    v: Tensor | None = None
    for t in range(x.shape[0]):
        u = membrane[t]
        if v is None:
            u.copy_(x[t])
        else:
            torch.add(x[t], v, alpha=keep, out=u)
        torch.gt(u, threshold, out=spikes[t])
        v = u - u * spikes[t]
    return membrane, spikes


def _scan_back(grad: Tensor, membrane: Tensor, theta: Tensor, keep: float, surrogate: str) -> tuple[Tensor, Tensor]:
    threshold = theta.to(membrane.dtype)
    grad_x = torch.empty_like(membrane)
    wide = torch.promote_types(membrane.dtype, torch.float32)
    grad_theta = torch.zeros((), dtype=wide, device=membrane.device)
    gv: Tensor | None = None
    for t in range(membrane.shape[0] - 1, -1, -1):
        u = membrane[t]
        slope = SURROGATES[surrogate]((u - threshold) / threshold) / threshold
        if gv is None:
            at_spike = grad[t] * slope
            q = at_spike
        else:
            at_spike = (grad[t] - u * gv) * slope
            q = gv * (u <= threshold) + at_spike
        grad_theta -= (at_spike * (u / threshold)).sum(dtype=wide)
        grad_x[t] = q
        gv = keep * q
    return grad_x, grad_theta


def levels(x: Tensor, delta: Tensor, count: int) -> Fired:
    """Integer activation 0..D with a learned step.

    Args:
        x: Input current, any shape.
        delta: Step, a positive scalar tensor.
        count: D, the number of levels above 0.

    Returns:
        Same shape and dtype: the number of thresholds ``delta * (i - 1/2)``, i = 1..D, that x exceeds; and its mean.
    """
    return Fired(*_Levels.apply(x, delta, count, None))  # type: ignore[no-untyped-call]


def levels_on_grid(x: Tensor, first: float, spacing: float, delta: Tensor, count: int) -> Fired:
    """Integer activation 0..D with explicit, evenly spaced thresholds.

    Args:
        x: Input current, any shape.
        first: The lowest threshold. No value of x may equal a threshold.
        spacing: Distance between thresholds.
        delta: The learned step, which the gradient is taken for.
        count: D.
    """
    return Fired(*_Levels.apply(x, delta, count, (first, spacing)))  # type: ignore[no-untyped-call]


def lif(x: Tensor, theta: Tensor, decay: float, surrogate: str, steps: int | None = None) -> Fired:
    """Leaky integrate-and-fire with hard reset to 0, state 0 before the first step.

    Args:
        x: (T, ...) input current a step, or (1, ...) the same current every step.
        theta: Threshold, a positive scalar tensor.
        decay: Share of the membrane lost a step, 0..1.
        surrogate: Key of :data:`SURROGATES`.
        steps: T; by default what x has.

    Returns:
        (T, ...) spikes 0 or 1, dtype of x; and their mean.
    """
    return Fired(*_LifScan.apply(x, theta, decay, surrogate, steps or x.shape[0]))  # type: ignore[no-untyped-call]


def norse_lif(x: Tensor, theta: Tensor, decay: float) -> Tensor:
    """The same dynamics stepped by norse's ``lif_box_feed_forward_step``, with its SuperSpike surrogate.

    norse's membrane is ``v += dt * tau_mem_inv * (input - v)``: with dt * tau_mem_inv = decay its v is ours times
    decay, so its threshold is theta * decay.
    """
    from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters, lif_box_feed_forward_step

    parameters = LIFBoxParameters(
        tau_mem_inv=torch.as_tensor(decay, dtype=x.dtype),
        v_leak=torch.as_tensor(0.0, dtype=x.dtype),
        v_th=theta.to(x.dtype) * decay,
        v_reset=torch.as_tensor(0.0, dtype=x.dtype),
        method="super",
        alpha=torch.as_tensor(10.0),
    )
    state = LIFBoxFeedForwardState(v=torch.zeros_like(x[0]))
    spikes = []
    for current in x:
        out, state = lif_box_feed_forward_step(current, state, parameters, dt=1.0)
        spikes.append(out)
    return torch.stack(spikes)
