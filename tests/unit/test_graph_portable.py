"""The portable graph of a student: lawful, in the declared form, and computing what the student's definition says."""

from __future__ import annotations

import numpy as np
import pytest

from neurodeploy.errors import UserError
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.portable import hinted_host, portable_graph
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.simulate.floating import run_float
from tests.random_nets import random_student, student_network

SPECS = [
    StudentSpec(width=3, depth=2, levels=4, steps=1),
    StudentSpec(width=3, depth=4, levels=2, steps=1, edges=((1, 3), (1, 2), (2, 3)), channels=3),
    StudentSpec(width=3, depth=3, levels=1, steps=5, decay=0.25, edges=((1, 2),)),
    StudentSpec(width=3, depth=2, levels=3, steps=1, dilation=(2, 1, 3), kernel=5, unshuffle=1),
    StudentSpec(width=3, depth=2, levels=4, steps=1, noise_map=True),
]


def convolve(x: np.ndarray, weight: np.ndarray, dilation: int) -> np.ndarray:
    """'Same' correlation by the definition, one output at a time."""
    outputs, _, kernel, _ = weight.shape
    reach = dilation * (kernel // 2)
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    out = np.zeros((outputs, *x.shape[1:]))
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            seen = padded[:, row : row + 2 * reach + 1 : dilation, column : column + 2 * reach + 1 : dilation]
            out[:, row, column] = (weight * seen).sum(axis=(1, 2, 3))
    return out


def student_by_definition(student, codes: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """The mean output in image units, straight from the meaning of the tensors (levels counted, not expanded)."""
    spec, tensors = student.spec, student.tensors
    weights, biases, thresholds = [], [], []
    for layer in range(spec.depth + 1):
        weight, bias = (tensors[f"conv{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        step = float(tensors[f"conv{layer}.step"]) if student.quantized else 1.0
        weights.append(weight * step)
        biases.append(bias * step / 2 if student.quantized else bias)
        if layer < spec.depth and student.quantized:
            offset = 0.5 if spec.decay == 1.0 else 1 / 96
            thresholds.append((tensors[f"lif{layer}.vth"] + offset) * step / 2)
        elif layer < spec.depth:
            delta = float(tensors[f"lif{layer}.delta"])
            thresholds.append(delta * (np.arange(1, spec.levels + 1) - 0.5))
    signal_in = codes.astype(np.float64) if student.quantized else codes / spec.input_scale
    membranes = [0.0] * spec.depth
    total = 0.0
    for _ in range(spec.steps):
        signal, currents = signal_in, []
        for layer in range(spec.depth):
            current = convolve(signal, weights[layer], spec.dilations[layer]) + biases[layer][:, None, None]
            currents.append(current)
            x = sum((currents[source] for source, target in spec.edges if target == layer), start=current)
            if spec.levels > 1:
                signal = sum((x > threshold).astype(float) for threshold in thresholds[layer])
                continue
            membranes[layer] = (1 - spec.decay) * membranes[layer] + x
            fired = membranes[layer] > thresholds[layer][0]
            membranes[layer] = np.where(fired, 0.0, membranes[layer])
            signal = fired.astype(float)
        total = total + convolve(signal, weights[-1], spec.dilations[-1]) + biases[-1][:, None, None]
    return total / spec.steps


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("quantized", [True, False])
def test_the_graph_computes_what_the_student_means(spec: StudentSpec, quantized: bool) -> None:
    student = random_student(spec, 7, quantized=quantized)
    network = student_network(student, (9, 7))
    assert check_graph(network.graph) == []
    codes = network.host.encode(np.random.default_rng(0).random((spec.channels, 9, 7), np.float32))
    out = run_float(network.graph, codes, spec.steps, network.host.dt).mean(axis=0) * network.host.output_scale
    expected = student_by_definition(student, codes)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_the_form_is_the_declared_one() -> None:
    spec = StudentSpec(width=3, depth=2, levels=2, steps=1, dilation=(1, 2, 1))
    student = random_student(spec, 0)
    network = student_network(student, (8, 6))
    graph = network.graph
    assert list(graph.nodes) == ["input", "conv0", "lif0", "conv1", "lif1", "conv2", "output"]
    assert graph.edges == list(zip(list(graph.nodes)[:-1], list(graph.nodes)[1:], strict=True))
    conv = graph.nodes["conv1"]
    assert (conv.weight.shape, conv.padding, conv.dilation, conv.groups) == ((6, 6, 3, 3), (2, 2), (2, 2), 1)
    assert conv.metadata == {"weight_step": 2**-7, "bias_step": 2**-8}
    np.testing.assert_array_equal(conv.weight[3:, :3], student.tensors["conv1.weight"] * np.float32(2**-7))
    vth = student.tensors["lif1.vth"]
    np.testing.assert_array_equal((conv.bias[3:] - conv.bias[:3]) * 2**8, np.full(3, vth[0] - vth[1]))
    lif = graph.nodes["lif1"]
    assert lif.tau.shape == lif.v_threshold.shape == (6, 4, 3)
    shared = (int(vth[0]) + int(vth[1])) // 2
    assert lif.v_threshold[0, 0, 0] == (shared + 0.5) * 2**-8
    np.testing.assert_array_equal(conv.bias[:3] * 2**8, student.tensors["conv1.bias"] + shared - vth[0])
    assert all(array.dtype == np.float32 for array in (conv.weight, conv.bias, lif.tau, lif.r, lif.v_reset))
    assert network.host.output_scale == float(student.tensors["conv2.step"]) * 2**7
    assert hinted_host(graph) == network.host
    assert (graph.metadata["dt"], graph.metadata["steps"], graph.metadata["levels"]) == (1e-4, 1, 2)


@pytest.mark.parametrize("hint", [None, 3, "{}x", '{"channels": 0}'])
def test_a_host_hint_that_is_not_sound_is_none(hint: object) -> None:
    graph = student_network(random_student(SPECS[0], 0), (4, 4)).graph
    graph.metadata = {} if hint is None else {"host": hint}
    assert hinted_host(graph) is None


@pytest.mark.parametrize(("size", "grid"), [((1, 1), (1, 1)), ((5, 8), (3, 4)), ((321, 481), (161, 241))])
def test_the_grid_covers_the_image(size: tuple[int, int], grid: tuple[int, int]) -> None:
    graph = student_network(random_student(SPECS[0], 0), size).graph
    assert tuple(graph.nodes["output"].output_type["output"][1:]) == grid


def test_an_image_without_pixels_is_refused() -> None:
    student = random_student(SPECS[0], 0)
    with pytest.raises(UserError, match="at least one row"):
        portable_graph(student.spec, student.tensors, (0, 5), True)
