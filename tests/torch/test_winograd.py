"""Winograd's convolutions against torch's in float64, and when they are taken."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import torch.nn.functional as F  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from neurodeploy.distill import precision as precision_module  # noqa: E402
from neurodeploy.distill.precision import _seconds, quickest  # noqa: E402
from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.networks import winograd  # noqa: E402
from neurodeploy.networks.grid import fold_norms, to_grid  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402
from neurodeploy.networks.teachers import Teacher  # noqa: E402

compiled = pytest.mark.skipif(not winograd.available(), reason="the package was installed without a C compiler")
SIDES = st.integers(1, 13)
CHANNELS = st.sampled_from([16, 32, 48])


def random_case(batch: int, inputs: int, outputs: int, height: int, width: int, seed: int) -> list[Tensor]:
    """Pictures, weights, biases and the gradient of the result."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, inputs, height, width), (outputs, inputs, 3, 3), (outputs,), (batch, outputs, height, width))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def computed(case: list[Tensor], dtype: torch.dtype, dilation: int, *, plain: bool) -> list[Tensor]:
    """The result, and the gradients with respect to pictures, weights and biases."""
    *leaves, grad = (tensor.to(dtype) for tensor in case)
    x, weight, bias = (leaf.clone().requires_grad_() for leaf in leaves)
    convolve = F.conv2d if plain else winograd.conv2d
    out = convolve(x, weight, bias, padding=(dilation, dilation), dilation=(dilation, dilation))
    out.backward(grad)
    return [out.detach(), *(leaf.grad for leaf in (x, weight, bias))]


@compiled
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), CHANNELS, CHANNELS, SIDES, SIDES, st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_values_and_gradients_are_those_of_torch(
    batch: int, inputs: int, outputs: int, height: int, width: int, dilation: int, seed: int
) -> None:
    case = random_case(batch, inputs, outputs, height * dilation, width * dilation, seed)
    got = computed(case, torch.float32, dilation, plain=False)
    expected = computed(case, torch.float64, dilation, plain=True)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        largest = float(theirs.abs().max())
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=3e-5 * largest)


@compiled
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads: int) -> None:
    case = random_case(5, 32, 48, 31, 29, 1)
    usual = torch.get_num_threads()
    expected = computed(case, torch.float64, 1, plain=True)
    try:
        torch.set_num_threads(threads)
        got = computed(case, torch.float32, 1, plain=False)
    finally:
        torch.set_num_threads(usual)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=3e-5 * float(theirs.abs().max()))


@compiled
@pytest.mark.parametrize("widest", ["plain", "avx2", "avx512"])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 48), (64, 32)])
def test_all_instructions_give_the_same(
    widest: str, inputs: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(2, inputs, outputs, 22, 25, 6)
    expected = computed(case, torch.float64, 1, plain=True)
    monkeypatch.setenv("NEURODEPLOY_KERNEL", widest)
    for mine, theirs in zip(computed(case, torch.float32, 1, plain=False), expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=3e-5 * float(theirs.abs().max()))


@compiled
def test_any_layout_in_memory_is_taken() -> None:
    case = random_case(2, 16, 16, 8, 8, 2)
    expected = computed(case, torch.float64, 1, plain=True)
    x, weight, bias, grad = case
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    got = computed([strided, weight.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), bias, grad], torch.float32, 1,
                   plain=False)  # fmt: skip
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=3e-5 * float(theirs.abs().max()))


@compiled
def test_gradients_that_nobody_wants_are_not_made() -> None:
    x, weight, bias, grad = random_case(1, 16, 16, 6, 6, 3)
    weight.requires_grad_()
    winograd.conv2d(x, weight, bias, padding=(1, 1), dilation=(1, 1)).backward(grad)
    assert weight.grad is not None
    assert x.grad is None
    assert bias.grad is None


