"""NIR files: round trips compare values; every malformed file is one clear line that names file and node."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph import hdf5
from neurodeploy.graph.nir_file import read_nir, write_nir
from neurodeploy.graph.portable import Network, hinted_host
from neurodeploy.graph.rules import ARRAYS
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.quantize.lower import quantize
from neurodeploy.simulate.floating import run_float
from tests.random_nets import differences, random_student, student_network
from tests.shared import shared_path

SPEC = StudentSpec(width=3, depth=3, levels=2, steps=1, edges=((1, 2),))


@pytest.fixture
def network() -> Network:
    return student_network(random_student(SPEC, 0), (6, 8))


@pytest.fixture
def path(tmp_path: Path, network: Network) -> Path:
    path = tmp_path / "network.nir"
    write_nir(path, network.graph)
    return path


def assert_same_values(first: nir.NIRGraph, second: nir.NIRGraph) -> None:
    assert set(first.nodes) == set(second.nodes)
    assert sorted(first.edges) == sorted(second.edges)
    for name, node in first.nodes.items():
        other = second.nodes[name]
        assert type(node) is type(other)
        for field in ARRAYS.get(type(node), ()):
            ours, theirs = getattr(node, field), getattr(other, field)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_written_is_read_value_for_value(path: Path, network: Network) -> None:
    found = read_nir(path)
    assert_same_values(network.graph, found)
    assert_same_values(network.graph, nir.read(path))
    assert hinted_host(found) == network.host
    assert found.nodes["conv1"].metadata["weight_step"] == 2**-7
    assert differences(quantize(Network(found, network.host)), quantize(network)) == []
    codes = np.random.default_rng(0).integers(0, 256, (4, 3, 4))
    np.testing.assert_array_equal(run_float(found, codes, 1, 1e-4), run_float(network.graph, codes, 1, 1e-4))


def test_compatible_files_lack_v_reset_and_mean_the_same(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "old.nir"
    write_nir(path, network.graph, compat="1.0.4")
    with h5py.File(path) as file:
        assert all("v_reset" not in node for node in file["node/nodes"].values())
    assert_same_values(network.graph, read_nir(path))
    shape = network.graph.nodes["lif0"].r.shape
    network.graph.nodes["lif0"].v_reset = np.full(shape, 0.1, np.float32)
    with pytest.raises(UserError, match=r"lif0: nir 1\.0\.4 has no v_reset"):
        write_nir(tmp_path / "other.nir", network.graph, compat="1.0.4")


@pytest.mark.parametrize("name", ["nir_graphs/cnn_sinabs", "nir_graphs/braille_noDelay_bias_zero", "nir_lif/lif_norse"])
def test_published_files_are_read_like_the_official_reader_reads_them(name: str) -> None:
    path = shared_path(f"golden/{name}.nir")
    assert_same_values(nir.read(path), read_nir(path))


def test_writing_refuses_what_it_could_not_read_again(tmp_path: Path, network: Network) -> None:
    path = tmp_path / "network.nir"
    network.graph.metadata["nothing"] = None
    with pytest.raises(UserError, match="metadata 'nothing' cannot be written"):
        write_nir(path, network.graph)
    del network.graph.metadata["nothing"]
    network.graph.nodes["conv0"].metadata = {"nested": {"list": [1, 2]}}
    with pytest.raises(UserError, match="conv0: nested: metadata 'list'"):
        write_nir(path, network.graph)
    network.graph.nodes["conv0"].metadata = {}
    network.graph.nodes["conv0"].bias = np.zeros(1, np.float32)
    with pytest.raises(FindingsError, match="conv0: its bias has the wrong length"):
        write_nir(path, network.graph)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_without_force(path: Path, network: Network) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write_nir(path, network.graph)
    assert path.read_bytes() == before
    write_nir(path, network.graph, force=True)


Edit = Callable[[h5py.File], None]


def replaced(name: str, value: object) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return edit


def removed(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]

    return edit


def external_link(file: h5py.File) -> None:
    file["node/nodes/conv0/other"] = h5py.ExternalLink("elsewhere.h5", "/x")


def soft_link(file: h5py.File) -> None:
    file["node/nodes/conv9"] = h5py.SoftLink("/node/nodes/conv0")


def hard_link_loop(file: h5py.File) -> None:
    file["node/nodes/conv0/metadata/loop"] = file["node"]


def huge(file: h5py.File) -> None:
    del file["node/nodes/conv0/weight"]
    file.create_dataset("node/nodes/conv0/weight", shape=(1 << 20, 1 << 18), dtype="f4", chunks=(1024, 1024))


def many_medium(file: h5py.File) -> None:
    for index in range(3):
        file.create_dataset(f"node/metadata/m{index}", shape=(1 << 18, 1 << 10), dtype="f4", chunks=(1024, 1024))


def virtual(file: h5py.File) -> None:
    del file["node/nodes/conv0/bias"]
    layout = h5py.VirtualLayout(shape=(6,), dtype="f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(6,))
    file.create_virtual_dataset("node/nodes/conv0/bias", layout)


def compound(file: h5py.File) -> None:
    del file["node/nodes/conv0/bias"]
    file["node/nodes/conv0/bias"] = np.zeros(6, [("a", "f4"), ("b", "i4")])


def deep(file: h5py.File) -> None:
    file.create_group("node/metadata/" + "/".join("abcdefghijklmnopqrst"))


def single_node(file: h5py.File) -> None:
    del file["node"]
    group = file.create_group("node")
    group["type"], group["weight"] = "Linear", np.ones((2, 2))
    group["nodes"], group["edges"] = np.zeros(1), np.zeros(1)


CONV = "node/nodes/conv0"
LIF = "node/nodes/lif0"
MALFORMED: dict[str, tuple[Edit, str]] = {
    "no node": (removed("node"), "not a NIR graph"),
    "no edges": (removed("node/edges"), "not a NIR graph: there is no node/edges"),
    "no nodes": (removed("node/nodes"), "not a NIR graph"),
    "root": (single_node, "its root is a single node"),
    "nodes is data": (replaced("node/nodes", np.zeros(3)), "its nodes are no group"),
    "external link": (external_link, "conv0/other: is a link"),
    "soft link": (soft_link, "conv9: is a link"),
    "loop": (hard_link_loop, "loop: is the same object"),
    "huge": (huge, "too large"),
    "many": (many_medium, "too large"),
    "virtual": (virtual, "conv0/bias: keeps its data elsewhere"),
    "compound": (compound, "conv0/bias: holds something else than real numbers"),
    "complex": (replaced(f"{CONV}/weight", np.ones((6, 4, 3, 3), complex)), "conv0/weight: holds something else"),
    "null": (replaced(f"{CONV}/bias", h5py.Empty("f4")), "conv0/bias: holds no data"),
    "deep": (deep, "nested too deeply"),
    "type missing": (removed(f"{CONV}/type"), "conv0: is no node"),
    "type unknown": (replaced(f"{CONV}/type", "Conv9d"), "conv0: unknown kind of node"),
    "type not a node": (replaced(f"{CONV}/type", "np"), "conv0: unknown kind of node"),
    "type a number": (replaced(f"{CONV}/type", 3), "conv0: unknown kind of node"),
    "subgraph": (replaced(f"{CONV}/type", "NIRGraph"), "conv0: is a graph inside the graph without nodes"),
    "field missing": (removed(f"{CONV}/weight"), "conv0: cannot be made a Conv2d"),
    "field unknown": (replaced(f"{CONV}/bias", np.zeros(6)), ""),
    "field extra": (lambda file: file.__setitem__(f"{CONV}/colour", 3), "conv0: cannot be made a Conv2d"),
    "stride 0": (replaced(f"{CONV}/stride", np.array([0, 0])), "conv0: "),
    "nan": (replaced(f"{CONV}/weight", np.full((6, 4, 3, 3), np.nan)), "conv0: a parameter holds values"),
    "tau": (replaced(f"{LIF}/tau", np.zeros((6, 3, 4))), "lif0: tau must be positive"),
    "bias": (replaced(f"{CONV}/bias", np.zeros(99)), "conv0: its bias has the wrong length"),
    "neuron shapes": (replaced(f"{LIF}/tau", np.ones((6, 3, 5))), "lif0: cannot be made a LIF"),
    "padding": (replaced(f"{CONV}/padding", "wide"), "conv0: cannot be made a Conv2d"),
    "edges of numbers": (replaced("node/edges", np.zeros((3, 2))), "edges: must be pairs of names"),
    "edges of threes": (replaced("node/edges", np.array([["a", "b", "c"]], dtype="S")), "edges: must be pairs"),
    "edges a group": (lambda file: (file.__delitem__("node/edges"), file.create_group("node/edges")), "edges: are no"),
    "edge to nowhere": (replaced("node/edges", np.array([["conv0", "x"]], dtype="S")), "x: edge conv0 -> x refers"),
    "no edges left": (replaced("node/edges", np.zeros((0, 2), "S1")), "no path"),
    "float shape": (replaced("node/nodes/input/shape", np.array([4.0, 3.0, 4.0])), "input: its shape"),
    "other shape": (replaced("node/nodes/input/shape", np.array([4, 9, 9])), "lif0: wrong input shape"),
    "metadata data": (replaced(f"{CONV}/metadata", np.zeros(3)), ""),
}
HARMLESS = ("field unknown", "metadata data")
"""Edits of this list that leave a file that can be read."""


@pytest.mark.parametrize("case", [case for case in MALFORMED if case not in HARMLESS])
def test_malformed_files_are_refused_by_name(path: Path, case: str) -> None:
    edit, message = MALFORMED[case]
    with h5py.File(path, "r+") as file:
        edit(file)
    started = time.process_time()
    with pytest.raises(UserError) as raised:
        read_nir(path)
    assert time.process_time() - started < 2
    assert message in str(raised.value), raised.value
    assert path.name in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("case", HARMLESS)
def test_odd_but_sound_files_are_read(path: Path, case: str) -> None:
    with h5py.File(path, "r+") as file:
        MALFORMED[case][0](file)
    assert len(read_nir(path).nodes) == 9


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.nir"
    with pytest.raises(UserError, match="no such file"):
        read_nir(path)
    for content in (b"", b"text", b"\x89HDF\r\n\x1a\n" + b"\x00" * 200):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"network\.nir: cannot be read as HDF5"):
            read_nir(path)
    with pytest.raises(UserError, match="no such file"):
        read_nir(tmp_path)


def test_too_many_objects_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_OBJECTS", 20)
    with pytest.raises(UserError, match="too many objects"):
        read_nir(path)


def test_truncated_files_are_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in range(100, len(content), len(content) // 7):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"network\.nir"):
            read_nir(path)
