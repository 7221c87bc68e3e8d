"""The networks that the simulator is timed with: ours in integers, and the same in float in other libraries.

conv 3 x 3 and LIF four times (1-32-32-32-32-1 channels), decay 1/2, hard reset, no bias; random even weights of 8 bits,
and one threshold a layer, found by bisection so that the layer spikes at a given rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import IntegerConv, IntegerInput, IntegerLif, IntegerNetwork, IntegerReadout
from neurodeploy.simulate import kernel

CHANNELS = (1, 32, 32, 32, 32, 1)
MACS = sum(9 * before * after for before, after in pairwise(CHANNELS))
"""Multiply-accumulates a pixel and step."""

OFFSET = 0.25
"""Added to thresholds in float, so that no membrane ties."""


@dataclass
class Rates:
    """An observer that keeps the spike rate of every layer."""

    rates: dict[str, float]
    takes_counts: bool = True

    def codes(self, **_: Any) -> None:
        """Nothing."""

    def layer(self, **_: Any) -> None:
        """Nothing: the kernel shows counts."""

    def run_counts(self, *, counts: Any, **_: Any) -> None:
        """Keeps all layers."""
        for name, layer in counts.layers.items():
            spikes = sum(layer.spikes(step) for step in range(layer.steps))
            self.rates[name] = spikes / (layer.neurons * layer.steps)


def spike_rates(net: IntegerNetwork, codes: NDArray[np.int64]) -> dict[str, float]:
    """Spikes a neuron and step, of every layer."""
    observer = Rates({})
    kernel.run(net, codes, observer=observer)  # type: ignore[arg-type]
    return observer.rates


def image(size: int) -> NDArray[np.int64]:
    """Codes (1, size, size) of a picture of waves, edges and noise, 0..255."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:size, 0:size] / 32.0
    waves = 128 + 64 * np.sin(2.1 * y) * np.cos(1.7 * x) + 30 * (np.sin(9 * x) > 0)
    return np.clip(waves + 12 * rng.standard_normal((1, size, size)), 0, 255).astype(np.int64)


def network(rate: float, steps: int, widths: Sequence[int] = CHANNELS) -> IntegerNetwork:
    """The network of so many channels whose layers all spike at about this rate over so many steps."""
    rng = np.random.default_rng(3)
    nodes: dict[str, Any] = {"input": IntegerInput("input", widths[0])}
    for layer, (before, after) in enumerate(pairwise(widths)):
        weight = 2 * np.clip(np.round(rng.normal(3, 28, (after, before, 3, 3))), -127, 127).astype(np.int64)
        nodes[f"conv{layer}"] = IntegerConv(f"conv{layer}", weight, padding=(1, 1))
        if layer + 2 < len(widths):
            nodes[f"lif{layer}"] = IntegerLif(f"lif{layer}", 0, np.zeros(after, np.int64), v_decay=2048)
    nodes["output"] = IntegerReadout("output", np.zeros(widths[-1], np.int64))
    net = IntegerNetwork(nodes, tuple(pairwise(nodes)), HostSide(steps=steps))
    codes = image(64)
    for lif in net.lifs():
        low, high = 0, (1 << 17) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if spike_rates(_with_threshold(net, lif.name, middle), codes)[lif.name] > rate:
                low = middle
            else:
                high = middle
        net = _with_threshold(net, lif.name, high)
    return net


def _with_threshold(net: IntegerNetwork, name: str, vth: int) -> IntegerNetwork:
    node = net.nodes[name]
    if not isinstance(node, IntegerLif):
        raise TypeError(name)
    return replace(net, nodes={**net.nodes, name: replace(node, vth=vth)})


