"""Spiking activations with surrogate gradients: integer levels at one time step, LIF with hard reset over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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


class _Levels(torch.autograd.Function):
    """count = #{i in 1..D: x > delta (i - 1/2)} = clip(ceil(x / delta - 1/2), 0, D); straight through in between.

    Backward: d count / d x = 1 / delta and d count / d delta = -x / delta^2 where -1/2 < x / delta < D + 1/2, else 0
    (Esser et al., "Learned step size quantization", arXiv 1902.08153, with the output counted in steps).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor, levels: int) -> Tensor:
        scaled = x * delta.reciprocal().to(x.dtype)
        ctx.save_for_backward(scaled, delta)
        ctx.levels = levels
        return (scaled - 0.5).ceil_().clamp_(0, levels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        scaled, delta = ctx.saved_tensors
        grad_x, grad_delta = _through_levels(grads[0], scaled, delta, ctx.levels)
        return grad_x, grad_delta, None


class _LevelsOnGrid(torch.autograd.Function):
    """count = clip(ceil((x - first) / spacing), 0, D): the thresholds of the integer grid; backward as _Levels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, first: float, spacing: float, delta: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x * delta.reciprocal().to(x.dtype), delta)
        ctx.levels = levels
        return (x - first).mul_(1.0 / spacing).ceil_().clamp_(0, levels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, Tensor, None]:
        scaled, delta = ctx.saved_tensors
        grad_x, grad_delta = _through_levels(grads[0], scaled, delta, ctx.levels)
        return grad_x, None, None, grad_delta, None


def _through_levels(grad: Tensor, scaled: Tensor, delta: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    # one fused pass: grad where the input lies inside the window, else 0
    through = torch.ops.aten.hardtanh_backward(grad, scaled, -0.5, levels + 0.5)
    grad_delta = -(through * scaled).sum().to(delta.dtype) / delta
    return through * delta.reciprocal().to(through.dtype), grad_delta.reshape(delta.shape)


class _LifScan(torch.autograd.Function):
    """u_t = (1 - decay) v_(t-1) + x_t; s_t = [u_t > theta]; v_t = u_t (1 - s_t), v_0 = 0. Saves u alone.

    Backward, t = T-1 .. 0, with g_t the incoming gradient, gv = 0 at first and sg the surrogate's derivative at
    (u_t - theta) / theta, over theta: q = gv (1 - s_t) + (g_t - u_t gv) sg; dx_t = q; dtheta -= (g_t - u_t gv) sg
    u_t / theta; gv = (1 - decay) q.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, decay: float, surrogate: Surrogate) -> Tensor:
        threshold = theta.to(x.dtype)
        keep = 1.0 - decay
        membrane = torch.empty_like(x)
        spikes = torch.empty_like(x)
        v: Tensor | None = None
        for t in range(x.shape[0]):
            u = membrane[t]
            if v is None:
                u.copy_(x[t])
            else:
                torch.add(x[t], v, alpha=keep, out=u)
            torch.gt(u, threshold, out=spikes[t])
            v = u - u * spikes[t]
        ctx.save_for_backward(membrane, theta)
        ctx.keep, ctx.surrogate = keep, surrogate
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        membrane, theta = ctx.saved_tensors
        (grad,) = grads
        threshold = theta.to(membrane.dtype)
        grad_x = torch.empty_like(membrane)
        wide = torch.promote_types(membrane.dtype, torch.float32)
        grad_theta = torch.zeros((), dtype=wide, device=membrane.device)
        gv: Tensor | None = None
        for t in range(membrane.shape[0] - 1, -1, -1):
            u = membrane[t]
            slope = ctx.surrogate((u - threshold) / threshold) / threshold
            if gv is None:
                at_spike = grad[t] * slope
                q = at_spike
            else:
                at_spike = (grad[t] - u * gv) * slope
                q = gv * (u <= threshold) + at_spike
            grad_theta -= (at_spike * (u / threshold)).sum(dtype=wide)
            grad_x[t] = q
            gv = ctx.keep * q
        return grad_x, grad_theta.to(theta.dtype).reshape(theta.shape), None, None


def levels(x: Tensor, delta: Tensor, count: int) -> Tensor:
    """Integer activation 0..D with a learned step.

    Args:
        x: Input current, any shape.
        delta: Step, a positive scalar tensor.
        count: D, the number of levels above 0.

    Returns:
        Same shape and dtype: the number of thresholds ``delta * (i - 1/2)``, i = 1..D, that x exceeds.
    """
    out: Tensor = _Levels.apply(x, delta, count)  # type: ignore[no-untyped-call]
    return out


def levels_on_grid(x: Tensor, first: float, spacing: float, delta: Tensor, count: int) -> Tensor:
    """Integer activation 0..D with explicit, evenly spaced thresholds.

    Args:
        x: Input current, any shape.
        first: The lowest threshold. No value of x may equal a threshold.
        spacing: Distance between thresholds.
        delta: The learned step, which the gradient is taken for.
        count: D.
    """
    out: Tensor = _LevelsOnGrid.apply(x, first, spacing, delta, count)  # type: ignore[no-untyped-call]
    return out


def lif(x: Tensor, theta: Tensor, decay: float, surrogate: str) -> Tensor:
    """Leaky integrate-and-fire with hard reset to 0, state 0 before the first step.

    Args:
        x: (T, ...) input current a step.
        theta: Threshold, a positive scalar tensor.
        decay: Share of the membrane lost a step, 0..1.
        surrogate: Key of :data:`SURROGATES`.

    Returns:
        (T, ...) spikes 0 or 1, dtype of x.
    """
    out: Tensor = _LifScan.apply(x, theta, decay, SURROGATES[surrogate])  # type: ignore[no-untyped-call]
    return out


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