def test_what_it_does_not_take_is_torchs() -> None:
    x, weight, bias, _ = random_case(1, 16, 16, 6, 6, 4)
    cases = [
        (x, weight, (0, 0), (1, 1)),  # the size changes
        (x[:, :, :5], weight, (2, 2), (2, 2)),  # the dilation does not divide it
        (x, weight[:12], (1, 1), (1, 1)),
        (x[:, :12], weight[:, :12], (1, 1), (1, 1)),
        (x, weight[..., :1, :1], (0, 0), (1, 1)),
        (x.double(), weight.double(), (1, 1), (1, 1)),
    ]
    for picture, kernel, padding, dilation in cases:
        assert not winograd.takes(picture, kernel, padding, dilation)
        shift = bias[: kernel.shape[0]].to(kernel.dtype)
        got = winograd.conv2d(picture, kernel, shift, padding=padding, dilation=dilation)
        assert torch.equal(got, F.conv2d(picture, kernel, shift, padding=padding, dilation=dilation))


def test_without_the_library_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "_library", lambda: None)
    x, weight, bias, _ = random_case(1, 16, 16, 6, 6, 5)
    got = winograd.conv2d(x, weight, bias, padding=(1, 1), dilation=(1, 1))
    assert torch.equal(got, F.conv2d(x, weight, bias, padding=1))


@compiled
def test_a_student_uses_it_in_training_only() -> None:
    """Scores and the integer grid must not depend on how the training was sped up."""
    student = SpikingStudent(StudentSpec(width=16, depth=2, levels=4, norm="batch"))
    calls = []

    def convolve(*args: Tensor, **places: tuple[int, int]) -> Tensor:
        calls.append(args)
        return winograd.conv2d(*args, **places)

    student.convolve = convolve
    picture = torch.rand(1, 1, 16, 16)
    student.eval()(picture)
    assert not calls
    student.train()(picture)
    assert len(calls) == 3
    student.eval()
    fold_norms(student)
    to_grid(student, picture)
    student.train()(picture)
    assert len(calls) == 3


@compiled
def test_a_teacher_computes_by_it_and_its_features_stay_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, padding=1, bias=False),
        torch.nn.Conv2d(32, 16, 3, padding=1, stride=2),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=2),
        torch.nn.Conv2d(16, 16, 3, padding="same", padding_mode="reflect"),
    )
    teacher = Teacher(network, name="t", channels=1, hint_points=("2",), weights_source="t.pth")
    picture = torch.rand(2, 1, 12, 12)
    expected = [network(picture), network[:3](picture)]
    taken = []
    real = winograd._Convolution.apply
    monkeypatch.setattr(winograd._Convolution, "apply", lambda *args: taken.append(args[1].shape) or real(*args))
    winograd.convolve_by_it(teacher)
    seen = {}
    network[2].register_forward_hook(lambda module, given, out: seen.update(out=out))
    with torch.no_grad():
        torch.testing.assert_close(network(picture), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(seen["out"], expected[1], rtol=0, atol=1e-5)
    assert taken == [(32, 16, 3, 3)]


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"fp32": 1.0, "winograd": 0.5, "bf16": 1.7}, "winograd"),  # bf16 by vectors alone
        ({"fp32": 1.0, "winograd": 0.5, "bf16": 0.25}, "bf16"),  # by tiles
        ({"fp32": 1.0, "winograd": 0.5, "bf16": 0.45}, "winograd"),  # hardly quicker, and coarser
        ({"fp32": 1.0, "winograd": 1.0, "bf16": 0.7}, "bf16"),
        ({"fp32": 1.0, "winograd": 0.9, "bf16": 0.9}, "fp32"),
    ],
)
def test_the_quickest_is_chosen_and_of_equals_the_exacter_one(
    seconds: dict[str, float], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "_seconds", seconds.__getitem__)
    monkeypatch.setattr(precision_module, "_has_bf16", lambda: True)
    assert quickest.__wrapped__(torch.device("cpu")) == chosen


def test_bf16_is_not_timed_where_the_processor_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda: False, raising=False)
    seconds = {"fp32": 1.0, "winograd": 1.0}
    monkeypatch.setattr(precision_module, "_seconds", seconds.__getitem__)
    assert quickest.__wrapped__(torch.device("cpu")) == "fp32"


def test_what_is_timed_takes_time() -> None:
    for name in ("fp32", "winograd", "bf16"):
        assert 0 < _seconds(name, rounds=1) < 10
