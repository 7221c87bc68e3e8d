"""Bundles: the same bytes every time, whole or refused, and the integers back out of them."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.quantize.network import IntegerLif
from neurodeploy.shipped import shipped
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import restore
from neurodeploy.targets import TARGETS, target_names
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import equality, parameters, read_bundle
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.equal import network_differences
from neurodeploy.targets.export import export
from neurodeploy.targets.manifest import Manifest, manifest_schema
from neurodeploy.targets.ops import OPERATIONS, SIZE
from neurodeploy.targets.proof import npz_bytes, read_npz, smallest_margin, synthetic_image

SAMPLES = {operation.title: operation for operation in OPERATIONS}
PLAIN = SAMPLES["convolution and LIF, one step"]
LEVELS = SAMPLES["integer levels (4 populations)"]
LEAKY = SAMPLES["LIF with leak"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every kind of file."""
    return export(LEVELS.sample(), "loihi2", tmp_path_factory.mktemp("exported") / "bundle").path


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def rewrite(folder: Path, change: Any) -> None:
    """Changes the manifest as JSON."""
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_same_model_gives_the_same_bytes(tmp_path: Path, target: str) -> None:
    sample = SAMPLES["1x1 kernel"].sample(target) if target in ("speck", "spinnaker2") else LEAKY.sample()
    first, second = (export(sample, target, tmp_path / name).path for name in ("a", "b"))
    files = sorted(path.name for path in first.iterdir())
    assert files == sorted(path.name for path in second.iterdir()) and "manifest.json" in files
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_the_manifest_says_what_is_in_the_bundle(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert [entry.path for entry in manifest.files] == ["network.nir", "network.net", "run.py", "proof.npz"]
    assert manifest.target == "loihi2" and manifest.steps == 1 and manifest.dt == 1e-4
    assert manifest.image_size == SIZE and manifest.proof.input_shape == (4, 4, 6)
    lif = next(layer for layer in manifest.layers if layer.name == "lif0")
    assert lif.shape == (16, 4, 6) and lif.populations == 4 and lif.unit == 2.0**-8
    # conv 4x4x3x3 twice, biases 4 and 4, four thresholds; repeated: 4 times the weights, biases of 16, one threshold
    assert manifest.model.parameters == 2 * 144 + 4 + 4 + 4
    assert manifest.model.parameters_repeated == 2 * 4 * 144 + 16 + 4 + 1
    assert manifest.timing is not None and manifest.timing.hops == 2 and manifest.timing.reset_offset == 1
    assert [(w.layer, w.first, w.last) for w in manifest.timing.windows] == [("lif0", 2, 2), ("output", 3, 3)]
    assert manifest.placement is not None and "estimate" in manifest.placement
    assert manifest.halo == 4


def test_the_integers_come_back_from_every_file(bundle: Path) -> None:
    read = read_bundle(bundle)
    networks = read.networks()
    assert sorted(networks) == ["network.net", "network.nir"]
    for file, network in networks.items():
        assert network_differences(canonical(LEVELS.build()), network, file) == []
    assert network_differences(networks["network.net"], read.integer_network(), "the first") == []


def test_the_proof_is_what_the_definition_gives(bundle: Path) -> None:
    read = read_bundle(bundle)
    proof, net = read.proof(), LEVELS.build()
    np.testing.assert_array_equal(proof["codes"], net.host.encode(proof["image"]))
    np.testing.assert_array_equal(proof["readout"], run(net, proof["codes"]))
    np.testing.assert_array_equal(proof["restored"], restore(net, proof["image"]))
    spikes = read.expected_spikes()["lif0"]
    assert spikes.shape == (1, 16, 4, 6) and 0 < spikes.sum() == read.manifest.proof.layers[0].spikes
    levels = spikes.reshape(4, 4, 4, 6).sum(axis=0)
    assert set(np.unique(levels)) - {0, 4}, "the sample uses levels in between"


def test_an_image_of_the_callers_makes_the_proof(tmp_path: Path) -> None:
    image = np.random.RandomState(3).rand(1, *SIZE)
    made = export(Deployable("mine", PLAIN.build(), SIZE, image), "nir", tmp_path / "b")
    np.testing.assert_array_equal(made.proof()["image"], image.astype(np.float32))
    with pytest.raises(UserError, match="another size"):
        export(Deployable("mine", PLAIN.build(), SIZE, image[:, :4]), "nir", tmp_path / "c")
    with pytest.raises(UserError, match="does not fit"):
        export(Deployable("mine", PLAIN.build(), SIZE, np.repeat(image, 3, axis=0)), "nir", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_nothing_is_overwritten_without_force(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="not overwritten"):
        export(PLAIN.sample(), "loihi2", bundle)
    assert (bundle / "manifest.json").read_bytes() == before
    export(PLAIN.sample(), "loihi2", bundle, force=True)
    assert (bundle / "manifest.json").read_bytes() != before
    assert sorted(path.name for path in bundle.parent.iterdir()) == [bundle.name]


def test_a_refused_export_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FindingsError, match="sums several edges"):
        export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "b", options={"form": "netx"})
    assert list(tmp_path.iterdir()) == []


