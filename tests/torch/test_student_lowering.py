"""What is trained is what runs on the chip: the torch student on its grid against its integer network."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from neurodeploy.distill.losses import digit_operations, synaptic_operations  # noqa: E402
from neurodeploy.energy.count import OperationCounter  # noqa: E402
from neurodeploy.graph.portable import portable_graph  # noqa: E402
from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.networks.grid import to_grid  # noqa: E402
from neurodeploy.networks.neurons import mean_digits  # noqa: E402
from neurodeploy.networks.stored import file_of, student_of  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402
from neurodeploy.quantize.bounds import bias_fits, population_biases  # noqa: E402
from neurodeploy.quantize.digits import digits_of, in_digits  # noqa: E402
from neurodeploy.quantize.lower import quantize  # noqa: E402
from neurodeploy.quantize.network import IntegerLif  # noqa: E402
from neurodeploy.simulate.floating import run_float  # noqa: E402
from neurodeploy.simulate.restore import restore  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "levels": {"levels": 4, "steps": 1},
    "binary, one step": {"levels": 1, "steps": 1},
    "binary, no memory": {"levels": 1, "steps": 3, "decay": 1.0},
    "edges and dilation": {"levels": 3, "steps": 1, "edges": ((1, 2),), "dilation": (1, 2, 1, 1)},
    "noise map": {"levels": 4, "steps": 1, "noise_map": True},
    "colour, noise map": {"levels": 2, "steps": 1, "channels": 3, "noise_map": True},
    "colour": {"levels": 2, "steps": 1, "channels": 3, "unshuffle": 1, "residual": False},
}


def grid_student(kind: str, seed: int, spread: float = 0.2, *, on_grid: bool = True) -> SpikingStudent:
    torch.manual_seed(seed)
    student = SpikingStudent(StudentSpec(depth=3, width=6, **KINDS[kind]))
    with torch.no_grad():
        for conv in student.convs:
            conv.bias.normal_(std=spread)
        student.log_delta.normal_(std=0.2)
    if on_grid:
        to_grid(student)
    return student.eval()


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 2**16), height=st.integers(5, 23), width=st.integers(5, 23))
def test_the_student_on_its_grid_is_the_integer_network(kind: str, seed: int, height: int, width: int) -> None:
    student = grid_student(kind, seed)
    image = np.random.RandomState(seed).rand(student.spec.channels, height, width).astype(np.float32)
    file = file_of(student)
    net = quantize(portable_graph(file.spec, file.tensors, (height, width), quantized=True))
    for layer, node in enumerate(net.lifs()):
        assert isinstance(node, IntegerLif)
        vth = file.tensors[f"lif{layer}.vth"]
        # populations differ by their bias: threshold minus bias, less that of the layer, is each one's own threshold
        raised = int(node.bias[0]) - int(file.tensors[f"conv{layer}.bias"][0])
        if "edges" not in kind:
            assert [node.vth - offset - raised for offset in node.levels] == vth.tolist()
    spikes: dict[str, int] = {}

    class Count:
        def codes(self, **_: Any) -> None:
            """Not counted."""

        def layer(self, *, name: str, fired: Any, **_: Any) -> None:
            spikes[name] = spikes.get(name, 0) + int(fired.sum())

    integer = restore(net, image, observer=Count())
    with torch.no_grad():
        restored = student(torch.from_numpy(image)[None])[0][0].double().numpy()
    # one spike more or less would move the output by far more than float32 rounding
    np.testing.assert_allclose(restored, integer, rtol=0, atol=3e-5 * max(1.0, float(np.abs(integer).max())))
    padded = (-(-height // student.spec.unshuffle), -(-width // student.spec.unshuffle))
    neurons = student.spec.width * padded[0] * padded[1] * student.spec.levels * student.spec.steps
    for layer, rate in enumerate(student.rates):
        assert spikes[f"lif{layer}"] == round(float(rate) * neurons)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_large_biases_take_the_larger_exponent(kind: str, seed: int) -> None:
    """They are even then, fit 13 bits in all populations, sum edges included, and are still the integer network's."""
    student = grid_student(kind, seed, spread=4.0)
    assert student.bias_grains[0] == 2
    tensors = file_of(student).tensors
    again = file_of(student_of(file_of(student))).tensors
    assert all(np.array_equal(again[name], values) for name, values in tensors.items() if "step" not in name)
    net = quantize(portable_graph(student.spec, tensors, (12, 10), quantized=True))
    found = [population_biases(lif) for lif in net.lifs()]
    assert all(bias_fits(biases).all() for biases in found)
    assert any(not bias_fits(biases, exponent=6).all() for biases in found)
    narrow = SpikingStudent(student.spec.model_copy(update={"bias_exponent": 6}))
    narrow.load_state_dict(grid_student(kind, seed, spread=4.0, on_grid=False).state_dict())
    to_grid(narrow)
    assert narrow.weight_steps[0] > 1.5 * student.weight_steps[0]
    small = quantize(portable_graph(narrow.spec, file_of(narrow).tensors, (12, 10), quantized=True))
    assert all(bias_fits(population_biases(lif), exponent=6).all() for lif in small.lifs())
    image = np.random.RandomState(seed).rand(student.spec.channels, 12, 10).astype(np.float32)
    with torch.no_grad():
        expected, _ = student(torch.from_numpy(image)[None])
    np.testing.assert_allclose(restore(net, image), expected[0].numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps, levels", [(1, 1), (1, 3), (4, 1)])
def test_the_operations_that_training_holds_down_are_those_of_the_report(steps: int, levels: int) -> None:
    """With kernels of one pixel there are no borders, so the trainer's count and the report's are the same number."""
    torch.manual_seed(3)
    edges = ((1, 2), (1, 3), (2, 3))
    student = SpikingStudent(StudentSpec(depth=4, width=6, kernel=1, levels=levels, steps=steps, edges=edges))
    with torch.no_grad():
        student.log_delta.fill_(-1.0)
    to_grid(student)
    image = np.random.RandomState(0).rand(1, 16, 12).astype(np.float32)
    file = file_of(student)
    net = quantize(portable_graph(file.spec, file.tensors, (16, 12), quantized=True))
    counter = OperationCounter(net)
    restore(net, image, observer=counter)
    with torch.no_grad():
        student(torch.from_numpy(image)[None])
    counted = counter.counts().total("sop")
    assert counted > 0
    assert float(synaptic_operations(student.spec, student.rates)) * image.size == pytest.approx(counted, rel=1e-6)


def test_the_digits_that_training_holds_down_are_those_of_the_report() -> None:
    torch.manual_seed(3)
    spec = StudentSpec(depth=4, width=6, kernel=1, levels=7, edges=((1, 2), (1, 3), (2, 3)))
    student = SpikingStudent(spec)
    student.counts_digits = True
    with torch.no_grad():
        student.log_delta.fill_(-2.0)
    to_grid(student)
    image = np.random.RandomState(0).rand(1, 16, 12).astype(np.float32)
    file = file_of(student)
    net = in_digits(quantize(portable_graph(file.spec, file.tensors, (16, 12), quantized=True))).net
    counter = OperationCounter(net)
    restore(net, image, observer=counter)
    with torch.no_grad():
        student(torch.from_numpy(image)[None])
    rows = {row.name: row for row in counter.counts().layers}
    counted = sum(rows[name].sop for name in ("lif1", "lif2", "lif3", "output"))
    assert counted > 0 and float(rows["lif0_2"].spikes) > 0
    assert float(digit_operations(spec, student.digits)) * image.size == pytest.approx(counted, rel=1e-6)


@given(st.integers(4, 15), st.integers(0, 99))
def test_fewer_digits_are_asked_of_small_counts_first(levels: int, seed: int) -> None:
    counts = torch.randint(0, levels + 1, (2, 3, 4, 4), generator=torch.Generator().manual_seed(seed)).float()
    digits = digits_of(levels)
    mean = mean_digits(counts.requires_grad_(), digits)
    by_hand = 0
    for count in counts.detach().flatten().int().tolist():
        for digit in digits:
            by_hand, count = by_hand + count // digit, count % digit
    mean.backward()
    assert float(mean.detach()) == pytest.approx(by_hand / counts.numel())
    assert counts.grad is not None
    torch.testing.assert_close(counts.grad * counts.numel(), 1 / ((1 + counts.detach()) * np.log(2)))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), decay=st.sampled_from([0.25, 0.5, 0.75]), steps=st.integers(2, 6))
