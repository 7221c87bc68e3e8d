"""Driving Lava in a subprocess: what is run, what comes back, and what happens when it fails."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neurodeploy import lava_env
from neurodeploy.errors import UserError
from neurodeploy.targets.bundle import Bundle, sha256
from neurodeploy.targets.export import export
from neurodeploy.targets.lava_run import IMAGES, LavaJob, lava_version, minutes_in_lava, run_jobs, run_lava
from neurodeploy.targets.manifest import MANIFEST
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.verify import expected_states, verify

SAMPLES = {operation.title: operation for operation in OPERATIONS}

STAND_IN = """#!{python}
import json, os, pathlib, sys, time
import numpy as np
if sys.argv[1] == "-c":
    print("0.10.0")
    sys.exit()
assert pathlib.Path(sys.argv[1]).name == "worker.py"
for name in sys.argv[2:]:
    here = pathlib.Path(name)
    assert "def run_lava" in (here / "run.py").read_text(), "not the shipped script"
    with np.load("{arrays}") as arrays:
        results = dict(arrays)
    assert len(np.load(here / "codes.npy")) == len(results["output"])
{change}
    np.savez(here / "results.npz", **results)
"""


def owed(bundle: Bundle, folder: Path) -> Path:
    """What Lava owes for a bundle: the spikes of the proof, the states of the reference."""
    states = expected_states(bundle)
    arrays = {f"spikes/{name}": np.stack([seen] * IMAGES) for name, seen in bundle.expected_spikes().items()}
    arrays |= {f"{key}/{name}": np.stack([seen] * IMAGES) for key in states for name, seen in states[key].items()}
    np.savez(folder / "owed.npz", output=np.stack([bundle.proof()["readout"]] * IMAGES), **arrays)
    return folder / "owed.npz"


def stand_in(bundle: Bundle, folder: Path, change: str = "") -> Path:
    """An interpreter that hands back what is owed, with a change, instead of running Lava."""
    (folder / "bin").mkdir(parents=True)
    path = folder / "bin" / "python"
    arrays = owed(bundle, folder)
    path.write_text(STAND_IN.format(python=sys.executable, arrays=arrays, change=f"    {change}"))
    path.chmod(0o755)
    (folder / lava_env.READY).touch()
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path_factory.mktemp("b") / "b")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(SAMPLES["sum edge"].sample(), "lava", tmp_path_factory.mktemp("g") / "b")


@pytest.mark.parametrize("kind", ["bundle", "graph"])
def test_three_runs_come_back(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    bundle: Bundle = request.getfixturevalue(kind)
    found = run_lava(bundle, stand_in(bundle, tmp_path))
    states = expected_states(bundle)
    for image in range(IMAGES):
        np.testing.assert_array_equal(found.output[image], bundle.proof()["readout"])
        for name, spikes in bundle.expected_spikes().items():
            np.testing.assert_array_equal(found.spikes[name][image], spikes)
            np.testing.assert_array_equal(found.u[name][image], states["u"][name])
            np.testing.assert_array_equal(found.v[name][image], states["v"][name])


def the_log(error: UserError) -> Path:
    assert error.node is not None
    return Path(error.node.removeprefix("log: "))


def test_a_failing_lava_is_one_line_with_its_log_kept(tmp_path: Path, bundle: Bundle) -> None:
    python = stand_in(bundle, tmp_path, "raise ModuleNotFoundError(\"No module named 'lava'\")")
    with pytest.raises(UserError, match="Lava fails: ModuleNotFoundError: No module named 'lava'") as caught:
        run_lava(bundle, python)
    assert "\n" not in str(caught.value)
    assert "Traceback" in the_log(caught.value).read_text()
    the_log(caught.value).unlink()


def test_a_lava_that_dies_is_told_with_its_signal(tmp_path: Path, bundle: Bundle) -> None:
    python = stand_in(bundle, tmp_path, "print('so far', flush=True); os.kill(os.getpid(), 11)")
    with pytest.raises(UserError, match="Lava died of signal 11: so far") as caught:
        run_lava(bundle, python)
    the_log(caught.value).unlink()


def test_a_lava_that_leaves_nothing_behind_has_failed(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(UserError, match="Lava fails: without a word") as caught:
        run_lava(bundle, stand_in(bundle, tmp_path, "sys.exit()"))
    the_log(caught.value).unlink()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_lava_that_hangs_is_ended_with_all_its_processes(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker starts a child that ignores the polite signal, tells both numbers, and sleeps for ever."""
    change = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); child = os.fork(); "
        f"open('{tmp_path}/' + ('child' if child == 0 else 'parent'), 'w').write(str(os.getpid())); "
        "print('waiting', flush=True); time.sleep(600)"
    )
    monkeypatch.setenv("NEURODEPLOY_LAVA_LIMIT", "5")
    monkeypatch.setattr(lava_env, "GRACE_S", 0.2)
    with pytest.raises(UserError, match="Lava gives no answer within 5 s and was ended") as caught:
        run_lava(bundle, stand_in(bundle, tmp_path / "env", change))
    assert the_log(caught.value).read_text() == "waiting\nwaiting\n"
    the_log(caught.value).unlink()
    numbers = [int((tmp_path / name).read_text()) for name in ("child", "parent")]
    for _ in range(100):
        if not any(alive(number) for number in numbers):
            return
        time.sleep(0.05)
    pytest.fail("a process of Lava is left running")


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA_LIMIT", "soon")
    with pytest.raises(UserError, match="NEURODEPLOY_LAVA_LIMIT"):
        run_lava(bundle, stand_in(bundle, tmp_path))


