"""Targets of chips that take events alone: the cut in three, the limits, what an importer's rules make of a file."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.convolve import correlate
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import IntegerConv, IntegerLif, IntegerNetwork
from neurodeploy.targets import get_target
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import Bundle, read_bundle, sha256
from neurodeploy.targets.events import Layer
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.speck import CORES, halved, memory, placed
from neurodeploy.targets.verify import verify
from tests.random_nets import chain, even_weights

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def network(
    *, steps: int = 1, v_decay: int = 4096, levels: tuple[int, ...] = (0,), bias: bool = True
) -> IntegerNetwork:
    """Three spiking layers behind one another, biases included or not."""
    rng = np.random.default_rng(3)
    shapes = [(4, 1), (5, 4), (6, 5), (1, 6)]
    weights = [even_weights(rng, *shape, 3, 3, limit=30) for shape in shapes]
    host = HostSide(channels=1, unshuffle=1, steps=steps, input_scale=20.0)
    net = chain(weights, vth=90, levels=levels, v_decay=v_decay, host=host, steps=steps)
    if bias:
        return net
    nodes = {n: replace(x, bias=x.bias * 0) if isinstance(x, IntegerLif) else x for n, x in net.nodes.items()}
    return replace(net, nodes=nodes)


def written(tmp_path: Path, net: IntegerNetwork, target: str, size: tuple[int, int] = (9, 7)) -> Bundle:
    bundle = export(Deployable("m", net, size), target, tmp_path / target)
    spikes = bundle.expected_spikes()
    assert len(spikes) == 3 and all(0 < layer.mean() < 1 for layer in spikes.values())
    return bundle


# SpiNNaker 2


def script_of(bundle: Bundle) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_run", bundle.path / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_importer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for py-spinnaker2: hands back the graph and the configuration that it was called with."""
    module = SimpleNamespace(
        ConversionConfig=SimpleNamespace,
        IntegratorMethod=SimpleNamespace(FORWARD="forward"),
        ResetMethod=SimpleNamespace(ZERO="zero"),
        from_nir=lambda graph, config: (graph, config),
    )
    monkeypatch.setitem(sys.modules, "spinnaker2", SimpleNamespace(s2_nir=module))  # type: ignore[arg-type]


def on_spinnaker2(graph: nir.NIRGraph, config: Any, sent: Any) -> dict[str, Any]:
    """What the importer's rules make of a graph, run with one time step from a population to the next.

    A population's membrane is ``v <- alpha v + weights * spikes + offset``, a spike where it exceeds the threshold, and
    reset to 0; weights are cast to int8, thresholds and ``alpha`` scaled as its converters do.
    """
    order = [name for name in ("conv1", "lif1", "conv2", "lif2") if name in graph.nodes]
    chips = []
    for conv_name, lif_name in (order[:2], order[2:]):
        conv, neuron = graph.nodes[conv_name], graph.nodes[lif_name]
        assert conv.bias.shape == neuron.v_threshold.shape
        if isinstance(neuron, nir.LIF):
            alpha, scale = 1 - config.dt / neuron.tau, neuron.tau / config.dt / neuron.r
        else:
            alpha, scale = np.ones_like(neuron.r), 1 / neuron.r
        weight = (conv.weight * 1.0).astype(np.int8).astype(np.float32)
        assert (weight == conv.weight).all()
        chips.append((lif_name, conv, weight, alpha, neuron.v_threshold * scale, conv.bias))
    seen: dict[str, Any] = {name: [] for name, *_ in chips}
    membranes = {name: np.zeros(threshold.shape) for name, *_, threshold, _ in chips}
    total = len(sent) + len(chips)
    arriving = {name: np.zeros(1) for name, *_ in chips}
    for step in range(total):
        outputs = {"input": sent[step] if step < len(sent) else np.zeros_like(sent[0])}
        for name, conv, weight, alpha, threshold, offset in chips:
            x = outputs["input"] if name == chips[0][0] else arriving[name]
            current = correlate(
                np.broadcast_to(x, (weight.shape[1], *sent.shape[2:])).astype(np.float64),
                weight, tuple(conv.stride), tuple(conv.padding), (1, 1), 1,
            )  # fmt: skip
            v = alpha * membranes[name] + current + offset
            fired = v > threshold
            membranes[name] = np.where(fired, 0, v)
            seen[name].append(fired)
            outputs[name] = fired
        for (before, *_), (after, *_) in itertools.pairwise(chips):
            arriving[after] = outputs[before]
    return {name: np.stack(steps[k : k + len(sent)]) for k, (name, steps) in enumerate(seen.items())}


