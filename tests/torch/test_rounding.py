"""Rounding with error feedback, against plain rounding and against all roundings there are."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.networks import rounding  # noqa: E402
from neurodeploy.networks.grid import to_grid  # noqa: E402
from neurodeploy.networks.rounding import WEIGHT_MAX, WEIGHT_MIN, round_with_feedback, second_moments  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402

STEP = 0.1


def error(weight: Tensor, rounded: Tensor, moments: Tensor) -> Tensor:
    """Mean square error of every output."""
    difference = (rounded - weight).double().flatten(1)
    return torch.einsum("oi,ij,oj->o", difference, moments, difference)


def case(seed: int, outputs: int, inputs: int, mean: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(200, inputs, generator=generator, dtype=torch.float64) + mean
    return torch.randn(outputs, inputs, generator=generator), seen.T @ seen / len(seen)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_inputs_that_are_not_correlated_are_rounded_each_for_itself(seed: int) -> None:
    weight, _ = case(seed, 5, 7, 0.0)
    moments = torch.diag(torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1)
    plain = ((weight.double() / STEP).round() * STEP).float()
    assert torch.equal(round_with_feedback(weight, moments, STEP), plain)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_it_is_near_the_best_of_all_roundings(seed: int) -> None:
    weight, moments = case(seed, 300, 6, 2.0)
    down = (weight.double() / STEP).floor()
    found = [error(weight, (down + torch.tensor(up)) * STEP, moments) for up in itertools.product((0.0, 1.0), repeat=6)]
    best = torch.stack(found).amin(dim=0)
    plain = error(weight, (weight.double() / STEP).round() * STEP, moments)
    rounded = round_with_feedback(weight, moments, STEP)
    assert torch.allclose(rounded.double() / STEP, (rounded.double() / STEP).round(), atol=1e-4)
    ours = error(weight, rounded, moments)
    assert float(ours.mean()) < 0.5 * float(plain.mean())
    assert float(ours.mean()) < 1.3 * float(best.mean())


def test_integers_stay_within_8_bits() -> None:
    weight, moments = case(0, 4, 9, 1.0)
    integers = (round_with_feedback(100 * weight, moments, STEP) / STEP).round()
    assert int(integers.min()) >= WEIGHT_MIN
    assert int(integers.max()) <= WEIGHT_MAX


def test_an_input_that_is_always_0_does_no_harm() -> None:
    weight, moments = case(1, 4, 5, 1.0)
    moments[2], moments[:, 2] = 0.0, 0.0
    rounded = round_with_feedback(weight, moments, STEP)
    assert torch.isfinite(rounded).all()
    assert torch.allclose(rounded[:, 2], ((weight[:, 2] / STEP).round() * STEP))


@pytest.mark.parametrize("dilation", [1, 2])
def test_moments_are_those_of_what_a_convolution_sees(dilation: int) -> None:
    """E[(w x)^2] by the convolution itself."""
    generator = torch.Generator().manual_seed(0)
    signal, weight = (torch.randn(size, generator=generator) for size in ((2, 3, 9, 8), (4, 3, 3, 3)))
    moments = second_moments(signal, 3, dilation, dilation)
    out = F.conv2d(signal.double(), weight.double(), padding=dilation, dilation=dilation)
    assert torch.allclose(error(weight, torch.zeros_like(weight), moments), out.square().mean(dim=(0, 2, 3)))


def test_a_student_calibrated_on_pictures_is_closer_to_its_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    pictures = torch.rand(4, 1, 24, 24) * 0.5 + 0.4
    monkeypatch.setattr(rounding, "WEIGHT_MAX", 15)  # few bits, so that rounding is what is seen
    distances = {}
    for calibration in (None, pictures[:2]):
        torch.manual_seed(1)
        student = SpikingStudent(StudentSpec(width=16, depth=2, levels=8)).eval()
        with torch.no_grad():
            before = student(pictures[2:])[0]
            to_grid(student, calibration)
            distances[calibration is None] = float((student(pictures[2:])[0] - before).square().mean())
    assert distances[False] < 0.6 * distances[True]
