"""NeuroBench and SpikingJelly on the toy network: the same operations, one by one, as our counter's.

NeuroBench wants other versions of torch's companions than a checkout has: ``NEURODEPLOY_NEUROBENCH_PYTHON`` names an
interpreter that has ``neurobench==2.3.0`` and snntorch. Run with ``pytest -m external``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from neurodeploy.energy.results import Counts
from neurodeploy.report.neurobench import neurobench
from tests.torch.test_energy_toy import BIASES, EVENTS, WEIGHTS, B, T, _count, _leaky, _lif

pytestmark = pytest.mark.external

DRIVER = Path(__file__).with_name("neurobench_toy.py")


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """What NeuroBench counts, case by case."""
    interpreter = os.environ.get("NEURODEPLOY_NEUROBENCH_PYTHON")
    if interpreter is None and importlib.util.find_spec("neurobench") is None:
        pytest.skip("no NeuroBench: set NEURODEPLOY_NEUROBENCH_PYTHON to an interpreter that has neurobench==2.3.0")
    done = subprocess.run(
        [interpreter or sys.executable, str(DRIVER)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _ours(*, events: bool) -> Counts:
    return _count(_leaky, events=events)[1]


@pytest.mark.parametrize("case", ["events", "events_batch_1"])
def test_neurobench_counts_the_same_on_events(theirs, case):
    counts = _ours(events=True)
    assert theirs[case]["SynapticOperations"] == {"Effective_MACs": 0.0, "Effective_ACs": 4924.5, "Dense": 56704.0}
    assert neurobench(counts)["SynapticOperations"] == theirs[case]["SynapticOperations"]
    layers = [layer for layer in counts.layers if layer.name != "events"]  # the data are no layer of theirs
    updates = sum(layer.neuron_updates for layer in layers) / B
    assert updates == theirs[case]["MembraneUpdates"]
    sparsity = 1 - sum(layer.spikes for layer in layers) / B / updates
    assert sparsity == pytest.approx(theirs[case]["ActivationSparsity"], abs=1e-12)


def test_neurobench_counts_the_same_direct_coded(theirs):
    ours, direct = neurobench(_ours(events=False)), theirs["direct"]
    assert direct["SynapticOperations"] == {"Effective_MACs": 15488.0, "Effective_ACs": 2899.5, "Dense": 56704.0}
    for key in ("SynapticOperations", "MembraneUpdates", "NeuronOperations"):
        assert ours[key] == direct[key]
    assert ours["ActivationSparsity"] == pytest.approx(direct["ActivationSparsity"], abs=1e-12)
    assert ours.keys() == direct.keys()


def test_neurobench_takes_a_binarised_image_for_spikes(theirs):
    """The known fault that provenance avoids: an ANN on a black and white image gets accumulates."""
    assert theirs["ann"]["SynapticOperations"]["Effective_ACs"] == 0
    assert theirs["ann_binarised"]["SynapticOperations"]["Effective_ACs"] == 902


def test_spikingjelly_counts_the_same_synaptic_operations():
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    layers = [nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(128, 10)]
    for layer, weight, bias in zip(layers, WEIGHTS, BIASES, strict=True):
        layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
    cells = [neuron.LIFNode(tau=10.0, decay_input=False, v_reset=None) for _ in layers]
    net = nn.Sequential(layers[0], cells[0], layers[1], cells[1], nn.Flatten(), layers[2], cells[2])
    counter = counters.SynOpCounter()
    with torch.no_grad(), counters.DispatchCounterMode([counter]):
        for step in range(T):
            net(EVENTS[:, step])
    assert counter.get_total() == B * 5068
    assert _count(_lif, events=True)[1].total("sop") == counter.get_total()
