"""The check: every finding at once, the same ones that an export raises, and nothing written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.portable import portable_graph
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.network import IntegerConv, IntegerLif, IntegerNetwork, IntegerNode
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.check import check
from neurodeploy.targets.equal import network_differences
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS, SIZE

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def spoiled() -> IntegerNetwork:
    """Odd weights, weights beyond 8 bits, a threshold beyond 17 bits, groups and a sum edge in one network."""
    net = SAMPLES["sum edge"].build()
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    conv0, conv1, lif0 = nodes["conv0"], nodes["conv1"], nodes["lif0"]
    assert isinstance(conv0, IntegerConv) and isinstance(conv1, IntegerConv) and isinstance(lif0, IntegerLif)
    nodes["conv0"] = replace(conv0, weight=conv0.weight + 1)
    nodes["conv1"] = replace(conv1, weight=np.full((4, 2, 3, 3), 302), groups=2)
    nodes["lif0"] = replace(lif0, vth=1 << 17)
    return replace(net, nodes=nodes)


@pytest.mark.parametrize("target", ["lava", "loihi2", "nir"])
def test_every_reason_comes_at_once(target: str) -> None:
    result = check(Deployable("spoiled", spoiled(), SIZE), target)
    assert not result.ok
    rules = {(found.node, found.rule) for found in result.findings if found.severity == "error"}
    wanted = {
        ("conv0", "weights are not multiples of 2"),
        ("conv1", "weights are out of range"),
        ("lif0", "the threshold mantissa is out of range"),
    }
    assert wanted <= rules
    if target == "nir":
        assert ("conv1", "readers refuse convolutions with groups") in rules


def test_no_reason_stands_twice() -> None:
    findings = check(Deployable("spoiled", spoiled(), SIZE), "loihi2").findings
    assert len({(found.node, found.rule) for found in findings}) == len(findings)


def test_an_export_raises_what_the_check_found(tmp_path: Path) -> None:
    model = Deployable("spoiled", spoiled(), SIZE)
    with pytest.raises(FindingsError) as caught:
        export(model, "lava", tmp_path / "b")
    errors = [found for found in check(model, "lava").findings if found.severity == "error"]
    assert list(caught.value.findings) == errors and len(errors) > 2
    assert caught.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_the_answer_has_the_stable_keys() -> None:
    answer = check(SAMPLES["sum edge"].sample(), "loihi2").as_dict()
    assert set(answer) == {"schema_version", "target", "profile", "ok", "findings", "placement", "advice"}
    assert answer["ok"] is True and answer["profile"] == "loihi2"
    assert all(set(f) == {"node", "rule", "have", "limit", "instead", "severity"} for f in answer["findings"])
    assert check(SAMPLES["sum edge"].sample(), "nir").as_dict()["placement"] is None


def test_a_chip_of_binary_spikes_refuses_a_graded_input() -> None:
    result = check(SAMPLES["1x1 kernel"].sample(), "nir", "loihi1-davies2018")
    assert not result.ok
    (finding,) = [found for found in result.findings if found.severity == "error"]
    assert finding.node == "input" and "graded" in finding.rule and finding.limit == "binary spikes"


def test_unknown_targets_and_profiles_are_the_users_error() -> None:
    with pytest.raises(UserError, match="no target"):
        check(SAMPLES["1x1 kernel"].sample(), "lavaa")
    with pytest.raises(UserError, match="hardware profile"):
        check(SAMPLES["1x1 kernel"].sample(), "lava", "loihi3")


def test_an_image_that_does_not_go_through_is_a_finding() -> None:
    net = SAMPLES["stride"].build()
    nodes = {**net.nodes, "conv0": replace(net.nodes["conv0"], padding=(0, 0))}  # type: ignore[type-var]
    result = check(Deployable("small", replace(net, nodes=nodes), (4, 4)), "lava")
    assert not result.ok and result.job is None
    assert any("too small" in found.rule for found in result.findings)


def test_a_broken_graph_is_judged_by_its_law() -> None:
    network = grid_network(SAMPLES["sum edge"].build(), SIZE)
    network.graph.nodes["lif0"].tau = np.full((4, 4, 6), -1.0, np.float32)
    result = check(Deployable("broken", network, SIZE), "nir")
    assert not result.ok and result.job is None
    assert [found.node for found in result.findings] == ["lif0"]


def test_a_graph_and_its_integers_are_checked_alike() -> None:
    for title in ("convolution and LIF, one step", "LIF with leak", "integer levels (4 populations)", "sum edge"):
        net = canonical(SAMPLES[title].build())
        job = check(Deployable("graph", grid_network(net, SIZE), SIZE), "nir").usable_job()
        assert network_differences(net, job.network, title) == []


@pytest.mark.parametrize("levels", [1, 3])
def test_a_students_graph_goes_all_the_way(tmp_path: Path, levels: int) -> None:
    spec = StudentSpec(channels=3, width=6, depth=4, levels=levels, edges=((1, 3),), dilation=(1, 2, 1, 1, 1), steps=1)
    rng = np.random.RandomState(levels)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(spec.depth + 1):
        shape = spec.conv_shape(layer)
        tensors[f"conv{layer}.weight"] = rng.randint(-60, 61, shape).astype(np.int8)
        tensors[f"conv{layer}.bias"] = rng.randint(-200, 201, shape[0]).astype(np.int32)
        tensors[f"conv{layer}.step"] = np.float32(0.002 if layer in (1, 3) else 0.003)
        if layer < spec.depth:
            tensors[f"lif{layer}.vth"] = np.sort(rng.randint(50, 400 if layer else 3000, levels)).astype(np.int32)
    network = portable_graph(spec, tensors, (10, 12), quantized=True)
    bundle = export(Deployable("student", network, (10, 12)), "loihi2", tmp_path / "b")
    net = bundle.integer_network()
    for layer in range(spec.depth):
        lif = net.nodes[f"lif{layer}"]
        assert isinstance(lif, IntegerLif)
        bias = sum(tensors[f"conv{source}.bias"].astype(int) for source in ((1, 3) if layer == 3 else (layer,)))
        # what a population's current has to exceed, whatever threshold its layer shares
        thresholds = lif.vth - np.add.outer(lif.levels, lif.bias)
        np.testing.assert_array_equal(thresholds, np.add.outer(tensors[f"lif{layer}.vth"].astype(int), -bias))
        conv = net.nodes[f"conv{layer}"]
        assert isinstance(conv, IntegerConv)
        np.testing.assert_array_equal(conv.weight, 2 * tensors[f"conv{layer}.weight"].astype(int))
    assert bundle.manifest.output_scale == pytest.approx(0.003 / 2, rel=1e-6)
    assert all(layer.spikes for layer in bundle.manifest.proof.layers)
