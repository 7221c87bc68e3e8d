"""The program form of target lava: depths and delays, what it refuses, what it writes and reads back."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.check import check
from neurodeploy.targets.export import export
from neurodeploy.targets.lava_plan import graph_findings, plan
from neurodeploy.targets.lava_program import FILES, read_program
from neurodeploy.targets.ops import OPERATIONS, SIZE
from tests.random_nets import differences, random_student, student_network

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def skips(*edges: tuple[int, int], depth: int = 5, **more: Any) -> IntegerNetwork:
    spec = StudentSpec(**{"width": 4, "depth": depth, "levels": 1, "edges": edges, **more})
    return (
        check(Deployable("skips", student_network(random_student(spec, 3), (16, 24)), (16, 24)), "lava")
        .usable_job()
        .network
    )


def test_depths_count_hops_and_delays_balance_them() -> None:
    """Conv 1 feeds layers 1, 3 and 4: to the last it goes three steps late, and the one of layer 0 waits as long."""
    planned = plan(skips((1, 3), (1, 4), (2, 4)))
    assert [(stage.neuron.name, stage.depth) for stage in planned.stages] == [
        ("lif0", 1), ("lif1", 2), ("lif2", 3), ("lif3", 4), ("lif4", 5), ("output", 6)
    ]  # fmt: skip
    assert planned.hops == 6
    found = {hop.process: (stage.neuron.name, hop.source, hop.delay) for stage in planned.stages for hop in stage.hops}
    assert found["conv1"] == ("lif1", "lif0", 0)
    assert found["conv1_2"] == ("lif3", "lif0", 2) and found["conv1_3"] == ("lif4", "lif0", 3)
    assert found["conv2_2"] == ("lif4", "lif1", 2)
    assert [planned.delays(name) for name in ("input", "lif0", "lif1", "lif2")] == [0, 3, 2, 0]
    for stage in planned.stages:
        depths = {"input": 0} | {other.neuron.name: other.depth for other in planned.stages}
        assert all(depths[hop.source] + hop.delay + 1 == stage.depth for hop in stage.hops)


def test_an_edge_from_the_input_delays_the_codes(tmp_path: Path) -> None:
    bundle = export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "b")
    text = (bundle.path / "program.py").read_text()
    assert "source_1_later = codes_later(codes, 1)" in text and "relays(" not in text
    assert bundle.manifest.timing is not None
    windows = [(window.layer, window.first, window.last) for window in bundle.manifest.timing.windows]
    assert windows == [("lif0", 2, 2), ("lif1", 3, 3), ("output", 4, 4)]


NETWORKS: dict[str, Callable[[], IntegerNetwork]] = {
    "skips": lambda: skips((1, 3), (2, 4), levels=1, steps=3, decay=0.25),
    "skips of levels": lambda: skips((1, 2), depth=3, levels=3),
    "dense": SAMPLES["dense layer behind a flatten"].build,
    "one leak a channel": SAMPLES["one leak a channel"].build,
    "current that lasts": SAMPLES["LIF with synaptic current (CUBA)"].build,
    "groups": SAMPLES["groups"].build,
    "kernel that is not square": SAMPLES["kernel that is not square"].build,
}


@pytest.mark.parametrize("title", NETWORKS)
def test_what_is_written_is_what_is_read(tmp_path: Path, title: str) -> None:
    net = NETWORKS[title]()
    model = Deployable("m", net, SIZE)
    bundle = export(model, "lava", tmp_path / "b", options={"form": "program"})
    assert set(FILES) < {path.name for path in bundle.path.iterdir()}
    assert not (bundle.path / "network.net").exists()
    assert differences(read_program(bundle.path), check(model, "lava").usable_job().network) == []
    for name in ("program.py", "run.py"):
        ast.parse((bundle.path / name).read_text(), feature_version=(3, 10))


def test_the_bytes_depend_on_the_network_alone(tmp_path: Path) -> None:
    sample = SAMPLES["sum edge"].sample()
    first, second = (export(sample, "lava", tmp_path / name).path for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def renamed(net: IntegerNetwork, names: dict[str, str]) -> IntegerNetwork:
    def new(name: str) -> str:
        return names.get(name, name)

    return replace(
        net,
        nodes={new(name): replace(node, name=new(name)) for name, node in net.nodes.items()},
        edges=tuple((new(source), new(target)) for source, target in net.edges),
        units={new(name): unit for name, unit in net.units.items()},
    )


def test_names_of_strangers_stay_names(tmp_path: Path) -> None:
    """Names from a graph come into the program as strings, and as variables only with what Python allows in them."""
    names = {
        "lif0": '"""\'); import os; os.system("false"); (\'',
        "conv0": "conv",
        "conv1": "3",
        "lif1": "lambda",
        "conv2": "source",
    }
    net = renamed(SAMPLES["sum edge"].build(), names)
    folder = export(Deployable("m", net, SIZE), "lava", tmp_path / "b").path
    text = (folder / "program.py").read_text()
    tree = ast.parse(text)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"numpy"}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not any(name.split(".")[0] == "os" for name in calls)
    assert {"conv_ = conv('conv'", "layer_3 = conv('3'", "lambda_ = neurons('lambda'"} <= {
        piece for line in text.splitlines() for piece in [line.strip().split(",")[0]]
    }
    assert differences(read_program(folder), net) == []


