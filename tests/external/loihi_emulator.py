"""A network of spikes in brian2-loihi, an emulator of Loihi; run by an interpreter that has it (it wants numpy 1).

``python loihi_emulator.py JOB.json ANSWER.json``. The job: ``steps``; ``sent``: of sources, by name, their number of
neurons and the (neuron, step) of their spikes; ``layers``: name, neurons, ``vth``; ``links``: source, target,
``weight`` (even, of 8 bits), ``exponent``, ``delay``, one synapse a neuron; ``probe``: the layer whose membranes are
wanted at the end. The answer: ``spikes``, by layer, (neuron, step), and ``v``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from brian2 import prefs, second
from brian2_loihi import (
    LoihiNetwork,
    LoihiNeuronGroup,
    LoihiSpikeGeneratorGroup,
    LoihiSpikeMonitor,
    LoihiStateMonitor,
    LoihiSynapses,
    synapse_sign_mode,
)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Runs a job; steps are counted from 0 in it, and from 1 in the emulator."""
    prefs.codegen.target = "numpy"
    groups: dict[str, Any] = {}
    for name, (neurons, spikes) in job["sent"].items():
        where = np.array([neuron for neuron, _ in spikes], int)
        when = np.array([step + 1 for _, step in spikes], int)
        groups[name] = LoihiSpikeGeneratorGroup(neurons, where, when)
    monitors = {}
    for layer in job["layers"]:
        made = LoihiNeuronGroup(layer["neurons"], refractory=1, threshold_v_mant=layer["vth"], decay_v=0, decay_I=4096)
        groups[layer["name"]] = made
        monitors[layer["name"]] = LoihiSpikeMonitor(made)
    synapses = []
    for link in job["links"]:
        made = LoihiSynapses(
            groups[link["source"]],
            groups[link["target"]],
            delay=link["delay"],
            w_exp=link["exponent"],
            sign_mode=synapse_sign_mode.MIXED,
        )
        made.connect(j="i")
        made.w = link["weight"]
        synapses.append(made)
    probe = LoihiStateMonitor(groups[job["probe"]], "v")
    LoihiNetwork(*groups.values(), *monitors.values(), *synapses, probe).run(job["steps"] + 1)
    found = {}
    for name, monitor in monitors.items():
        steps = np.round(np.asarray(monitor.t / second)).astype(int)  # the emulator takes a step for a second
        found[name] = sorted([int(neuron), int(step) - 1] for neuron, step in zip(monitor.i, steps, strict=True))
    return {"spikes": found, "v": np.asarray(probe.v)[:, -1].astype(int).tolist()}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))))
