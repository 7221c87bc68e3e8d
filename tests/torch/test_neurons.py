"""The spiking activations: values by definition, gradients by autograd over a plain loop."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from neurodeploy.networks.neurons import SURROGATES, levels, levels_on_grid, lif, norse_lif  # noqa: E402


@given(st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40), st.floats(0.05, 4.0), st.integers(1, 9))
def test_levels_count_the_thresholds_below_the_input(values: list[float], delta: float, count: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    step = torch.tensor(delta, dtype=torch.float64)
    got = levels(x, step, count).spikes
    scaled = x.numpy() * (1.0 / delta)
    expected = sum((scaled > i - 0.5).astype(float) for i in range(1, count + 1))
    np.testing.assert_array_equal(got.numpy(), expected)


def test_levels_gradient_is_that_of_a_clipped_line() -> None:
    x = torch.linspace(-3, 12, 200, dtype=torch.float64, requires_grad=True)
    delta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (levels(x, delta, 4).spikes * weight).sum().backward()
    got = (x.grad.clone(), delta.grad.clone())
    x.grad = delta.grad = None
    # the line that the rounding is straight through: x / delta inside the window, constant outside
    ((x / delta).clamp(-0.5, 4.5) * weight).sum().backward()
    torch.testing.assert_close(got[0], x.grad)
    torch.testing.assert_close(got[1], delta.grad)


def test_levels_on_grid_agree_with_levels_where_the_thresholds_do() -> None:
    x = (torch.linspace(-2, 7, 901, dtype=torch.float64) + 1e-4).requires_grad_()
    delta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    on_grid = levels_on_grid(x, 0.5, 1.0, delta, 4).spikes
    torch.testing.assert_close(on_grid, levels(x, delta, 4).spikes)
    gradients = [torch.autograd.grad(out.sum(), (x, delta)) for out in (on_grid, levels(x, delta, 4).spikes)]
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected)


class _PlainSpike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, theta, surrogate):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u, theta)
        ctx.surrogate = surrogate
        return (u > theta).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, theta = ctx.saved_tensors
        slope = SURROGATES[ctx.surrogate]((u - theta) / theta) / theta
        # the spike depends on u / theta alone
        return grad * slope, (-grad * slope * u / theta).sum().reshape(theta.shape), None


def _plain_lif(x: torch.Tensor, theta: torch.Tensor, decay: float, surrogate: str) -> torch.Tensor:
    v = torch.zeros_like(x[0])
    out = []
    for current in x:
        u = (1 - decay) * v + current
        s = _PlainSpike.apply(u, theta, surrogate)
        v = u * (1 - s)
        out.append(s)
    return torch.stack(out)


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@pytest.mark.parametrize("decay", [0.25, 0.5, 1.0])
def test_lif_scan_equals_a_plain_loop_with_its_gradients(surrogate: str, decay: float) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(6, 2, 3, 5, 4, dtype=torch.float64, generator=generator) + 0.3
    weight = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    results = []
    for step in (lambda *of: lif(*of).spikes, _plain_lif):
        inputs = x.clone().requires_grad_()
        theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        out = step(inputs, theta, decay, surrogate)
        (out * weight).sum().backward()
        results.append((out.detach(), inputs.grad, theta.grad))
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_norse_gives_the_same_spikes(seed: int, decay: float) -> None:
    pytest.importorskip("norse", reason="needs the train extra")
    generator = torch.Generator().manual_seed(seed)
    # currents on a grid and a threshold off it: no tie, so equality has to be exact
    x = torch.randint(-64, 128, (8, 1, 4, 6, 6), generator=generator).float() / 64
    theta = torch.tensor((37 + 1 / 3) / 64)
    torch.testing.assert_close(norse_lif(x, theta, decay), lif(x, theta, decay, "triangle").spikes, rtol=0, atol=0)
