"""Random students and integer networks for tests, and when two integer networks are the same."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.graph.portable import Network, portable_graph
from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.graph.student_file import StudentFile, expected_tensors
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)


def random_student(spec: StudentSpec, seed: int, *, quantized: bool = True) -> StudentFile:
    """A student whose layers spike about as often as not, and whose first currents stay inside the chip's register."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    for name, expected in expected_tensors(spec, quantized).items():
        layer = int(name.split(".")[0].lstrip("convlif"))
        shape = expected.shape
        if name.endswith("weight") and quantized:
            # conv 0 sees codes of some hundreds: 2 * q * codes * taps stays below 2**17
            limit = max(1, 60 // (shape[1] * shape[2] * shape[3])) if layer == 0 else 127
            tensors[name] = rng.integers(-limit - (layer > 0), limit + 1, shape).astype(np.int8)
        elif name.endswith("weight"):
            tensors[name] = (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        elif name.endswith("bias"):
            values = rng.integers(-200, 200, shape) if quantized else rng.standard_normal(shape) / 10
            tensors[name] = values.astype(expected.dtypes[0])
        elif name.endswith("vth"):
            tensors[name] = np.sort(rng.integers(20, 900, shape)).astype(np.int32)
        elif name.endswith("step"):
            tensors[name] = np.asarray(0.01 / spec.input_scale if layer == 0 else 0.01)
        else:
            tensors[name] = np.asarray(rng.uniform(0.3, 0.6), np.float32)
    return StudentFile(spec=spec, tensors=tensors, quantized=quantized, meta={"name": f"random-{seed}"})


def student_network(student: StudentFile, size: tuple[int, int]) -> Network:
    """The portable graph of a student."""
    return portable_graph(student.spec, student.tensors, size, student.quantized)


def chain(
    weights: list[NDArray[np.int64]],
    *,
    vth: int = 100,
    levels: tuple[int, ...] = (0,),
    steps: int = 1,
    v_decay: int = 4096,
    host: HostSide | None = None,
    seed: int = 0,
) -> IntegerNetwork:
    """conv + LIF for every weight but the last, which leads to the readout; 'same' padding, random biases."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", weights[0].shape[1])}
    for layer, weight in enumerate(weights):
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        nodes[f"conv{layer}"] = IntegerConv(f"conv{layer}", weight, padding=padding)
        if layer + 1 < len(weights):
            bias = rng.integers(-50, 50, len(weight))
            nodes[f"lif{layer}"] = IntegerLif(f"lif{layer}", vth=vth, bias=bias, v_decay=v_decay, levels=levels)
    nodes["output"] = IntegerReadout("output", rng.integers(-50, 50, len(weights[-1])))
    return IntegerNetwork(nodes=nodes, edges=tuple(pairwise(nodes)), host=host or HostSide(steps=steps))


def even_weights(rng: np.random.Generator, *shape: int, limit: int = 100) -> NDArray[np.int64]:
    """Even integers, as the chip's mixed-sign weights are."""
    return 2 * rng.integers(-limit // 2, limit // 2 + 1, shape)


def differences(first: IntegerNetwork, second: IntegerNetwork) -> list[str]:
    """In which fields two integer networks differ; empty when they are the same."""
    found = [
        field for field in ("edges", "host", "units", "arithmetic") if getattr(first, field) != getattr(second, field)
    ]
    if list(first.nodes) != list(second.nodes):
        return [*found, "nodes"]
    for name, node in first.nodes.items():
        other = second.nodes[name]
        if type(node) is not type(other):
            found.append(name)
            continue
        found += [
            f"{name}.{field}" for field, value in vars(node).items() if not np.array_equal(value, getattr(other, field))
        ]
    return found