def chain(*nodes: IntegerNode, edges: tuple[tuple[str, str], ...] = ()) -> IntegerNetwork:
    row = (IntegerInput("input", 4), *nodes, IntegerReadout("output", np.zeros(4, np.int64)))
    names = [node.name for node in row]
    return IntegerNetwork(dict(zip(names, row, strict=True)), (*pairwise(names), *edges), HostSide())


CONV = IntegerConv("conv", np.full((4, 4, 1, 1), 2))
LIF = IntegerLif("lif", 10, np.zeros(4, np.int64))

REFUSED: dict[str, tuple[IntegerNetwork, str]] = {
    "conv behind conv": (chain(CONV, replace(CONV, name="second")), "second"),
    "lif behind lif": (chain(CONV, LIF, replace(LIF, name="second"), replace(CONV, name="last")), "second"),
    "readout behind lif": (chain(CONV, LIF), "output"),
    "flatten behind conv": (chain(CONV, IntegerFlatten("flat"), IntegerDense("last", np.full((4, 96), 2))), "flat"),
}


@pytest.mark.parametrize("title", REFUSED)
def test_what_no_process_of_lava_takes_is_refused(title: str) -> None:
    net, node = REFUSED[title]
    findings = graph_findings(net)
    assert [finding.node for finding in findings] == [node]
    assert "a process of Lava does not take" in findings[0].rule and findings[0].have and findings[0].limit
    result = check(Deployable("m", net, SIZE), "lava")
    assert not result.ok and node in {finding.node for finding in result.findings}


def test_a_layer_that_feeds_nothing_is_refused() -> None:
    net = chain(CONV, LIF, replace(CONV, name="last"))
    dead = replace(net, nodes={"input": net.input, "idle": replace(CONV, name="idle"), **net.nodes},
                   edges=(*net.edges, ("input", "idle")))  # fmt: skip
    assert [(found.node, found.rule) for found in graph_findings(dead)] == [("idle", "feeds nothing")]


def test_the_bound_of_the_output_adds_all_that_meets_there() -> None:
    """Two convolutions of 9 * 4 weights of 254 each: one stays within 17 bits for 9 steps, the two do not."""
    big = IntegerConv("last", np.full((4, 4, 3, 3), 254), padding=(1, 1))
    one = chain(CONV, LIF, big)
    before = {name: node for name, node in one.nodes.items() if name != "output"}
    two = replace(one, nodes={**before, "more": replace(big, name="more"), "output": one.nodes["output"]},
                  edges=(*one.edges, ("lif", "more"), ("more", "output")))  # fmt: skip
    for net, held in ((one, True), (two, False)):
        steps = replace(net, host=HostSide(steps=9))
        assert check(Deployable("m", steps, SIZE), "lava", options={"form": "program"}).ok == held


def test_a_chain_in_netx_form_when_it_is_asked_for(tmp_path: Path) -> None:
    sample = SAMPLES["LIF with leak"].sample()
    for form, file in (("auto", "network.net"), ("netx", "network.net"), ("program", "program.py")):
        bundle = export(sample, "lava", tmp_path / form, options={"form": form})
        assert (bundle.path / file).exists() and bundle.manifest.timing is not None
        assert bundle.manifest.timing.hops == 3
    with pytest.raises(FindingsError, match="sums several edges"):
        export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "no", options={"form": "netx"})


def edit(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "network.json"
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return apply


SPOILED: dict[str, Callable[[Path], None]] = {
    "no JSON": lambda folder: (folder / "network.json").write_text("{") and None,
    "unknown key": edit(lambda values: values.update(more=1)),
    "unknown node": edit(lambda values: values["nodes"][1].update(kind="pool")),
    "a name twice": edit(lambda values: values["nodes"][2].update(name="conv0")),
    "a cycle": edit(lambda values: values["edges"].append(["output", "input"])),
    "an edge to nowhere": edit(lambda values: values["edges"].append(["conv1", "nothing"])),
    "no output": edit(lambda values: values["nodes"].pop()),
    "a stride beyond 127": edit(lambda values: values["nodes"][1].update(stride=[500, 1])),
    "no weights": lambda folder: (folder / "weights.npz").unlink(),
    "other weights": edit(lambda values: values["nodes"][1].update(name="another")),
    "too large": lambda folder: (folder / "network.json").write_text(" " * ((8 << 20) + 1)) and None,
}


@pytest.mark.parametrize("title", SPOILED)
def test_spoiled_files_are_one_line(tmp_path: Path, title: str) -> None:
    folder = export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "b").path
    SPOILED[title](folder)
    with pytest.raises(UserError) as caught:
        read_program(folder)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_code == 2


def test_levels_stand_as_channels_in_the_files(tmp_path: Path) -> None:
    net = skips((1, 2), depth=3, levels=3)
    folder = export(Deployable("m", net, SIZE), "lava", tmp_path / "b").path
    with np.load(folder / "weights.npz") as arrays:
        assert arrays["conv1"].shape == (12, 12, 3, 3) and arrays["lif1.bias"].shape == (12,)
    assert expand_levels(read_program(folder)).nodes.keys() == net.nodes.keys()
