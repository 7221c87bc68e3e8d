"""Runs NeuroBench on the toy network and prints what it counts, as JSON. Wants neurobench and snntorch; no tests here.

Called by ``test_neurobench.py`` in whichever interpreter has them. The network, its weights and its data are those of
``tests/torch/test_energy_toy.py``, made anew from the same seeds.
"""

from __future__ import annotations

import json
import sys

import snntorch as snn
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, NeuronOperations, SynapticOperations
from neurobench.models import SNNTorchModel, TorchModel
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

T, B = 8, 4
SHAPES = [(4, 1, 3, 3), (8, 4, 3, 3), (10, 128)]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


DATA = _seeded(0)
EVENTS = (torch.rand(B, T, 1, 8, 8, generator=DATA) < 0.15).float()
IMAGE = torch.rand(B, 1, 8, 8, generator=DATA)


class Toy(nn.Module):
    """Convolution, strided convolution and matrix, each with its weights of the record."""

    def __init__(self, spiking: bool) -> None:
        super().__init__()
        self.c1, self.c2, self.f1 = nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(128, 10)
        for place, layer in enumerate((self.c1, self.c2, self.f1)):
            layer.weight.data = torch.randn(SHAPES[place], generator=_seeded(10 + place)) * 0.6
            layer.bias.data = torch.randn(SHAPES[place][0], generator=_seeded(20 + place)) * 0.05
        make = (lambda: snn.Leaky(beta=0.9, init_hidden=True)) if spiking else nn.ReLU
        self.l1, self.l2 = make(), make()
        self.l3 = snn.Leaky(beta=0.9, init_hidden=True, output=True) if spiking else nn.Identity()

    def forward(self, x: torch.Tensor) -> object:
        """One step."""
        return self.l3(self.f1(self.l2(self.c2(self.l1(self.c1(x)))).flatten(1)))


def _run(data: torch.Tensor, spiking: bool, batch: int) -> dict[str, object]:
    net = Toy(spiking)
    model = SNNTorchModel(net) if spiking else TorchModel(net)
    loader = DataLoader(TensorDataset(data, torch.zeros(B)), batch_size=batch)
    workload = [ActivationSparsity, SynapticOperations] + ([MembraneUpdates, NeuronOperations] if spiking else [])
    benchmark = Benchmark(model, loader, [], [], [[Footprint, ConnectionSparsity, ParameterCount], workload])
    with torch.no_grad():
        return benchmark.run(quiet=True)


def main() -> None:
    """Prints one object a case."""
    direct = IMAGE.unsqueeze(1).repeat(1, T, 1, 1, 1)
    found = {
        "events": _run(EVENTS, True, 4),
        "events_batch_1": _run(EVENTS, True, 1),
        "direct": _run(direct, True, 4),
        "ann": _run(IMAGE, False, 4),
        "ann_binarised": _run((IMAGE > 0.5).float(), False, 4),
    }
    sys.stdout.write("\n" + json.dumps(found, default=float) + "\n")


if __name__ == "__main__":
    main()