def test_loihi2_says_which_file_it_left_out_and_why(tmp_path: Path) -> None:
    manifest = export(SAMPLES["sum edge"].sample(), "loihi2", tmp_path / "a").manifest
    assert [left.file for left in manifest.not_written] == ["network.net"]
    assert any("sums several edges" in reason for reason in manifest.not_written[0].reasons)
    assert manifest.timing is not None and manifest.timing.hops == 3
    assert {"network.nir", "program.py", "network.json", "weights.npz"} <= {entry.path for entry in manifest.files}
    manifest = export(SAMPLES["groups"].sample(), "loihi2", tmp_path / "b").manifest
    assert [left.file for left in manifest.not_written] == ["network.nir"]
    assert "groups" in manifest.not_written[0].reasons[0]


def test_a_network_that_no_file_of_loihi2_can_carry_is_refused(tmp_path: Path) -> None:
    net = SAMPLES["sum edge"].build()
    nodes = {
        n: node if not isinstance(node, IntegerLif) else IntegerLif(n, node.vth, node.bias, 0)
        for n, node in net.nodes.items()
    }
    host = net.host.model_copy(update={"steps": 3})
    stuck = type(net)(nodes, net.edges, host, net.units)
    with pytest.raises(FindingsError) as caught:
        export(Deployable("stuck", stuck, SIZE), "loihi2", tmp_path / "b", options={"form": "netx"})
    rules = " ".join(finding.rule for finding in caught.value.findings)
    assert "sums several edges" in rules and "LIF leaks" in rules


def test_an_option_is_written_and_an_unknown_one_refused(tmp_path: Path) -> None:
    made = export(PLAIN.sample(), "nir", tmp_path / "a", options={"compat": "1.0.4"})
    assert made.manifest.options == {"compat": "1.0.4"}
    with h5py.File(made.path / "network.nir") as file:
        names: list[str] = []
        file.visit(names.append)
        assert "node/nodes/lif0/v_threshold" in names
        # what nir 1.0.4 stumbles over
        assert not [name for name in names if name.endswith(("v_reset", "metadata"))]
    assert read_nir(made.path / "network.nir").nodes["lif0"].v_reset.max() == 0
    for options, words in (({"compat": "2"}, "unknown value"), ({"compact": "1.0.4"}, "no such option")):
        with pytest.raises(FindingsError, match=words):
            export(PLAIN.sample(), "nir", tmp_path / "b", options=options)


# reading


def _drop(folder: Path) -> None:
    (folder / "proof.npz").unlink()


def _flip(folder: Path) -> None:
    data = bytearray((folder / "network.nir").read_bytes())
    data[-1] ^= 1
    (folder / "network.nir").write_bytes(data)


def _grow(folder: Path) -> None:
    with (folder / "network.net").open("ab") as file:
        file.write(b"x")


