"""The netx file: what stands in it, what is read back, what is refused, and Intel's own file and traces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import FindingsError, InternalError, UserError
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.equal import network_differences
from neurodeploy.targets.lava_chain import chain_findings, netx_findings, process_findings, readout_findings
from neurodeploy.targets.lava_net import read_net, read_net_file
from neurodeploy.targets.lava_parts import plain_host
from neurodeploy.targets.lava_write import exact_float32, write_net
from neurodeploy.targets.ops import OPERATIONS, SIZE, chain
from tests.shared import shared_path

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def written(path: Path, title: str = "convolution and LIF, one step") -> Path:
    net = expand_levels(canonical(SAMPLES[title].build()))
    write_net(path / "network.net", net, layer_shapes(net, SIZE))
    return path / "network.net"


def test_the_layout_is_the_stated_one(tmp_path: Path) -> None:
    net = SAMPLES["convolution and LIF, one step"].build()
    with h5py.File(written(tmp_path)) as file:
        layers = file["layer"]
        assert sorted(layers) == ["0", "1", "2"]
        assert layers["0/type"][()].tolist() == [b"input"]
        assert layers["0/shape"][()].tolist() == [4, 4, 6]
        conv = layers["1"]
        assert conv["type"].dtype == np.dtype("S10") and conv["type"].shape == (1,)
        assert conv["shape"][()].tolist() == [4, 4, 6] and conv["shape"].dtype == np.int64
        assert conv["weight"].dtype == np.float32 and conv["bias"].dtype == np.float32
        np.testing.assert_array_equal(conv["weight"][()], net.nodes["conv0"].weight)
        np.testing.assert_array_equal(conv["bias"][()], net.nodes["lif0"].bias)
        assert [conv[key][()].tolist() for key in ("stride", "padding", "dilation")] == [[1, 1], [1, 1], [1, 1]]
        assert conv["groups"][()] == 1
        assert conv["neuron/type"][()] == b"CUBA" and conv["neuron/type"].shape == ()
        assert [int(conv[f"neuron/{key}"][()]) for key in ("iDecay", "vDecay", "vThMant")] == [4096, 4096, 150]
        last = layers["2/neuron"]
        assert [int(last[key][()]) for key in ("iDecay", "vDecay", "vThMant")] == [4096, 0, 131071]
        assert not any(len(item.attrs) for item in (file, layers, conv, conv["weight"]))


@pytest.mark.parametrize("title", [title for title, op in SAMPLES.items() if not chain_findings(op.build())])
def test_what_is_read_back_is_what_was_written(tmp_path: Path, title: str) -> None:
    net = canonical(SAMPLES[title].build())
    assert network_differences(net, read_net(written(tmp_path, title)), "network.net") == []


def test_the_bytes_depend_on_the_network_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    assert written(first).read_bytes() == written(second).read_bytes()


@given(
    channels=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    decays=st.tuples(st.integers(0, 4096), st.integers(0, 4096)),
    seed=st.integers(0, 1 << 16),
)
def test_every_chain_of_convolutions_survives(
    tmp_path_factory: pytest.TempPathFactory,
    channels: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    decays: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.RandomState(seed)
    weight = rng.randint(-128, 128, (channels, 4, *kernel)).astype(np.int64) * 2
    conv = IntegerConv("conv0", weight, stride, (kernel[0], kernel[1]), dilation)
    bias = rng.randint(-4096, 4096, channels).astype(np.int64)
    lif = IntegerLif("lif0", int(rng.randint(0, 1 << 17)), bias, v_decay=decays[0], i_decay=decays[1])
    last = IntegerConv("conv1", rng.randint(-128, 128, (4, channels, 1, 1)).astype(np.int64) * 2)
    net = canonical(chain(conv, lif, last, steps=2))
    wide = expand_levels(net)
    path = tmp_path_factory.mktemp("net") / "network.net"
    write_net(path, wide, layer_shapes(wide, SIZE))
    assert network_differences(net, read_net(path), "network.net") == []


def test_what_is_flat_is_not_flattened_again(tmp_path: Path) -> None:
    """Lava's netx fails at a flatten between two dense layers; such a network runs, and is read back, without it."""
    rng = np.random.RandomState(0)
    shapes = {"first": (5, 96), "second": (3, 5), "last": (2, 3)}
    dense = {name: IntegerDense(name, 2 * rng.randint(-50, 50, shape)) for name, shape in shapes.items()}
    lifs = [IntegerLif(f"lif{place}", 100, np.zeros(size, np.int64)) for place, size in enumerate((4, 5, 3))]
    conv = IntegerConv("conv", 2 * rng.randint(-3, 4, (4, 4, 3, 3)), padding=(1, 1))
    flattens = [IntegerFlatten(f"flat{place}") for place in range(3)]
    parts = (lifs[0], flattens[0], dense["first"], lifs[1], flattens[1], dense["second"], lifs[2], flattens[2])
    net = chain(conv, *parts, dense["last"])
    wide = expand_levels(canonical(net))
    assert [name for name in wide.nodes if name.startswith("flat")] == ["flat0"]
    path = tmp_path / "network.net"
    write_net(path, wide, layer_shapes(wide, SIZE))
    codes = rng.randint(0, 99, (4, 4, 6))
    read = read_net(path)
    assert network_differences(canonical(net), read, "network.net") == []
    np.testing.assert_array_equal(run(read, codes), run(net, codes))


