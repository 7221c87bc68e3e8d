"""Networks with feedback in the targets: what carries it carries it spike for spike, what does not says which edge."""

from __future__ import annotations

import ast
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nir as nir_library
import numpy as np
import pytest

from neurodeploy.graph.cycles import feedback_edges
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate.reference import run
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import read_bundle
from neurodeploy.targets.check import check
from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify

SEED, VTH = 2, 90
"""With these the feedback changes what comes out of every network below."""
EDGE = "lif1: the feedback edge from back is not carried"


def recurrent(kind: str, loop: str = "lif1", v_decay: int = 1024, steps: int = 8) -> Deployable:
    """input -> w1 -> lif1 -> w2 -> lif2 -> w3 -> output, and ``back`` from a layer into lif1."""
    rng = np.random.default_rng(SEED)

    def weights(name: str, outputs: int, inputs: int) -> IntegerNode:
        values = 2 * rng.integers(-50, 51, (outputs, inputs, 3, 3))
        return IntegerDense(name, values[:, :, 0, 0]) if kind == "dense" else IntegerConv(name, values, padding=(1, 1))

    def neurons(name: str) -> IntegerLif:
        return IntegerLif(name, VTH, rng.integers(-20, 60, 4), v_decay)

    nodes = [IntegerInput("input", 3), weights("w1", 4, 3), neurons("lif1"), weights("w2", 4, 4), neurons("lif2")]
    nodes += [weights("back", 4, 4), weights("w3", 3, 4), IntegerReadout("output", np.array([5, -3, 0]))]
    edges = [("input", "w1"), ("w1", "lif1"), ("lif1", "w2"), ("w2", "lif2"), ("lif2", "w3"), ("w3", "output")]
    edges += [(loop, "back"), ("back", "lif1")]
    if loop == "lif1":  # what feeds back stands behind what it reads, before what comes next
        nodes.insert(3, nodes.pop(5))
    host = HostSide(channels=3, unshuffle=1, steps=steps, residual=False, input_scale=3.0, input_min=-3, input_max=6)
    net = IntegerNetwork(
        {node.name: node for node in nodes}, tuple(edges), host, dict.fromkeys(("lif1", "lif2", "output"), 2.0**-8)
    )
    return Deployable("recurrent", net, (1, 1) if kind == "dense" else (6, 7))


def assert_feedback_shows(path: Path) -> None:
    """That the proof of a bundle is another one than without its feedback edges."""
    bundle = read_bundle(path)
    net = bundle.integer_network()
    edges = tuple(edge for edge in net.edges if edge not in net.feedback)
    proof = bundle.proof()
    assert net.feedback and (run(replace(net, edges=edges), proof["codes"].astype(np.int64)) != proof["readout"]).any()


@pytest.mark.parametrize("loop", ["lif1", "lif2"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_nir_file_carries_feedback_and_its_readers_run_it(kind: str, loop: str, tmp_path: Path) -> None:
    """The files' own reader, the float interpreter, and the frameworks that are installed."""
    path = tmp_path / "bundle"
    export(recurrent(kind, loop), "nir", path)
    assert_feedback_shows(path)
    graph = nir_library.read(path / "network.nir")
    assert feedback_edges(graph) == {("back", "lif1")}
    assert not np.any(graph.nodes["back"].bias)
    answer = verify(path)
    assert answer["ok"]
    ran = {row["name"] for row in answer["readers"] if row["equal"]}
    wanted = {name for name in ("norse", "snntorch", "spikingjelly") if find_spec(name) is not None}
    assert ran >= {"reference", "float"} | wanted


@pytest.mark.parametrize("form", ["integer", "float"])
@pytest.mark.parametrize("loop", ["lif1", "lif2"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_unrolled_onnx_graph_carries_feedback(kind: str, loop: str, form: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "bundle"
    # floats are those of the integers where nothing is truncated
    export(recurrent(kind, loop, v_decay=4096), "onnx", path, options={"form": form})
    assert_feedback_shows(path)
    (row,) = [row for row in verify(path, against=["onnxruntime"])["readers"] if row["name"] == "onnxruntime"]
    assert row["equal"]


def test_a_graph_of_one_step_hands_no_feedback_on() -> None:
    result = check(recurrent("dense"), "onnx", options={"time": "state"})
    assert [str(found).split(":")[0] for found in result.findings if found.severity == "error"] == ["lif1"]
    assert any(str(found).startswith(EDGE) for found in result.findings)


@pytest.mark.parametrize("target", ["speck", "spinnaker2"])
def test_targets_without_feedback_name_the_edge_in_one_line(target: str) -> None:
    result = check(recurrent("conv"), target)
    errors = [str(found) for found in result.findings if found.severity == "error"]
    assert any(error.startswith(EDGE) for error in errors)
    assert not any("sums several edges" in error for error in errors)


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_lava_program_carries_a_layer_that_feeds_itself(kind: str, tmp_path: Path) -> None:
    """Written, read back by value, and with a gate; what it does in Lava is an external test."""
    export(recurrent(kind), "lava", tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.integer_network().feedback == {("back", "lif1")}
    program = (tmp_path / "bundle" / "program.py").read_text(encoding="utf-8")
    assert program.count("= Gate(") == 1
    ast.parse(program)
    (left,) = bundle.manifest.not_written
    assert left.file == "network.net" and any(reason.startswith(EDGE) for reason in left.reasons)
    result = check(recurrent(kind), "lava", options={"form": "netx"})
    assert any(str(found).startswith(EDGE) for found in result.findings if found.severity == "error")


def test_a_loop_through_two_layers_takes_two_steps_in_lava_and_is_refused() -> None:
    result = check(recurrent("conv", "lif2"), "lava")
    (error,) = [str(found) for found in result.findings if found.severity == "error"]
    assert error.startswith(EDGE) and "a loop through lif2, lif1" in error


def test_loihi2_writes_the_nir_file_and_says_why_there_is_no_program(tmp_path: Path) -> None:
    export(recurrent("conv", "lif2"), "loihi2", tmp_path / "bundle")
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert {file.path for file in manifest.files} == {"network.nir", "proof.npz", "run.py"}
    (left,) = manifest.not_written
    assert left.file == "network.net" and any(reason.startswith(EDGE) for reason in left.reasons)


def test_a_dense_layer_over_a_grid_stays_out_of_the_nir_file() -> None:
    model = recurrent("dense")
    result = check(replace(model, size=(2, 2)), "nir")
    assert not result.ok