def test_a_leaky_student_is_its_own_nir_graph(seed: int, decay: float, steps: int) -> None:
    """In floats nothing is truncated: torch and the graph's interpreter (which norse equals) agree in every spike."""
    torch.manual_seed(seed)
    student = SpikingStudent(StudentSpec(depth=3, width=6, levels=1, steps=steps, decay=decay, edges=((1, 2),)))
    to_grid(student)
    image = np.random.RandomState(seed).rand(1, 14, 11).astype(np.float32)
    file = file_of(student)
    network = portable_graph(file.spec, file.tensors, (14, 11), quantized=True)
    out = run_float(network.graph, network.host.encode(image).astype(np.float64), steps, network.host.dt)
    with torch.no_grad():
        restored = student(torch.from_numpy(image)[None])[0][0].double().numpy()
    expected = network.host.decode(out.mean(axis=0), image)
    np.testing.assert_allclose(restored, expected, rtol=0, atol=3e-5 * max(1.0, float(np.abs(expected).max())))


def test_a_leaky_student_stays_close_to_its_integers() -> None:
    """With a decaying membrane the chip truncates: the spikes may part, rarely."""
    torch.manual_seed(0)
    student = SpikingStudent(StudentSpec(depth=3, width=6, levels=1, steps=4, decay=0.25))
    to_grid(student)
    image = np.random.RandomState(0).rand(1, 32, 32).astype(np.float32)
    file = file_of(student)
    net = quantize(portable_graph(file.spec, file.tensors, (32, 32), quantized=True))
    with torch.no_grad():
        restored = student(torch.from_numpy(image)[None])[0][0].double().numpy()
    integer = restore(net, image)
    moved = np.abs(integer - image).mean()
    assert np.abs(restored - integer).mean() < 0.05 * moved
