"""A graph made for another size equals the graph that is written for it."""

from __future__ import annotations

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError
from neurodeploy.graph.portable import lif_node, portable_graph
from neurodeploy.graph.resize import resized
from neurodeploy.graph.shapes import node_shapes
from neurodeploy.graph.spec import StudentSpec

SPEC = StudentSpec(width=3, depth=3, levels=2, steps=1, edges=((1, 2),))


def _tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(SPEC.depth + 1):
        shape = SPEC.conv_shape(layer)
        tensors[f"conv{layer}.weight"] = rng.standard_normal(shape).astype(np.float32)
        tensors[f"conv{layer}.bias"] = rng.standard_normal(shape[0]).astype(np.float32)
        if layer < SPEC.depth:
            tensors[f"lif{layer}.delta"] = np.array(0.5, np.float32)
    return tensors


@given(st.integers(1, 40), st.integers(1, 40))
def test_resized_is_what_the_writer_makes_for_that_size(height: int, width: int) -> None:
    made = portable_graph(SPEC, _tensors(), (2 * height, 2 * width), False).graph
    other = resized(portable_graph(SPEC, _tensors(), (14, 10), False).graph, (height, width))
    assert node_shapes(other) == node_shapes(made)
    assert list(other.nodes) == list(made.nodes) and set(other.edges) == set(made.edges)
    assert other.metadata == made.metadata
    for name, node in made.nodes.items():
        for key in ("weight", "bias", "tau", "r", "v_leak", "v_threshold", "v_reset", "input_shape"):
            if hasattr(node, key):
                np.testing.assert_array_equal(getattr(other.nodes[name], key), getattr(node, key), err_msg=name)


def test_the_same_size_is_the_same_graph() -> None:
    graph = portable_graph(SPEC, _tensors(), (14, 10), False).graph
    assert resized(graph, (7, 5)) is graph


def test_what_is_tied_to_its_size_is_named_all_at_once() -> None:
    uneven = np.full((2, 4, 4), 0.5, np.float32)
    uneven[0, 1, 1] = 0.7
    lif = lif_node((2, 4, 4), threshold=0.5, decay=1.0, dt=1e-4)
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input(input_type={"input": np.array([2, 4, 4])}),
            "lif0": nir.LIF(tau=lif.tau, r=lif.r, v_leak=lif.v_leak, v_threshold=uneven, v_reset=lif.v_reset),
            "flat": nir.Flatten(input_type={"input": np.array([2, 4, 4])}, start_dim=0),
            "output": nir.Output(output_type={"output": np.array([32])}),
        },
        edges=[("input", "lif0"), ("lif0", "flat"), ("flat", "output")],
        type_check=False,
    )
    with pytest.raises(FindingsError) as caught:
        resized(graph, (8, 8))
    assert [finding.node for finding in caught.value.findings] == ["lif0", "flat"]
    assert caught.value.exit_code == 2
