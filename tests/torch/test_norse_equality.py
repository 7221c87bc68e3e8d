"""The portable graph in norse: spike for spike the float interpreter, and the integers where nothing decays.

norse's own reader and executor hand back outputs only. To see every layer, norse's cells are walked here as well, node
by node in topological order.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neurodeploy.graph.nir_file import write_nir
from neurodeploy.graph.order import run_order
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.lower import quantize
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.random_nets import random_student, student_network

norse = pytest.importorskip("norse.torch")

SIZE = (13, 18)

CHAINS = [
    StudentSpec(width=6, depth=3, levels=4, steps=1),
    StudentSpec(width=5, depth=3, levels=2, steps=1, channels=3, dilation=(1, 2, 3, 1)),
    StudentSpec(width=6, depth=3, levels=1, steps=4, decay=0.25),
    StudentSpec(width=6, depth=3, levels=1, steps=8, decay=0.375),
    StudentSpec(width=6, depth=2, levels=1, steps=8, decay=1.0),
]
SUMS = [
    StudentSpec(width=6, depth=4, levels=4, steps=1, edges=((1, 3), (1, 2), (2, 3))),
    StudentSpec(width=6, depth=4, levels=1, steps=4, decay=0.25, edges=((1, 2), (1, 3))),
    StudentSpec(width=6, depth=3, levels=1, steps=8, decay=0.5, edges=((1, 2),)),
]

Spikes = dict[str, NDArray[np.float64]]


def codes_of(network: Network, seed: int = 0) -> NDArray[np.int64]:
    image = np.random.default_rng(seed).random((network.host.channels, *SIZE), np.float32)
    return network.host.encode(image)


def interpreted(network: Network, codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], Spikes]:
    """Output (T, C, h, w) of the float interpreter, and the spikes of every layer."""
    spikes: dict[str, list[NDArray[np.float64]]] = {}

    def record(*, step: int, name: str, output: NDArray[np.float64], membrane: NDArray[np.float64] | None) -> None:
        if membrane is not None:
            spikes.setdefault(name, []).append(output)

    out = run_float(network.graph, codes, network.host.steps, network.host.dt, record)
    return out, {name: np.stack(frames) for name, frames in spikes.items()}


def cell_of(node: nir.NIRNode, dt: float) -> torch.nn.Module:
    """norse's module for a node, made as ``norse.torch.from_nir`` makes it."""
    if isinstance(node, nir.Conv2d):
        outputs, inputs, kernel, _ = node.weight.shape
        conv = torch.nn.Conv2d(inputs, outputs, kernel, padding=node.padding, dilation=node.dilation)
        conv.weight.data, conv.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
        return conv
    tau, threshold, leak = (torch.tensor(values) for values in (node.tau, node.v_threshold, node.v_leak))
    return norse.LIFBoxCell(norse.LIFBoxParameters(tau_mem_inv=1 / tau, v_th=threshold, v_leak=leak), dt=dt)


@torch.no_grad()
def walked(network: Network, codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], Spikes]:
    """The same through norse's cells, node by node."""
    graph = network.graph
    order, _ = run_order(graph.nodes, graph.edges, "input")
    cells = {
        name: cell_of(node, network.host.dt)
        for name, node in graph.nodes.items()
        if isinstance(node, nir.Conv2d | nir.LIF)
    }
    states: dict[str, object] = dict.fromkeys(order)
    outputs: list[torch.Tensor] = []
    spikes: dict[str, list[torch.Tensor]] = {}
    for _ in range(network.host.steps):
        values = {"input": torch.from_numpy(codes).float()[None]}
        for name in order[1:]:
            x = sum(values[source] for source, target in graph.edges if target == name)
            if isinstance(graph.nodes[name], nir.LIF):
                values[name], states[name] = cells[name](x, states[name])
                spikes.setdefault(name, []).append(values[name][0])
            elif isinstance(graph.nodes[name], nir.Conv2d):
                values[name] = cells[name](x)
            else:
                outputs.append(x[0])
    stacked = {name: torch.stack(frames).double().numpy() for name, frames in spikes.items()}
    return torch.stack(outputs).double().numpy(), stacked