def edited(path: Path, change: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def _replace(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return change


REFUSED: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "unknown layer": (_replace("layer/1/type", np.array([b"add"])), "unknown layer"),
    "pool": (_replace("layer/1/type", np.array([b"pool"])), "unknown layer"),
    "sigma-delta": (_replace("layer/1/neuron/type", np.bytes_("SDNN")), "unknown neuron"),
    "fraction in the weights": (_replace("layer/1/weight", np.full((4, 4, 3, 3), 0.5)), "no integers"),
    "nan in the bias": (_replace("layer/1/bias", np.full(4, np.nan)), "no finite numbers"),
    "bias of another length": (_replace("layer/1/bias", np.zeros(3)), "not one value a channel"),
    "too many groups": (_replace("layer/1/groups", 128), "out of range"),
    "stride 0": (_replace("layer/1/stride", np.array([0, 1])), "out of range"),
    "three strides": (_replace("layer/1/stride", np.array([1, 1, 1])), "one or two values"),
    "decay beyond 12 bits": (_replace("layer/1/neuron/vDecay", 4097), "out of range"),
    "two thresholds": (_replace("layer/1/neuron/vThMant", np.array([1, 2])), "one threshold a layer"),
    "a delay": (_replace("layer/1/delay", np.array([1.0])), "delays"),
    "another shape": (_replace("layer/1/shape", np.array([4, 5, 6])), "another shape"),
    "a gap in the numbers": (lambda file: file.move("layer/2", "layer/3"), "without gaps"),
    "no layers": (lambda file: file.__delitem__("layer"), "not a netx file"),
    "a soft link": (_replace("layer/1/extra", h5py.SoftLink("/layer/0")), "is a link"),
    "a link to another file": (_replace("extra", h5py.ExternalLink("other.h5", "/")), "is a link"),
    "a circle of groups": (lambda file: file["layer"].__setitem__("loop", file["layer"]), "same object as another"),
    "hints that are none": (_replace("neurodeploy/hints", np.bytes_("{}")), "hints are refused"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_faulty_file_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    change, words = REFUSED[fault]
    path = edited(written(tmp_path), change)
    with pytest.raises(UserError, match=words):
        read_net(path)


def test_a_huge_dataset_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    with h5py.File(path, "r+") as file:
        file.create_dataset("extra", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,))
    with pytest.raises(UserError, match="too large"):
        read_net(path)


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    path = written(tmp_path)
    edited(path, REFUSED["stride 0"][0])
    edited(path, _replace("layer/2/neuron/type", np.bytes_("RF")))
    with pytest.raises(FindingsError) as caught:
        read_net(path)
    assert [finding.node for finding in caught.value.findings] == ["layer/1", "layer/2/neuron/type"]


def test_no_file_and_no_hdf5_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_net(tmp_path / "absent.net")
    (tmp_path / "text.net").write_text("not HDF5")
    with pytest.raises(UserError, match="cannot be read as a netx file"):
        read_net(tmp_path / "text.net")


def test_a_file_without_hints_counts_the_spikes_of_its_last_layer(tmp_path: Path) -> None:
    path = edited(written(tmp_path), lambda file: file.__delitem__("neurodeploy"))
    edited(path, _replace("layer/2/neuron/vThMant", 100))
    edited(path, _replace("layer/2/neuron/vDecay", 1024))
    assert read_net(path).host == plain_host(4)
    edited(path, _replace("layer/0/shape", np.array([1, 4, 6])))
    edited(path, _replace("layer/1/weight", np.full((4, 1, 3, 3), 2.0)))
    net = read_net(path)
    assert net.sources("output") == ("lif1",) and isinstance(net.nodes["output"], IntegerReadout)
    assert net.host == plain_host(1)
    assert run(net, np.full((1, 4, 6), 60)).max() <= 1


def test_scalars_and_old_shapes_of_other_writers_are_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    expected = read_net(path)
    with h5py.File(path, "r+") as file:
        weight = file["layer/1/weight"][()][..., None]
        bias = np.broadcast_to(file["layer/1/bias"][()], (6, 4, 4)).copy()
        for name, value in (("weight", weight), ("bias", bias), ("stride", 1), ("padding", 1), ("dilation", 1)):
            del file[f"layer/1/{name}"]
            file[f"layer/1/{name}"] = value
    assert network_differences(expected, read_net(path), "network.net") == []


def test_intels_pilotnet_gives_intels_spikes() -> None:
    """A zero-delay window of 17 steps: layer k (input = 0) shows its step t in step t + k of the recording."""
    folder = shared_path("golden/pilotnet_lif")
    net = read_net_file(folder / "network.net").network
    assert [type(node).__name__ for node in net.nodes.values()][-2:] == ["IntegerDense", "IntegerReadout"]
    net = replace(net, host=net.host.model_copy(update={"steps": 17}))
    trace = Trace(17)
    run(net, np.load(folder / "image.npy").transpose(2, 1, 0).astype(np.int64), observer=trace)
    layers = {
        "input": "lif_input",
        **{f"conv-{k}": f"lif{k}" for k in range(5)},
        **{f"fc-{k}": f"lif{k + 5}" for k in range(3)},
    }
    for place, (recorded, name) in enumerate(layers.items()):
        spikes = np.load(folder / f"{recorded}.npy")
        spikes = np.moveaxis(spikes if spikes.ndim == 4 else spikes.reshape(1, 1, *spikes.shape), -1, 0)
        wanted = spikes.transpose(0, 3, 2, 1)[place : place + 17].astype(bool)
        assert wanted.any()
        np.testing.assert_array_equal(trace.layers[name].fired[: len(wanted), 0], wanted, err_msg=recorded)


def test_a_dense_matrix_that_lava_clips_is_refused() -> None:
    good = IntegerDense("dense", np.array([[-2, -6], [-8, 4]]))
    assert netx_findings(good) == process_findings(good) == []
    for weight in ([[-2, -4], [-8, -6]], [[-256, 0], [-2, -2]], [[-2, 0], [0, 0]]):
        (finding,) = netx_findings(IntegerDense("dense", np.array(weight)))
        assert "minus a power of two" in finding.rule
    assert netx_findings(IntegerDense("dense", np.array([[-6, -2]]))) == []
    (finding,) = netx_findings(IntegerDense("dense", np.zeros((2, 2), np.int64)))
    assert "all weights are zero" in finding.rule


def test_an_output_that_could_reach_its_threshold_is_refused() -> None:
    """131071 is the last value that a membrane of 24 bits holds without a spike: 512 weights of 254 + bias."""

    def net(bias: int, steps: int = 1) -> IntegerNetwork:
        lif = IntegerLif("lif0", 10, np.zeros(4, np.int64))
        wide = IntegerConv("conv0", np.full((4, 4, 1, 1), 2))
        last = IntegerConv("conv1", np.full((4, 4, 1, 1), 254))
        made = chain(wide, lif, last, steps=steps)
        readout = IntegerReadout("output", np.array([bias, 0, 0, 0]))
        return replace(made, nodes={**made.nodes, "output": readout})

    assert readout_findings(net(131071 - 4 * 254)) == []
    (finding,) = readout_findings(net(131072 - 4 * 254))
    assert finding.node == "output" and "131072" in finding.have
    assert readout_findings(net(-131071)) == []
    assert len(readout_findings(net(-131072))) == 1
    assert len(readout_findings(net(131071 // 2 - 1000, steps=3))) == 1


def test_float32_that_cannot_hold_an_integer_is_a_fault_of_ours() -> None:
    assert exact_float32(np.array([-(1 << 24), 1 << 24])).dtype == np.float32
    with pytest.raises(InternalError):
        exact_float32(np.array([(1 << 24) + 1]))
