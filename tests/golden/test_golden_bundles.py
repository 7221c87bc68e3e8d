"""One tiny bundle a target, byte for byte. ``--update-golden`` writes them anew.

Another release of HDF5 or h5py may lay out the same values in other bytes: then the values of the HDF5 files are
compared, and everything else byte for byte as ever.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.targets import TARGETS
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import read_bundle
from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify

FOLDER = Path(__file__).resolve().parent


def tiny() -> Deployable:
    """Pixel-unshuffle 1, three levels, one hidden layer of two channels: written out by hand, no random numbers."""
    cross = np.array([[0, 2, 0], [2, -8, 2], [0, 2, 0]])
    ramp = np.arange(-4, 5).reshape(3, 3) * 2
    back = np.stack([cross[::-1], -ramp])[None]
    net = IntegerNetwork(
        nodes={
            "input": IntegerInput("input", 1),
            "conv0": IntegerConv("conv0", np.stack([cross, ramp])[:, None].astype(np.int64), padding=(1, 1)),
            "lif0": IntegerLif("lif0", vth=40, bias=np.array([5, -3]), levels=(0, -600, -1200)),
            "conv1": IntegerConv("conv1", back.astype(np.int64), padding=(1, 1)),
            "output": IntegerReadout("output", np.array([7])),
        },
        edges=(("input", "conv0"), ("conv0", "lif0"), ("lif0", "conv1"), ("conv1", "output")),
        host=HostSide(channels=1, unshuffle=1, steps=1, output_scale=0.5),
        units={"lif0": 2.0**-8, "output": 2.0**-8},
    )
    rows, columns = np.mgrid[0:5, 0:6]
    image = (((7 * rows + 11 * columns) % 16) / 16).astype(np.float32)[None]
    return Deployable(name="tiny", network=net, size=(5, 6), image=image, about={"task": "restore"})


def tiny_for_events() -> Deployable:
    """The same with a second hidden layer and binary spikes, for chips that leave the first layer to the host."""
    made = tiny()
    net = made.network
    assert isinstance(net, IntegerNetwork)
    turn = np.arange(36).reshape(2, 2, 3, 3) % 7 * 4 - 12
    nodes = {
        "input": net.nodes["input"],
        "conv0": net.nodes["conv0"],
        "lif0": IntegerLif("lif0", vth=40, bias=np.array([5, -3])),
        "conv1": IntegerConv("conv1", turn.astype(np.int64), padding=(1, 1)),
        "lif1": IntegerLif("lif1", vth=20, bias=np.array([3, 12])),
        "conv2": IntegerConv("conv2", net.nodes["conv1"].weight, padding=(1, 1)),  # type: ignore[union-attr]
        "output": net.nodes["output"],
    }
    units = {"lif0": 2.0**-8, "lif1": 2.0**-8, "output": 2.0**-8}
    events = IntegerNetwork(nodes=nodes, edges=tuple(pairwise(nodes)), host=net.host, units=units)
    return replace(made, network=events)


def sample(target: str) -> Deployable:
    """What the golden bundle of a target holds."""
    return tiny_for_events() if target in ("speck", "spinnaker2") else tiny()


HDF5 = FOLDER / "hdf5.txt"
"""The releases that the golden files were written with."""


def releases() -> str:
    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}\n"


def values(path: Path) -> dict[str, tuple[Any, ...]]:
    """Every dataset of an HDF5 file: dtype, shape, value."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = (str(item.dtype), item.shape, np.asarray(item[()]).tolist())

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def without_hashes(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    manifest["files"] = [entry["path"] for entry in manifest["files"]]
    return manifest


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_bundle_is_the_golden_one(tmp_path: Path, target: str, update_golden: bool) -> None:
    golden = FOLDER / target
    made = export(sample(target), target, tmp_path / target).path
    if update_golden:
        shutil.rmtree(golden, ignore_errors=True)
        shutil.copytree(made, golden)
        HDF5.write_text(releases(), encoding="utf-8")
    names = sorted(path.name for path in golden.iterdir())
    assert names == sorted(path.name for path in made.iterdir()) and "manifest.json" in names
    same_hdf5 = HDF5.read_text(encoding="utf-8") == releases()
    for name in names:
        first, second = made / name, golden / name
        if not same_hdf5 and name.endswith((".net", ".nir")):
            assert values(first) == values(second), f"{target}/{name} differs"
        elif not same_hdf5 and name == "manifest.json":
            assert without_hashes(first) == without_hashes(second)
        else:
            assert first.read_bytes() == second.read_bytes(), f"{target}/{name} differs"


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_golden_bundle_still_runs(target: str) -> None:
    """Bundles that an earlier version wrote stay readable, and every reader that is installed agrees with them."""
    bundle = read_bundle(FOLDER / target)
    spikes = bundle.expected_spikes()
    if "lif1" in spikes:
        assert all(0 < layer.mean() < 1 for layer in spikes.values())
    else:
        levels = spikes["lif0"].reshape(3, 2, 5, 6).sum(axis=0)
        assert set(np.unique(levels)) == {0, 1, 2, 3}
    assert verify(FOLDER / target, against=["reference"])["ok"] is True