def _link(folder: Path) -> None:
    target = folder.parent / "elsewhere"
    (folder / "proof.npz").rename(target)
    (folder / "proof.npz").symlink_to(target)


def _outside(folder: Path) -> None:
    (folder / "proof.npz").rename(folder.parent / "proof.npz")
    rewrite(folder, lambda values: _path(values, "proof.npz", "../proof.npz"))


def _path(values: dict[str, Any], old: str, new: str) -> None:
    for entry in values["files"]:
        entry["path"] = new if entry["path"] == old else entry["path"]


FAULTS = {
    "missing": (_drop, "proof.npz: is missing"),
    "changed": (_flip, "network.nir: has another hash"),
    "grown": (_grow, "network.net: has another size"),
    "a link": (_link, "proof.npz: is a link"),
    "outside": (lambda f: rewrite(f, lambda v: _path(v, "run.py", "../run.py")), "run.py: lies outside"),
    "absolute": (lambda f: rewrite(f, lambda v: _path(v, "run.py", "/etc/passwd")), "lies outside"),
    "backslashes": (lambda f: rewrite(f, lambda v: _path(v, "run.py", "..\\run.py")), "lies outside"),
    "another version": (lambda f: rewrite(f, lambda v: v.update(schema_version=2)), "unknown schema version"),
    "true is no version": (lambda f: rewrite(f, lambda v: v.update(schema_version=True)), "unknown schema version"),
    "another format": (lambda f: rewrite(f, lambda v: v.update(format="x")), "not the manifest of a bundle"),
    "unknown key": (lambda f: rewrite(f, lambda v: v.update(extra=1)), "extra: Extra inputs"),
    "steps that disagree": (lambda f: rewrite(f, lambda v: v.update(steps=2)), "differ from those of the host"),
    "proof not listed": (_outside, "the proof is not listed"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "is not JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "not the manifest of a bundle"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "this folder is no bundle"),
    "too large": (lambda f: (f / "manifest.json").write_bytes(b" " * (9 << 20)), "too large for a manifest"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_that_is_not_whole_is_refused(bundle: Path, fault: str) -> None:
    spoil, words = FAULTS[fault]
    spoil(bundle)  # type: ignore[operator]
    with pytest.raises(UserError, match=words) as caught:
        read_bundle(bundle)
    assert caught.value.exit_code == 2


def test_all_faults_of_a_bundle_come_at_once(bundle: Path) -> None:
    _drop(bundle)
    _flip(bundle)
    with pytest.raises(FindingsError) as caught:
        read_bundle(bundle)
    assert [finding.node for finding in caught.value.findings] == ["network.nir", "proof.npz"]


def test_a_linked_manifest_and_a_missing_folder_are_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json").rename(tmp_path / "m.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "m.json")
    with pytest.raises(UserError, match="is a link"):
        read_bundle(bundle)
    with pytest.raises(UserError, match="no such folder"):
        read_bundle(tmp_path / "absent")


# the arrays


def test_npz_is_read_by_numpy_and_by_us() -> None:
    arrays = {"a": np.arange(6, dtype=np.int32).reshape(2, 3), "spikes/b": np.zeros(0, np.uint8), "c": np.float64(2)}
    data = npz_bytes(arrays)  # type: ignore[arg-type]
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert sorted(loaded) == ["a", "c", "spikes/b"]
        np.testing.assert_array_equal(loaded["a"], arrays["a"])
    assert b"1980" not in data and npz_bytes(arrays) == data  # type: ignore[arg-type]


def _npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def _npy(array: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **more)
    return out.getvalue()


def test_arrays_that_are_none_are_refused(tmp_path: Path) -> None:
    good = _npy(np.arange(4))
    cases = {
        "objects": _npy(np.array([{}], dtype=object), allow_pickle=True),
        "short": good[:-8],
        "huge": good.replace(b"(4,)", b"(9999999999,)".ljust(4)),
        "version": _npy(np.arange(4), version=(2, 0)),
        "noise": b"no array",
    }
    for name, data in cases.items():
        with pytest.raises(UserError):
            read_npz(_npz(tmp_path / f"{name}.npz", a=data))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", good)
    with pytest.raises(UserError, match="compressed"):
        read_npz(tmp_path / "bomb.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(UserError, match="cannot be read"):
        read_npz(tmp_path / "text.npz")


# what the manifest claims


def test_equality_of_integers_and_floats_is_claimed_where_nothing_is_truncated() -> None:
    claims = {title: equality(op.build()).integers_equal_float for title, op in SAMPLES.items()}
    assert [title for title, equal in claims.items() if not equal] == [
        "LIF with leak",
        "one leak a channel",
        "LIF with synaptic current (CUBA)",
    ]
    assert "lif0" in equality(LEAKY.build()).reason


def test_the_margin_is_a_whole_number_and_a_half_where_nothing_decays(tmp_path: Path) -> None:
    whole = export(SAMPLES["several time steps, no leak left"].sample(), "nir", tmp_path / "a").manifest.proof
    assert whole.smallest_margin is not None and whole.smallest_margin % 1 == 0.5
    leaky = export(LEAKY.sample(), "nir", tmp_path / "b").manifest.proof
    assert leaky.smallest_margin is not None and 0 < leaky.smallest_margin < whole.smallest_margin
    # values that the chip can hold are 1/64 apart, and the threshold lies 1/96 above one of them
    places = [(leaky.smallest_margin + sign / 96) * 64 for sign in (-1, 1)]
    assert any(place == pytest.approx(round(place), abs=1e-9) for place in places)


def test_the_margin_of_one_neuron_by_hand() -> None:
    """v = 64 * (10 + 3) = 832, threshold 12.5 * 64 = 800: 32 / 64; then reset, then 10 + 3 + 0 again."""
    from neurodeploy.simulate.observe import LayerTrace

    node = IntegerLif("lif", vth=12, bias=np.array([3]), v_decay=0)
    one = np.ones((2, 1, 1, 1), np.int64)
    trace = LayerTrace(current=10 * one, u=640 * one, v=np.zeros((2, 1, 1, 1, 1), np.int64), fired=one[:, None] > 0)
    assert smallest_margin(node, trace) == 0.5


def test_parameters_are_counted_by_hand() -> None:
    net = SAMPLES["dense layer behind a flatten"].build()
    assert parameters(net) == 4 * 4 * 9 + 4 + 1 + 6 * 4 * 4 * 6 + 6


def test_the_synthetic_image_is_a_function_of_its_arguments() -> None:
    host = PLAIN.build().host
    image = synthetic_image(host, (9, 14))
    assert image.shape == (1, 9, 14) and image.dtype == np.float32
    assert np.unique(image).size > 60 and -0.5 < image.min() < image.max() < 1.5
    np.testing.assert_array_equal(image, synthetic_image(host, (9, 14)))
    assert np.all(image * 1024 % 1 == 0)


def test_what_json_cannot_say_of_a_model_is_refused(tmp_path: Path) -> None:
    model = Deployable("m", PLAIN.build(), SIZE, about={"psnr": float("nan")})
    with pytest.raises(UserError, match="cannot stand in JSON"):
        export(model, "nir", tmp_path / "b")


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_shipped_schema_is_that_of_the_manifest(target: str, update_golden: bool) -> None:
    path = shipped("export") / target / "manifest.schema.json"
    text = json.dumps(manifest_schema(target), indent=2, ensure_ascii=False) + "\n"
    if update_golden:
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_every_target_has_its_page_and_its_template() -> None:
    assert set(target_names()) >= set(TARGETS)
    for target in TARGETS:
        page = (shipped("export") / target / "README.md").read_text(encoding="utf-8")
        assert page.startswith(f"# The bundle of target `{target}`")
        assert all(file in page for file in ("manifest.json", "proof.npz", "run.py"))
    lists = Manifest.model_fields
    assert {"equality", "timing", "placement", "not_written"} <= set(lists)
