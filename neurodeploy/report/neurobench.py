"""The counts under NeuroBench's keys, so that its tables and leaderboards can take them.

Means over the images, as NeuroBench 2.3.0 gives them: ``SynapticOperations`` credits zero weights (and zero codes);
``Dense`` counts in-bounds taps at every step, in all copies that threshold populations need; ``MembraneUpdates`` are
those of spiking layers; ``NeuronOperations`` take four operations a leaky update, as NeuroBench takes for snnTorch's
Leaky. ``Footprint`` is the bytes of all parameters at the width that each tensor needs, with their copies left out.
"""

from __future__ import annotations

from typing import Any

from neurodeploy.energy.connections import connections
from neurodeploy.energy.geometry import node_shapes, synapses
from neurodeploy.energy.parameters import parameter_table
from neurodeploy.energy.results import Counts
from neurodeploy.quantize.bursts import without_ticks
from neurodeploy.quantize.digits import as_trained
from neurodeploy.quantize.network import IntegerConv, IntegerLif

OPERATIONS_PER_UPDATE = 4
"""Decay, addition, reset and comparison of a leaky neuron."""


def neurobench(counts: Counts) -> dict[str, Any]:
    """The counts with NeuroBench's keys."""
    tensors = parameter_table(as_trained(counts.net))
    weights = [row for row in tensors if row["name"].endswith(".weight")]
    connected = sum(row["count"] for row in weights)
    spiking = [layer for layer in counts.layers if layer.kind == "spiking"]
    updates = sum(layer.neuron_updates for layer in spiking) / len(counts.images)
    spikes = counts.mean("spikes")
    return {
        "Footprint": sum(-(-row["count"] * row["bits"] // 8) for row in tensors),
        "ConnectionSparsity": sum(row["zeros"] for row in weights) / connected if connected else 0.0,
        "ParameterCount": sum(row["count"] for row in tensors),
        "ActivationSparsity": 1.0 - spikes / updates if updates else 0.0,
        "SynapticOperations": {
            "Effective_MACs": counts.mean("mac_nonzero"),
            "Effective_ACs": counts.mean("sop_nonzero"),
            "Dense": _dense(counts),
        },
        "MembraneUpdates": updates,
        "NeuronOperations": {
            "Effective Neuron Ops": OPERATIONS_PER_UPDATE * updates,
            "Neuron Dense Ops": OPERATIONS_PER_UPDATE * updates,
        },
    }


def _dense(counts: Counts) -> float:
    """Synapses at every step, in the copies that receivers have, for every population of senders."""
    net, total = without_ticks(counts.net), 0
    for image in counts.images:
        shapes = node_shapes(net, image.extent)
        for link in connections(net):
            if link.node is None or not link.sends:
                continue
            once = (
                synapses(link.node, shapes[link.source][1:])
                if isinstance(link.node, IntegerConv)
                else link.node.weight.size
            )
            sender = net.nodes[link.source]
            total += once * link.copies * (len(sender.levels) if isinstance(sender, IntegerLif) else 1)
    return counts.steps * total / len(counts.images)