@torch.no_grad()
def executed(network: Network, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Output (T, C, h, w) of norse's own reader and executor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = norse.from_nir(network.graph, dt=network.host.dt)
    state, outputs = None, []
    for _ in range(network.host.steps):
        out, state = module(torch.from_numpy(codes).float()[None], state)
        outputs.append(out[0])
    return torch.stack(outputs).double().numpy()


@pytest.mark.parametrize("spec", [*CHAINS, *SUMS])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_layer_spikes_alike(spec: StudentSpec, seed: int) -> None:
    network = student_network(random_student(spec, seed), SIZE)
    codes = codes_of(network, seed)
    ours, our_spikes = interpreted(network, codes)
    theirs, their_spikes = walked(network, codes)
    assert set(our_spikes) == set(their_spikes)
    for name, spikes in our_spikes.items():
        assert 0.01 < spikes.mean() < 0.99, "a layer that is silent or full tests nothing"
        np.testing.assert_array_equal(spikes, their_spikes[name])
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("spec", [*CHAINS, *SUMS])
@pytest.mark.parametrize("source", ["student", "file", "integers"])
def test_norses_own_reader_gives_the_same_output(spec: StudentSpec, source: str, tmp_path: Path) -> None:
    """Sum edges too: the graph of the student, the file written from it, and the graph of its integers."""
    network = student_network(random_student(spec, 2), SIZE)
    codes = codes_of(network)
    right = interpreted(network, codes)[0]
    if source == "file":
        write_nir(tmp_path / "network.nir", network.graph)
        network = Network(nir.read(tmp_path / "network.nir"), network.host)
    elif source == "integers":
        network = grid_network(quantize(network), SIZE)
    np.testing.assert_array_equal(executed(network, codes), right)


def test_norse_wants_the_edges_of_the_chain_first() -> None:
    """Why the order of edges in the portable graph is fixed: norse walks it depth-first, and would sum too early."""
    network = student_network(random_student(SUMS[0], 2), SIZE)
    codes = codes_of(network)
    right = interpreted(network, codes)[0]
    network.graph.edges.reverse()
    np.testing.assert_array_equal(interpreted(network, codes)[0], right)
    assert not np.array_equal(executed(network, codes), right)


@pytest.mark.parametrize("spec", [spec for spec in [*CHAINS, *SUMS] if spec.decay == 1.0])
def test_populations_in_norse_are_the_integer_levels(spec: StudentSpec) -> None:
    """Compact integers, expanded integers and norse: one and the same spikes, population by population."""
    network = student_network(random_student(spec, 3), SIZE)
    codes = codes_of(network)
    net = quantize(network)
    compact, wide = Trace(spec.steps), Trace(spec.steps)
    total = run(net, codes, observer=compact)
    np.testing.assert_array_equal(run(expand_levels(net), codes, observer=wide), total)
    out, spikes = walked(network, codes)
    np.testing.assert_array_equal(out.sum(axis=0), total * net.units["output"])
    for name, layer in compact.layers.items():
        assert layer.fired.shape[1] == spec.levels
        populations = layer.fired.reshape(spec.steps, -1, *layer.fired.shape[3:])
        np.testing.assert_array_equal(spikes[name], populations)
        np.testing.assert_array_equal(wide.layers[name].fired[:, 0], populations)


@pytest.mark.parametrize("decay", [0.25, 0.5])
def test_leaky_integers_part_from_norse_only_by_truncation(decay: float) -> None:
    spec = StudentSpec(width=6, depth=1, levels=1, steps=8, decay=decay)
    network = student_network(random_student(spec, 4), SIZE)
    codes = codes_of(network)
    trace = Trace(spec.steps)
    run(quantize(network), codes, observer=trace)
    _, spikes = walked(network, codes)
    parted = np.mean(trace.layers["lif0"].fired[:, 0] != spikes["lif0"])
    assert parted < 0.01
