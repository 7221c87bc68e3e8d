"""A recurrent snnTorch network, its NIR file, what it does, and what NeuroBench counts: ``FOLDER [neurobench]``.

Wants snntorch, nir and nirtorch, and neurobench where it is named; no tests here. Called by
``test_recurrent_elsewhere.py`` in whichever interpreter has them.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import nir
import numpy as np
import snntorch as snn
import torch
from snntorch.export_nir import export_to_nir
from torch import nn

T = 40


def network(beta: float) -> nn.Sequential:
    """Linear -> RLeaky -> Linear -> Leaky, weights and biases on a grid, the recurrent bias included."""
    made = torch.Generator().manual_seed(1)

    def grid(*shape: int) -> torch.Tensor:
        values = torch.randint(-60, 64, shape, generator=made) / 128
        return values * (torch.rand(shape, generator=made) < 0.8)

    hidden = snn.RLeaky(
        beta=beta,
        threshold=0.7 + 2**-9,
        linear_features=12,
        init_hidden=True,
        reset_mechanism="zero",
        reset_delay=False,
    )
    last = snn.Leaky(
        beta=torch.full((4,), beta),
        threshold=torch.full((4,), 0.5 + 2**-9),
        init_hidden=True,
        reset_mechanism="zero",
        reset_delay=False,
    )
    net = nn.Sequential(nn.Linear(6, 12), hidden, nn.Linear(12, 4), last)
    for layer in (net[0], hidden.recurrent, net[2]):
        layer.weight.data, layer.bias.data = grid(*layer.weight.shape), grid(*layer.bias.shape)
    return net


def codes() -> torch.Tensor:
    """(T, 1, 6), whole numbers, more than two of them so that nobody takes them for spikes."""
    return torch.randint(0, 4, (T, 1, 6), generator=torch.Generator().manual_seed(2)).float()


def main(folder: Path, count: bool) -> dict[str, object]:
    """Writes a file and the spikes of both layers for two leaks; gives what NeuroBench counts on the one without."""
    for name, beta in (("leaky", 0.75), ("forgetting", 0.0)):
        net = network(beta)
        with contextlib.redirect_stdout(io.StringIO()):
            nir.write(folder / f"{name}.nir", export_to_nir(net, torch.rand(6)))
        net = network(beta)
        hidden: list[np.ndarray] = []
        net[1].register_forward_hook(lambda _module, _inputs, out, kept=hidden: kept.append(out[0].numpy() != 0))
        with torch.no_grad():
            last = np.stack([net(frame)[0].numpy() != 0 for frame in codes()])
        np.savez(folder / f"{name}.npz", codes=codes()[:, 0].numpy(), hidden=np.stack(hidden), last=last)
    return benchmark() if count else {}


class Unfolded(nn.Module):
    """The same network with the recurrent weights as a layer beside the others."""

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.first, self.again, self.second = net[0], net[1].recurrent, net[2]
        self.hidden = snn.Leaky(
            beta=0.0, threshold=0.7 + 2**-9, init_hidden=True, reset_mechanism="zero", reset_delay=False
        )
        self.last = net[3]
        self.spikes = torch.zeros(1, 12)

    def forward(self, x: torch.Tensor) -> object:
        """One step."""
        self.spikes = self.hidden(self.first(x) + self.again(self.spikes))
        return self.last(self.second(self.spikes))


def benchmark() -> dict[str, object]:
    """NeuroBench's synaptic operations of the network that forgets, its recurrent weights nested and unfolded."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import SNNTorchModel
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(codes().transpose(0, 1), torch.zeros(1)), batch_size=1)
    found: dict[str, object] = {}
    for name in ("nested", "unfolded"):
        net: nn.Module = network(0.0)
        net[3].output = True
        net = Unfolded(net) if name == "unfolded" else net
        with torch.no_grad():
            benchmark = Benchmark(SNNTorchModel(net), loader, [], [], [[], [SynapticOperations]])
            found[name] = benchmark.run(quiet=True)["SynapticOperations"]
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), "neurobench" in sys.argv[2:])))
