"""What every kind of model can say and do, and what it takes to restore an image with one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide

if TYPE_CHECKING:
    from neurodeploy.graph.portable import Network
    from neurodeploy.quantize.network import IntegerNetwork

Arithmetic = Literal["float", "fixed"]
Channels = Literal[1, 3]
Image = NDArray[np.floating]

NOMINAL_SIZE = (64, 64)
"""Size of the image that a graph is made for where the size plays no part (weights are the same at every size)."""


class Restorer(Protocol):
    """Restores one image (C, H, W) in [0, 1]; gives float64 of the same shape, not clipped."""

    def __call__(self, image: Image, noise_level: float | None = None) -> NDArray[np.float64]:
        """Restores ``image``; ``noise_level`` is sigma / 255, for the networks that have to be told."""


@dataclass(frozen=True)
class Facts:
    """What is known of a model apart from its weights.

    Attributes:
        name: How it is called in answers.
        path: The file or folder that it was read from; None for an import path.
        task: ``denoise``, ``derain``, ...; empty where nothing says.
        card: Its model card, if it has one.
        meta: Whatever else its file says of itself.
    """

    name: str
    path: Path | None = None
    task: str = ""
    card: Path | None = None
    meta: dict[str, Any] = field(default_factory=dict)


class Model(ABC):
    """Base of every kind of model."""

    kind: str
    facts: Facts

    @property
    def name(self) -> str:
        """How the model is called in answers."""
        return self.facts.name

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Numbers that are deployed, tensor by tensor, shared ones once."""

    @property
    @abstractmethod
    def channels(self) -> Channels:
        """Channels of the images that it restores: 1 or 3."""

    @property
    @abstractmethod
    def steps(self) -> int | None:
        """Time steps T; None for a network without time."""

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) of the image that its file was written for; None where every size is alike."""
        return None

    @property
    def default_arithmetic(self) -> Arithmetic:
        """The arithmetic in which the model is meant to run."""
        return "fixed"

    @abstractmethod
    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The NIR graph and host side for images of ``size`` (H, W).

        Raises:
            UserError: This kind of model has no spiking network.
        """

    @abstractmethod
    def integer(self) -> IntegerNetwork:
        """The integer network, levels folded.

        Raises:
            UserError: This kind of model has no spiking network, or it cannot be written in integers.
        """

    def restorer(
        self,
        arithmetic: Arithmetic | None = None,
        *,
        tile: int | None = None,
        noise_level: float | None = None,
        device: str = "cpu",
    ) -> Restorer:
        """A function that restores images.

        Args:
            arithmetic: ``"fixed"``, the chip's integers, or ``"float"``; by default :attr:`default_arithmetic`.
            tile: Side of the tiles in which large images run; None chooses.
            noise_level: sigma / 255 for images of which none is known; used by networks that have to be told.
            device: Where torch computes, if it is used.

        Raises:
            UserError: The model cannot run in this arithmetic.
        """
        if (arithmetic or self.default_arithmetic) == "fixed":
            return _with_noise_level(self._fixed(tile), noise_level)
        return _with_noise_level(self._float(device), noise_level)

    def _fixed(self, tile: int | None) -> Restorer:
        from neurodeploy.simulate.restore import restore

        net = self.integer()
        return lambda image, noise_level=None: restore(net, image.astype(np.float32), tile=tile)

    def _float(self, device: str) -> Restorer:
        """Euler in float64 on the graph: the definition, short and slow."""
        return lambda image, noise_level=None: _restore_graph(self.network(image.shape[1:]), image)


def _with_noise_level(restore: Restorer, default: float | None) -> Restorer:
    return lambda image, noise_level=None: restore(image, default if noise_level is None else noise_level)


def check_device(device: str) -> str:
    """The device, if torch can put a number on it.

    Raises:
        UserError: It cannot.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device cannot be used: {reason}", node=f"--device {device}", instead="use cpu") from error
    return device


def picture_channels(host: HostSide, name: str) -> Channels:
    """Channels of the pictures that a network takes: 1 or 3.

    Raises:
        UserError: The network takes something else than pictures.
    """
    if host.channels not in (1, 3):
        raise UserError(
            "takes no pictures: they have 1 or 3 channels",
            node=name,
            have=f"{host.channels} channels",
            instead="give its input as arrays: .npy files for simulate, --input for energy-report",
        )
    return 3 if host.channels == 3 else 1


def _restore_graph(network: Network, image: Image) -> NDArray[np.float64]:
    from neurodeploy.simulate.floating import run_float

    host = network.host
    codes = host.encode(image)
    output = run_float(network.graph, codes.astype(np.float64), host.steps, host.dt).mean(axis=0)
    if output.shape != host.output_shape(codes):
        raise UserError(
            "does not restore images: its output has another shape than its input",
            have=str(output.shape),
            limit=str(host.output_shape(codes)),
        )
    return host.decode(output, image)
