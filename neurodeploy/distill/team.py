"""Several processes that train one student: each takes its share of every batch, gradients are averaged.

lightning-fabric starts the processes and carries the messages (``ddp``). Students have a few hundred thousand
parameters at most, so their gradients travel as one vector a step, after the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from neurodeploy.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Batch = TypeVar("Batch")

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")
"""What launchers call the number of a process, or of its machine."""


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks: number 0 on machine number 0."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


class Team:
    """One process alone; :class:`FabricTeam` is the same for several."""

    size = 1
    rank = 0

    def start(self) -> torch.device | None:
        """Starts the other processes and joins them; gives the device of this one, None to keep the chosen one."""
        return None

    def share(self, part: Any) -> Any:
        """This process's part of a batch."""
        return part

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes.

        Gradients go on as if it were this process's own value, which is right for a function of that mean alone once
        the gradients of all processes are averaged.
        """
        return value

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replaces gradients by their mean over the processes."""

    def same(self, *modules: nn.Module) -> None:
        """Gives every process the parameters and buffers of the first."""

    def agree(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Gives every process the numbers of the first."""
        return tuple(numbers)


class FabricTeam(Team):
    """Processes on one machine or several, by lightning-fabric.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        devices: Processes on each machine.
        nodes: Machines.
        batch: Patches in a batch, which the processes share evenly.

    Raises:
        UserError: lightning-fabric is not installed, there are not as many devices, or the batch cannot be shared.
    """

    def __init__(self, device: torch.device, devices: int, nodes: int, batch: int) -> None:
        try:
            from lightning_fabric import Fabric
        except ImportError:
            raise UserError(
                "needs lightning-fabric", node="--devices", instead="pip install 'neurodeploy[train]'"
            ) from None
        self.size = devices * nodes
        if batch % self.size:
            raise UserError(
                f"a batch cannot be shared evenly by {self.size} processes",
                node="data.batch",
                have=str(batch),
                limit=f"a multiple of {self.size}",
            )
        if device.type == "cuda" and torch.cuda.device_count() < devices:
            raise UserError(
                "there are not as many devices",
                node="--devices",
                have=str(devices),
                limit=str(torch.cuda.device_count()),
            )
        self.fabric: Fabric = Fabric(accelerator=device.type, strategy="ddp", devices=devices, num_nodes=nodes)

    def start(self) -> torch.device:
        """Starts the other processes with this one's command line, and joins them."""
        self.fabric.launch()
        self.rank = int(self.fabric.global_rank)
        return self.fabric.device

    def share(self, part: Any) -> Any:
        """Every ``size``-th item, from this process's number on."""
        return part[self.rank :: self.size]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes; gradients pass as for this process's own value."""
        own = value.detach()
        return value + (self._reduced(own.clone()) - own)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """One message with all gradients."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        averaged = self._reduced(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(averaged, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def same(self, *modules: nn.Module) -> None:
        """One message a tensor, from the first process."""
        with torch.no_grad():
            for module in modules:
                for tensor in (*module.parameters(), *module.buffers()):
                    tensor.copy_(self.fabric.broadcast(tensor, src=0))

    def agree(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """The first process's numbers."""
        return tuple(self.fabric.broadcast(tuple(numbers), src=0))

    def _reduced(self, value: Tensor) -> Tensor:
        reduced = self.fabric.all_reduce(value, reduce_op="mean")
        return torch.as_tensor(reduced)


def team_of(device: torch.device, devices: int, nodes: int, batch: int) -> Team:
    """The team that ``--devices`` and ``--nodes`` ask for."""
    return Team() if devices * nodes == 1 else FabricTeam(device, devices, nodes, batch)