def in_float(net: IntegerNetwork, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum of the output over time steps, (C, h, w), by a plain loop in float64: what the peers are compared with."""
    import torch
    from torch.nn.functional import conv2d

    convs = [torch.from_numpy(node.weight).double() for node in net.nodes.values() if isinstance(node, IntegerConv)]
    thresholds = [lif.vth + OFFSET for lif in net.lifs()]
    x = torch.from_numpy(codes).double()[None]
    states: list[Any] = [0.0] * len(thresholds)
    total = torch.zeros(())
    for _ in range(net.host.steps):
        signal = x
        for layer, threshold in enumerate(thresholds):
            v = 0.5 * states[layer] + conv2d(signal, convs[layer], padding=1)
            signal = (v > threshold).double()
            states[layer] = v * (1 - signal)
        total = total + conv2d(signal, convs[-1], padding=1)
    return total[0].numpy()


def peers(net: IntegerNetwork) -> Mapping[str, Callable[[Any], Any]]:
    """Name -> what maps codes (1, 1, h, w) float32 to the sum of the output over steps; written as the libraries do."""
    import torch
    from torch import nn

    steps = net.host.steps
    weights = [torch.from_numpy(node.weight).float() for node in net.nodes.values() if isinstance(node, IntegerConv)]
    thresholds = [lif.vth + OFFSET for lif in net.lifs()]

    def conv(weight: torch.Tensor, kind: Any = nn.Conv2d, **options: Any) -> Any:
        made = kind(weight.shape[1], weight.shape[0], 3, padding=1, bias=False, **options)
        made.weight.data.copy_(weight)
        return made

    def snntorch() -> Callable[[Any], Any]:
        import snntorch as library

        convs = [conv(weight) for weight in weights]
        options = {"beta": 0.5, "reset_mechanism": "zero", "reset_delay": False}
        neurons = [library.Leaky(threshold=threshold, **options) for threshold in thresholds]

        def run(x: torch.Tensor) -> torch.Tensor:
            states = [neuron.reset_mem() for neuron in neurons]
            total = torch.zeros(())
            for _ in range(steps):
                signal = x
                for layer, neuron in enumerate(neurons):
                    signal, states[layer] = neuron(convs[layer](signal), states[layer])
                total = total + convs[-1](signal)
            return total

        return run

    def norse() -> Callable[[Any], Any]:
        from norse.torch import LIFBoxCell, LIFBoxParameters, SequentialState

        modules: list[Any] = []
        for weight, threshold in zip(weights, [*thresholds, None], strict=True):
            modules.append(conv(weight))
            if threshold is not None:  # the library halves what arrives, with the membrane
                options = LIFBoxParameters(tau_mem_inv=torch.tensor(0.5), v_th=torch.tensor(0.5 * threshold))
                modules.append(LIFBoxCell(options, dt=1.0))
        model = SequentialState(*modules)

        def run(x: torch.Tensor) -> torch.Tensor:
            state, total = None, torch.zeros(())
            for _ in range(steps):
                out, state = model(x, state)
                total = total + out
            return total

        return run

    def spikingjelly(mode: str) -> Callable[[Any], Any]:
        from spikingjelly.activation_based import functional, layer, neuron

        modules: list[Any] = []
        for weight, threshold in zip(weights, [*thresholds, None], strict=True):
            modules.append(conv(weight, layer.Conv2d, step_mode=mode))
            if threshold is not None:
                options = {"tau": 2.0, "decay_input": False, "v_reset": 0.0, "step_mode": mode}
                modules.append(neuron.LIFNode(v_threshold=threshold, **options))
        model = nn.Sequential(*modules)

        def run(x: torch.Tensor) -> torch.Tensor:
            functional.reset_net(model)
            if mode == "m":
                return model(x.expand(steps, *x.shape)).sum(0)
            total = torch.zeros(())
            for _ in range(steps):
                total = total + model(x)
            return total

        return run

    def sinabs() -> Callable[[Any], Any]:
        import sinabs.activation as activation
        import sinabs.layers as layers

        convs = [conv(weight) for weight in weights]
        options = {"tau_mem": 1 / np.log(2), "norm_input": False, "spike_fn": activation.SingleSpike}
        neurons = [
            layers.LIF(spike_threshold=torch.tensor(threshold), reset_fn=activation.MembraneReset(), **options)
            for threshold in thresholds
        ]

        def run(x: torch.Tensor) -> torch.Tensor:
            signal = x.expand(steps, *x.shape[1:])
            for layer, neuron in enumerate(neurons):
                neuron.reset_states()
                signal = neuron(convs[layer](signal)[None])[0]
            return convs[-1](signal).sum(0, keepdim=True)

        return run

    return {
        "SpikingJelly, step by step": spikingjelly("s"),
        "SpikingJelly, all steps": spikingjelly("m"),
        "snnTorch": snntorch(),
        "sinabs": sinabs(),
        "norse": norse(),
    }