@pytest.mark.parametrize("file", ["run.py", "program.py"])
def test_nothing_that_lies_in_the_bundle_is_run(tmp_path: Path, file: str) -> None:
    made = export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "b")
    (made.path / file).write_text("raise SystemExit('a stranger wrote this')")
    run_lava(made, stand_in(made, tmp_path / "env", "assert 'stranger' not in (here / 'program.py').read_text()"))


def test_a_program_that_is_not_its_networks_is_not_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = export(SAMPLES["sum edge"].sample(), "lava", tmp_path / "b")
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "env"))
    stand_in(made, tmp_path / "env")
    program = made.path / "program.py"
    program.write_text(program.read_text().replace("vth=150", "vth=151"))
    manifest = json.loads((made.path / MANIFEST).read_text())
    entry = next(entry for entry in manifest["files"] if entry["path"] == "program.py")
    entry["sha256"] = sha256(program)
    (made.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="is not the program that this version writes"):
        verify(made.path, against=["lava"])


CHANGES = {
    'results["spikes/lif1"][2, 1, 3, 2, 1] ^= True': ("lif1", 1, [3, 2, 1]),
    'results["v/lif1"][1, 2, 3, 2, 1] += 1': ("v of lif1", 2, [3, 2, 1]),
    'results["u/lif0"][0, 0, 0, 0, 1] += 1': ("u of lif0", 0, [0, 0, 1]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_names_the_value_that_departs(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "env"))
    assert lava_version() is None
    stand_in(bundle, tmp_path / "env", change)
    assert lava_version() == "0.10.0"
    (row,) = [row for row in verify(bundle.path, against=["lava"])["readers"] if row["name"] == "lava"]
    assert row["version"] == "0.10.0" and row["equal"] is False
    assert row["compared"] == ["spikes", "output", "u", "v"]
    found = row["first_difference"]
    assert (found["file"], found["layer"], found["step"], found["neuron"]) == ("network.net", *CHANGES[change])


def test_without_lava_a_run_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path))
    net = SAMPLES["sum edge"].build()
    with pytest.raises(UserError, match="doctor --install-lava"):
        run_jobs([LavaJob(net, np.zeros((1, 4, 4, 6), np.int64))])


def test_the_time_it_takes_grows_with_the_pairs_of_channels(bundle: Bundle) -> None:
    """4 -> 4 -> 4 -> 4 channels: 48 pairs, 3 images of 4 steps and 3 hops, a tenth of a millisecond each."""
    assert minutes_in_lava(bundle) == pytest.approx(48 * (3 * 4 + 3) * 1e-4 / 60)
