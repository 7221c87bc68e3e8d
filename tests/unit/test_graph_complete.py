"""Graphs as exporters hand them out, made whole."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest

from neurodeploy.errors import FindingsError
from neurodeploy.graph.complete import completed
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.simulate.floating import run_float


class Tensor:
    """What a torch tensor looks like from here."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.shape, self.dtype, self.ndim, self.size = values.shape, values.dtype, values.ndim, values.size

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> np.ndarray:
        return self.values


def exported(bias: object, one: object) -> nir.NIRGraph:
    """A convolution that does not say what it sees, and neurons of one parameter each."""
    zero, threshold = np.zeros(1, np.float32), np.full(1, 0.3, np.float32)
    nodes = {
        "input": nir.Input(input_type={"input": np.array((1, 5, 6))}),
        "conv": nir.Conv2d(
            input_shape=None, weight=np.full((2, 1, 3, 3), 0.25, np.float32), stride=1, padding=1, dilation=1,
            groups=1, bias=bias,
        ),
        "lif": nir.LIF(tau=np.full(1, 4e-4, np.float32), r=one, v_leak=zero, v_threshold=threshold, v_reset=zero),
        "output": nir.Output(output_type={"output": np.array((2, 5, 6))}),
    }  # fmt: skip
    edges = [("lif", "output"), ("conv", "lif"), ("input", "conv")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_what_an_exporter_left_open_follows_from_the_input(tmp_path: Path) -> None:
    one, bias = np.ones(1, np.float32), np.zeros(2, np.float32)
    graph = completed(exported(Tensor(bias), one))
    assert isinstance(graph.nodes["conv"].bias, np.ndarray)
    assert tuple(graph.nodes["conv"].input_shape) == (5, 6)
    assert graph.nodes["lif"].tau.shape == graph.nodes["lif"].v_reset.shape == (2, 5, 6)
    write_nir(tmp_path / "a.nir", graph)
    assert nir.read(tmp_path / "a.nir").nodes["lif"].r.shape == (2, 5, 6)
    x = np.random.RandomState(0).rand(1, 5, 6)
    outputs = run_float(read_nir(tmp_path / "a.nir"), x, 6, 1e-4)
    assert 0 < outputs.mean() < 1
    np.testing.assert_array_equal(outputs, run_float(graph, x, 6, 1e-4))


def test_a_parameter_of_one_element_is_read_as_its_whole_layer(tmp_path: Path) -> None:
    graph = exported(np.zeros(2, np.float32), np.ones(1, np.float32))
    graph.nodes["conv"].input_shape = (5, 6)
    nir.write(tmp_path / "a.nir", graph)
    assert read_nir(tmp_path / "a.nir").nodes["lif"].tau.shape == (2, 5, 6)


def test_what_does_not_fit_is_left_for_the_checks(tmp_path: Path) -> None:
    graph = exported(np.zeros(2, np.float32), np.ones(1, np.float32))
    graph.nodes["conv"].weight = np.zeros((2, 7, 3, 3), np.float32)
    made = completed(graph)
    assert made.nodes["lif"].tau.shape == (1,)
    made.nodes["conv"].input_shape = (5, 6)
    nir.write(tmp_path / "a.nir", made)
    with pytest.raises(FindingsError, match="conv: wrong input shape"):
        read_nir(tmp_path / "a.nir")
