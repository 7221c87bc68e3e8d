"""Target onnx: what onnxruntime computes from the file is what the reference computes, in every form."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.convolve import correlate
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.bounds import CURRENT_MAX
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import Bundle, sha256
from neurodeploy.targets.export import export
from neurodeploy.targets.onnx import NETWORK
from neurodeploy.targets.onnx_build import Shape, build_model, spike_names
from neurodeploy.targets.onnx_integer import integer_findings, weight_digits
from neurodeploy.targets.ops import OPERATIONS, Operation
from neurodeploy.targets.verify import verify
from tests.random_nets import chain, even_weights

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

SAMPLES = {operation.title: operation for operation in OPERATIONS}
FORMS = [(form, time) for form in ("integer", "float") for time in ("unrolled", "state")]
NO_FLOATS = {
    "one leak a channel": "no time constant",
    "LIF with synaptic current (CUBA)": "filters it as well",
    "weights beyond 8 bits": "weights are out of range",
    "weights with an exponent": "weights need an exponent",
    "threshold beyond 17 bits": "threshold is out of range",
}


def outcome(bundle: Bundle) -> dict[str, Any]:
    answer = verify(bundle.path, ["onnxruntime"])
    return {row["name"]: row for row in answer["readers"]}["onnxruntime"]


@pytest.mark.parametrize(("form", "time"), FORMS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.title)
def test_every_form_of_every_operation_is_equal_in_onnxruntime(
    tmp_path: Path, operation: Operation, form: str, time: str
) -> None:
    options = {"form": form, "time": time}
    if form == "float" and operation.title in NO_FLOATS:
        with pytest.raises(FindingsError, match=NO_FLOATS[operation.title]):
            export(operation.sample(), "onnx", tmp_path / "b", options=options)
        return
    bundle = export(operation.sample(), "onnx", tmp_path / "b", options=options)
    onnx.checker.check_model(str(bundle.path / NETWORK), full_check=True)
    row = outcome(bundle)
    assert row["equal"] is True, row["first_difference"]
    assert row["neurons"] > 0 and row["compared"][:2] == ["spikes", "output"]


def test_integers_and_floats_part_where_membranes_truncate_and_the_proof_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    net = chain(
        [even_weights(rng, 8, 1, 3, 3, limit=3), even_weights(rng, 8, 8, 3, 3, limit=6), even_weights(rng, 1, 8, 3, 3)],
        vth=60, v_decay=300, host=HostSide(channels=1, unshuffle=1, steps=16, input_scale=20.0),
    )  # fmt: skip
    bundle = export(Deployable("leaky", net, (20, 20)), "onnx", tmp_path / "b", options={"form": "float"})
    assert bundle.manifest.equality.integers_equal_float is False
    floats, integers = bundle.expected_spikes(of_float=True), bundle.expected_spikes()
    assert any((floats[name] != integers[name]).any() for name in integers)
    assert outcome(bundle)["equal"] is True
    stepped = export(Deployable("leaky", net, (20, 20)), "onnx", tmp_path / "c", options={"time": "state"})
    assert outcome(stepped)["equal"] is True


@pytest.mark.parametrize("size", [(8, 12), (7, 11)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("told", [False, True])
def test_the_image_restored_inside_is_the_programs_to_the_last_bit(
    tmp_path: Path, channels: int, size: tuple[int, int], told: bool
) -> None:
    net = colour_net(channels, told)
    bundle = export(Deployable("c", net, size), "onnx", tmp_path / "b", options={"host": "inside"})
    row = outcome(bundle)
    assert row["equal"] is True and row["compared"] == ["spikes", "output", "restored"]
    image = np.random.RandomState(3).rand(channels, 9, 14).astype(np.float32)
    session = runtime.InferenceSession(str(bundle.path / NETWORK), providers=["CPUExecutionProvider"])
    (restored,) = session.run(None, {"image": image[None]})
    np.testing.assert_array_equal(restored[0], restore(net, image))


def colour_net(channels: int, noise_map: bool = False) -> IntegerNetwork:
    rng = np.random.RandomState(channels)
    width, codes = 3, channels * 4
    seen = codes + noise_map
    return IntegerNetwork(
        nodes={
            "input": IntegerInput("input", seen),
            "conv0": IntegerConv("conv0", 2 * rng.randint(-9, 10, (width, seen, 3, 3)), padding=(1, 1)),
            "lif0": IntegerLif("lif0", vth=300, bias=rng.randint(-9, 10, width), levels=(0, -700)),
            "conv1": IntegerConv("conv1", 2 * rng.randint(-9, 10, (codes, width, 3, 3)), padding=(1, 1)),
            "output": IntegerReadout("output", rng.randint(-9, 10, codes)),
        },
        edges=(("input", "conv0"), ("conv0", "lif0"), ("lif0", "conv1"), ("conv1", "output")),
        host=HostSide.model_validate(
            {"channels": channels, "unshuffle": 2, "output_scale": 0.0137, "noise_map": noise_map}
        ),
    )


@st.composite
def networks(draw: st.DrawFn) -> IntegerNetwork:
    """Two spiking layers whose registers wrap, saturate and decay, with weights of any width and odd ones."""
    seed = draw(st.integers(0, 2**16))
    rng = np.random.RandomState(seed)
    weight = draw(st.sampled_from([3, 200, 3000]))
    steps = draw(st.sampled_from([1, 2, 5]))
    decays = st.sampled_from([0, 1, 700, 4095, 4096])
    kernel, width = draw(st.sampled_from([1, 3])), 2
    levels = draw(st.sampled_from([(0,), (0, -40), (0, -3000, -9000)]))

    def conv(name: str, out: int, into: int) -> IntegerConv:
        values = rng.randint(-weight, weight + 1, (out, into, kernel, kernel)).astype(np.int64)
        return IntegerConv(name, values, padding=(kernel // 2,) * 2)

    def lif(name: str) -> IntegerLif:
        per_channel = draw(st.booleans())
        v_decay: Any = np.array([draw(decays), draw(decays)]) if per_channel else draw(decays)
        return IntegerLif(
            name,
            vth=draw(st.sampled_from([0, 90, 5000, (1 << 17) - 1, 1 << 17])),
            bias=rng.randint(-5000, 5001, width),
            v_decay=v_decay,
            i_decay=draw(decays),
            levels=levels,
        )

    edges = [("input", "conv0"), ("conv0", "lif0"), ("lif0", "conv1"), ("conv1", "lif1"), ("lif1", "conv2")]
    edges.append(("conv2", "output"))
    if draw(st.booleans()):
        edges.append(("conv0", "lif1"))
    return IntegerNetwork(
        nodes={
            "input": IntegerInput("input", 1),
            "conv0": conv("conv0", width, 1),
            "lif0": lif("lif0"),
            "conv1": conv("conv1", width, width),
            "lif1": lif("lif1"),
            "conv2": conv("conv2", 1, width),
            "output": IntegerReadout("output", rng.randint(-99, 100, 1)),
        },
        edges=tuple(edges),
        host=HostSide(channels=1, unshuffle=1, steps=steps),
    )


@hypothesis_settings(max_examples=25)
@given(networks())
def test_random_networks_are_equal_though_their_registers_overflow(net: IntegerNetwork) -> None:
    assert integer_findings(net) == []
    codes = np.random.RandomState(1).randint(-256, 512, (1, 4, 5))
    trace = Trace(net.host.steps)
    wanted = run(net, codes, observer=trace)
    shape = Shape()
    model = build_model(net, (4, 5), shape)
    names = spike_names(net, shape)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for rows in names.values() for row in rows for name in row)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = dict(
        zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {"codes": codes[None].astype(np.int32)}),
            strict=True,
        )
    )
    np.testing.assert_array_equal(results["readout"][0], wanted)
    for layer, rows in names.items():
        have = np.stack([np.stack([results[name][0] for name in row]) for row in rows])
        np.testing.assert_array_equal(have, trace.layers[layer].fired, err_msg=layer)


def test_what_wraps_around_on_the_chip_wraps_around_here(tmp_path: Path) -> None:
    net = SAMPLES["several time steps, no leak left"].build()
    nodes = dict(net.nodes)
    for name, by in (("conv0", 1 << 10), ("conv1", 1 << 10)):
        conv = nodes[name]
        assert isinstance(conv, IntegerConv)
        nodes[name] = replace(conv, weight=conv.weight * by)
    loud = replace(net, nodes=nodes)
    trace, codes = Trace(3), net.host.encode(np.random.RandomState(5).rand(1, 8, 12))
    run(loud, codes, observer=trace)
    unwrapped = correlate(codes, nodes["conv0"].weight, (1, 1), (1, 1), (1, 1), 1)  # type: ignore[union-attr]
    current = trace.layers["lif0"].u[0] // 64
    assert np.abs(unwrapped).max() > CURRENT_MAX and (current != unwrapped).any()
    for time in ("unrolled", "state"):
        bundle = export(Deployable("loud", loud, (8, 12)), "onnx", tmp_path / time, options={"time": time})
        assert outcome(bundle)["equal"] is True


@given(st.lists(st.integers(-(1 << 20), 1 << 20), min_size=1, max_size=20))
def test_weights_are_the_sum_of_their_digits(values: list[int]) -> None:
    weight = np.array(values, np.int64)
    total = sum(digit.astype(np.int64) * factor for digit, factor in weight_digits(weight))
    np.testing.assert_array_equal(np.asarray(total), weight)


def test_sums_beyond_32_bits_are_refused_with_the_layer_named(tmp_path: Path) -> None:
    net = SAMPLES["convolution and LIF, one step"].build()
    conv = net.nodes["conv0"]
    assert isinstance(conv, IntegerConv)
    wide = replace(net, nodes={**net.nodes, "conv0": replace(conv, weight=conv.weight << 20)})
    with pytest.raises(FindingsError, match="conv0: a sum may need more than 32 bits"):
        export(Deployable("wide", wide, (8, 12)), "onnx", tmp_path / "b")


def test_floats_that_could_round_are_refused(tmp_path: Path) -> None:
    net = SAMPLES["convolution and LIF, one step"].build()
    loud = replace(net, host=net.host.model_copy(update={"input_min": -(1 << 20), "input_max": 1 << 20}))
    with pytest.raises(FindingsError, match="conv0: float32 may not hold a sum exactly"):
        export(Deployable("loud", loud, (8, 12)), "onnx", tmp_path / "b", options={"form": "float"})
    assert outcome(export(Deployable("loud", loud, (8, 12)), "onnx", tmp_path / "c"))["equal"] is True


def test_options_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    sample = SAMPLES["LIF with leak"].sample()
    with pytest.raises(FindingsError, match="all time steps are"):
        export(sample, "onnx", tmp_path / "b", options={"host": "inside", "time": "state"})
    dense = SAMPLES["dense layer behind a flatten"].sample()
    with pytest.raises(FindingsError, match="output is no image"):
        export(dense, "onnx", tmp_path / "b", options={"host": "inside"})


def rewritten(bundle: Bundle, change: Any) -> None:
    """Changes the graph, and hash and size in the manifest with it."""
    path = bundle.path / NETWORK
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == NETWORK:
            entry |= {"sha256": sha256(path), "size": path.stat().st_size}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))


def other_operation(model: Any) -> None:
    next(node for node in model.graph.node if node.op_type == "Greater").op_type = "Less"


def other_threshold(model: Any) -> None:
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.shape == () and array == 150:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array + 1, tensor.name))


def another_node(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("Identity", ["codes"], ["extra"]))


def no_description(model: Any) -> None:
    del model.metadata_props[:]


def wrong_description(model: Any) -> None:
    model.metadata_props[0].value = model.metadata_props[0].value.replace('"kind": "lif"', '"kind": "lof"')


def deep_description(model: Any) -> None:
    model.metadata_props[0].value = "[" * 100_000


CHANGES = {
    other_operation: "is not the graph that its own description gives",
    other_threshold: "is not the graph that its own description gives",
    another_node: "is not the graph that its own description gives",
    no_description: "it has no description",
    wrong_description: "its description cannot be used",
    deep_description: "its description cannot be used",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_graph_that_says_something_else_is_refused(tmp_path: Path, change: Any) -> None:
    bundle = export(SAMPLES["several time steps, no leak left"].sample(), "onnx", tmp_path / "b")
    rewritten(bundle, change)
    with pytest.raises(UserError, match=CHANGES[change]):
        verify(bundle.path)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    bundle = export(SAMPLES["convolution and LIF, one step"].sample(), "onnx", tmp_path / "b")
    rewritten(bundle, lambda model: model.ParseFromString(b""))
    with pytest.raises(UserError, match=r"network\.onnx"):
        verify(bundle.path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"form": "float", "time": "state"}, marks=pytest.mark.slow),
        pytest.param({"host": "inside"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_script_repeats_the_proof_and_restores(tmp_path: Path, options: dict[str, str]) -> None:
    net = SAMPLES["LIF with leak"].build()
    net = replace(net, host=net.host.model_copy(update={"output_scale": 0.05}))
    folder = export(Deployable("m", net, (20, 24)), "onnx", tmp_path / "b", options=options).path
    done = subprocess.run(
        [sys.executable, "run.py", "--proof"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equal"] is True
    picture = np.random.RandomState(0).randint(0, 256, (31, 27), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    command = [sys.executable, "run.py", str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    subprocess.run(command, cwd=folder, check=True)
    if options.get("form") != "float":
        wanted = np.rint(np.clip(restore(net, picture[None].astype(np.float32) / 255), 0, 1) * 255)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), wanted[0])


def test_the_script_estimates_the_noise_as_the_program_does(tmp_path: Path) -> None:
    """Of the whole picture, not of a tile: half of it has no noise."""
    net = colour_net(1, noise_map=True)
    folder = export(Deployable("m", net, (20, 24)), "onnx", tmp_path / "b").path
    picture = np.random.RandomState(0).randint(0, 256, (49, 51), dtype=np.uint8)
    picture[:24] = 99
    Image.fromarray(picture).save(tmp_path / "in.png")
    command = [sys.executable, "run.py", str(tmp_path / "in.png"), str(tmp_path / "out.png")]
    subprocess.run(command, cwd=folder, check=True)
    wanted = np.rint(np.clip(restore(net, picture[None].astype(np.float32) / 255), 0, 1) * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), wanted[0])


def test_without_onnx_the_check_warns_and_the_export_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neurodeploy.targets.check import check

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("neurodeploy.targets.onnx.find_spec", lambda _name: None)
    sample = SAMPLES["sum edge"].sample()
    found = check(sample, "onnx")
    assert found.ok and any("not both installed" in str(finding) for finding in found.findings)
    with pytest.raises(UserError, match=r"pip install 'neurodeploy\[onnx\]'"):
        export(sample, "onnx", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
