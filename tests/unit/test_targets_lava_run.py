"""Driving Lava in a subprocess: what is run, what comes back, and what happens when it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from neurodeploy import lava_env
from neurodeploy.errors import UserError
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.export import export
from neurodeploy.targets.lava_run import IMAGES, lava_version, minutes_in_lava, run_lava
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.verify import verify

SAMPLES = {operation.title: operation for operation in OPERATIONS}

STAND_IN = """#!{python}
import json, pathlib, sys
import numpy as np
if sys.argv[1] == "-c":
    print("0.10.0")
    sys.exit()
here = pathlib.Path(sys.argv[1]).parent
assert "def run_lava" in (here / "run.py").read_text(), "not the shipped script"
manifest = json.loads((here / "manifest.json").read_text())
proof = np.load(here / "proof.npz")
spikes = {{}}
for layer in manifest["proof"]["layers"]:
    bits = np.unpackbits(proof["spikes/" + layer["name"]], count=int(np.prod(layer["shape"])))
    spikes["spikes/" + layer["name"]] = np.stack([bits.reshape(layer["shape"]).astype(bool)] * 3)
{change}
np.savez(sys.argv[4], output=np.stack([proof["readout"]] * 3), **spikes)
"""


def stand_in(folder: Path, change: str = "") -> Path:
    """An interpreter that hands back the proof, with a change, instead of running Lava."""
    (folder / "bin").mkdir(parents=True)
    path = folder / "bin" / "python"
    path.write_text(STAND_IN.format(python=sys.executable, change=change))
    path.chmod(0o755)
    (folder / lava_env.READY).touch()
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path_factory.mktemp("b") / "b")


def test_three_runs_come_back(tmp_path: Path, bundle: Bundle) -> None:
    runs = run_lava(bundle, stand_in(tmp_path))
    assert len(runs) == IMAGES
    for one in runs:
        np.testing.assert_array_equal(one.output, bundle.proof()["readout"])
        for name, spikes in bundle.expected_spikes().items():
            np.testing.assert_array_equal(one.spikes[name], spikes)


def test_a_failing_lava_is_the_users_error_with_its_last_line(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(UserError, match="Lava fails: ModuleNotFoundError: No module named 'lava'"):
        run_lava(bundle, stand_in(tmp_path, "raise ModuleNotFoundError(\"No module named 'lava'\")"))


def test_the_script_in_the_bundle_is_not_what_runs(tmp_path: Path) -> None:
    made = export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path / "b")
    (made.path / "run.py").write_text("raise SystemExit('a stranger wrote this')")
    assert len(run_lava(made, stand_in(tmp_path / "env"))) == IMAGES


def test_verify_names_the_image_run_that_departs(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "env"))
    assert lava_version() is None
    stand_in(tmp_path / "env", 'spikes["spikes/lif1"][2, 1, 3, 2, 1] ^= True')
    assert lava_version() == "0.10.0"
    (row,) = [row for row in verify(bundle.path, against=["lava"])["readers"] if row["name"] == "lava"]
    assert row["version"] == "0.10.0" and row["equal"] is False
    found = row["first_difference"]
    assert (found["file"], found["layer"], found["step"], found["neuron"]) == ("network.net", "lif1", 1, [3, 2, 1])


def test_the_time_it_takes_grows_with_the_pairs_of_channels(bundle: Bundle) -> None:
    """4 -> 4 -> 4 -> 4 channels: 48 pairs, 3 images of 4 steps and 3 hops, a tenth of a millisecond each."""
    assert minutes_in_lava(bundle) == pytest.approx(48 * (3 * 4 + 3) * 1e-4 / 60)
