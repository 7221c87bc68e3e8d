"""Makes the SpiNNaker 2 network of spinnaker2.nir with py-spinnaker2, and does the host's share in numpy.

    from run import Host, load_chip, spike_lists

Needs py-spinnaker2, nir and numpy. `load_chip()` gives what `spinnaker2.s2_nir.from_nir` gives: network, input
populations, output populations. `Host().spikes(codes, steps)` are the spikes to send, `spike_lists` writes them as the
input population wants them, and `Host().output(spikes)` makes the output from the spikes of the last population, (T, C,
h, w): those of time step t of the image leave layer k (from 1) of the chip k - 1 time steps later than t.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def correlate(x, weight, stride, padding, dilation, groups):
    """Integer cross-correlation (C, h, w) -> (O, h', w')."""
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    outputs, _, rows, columns = weight.shape
    height = (x.shape[1] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    width = (x.shape[2] - dilation[1] * (columns - 1) - 1) // stride[1] + 1
    out = np.zeros((outputs, height, width), np.int64)
    ins, outs = x.shape[0] // groups, outputs // groups
    for g in range(groups):
        for i in range(rows):
            for j in range(columns):
                top, left = i * dilation[0], j * dilation[1]
                seen = x[g * ins : (g + 1) * ins, top : top + (height - 1) * stride[0] + 1 : stride[0]]
                seen = seen[:, :, left : left + (width - 1) * stride[1] + 1 : stride[1]]
                part = slice(g * outs, (g + 1) * outs)
                out[part] += np.einsum("oc,chw->ohw", weight[part, :, i, j], seen)
    return (out + (1 << 23)) % (1 << 24) - (1 << 23)


class Host:
    """The host's share: the first convolution with its neurons, and the last convolution."""

    def __init__(self):
        arrays = np.load(HERE / "integers.npz", allow_pickle=False)
        said = json.loads(arrays["description"].tobytes())
        self.nodes = said["nodes"]
        convs = [node for node in self.nodes if node["kind"] == "conv"]
        self.first, self.last = convs[0], convs[-1]
        self.weights = {node["name"]: arrays[f"weight/{node['name']}"] for node in (self.first, self.last)}
        lifs = [node for node in self.nodes if node["kind"] == "lif"]
        self.lif, self.on_chip = lifs[0], lifs[1:]
        self.readout = next(node for node in self.nodes if node["kind"] == "readout")

    def convolve(self, node, x):
        keys = ("stride", "padding", "dilation", "groups")
        return correlate(x, self.weights[node["name"]], *(node[key] for key in keys))

    def spikes(self, codes, steps):
        """(T, D * C, h, w): what the first layer sends to the chip; Loihi's neuron, current and membrane of 24 bits."""
        lif, limit = self.lif, 1 << 23
        current = self.convolve(self.first, codes.astype(np.int64)) << 6

        def decay(x, amount):
            amount = np.reshape(np.asarray(amount), (-1, 1, 1))
            return np.sign(x) * ((np.abs(x) * (4096 - amount)) >> 12)

        bias = np.add.outer(np.array(lif["levels"]), np.array(lif["bias"]))[:, :, None, None] << 6
        u, v, seen = np.zeros_like(current), np.zeros((len(lif["levels"]), *current.shape), np.int64), []
        for _ in range(steps):
            u = decay(u, lif["i_decay"]) + current
            u = np.where(u > limit, u - 2 * limit, np.where(u <= -limit, u + 2 * limit, u))
            v = np.clip(decay(v, lif["v_decay"]) + u + bias, 1 - limit, limit - 1)
            fired = v > lif["vth"] << 6
            v = np.where(fired, 0, v)
            seen.append(fired.reshape(-1, *fired.shape[2:]))
        return np.stack(seen)

    def output(self, spikes):
        """The readout (C, h, w), summed over the steps, from the spikes (T, D * C, h, w) that come back."""
        channels = self.weights[self.last["name"]].shape[1] * self.last["groups"]
        counts = spikes.reshape(len(spikes), -1, channels, *spikes.shape[2:]).sum(axis=1).astype(np.int64)
        bias = np.array(self.readout["bias"])[:, None, None]
        return sum(self.convolve(self.last, x) + bias for x in counts)


def load_chip():
    """The network on the chip: time step 1, forward Euler, reset to 0, weights as they are."""
    import nir
    from spinnaker2 import s2_nir

    graph = nir.read(HERE / "spinnaker2.nir")
    for source, target in graph.edges:
        conv = graph.nodes[source]
        if isinstance(conv, nir.Conv2d):
            # the importer adds biases to an array of the neurons' shape
            shape = graph.nodes[target].v_threshold.shape
            conv.bias = np.ascontiguousarray(np.broadcast_to(conv.bias[:, None, None], shape))
    config = s2_nir.ConversionConfig(
        dt=1.0,
        conn_delay=0,
        scale_weights=False,
        integrator=s2_nir.IntegratorMethod.FORWARD,
        reset=s2_nir.ResetMethod.ZERO,
    )
    return s2_nir.from_nir(graph, config)


def spike_lists(spikes):
    """{neuron: [time steps]} of spikes (T, C, h, w), neurons counted in C order."""
    flat = spikes.reshape(len(spikes), -1)
    return {int(neuron): [int(t) for t in np.flatnonzero(flat[:, neuron])] for neuron in range(flat.shape[1])}
