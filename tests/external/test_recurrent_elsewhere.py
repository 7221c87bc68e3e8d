"""Recurrent networks of snnTorch and norse, spike for spike, in Lava bit for bit, and NeuroBench's operations of one.

What snnTorch itself computes, not what a reader makes of the file: the recurrent weights see the spikes of the step
before, and their bias counts in the first step, too. ``NEURODEPLOY_NEUROBENCH_PYTHON`` names an interpreter that has
snntorch and ``neurobench==2.3.0`` where this one has not. Run with ``pytest -m external``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from neurodeploy import lava_env
from neurodeploy.cli import main
from neurodeploy.energy.count import OperationCounter
from neurodeploy.foreign import Told, nir_model
from neurodeploy.graph.cycles import feedback_edges, with_early_biases
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.report.neurobench import neurobench
from neurodeploy.simulate import reference
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.restore import run_codes
from neurodeploy.targets.lava_run import LavaJob, run_jobs
from tests.external.test_own_models import block
from tests.recurrent_nets import Recurrent, recurrent_nets
from tests.shared import shared_path

pytestmark = pytest.mark.external

DRIVER = Path(__file__).with_name("recurrent_snntorch.py")
LEAKY = "leaky"
FORGETTING = "forgetting"


def _driven(folder: Path, *wanted: str) -> dict[str, Any]:
    """What the driver says; its files are in the folder."""
    interpreter = os.environ.get("NEURODEPLOY_NEUROBENCH_PYTHON")
    lacking = [name for name in ("snntorch", *wanted) if importlib.util.find_spec(name) is None]
    if interpreter is None and lacking:
        pytest.skip(f"no {', '.join(lacking)}: NEURODEPLOY_NEUROBENCH_PYTHON may name an interpreter that has it")
    command = [interpreter or sys.executable, str(DRIVER), str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the driver."""
    made = tmp_path_factory.mktemp("snntorch")
    _driven(made)
    return made


@pytest.mark.parametrize("name", [LEAKY, FORGETTING])
def test_snntorchs_own_spikes_are_those_of_the_float_interpreter(name: str, folder: Path) -> None:
    graph, theirs = with_early_biases(read_nir(folder / f"{name}.nir")), np.load(folder / f"{name}.npz")
    assert feedback_edges(graph) == {("1.w_rec", "1.lif")}
    kept: dict[str, list[np.ndarray]] = {"1.lif": [], "3": []}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        del step, membrane
        if name in kept:
            kept[name].append(output != 0)

    run_float(graph, theirs["codes"], len(theirs["codes"]), 1e-4, record)
    for layer, key in (("1.lif", "hidden"), ("3", "last")):
        want = theirs[key].reshape(len(kept[layer]), -1)
        assert 0.02 < want.mean() < 0.98
        np.testing.assert_array_equal(np.stack(kept[layer]), want, err_msg=layer)


def test_snntorchs_own_spikes_are_those_of_the_integers(folder: Path) -> None:
    net, codes = _integers(folder)
    trace = Trace(net.host.steps)
    run_codes(net, codes, observer=trace)
    theirs = np.load(folder / f"{FORGETTING}.npz")
    for layer, key in (("1.lif", "hidden"), ("3", "last")):
        have = trace.layers[layer].fired.reshape(len(codes), -1)
        np.testing.assert_array_equal(have, theirs[key].reshape(len(codes), -1), err_msg=layer)


def _integers(folder: Path) -> tuple[Any, np.ndarray]:
    codes = np.load(folder / f"{FORGETTING}.npz")["codes"].astype(np.int64)
    told = Told(steps=len(codes), dt=1e-4, arrays=True, first_step_bias=True)
    return nir_model(folder / f"{FORGETTING}.nir", told).integer(), codes.reshape(*codes.shape, 1, 1)


def test_neurobench_counts_the_same_recurrent_operations(tmp_path: Path) -> None:
    """Where the recurrent weights are a layer of the network; inside an RLeaky, NeuroBench 2.3.0 counts them twice."""
    theirs = _driven(tmp_path, "neurobench")
    net, codes = _integers(tmp_path)
    counter = OperationCounter(net)
    counter.begin("one")
    run_codes(net, codes, observer=counter)
    counts = counter.counts()
    ours = neurobench(counts)["SynapticOperations"]
    rows = {row.name: row for row in counts.layers}
    # an output that counts spikes is no layer of theirs
    accumulates = ours["Effective_ACs"] - rows["output"].sop
    expected = {"Effective_MACs": ours["Effective_MACs"], "Effective_ACs": accumulates, "Dense": ours["Dense"]}
    assert theirs["unfolded"] == expected
    assert theirs["nested"]["Effective_ACs"] - accumulates == rows["1.lif"].sop_nonzero


