"""The compiled activations against torch's operators and against a plain autograd loop over a whole network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.networks import fused  # noqa: E402
from neurodeploy.networks.neurons import SURROGATES, Fired, levels, levels_on_grid, lif  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402

compiled = pytest.mark.skipif(not fused.available(), reason="the package was installed without a C compiler")


@contextmanager
def only_torch() -> Iterator[None]:
    """Everything computed by torch's operators."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "available", lambda: False)
        yield


def gradients(call: Callable[[Tensor, Tensor], Fired], x: Tensor, scalar: Tensor, g: Tensor) -> list[Tensor]:
    """Spikes, mean, and the gradients of sum(g spikes) + 3 mean with respect to both inputs."""
    x, scalar = x.detach().requires_grad_(), scalar.detach().requires_grad_()
    spikes, mean = call(x, scalar)
    ((spikes.float() * g).sum() + 3 * x.numel() * mean).backward()
    assert x.grad is not None
    assert scalar.grad is not None
    return [spikes.detach(), mean.detach(), x.grad, scalar.grad]


def both(call: Callable[[Tensor, Tensor], Fired], x: Tensor, scalar: Tensor, g: Tensor) -> None:
    got = gradients(call, x, scalar, g)
    # torch's operators in float64: every value of x is the same number there
    with only_torch():
        expected = gradients(call, x.double(), scalar.double(), g)
    torch.testing.assert_close(got[0].double(), expected[0], rtol=0, atol=0)
    torch.testing.assert_close(got[1], expected[1].float(), rtol=1e-6, atol=0)
    narrow = x.dtype == torch.bfloat16
    torch.testing.assert_close(got[2].double(), expected[2], rtol=8e-3 if narrow else 1e-5, atol=1e-6)
    torch.testing.assert_close(got[3].double(), expected[3].double(), rtol=1e-4, atol=1e-3)


def currents(shape: tuple[int, ...], layout: str, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Multiples of 1/32 and a gradient, both exact in either format."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-32, 96, shape, generator=generator).float() / 32
    g = torch.randn(shape, generator=generator).bfloat16().float()
    if layout == "channels_last":
        x = x.flatten(0, -4).contiguous(memory_format=torch.channels_last).view(shape)
    return x.to(dtype), g


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@given(seed=st.integers(0, 1000), height=st.integers(1, 9), width=st.integers(1, 40), count=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_levels(dtype: torch.dtype, layout: str, seed: int, height: int, width: int, count: int) -> None:
    x, g = currents((3, 8, height, width), layout, seed, dtype)
    both(lambda x, delta: levels(x, delta, count), x, torch.tensor(0.5 + 1 / 128), g)
    both(lambda x, delta: levels_on_grid(x, 1 / 64, 1 / 16, delta, count), x, torch.tensor(0.07), g)


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@given(seed=st.integers(0, 1000), steps=st.integers(1, 5), width=st.integers(1, 40), repeated=st.booleans())
@settings(max_examples=8, deadline=None)
def test_lif(dtype: torch.dtype, surrogate: str, seed: int, steps: int, width: int, repeated: bool) -> None:
    # two bits of the membrane are lost a step in bfloat16, so the currents there are those that lose nothing
    decay = 0.5 if dtype == torch.float32 else 1.0
    x, g = currents((1 if repeated else steps, 2, 8, 7, width), "channels_last", seed, dtype)
    g = g.expand(steps, *g.shape[1:])
    both(lambda x, theta: lif(x, theta, decay, surrogate, steps), x, torch.tensor(0.51), g)


@compiled
def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    x, g = currents((4, 4, 16, 32, 32), "channels_last", 0, torch.float32)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(lambda x, theta: lif(x, theta, 0.25, "atan"), x + 0.01 * g, torch.tensor(0.5), g))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@compiled
def test_what_the_library_cannot_take_is_left_to_torch() -> None:
    x = torch.zeros(2, 3, 8, 8)
    assert fused.takes(x)
    assert fused.takes(x.to(memory_format=torch.channels_last))
    assert not fused.takes(x.double())
    assert not fused.takes(x[:, :, ::2])
    assert not fused.takes(x[:, :1])
    assert fused.takes_steps(x[:1].expand(5, 3, 8, 8))
    assert not fused.takes_steps(x[:, :2])
    strided = torch.randn(2, 6, 8, 8)[:, ::2]
    in_torch = levels(strided, torch.tensor(0.5), 3).spikes
    assert torch.equal(in_torch, levels(strided.clone(), torch.tensor(0.5), 3).spikes)


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, theta):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u, theta)
        return (u > theta).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        u, theta = ctx.saved_tensors
        slope = (1 - ((u - theta) / theta).abs()).clamp(min=0) / theta
        return grad * slope, (-grad * slope * u / theta).sum().reshape(theta.shape)


def plain_loop(student: SpikingStudent, x: Tensor, steps: int, decay: float) -> Tensor:
    """The student as anybody would write it: a loop over time, a loop over layers, autograd through both."""
    depth = student.spec.depth
    signal = F.pixel_unshuffle(x, 2)
    v: list[Tensor | float] = [0.0] * depth
    total: Tensor | float = 0.0
    for _ in range(steps):
        spikes = signal
        for layer in range(depth):
            u = (1 - decay) * v[layer] + student.convs[layer](spikes)
            spikes = _Spike.apply(u, student.log_delta[layer].exp() / 2)
            v[layer] = u * (1 - spikes)
        total = total + student.convs[depth](spikes)
    return x - F.pixel_shuffle(total / steps, 2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_a_network_are_those_of_a_plain_autograd_loop(layout: torch.memory_format) -> None:
    """float32, time folded into the batch, the scan in one pass: gradients equal to 1e-5."""
    torch.manual_seed(0)
    steps = 4
    spec = StudentSpec(width=12, depth=3, levels=1, steps=steps, decay=0.5, unshuffle=2, input_scale=64.0)
    student = SpikingStudent(spec)
    with torch.no_grad():
        for conv in student.convs:
            # weights on a grid: the currents are the same numbers however they are summed, and so are the spikes
            conv.weight.copy_((conv.weight * 64).round() / 64)
            conv.bias.copy_(torch.randint(-8, 9, conv.bias.shape) / 64)
        student.log_delta.fill_(torch.tensor(1.3).log())
    student.to(memory_format=layout)
    x = torch.randint(0, 64, (4, 1, 20, 24)).float() / 64
    weight = torch.randn(x.shape)
    found = []
    for forward in (lambda x: student(x)[0], lambda x: plain_loop(student, x, steps, 0.5)):
        student.zero_grad()
        restored = forward(x)
        (restored * weight).sum().backward()
        found.append((restored.detach(), {name: value.grad.clone() for name, value in student.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        largest = float(found[1][1][name].abs().max())
        assert largest > 0
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-5, atol=1e-5 * largest, msg=name)