@pytest.mark.parametrize(
    "kind",
    [{}, {"steps": 4}, {"steps": 4, "v_decay": 0, "bias": False}, {"levels": (0, -80, -170)}],
    ids=["one step", "four steps", "no leak", "levels"],
)
def test_the_importers_rules_make_the_proofs_spikes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: dict[str, Any]
) -> None:
    bundle = written(tmp_path, network(**kind), "spinnaker2")
    fake_importer(monkeypatch)
    script, want, proof = script_of(bundle), bundle.expected_spikes(), bundle.proof()
    graph, config = script.load_chip()
    assert config.dt == 1.0 and config.conn_delay == 0 and config.scale_weights is False and config.reset == "zero"
    host = script.Host()
    sent = host.spikes(proof["codes"], bundle.manifest.steps)
    np.testing.assert_array_equal(sent, want["lif0"])
    have = on_spinnaker2(graph, config, sent)
    for name in ("lif1", "lif2"):
        np.testing.assert_array_equal(have[name], want[name], err_msg=name)
    np.testing.assert_array_equal(host.output(have["lif2"]), proof["readout"])
    lists = script.spike_lists(sent)
    assert sum(map(len, lists.values())) == sent.sum() and len(lists) == sent[0].size


def test_spinnaker2_says_what_it_would_compute_otherwise(tmp_path: Path) -> None:
    cases = {
        "charges up on its bias": network(steps=4, v_decay=0),
        "rounded otherwise": network(steps=4, v_decay=700),
        "nothing is left for the chip": chain([np.full((1, 1, 3, 3), 2), np.full((1, 1, 3, 3), 2)]),
    }
    for words, net in cases.items():
        host = net.host.model_copy(update={"channels": 1, "unshuffle": 1})
        with pytest.raises(FindingsError, match=words):
            export(Deployable("m", replace(net, host=host), (9, 7)), "spinnaker2", tmp_path / "b")


# Speck


@given(st.lists(st.integers(-4000, 4000), min_size=1, max_size=5), st.integers(0, 5000), st.integers(-9000, 9000))
def test_halved_thresholds_say_the_same(biases: list[int], vth: int, x: int) -> None:
    bias, threshold = halved(IntegerLif("l", vth=vth, bias=np.array(biases)), steps=1)
    assert threshold >= 0
    for b, own in zip(biases, bias, strict=True):
        assert (2 * x + b > vth) == (x + own > threshold) == (x + own > threshold + 0.5 or x + own == threshold + 1)


def test_memory_is_counted_in_powers_of_two() -> None:
    conv = IntegerConv("c", np.zeros((10, 8, 3, 3), np.int64))
    layer = Layer(conv, IntegerLif("l", 1, np.zeros(10, np.int64)), (8, 20, 33), (10, 20, 33))
    assert memory(layer) == (8 * 16 * 16, 10 * 32 * 64)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([8, 20, 33])), min_size=1, max_size=5))
def test_layers_find_cores_where_any_placing_exists(sizes: list[tuple[int, int]]) -> None:
    layers = []
    for scale, side in sizes:
        conv = IntegerConv("c", np.zeros((16 * scale, 32 * scale, 3, 3), np.int64))
        lif = IntegerLif("l", 1, np.zeros(16 * scale, np.int64))
        layers.append(Layer(conv, lif, (32 * scale, side, side), (16 * scale, side, side)))
    needs = [memory(layer) for layer in layers]

    def fits(need: tuple[int, int], core: int) -> bool:
        return need[0] <= CORES[core][0] and need[1] <= CORES[core][1]

    exists = any(
        all(fits(need, core) for need, core in zip(needs, cores, strict=True))
        for cores in itertools.permutations(range(9), len(needs))
    )
    found = placed(layers)
    assert (found is not None) == exists
    if found is not None:
        assert len(set(found)) == len(found) and all(map(fits, needs, found))


def test_speck_says_what_its_cores_do_not_hold(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match=r"fits no core .*Ki of neuron memory"):
        export(Deployable("large", network(), (200, 200)), "speck", tmp_path / "b")
    with pytest.raises(FindingsError, match="biases do not fit 8 bits"):
        export(Deployable("levels", network(levels=(0, -600)), (9, 7)), "speck", tmp_path / "b")
    with pytest.raises(FindingsError, match="IF neurons alone"):
        export(Deployable("leak", network(steps=4, v_decay=700), (9, 7)), "speck", tmp_path / "b")
    with pytest.raises(FindingsError, match="not multiples of 2"):
        export(Deployable("odd", network(steps=4, v_decay=0), (9, 7)), "speck", tmp_path / "b")


@pytest.mark.parametrize("target", ["speck", "spinnaker2"])
def test_a_chips_part_that_differs_from_the_integers_is_refused(tmp_path: Path, target: str) -> None:
    bundle = written(tmp_path, network(), target)
    path = bundle.path / f"{target}.nir"
    graph = nir.read(path)
    graph.nodes["conv1"].weight[0, 0, 0, 0] += 1
    nir.write(path, graph)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == path.name:
            entry |= {"sha256": sha256(path), "size": path.stat().st_size}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"conv1\.weight differs from what the integers give"):
        read_bundle(bundle.path).networks()


def test_a_bundle_of_either_runs_in_our_reader(tmp_path: Path) -> None:
    for target in ("speck", "spinnaker2"):
        bundle = written(tmp_path, network(), target)
        assert verify(bundle.path, ["reference"])["ok"] is True


@pytest.mark.parametrize("name", ["xylo", "akida"])
def test_chips_that_no_file_reaches_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is not a target: .*convol|{name} is not a target: .*not published"):
        get_target(name)