def test_norses_recurrent_cell_spikes_alike() -> None:
    """LIFRecurrentCell: the current of a CubaLIF, recurrent weights without a bias, the spikes of the step before."""
    norse = pytest.importorskip("norse.torch")
    import torch

    rng, dt, size = np.random.default_rng(0), 1e-3, 10
    forward, back = (rng.integers(-40, 60, shape) / 64 for shape in ((size, 4), (size, size)))
    frames = (rng.random((60, 4)) < 0.5).astype(float)

    def full(value: float) -> np.ndarray:
        return np.full(size, value)

    nodes = {
        "input": nir.Input({"input": np.array([4])}),
        "w_in": nir.Linear(forward),
        "lif": nir.CubaLIF(
            tau_syn=full(2 * dt), tau_mem=full(4 * dt), r=full(1.0), v_leak=full(0.0), v_threshold=full(0.6 + 1e-3),
            v_reset=full(0.0), w_in=full(2.0),
        ),
        "w_rec": nir.Linear(back),
        "output": nir.Output({"output": np.array([size])}),
    }  # fmt: skip
    edges = [("input", "w_in"), ("w_in", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    ours = run_float(nir.NIRGraph(nodes, edges, type_check=False), frames, len(frames), dt)
    parameters = norse.LIFParameters(
        tau_syn_inv=torch.tensor(1 / (2 * dt), dtype=torch.float64),
        tau_mem_inv=torch.tensor(1 / (4 * dt), dtype=torch.float64),
        v_th=torch.tensor(0.6 + 1e-3, dtype=torch.float64),
    )
    weights = {"input_weights": torch.from_numpy(forward), "recurrent_weights": torch.from_numpy(back)}
    cell = norse.LIFRecurrentCell(4, size, parameters, autapses=True, dt=dt, **weights)
    state, theirs = None, []
    with torch.no_grad():
        for frame in torch.from_numpy(frames):
            spikes, state = cell(frame[None], state)
            theirs.append(spikes[0].numpy())
    assert 0.05 < np.mean(theirs) < 0.95
    np.testing.assert_array_equal(np.stack(theirs), ours)


def test_lava_runs_layers_that_feed_themselves_bit_for_bit() -> None:
    """Random networks, four images back to back: u, v, spikes and output; what feedback sends never enters the next."""
    python = lava_env.python()
    if python is None:
        pytest.skip("Lava is not installed: neurodeploy doctor --install-lava")
    jobs: list[LavaJob] = []

    @settings(max_examples=400, database=None, suppress_health_check=list(HealthCheck))
    @given(recurrent_nets())
    def collect(case: Recurrent) -> None:
        if len(jobs) < 12 and "across" not in case.net.nodes and len(case.codes) > 1:
            net = expand_levels(case.net)
            images = np.random.default_rng(len(jobs)).integers(-3, 6, (4, *case.codes.shape[1:]))
            deaf = replace(net, edges=tuple(edge for edge in net.edges if edge not in net.feedback))
            if all((reference.run(net, one) != reference.run(deaf, one)).any() for one in images[:2]):
                jobs.append(LavaJob(net, images, "program"))

    collect()
    assert len(jobs) == 12
    for job, ran in zip(jobs, run_jobs(jobs, python), strict=True):
        for place, image in enumerate(job.codes):
            trace = Trace(job.network.host.steps)
            np.testing.assert_array_equal(ran.output[place], reference.run(job.network, image, observer=trace))
            for name, layer in trace.layers.items():
                np.testing.assert_array_equal(ran.spikes[name][place], layer.fired[:, 0])
                np.testing.assert_array_equal(ran.u[name][place], layer.u)
                np.testing.assert_array_equal(ran.v[name][place], layer.v[:, 0])


def test_the_published_recurrent_network_runs_in_integers_and_is_counted() -> None:
    """The Braille reader of the NIR paper whose layers have no bias: inspect its counts, layer by layer."""
    path = shared_path("golden/nir_graphs/braille_noDelay_noBias_subtract.nir")
    net = nir_model(path, Told(steps=64, dt=1e-4, arrays=True)).integer()
    codes = (np.random.default_rng(0).random((64, 12, 1, 1)) < 0.6).astype(np.int64)
    counter = OperationCounter(net)
    counter.begin("one")
    trace = Trace(64)
    run_codes(net, codes, observer=counter)
    run_codes(net, codes, observer=trace)
    rows = {row.name: row for row in counter.counts().layers}
    spikes = trace.layers["lif1.lif"].fired.sum(axis=(1, 2, 3, 4))
    assert spikes.sum() > 20
    assert rows["lif1.lif"].per_step["sop"] == [0, *(40 * spikes[:-1]).tolist()]
    assert rows["lif2"].per_step["sop"] == (7 * spikes).tolist()
    assert rows["lif1.lif"].parameters == 40 * 12 + 40 * 40 + 40 + 1


def test_the_page_of_the_docs_makes_a_network_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of the section on recurrent networks, as it stands, and the command below it."""
    pytest.importorskip("snntorch")
    monkeypatch.chdir(tmp_path)
    exec(compile(block("Recurrent networks"), "frameworks.md", "exec"), {})
    np.save("x.npy", np.random.default_rng(0).integers(0, 4, (20, 8)))
    words = ("simulate", "recurrent.nir", "x.npy", "--dt", "1e-4", "--steps", "20")
    assert main([*words, "--out", "none"]) == 2
    assert main([*words, "--first-step-bias", "--out", "ran"]) == 0
