"""A model as the verbs see it, whatever it was read from: what it is, its graph, its integers, and how it restores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide

if TYPE_CHECKING:
    import nir

    from neurodeploy.graph.portable import Network
    from neurodeploy.graph.student_file import StudentFile
    from neurodeploy.networks.teachers.base import Teacher
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


def _check_device(device: str) -> str:
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


def _picture_channels(host: HostSide, name: str) -> Channels:
    """1 or 3.

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
    codes = host.encode(image).astype(np.float64)
    output = run_float(network.graph, codes, host.steps, host.dt).mean(axis=0)
    if output.shape != codes.shape:
        raise UserError(
            "does not restore images: its output has another shape than its input",
            have=str(output.shape),
            limit=str(codes.shape),
        )
    return host.decode(output, image)


@dataclass
class StudentModel(Model):
    """A trained student: a zoo entry, a run folder or a ``.safetensors`` file."""

    file: StudentFile
    facts: Facts
    kind: str = "student"

    @property
    def parameters(self) -> int:
        """Weights, biases, and one threshold a population and layer."""
        tensors = self.file.tensors
        layers = range(self.file.spec.depth + 1)
        return self.file.spec.depth * self.file.spec.levels + sum(
            int(tensors[f"conv{k}.{part}"].size) for k in layers for part in ("weight", "bias")
        )

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return self.file.spec.channels

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.file.spec.steps

    @property
    def default_arithmetic(self) -> Arithmetic:
        """Integers once the student is quantised."""
        return "fixed" if self.file.quantized else "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The portable NIR graph."""
        from neurodeploy.graph.portable import portable_graph

        return portable_graph(self.file.spec, self.file.tensors, size, self.file.quantized)

    @cached_property
    def _integer(self) -> IntegerNetwork:
        from neurodeploy.quantize.lower import quantize

        return quantize(self.network())

    def integer(self) -> IntegerNetwork:
        """The integer network: exact for a quantised student, rounded for a float one."""
        return self._integer

    def _float(self, device: str) -> Restorer:
        """By torch where it is installed (faster, float32), else by the graph's float64 interpreter."""
        try:
            import torch
        except ImportError:
            return super()._float(device)
        from neurodeploy.networks.student import SpikingStudent

        student = SpikingStudent.from_file(self.file).to(_check_device(device)).eval()

        def run(image: Image, noise_level: float | None = None) -> NDArray[np.float64]:
            with torch.no_grad():
                batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
                restored: NDArray[np.float64] = student(batch)[0][0].double().cpu().numpy()
            return restored

        return run


@dataclass
class GraphModel(Model):
    """A NIR graph, ours or of any other framework."""

    graph: nir.NIRGraph
    host: HostSide
    facts: Facts
    kind: str = "graph"

    @property
    def parameters(self) -> int:
        """Numbers in the weights and biases of the graph as it stands, repeated populations included."""
        return sum(
            int(np.asarray(value).size)
            for node in self.graph.nodes.values()
            for key in ("weight", "bias")
            if (value := getattr(node, key, None)) is not None
        )

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return _picture_channels(self.host, self.name)

    @property
    def size(self) -> tuple[int, int]:
        """That of the input node, times the host's pixel-unshuffle; 1x1 for an input without a grid."""
        start = next(node for node in self.graph.nodes.values() if type(node).__name__ == "Input")
        _, height, width = (*(int(side) for side in start.input_type["input"]), 1, 1)[:3]
        return (height * self.host.unshuffle, width * self.host.unshuffle)

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.host.steps

    @property
    def default_arithmetic(self) -> Arithmetic:
        """NIR is float Euler."""
        return "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The graph at the size that it was written for; another size is made where every node allows it."""
        from neurodeploy.graph.portable import Network
        from neurodeploy.graph.resize import resized

        factor = self.host.unshuffle
        grid = (-(-size[0] // factor), -(-size[1] // factor))
        return Network(graph=resized(self.graph, grid), host=self.host)

    @cached_property
    def _integer(self) -> IntegerNetwork:
        from neurodeploy.graph.portable import Network
        from neurodeploy.quantize.lower import quantize

        return quantize(Network(graph=self.graph, host=self.host))

    def integer(self) -> IntegerNetwork:
        """The integer network: exact where the graph lies on a grid, rounded elsewhere."""
        return self._integer


@dataclass
class IntegerModel(Model):
    """A network that is stored in integers already: a Lava ``.net``, or a bundle."""

    net: IntegerNetwork
    facts: Facts
    kind: str = "lava"
    made_for: tuple[int, int] | None = None
    """(H, W) of the image that the arrays of its file were written for."""

    @property
    def parameters(self) -> int:
        """Weights, biases, and one threshold a population and layer."""
        weights = sum(node.weight.size for node in self.net.nodes.values() if hasattr(node, "weight"))
        biases = sum(node.bias.size for node in self.net.nodes.values() if hasattr(node, "bias"))
        return int(weights + biases) + sum(len(node.levels) for node in self.net.lifs())

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        return _picture_channels(self.net.host, self.name)

    @property
    def size(self) -> tuple[int, int] | None:
        """That of its file."""
        return self.made_for

    @property
    def steps(self) -> int:
        """Time steps T."""
        return self.net.host.steps

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """The integers as a NIR graph on its grid."""
        from neurodeploy.quantize.grid import grid_network

        return grid_network(self.net, size)

    def integer(self) -> IntegerNetwork:
        """The integers themselves."""
        return self.net


@dataclass
class TeacherModel(Model):
    """A network without spikes: ARCH:WEIGHTS, module:Class, a ``.onnx`` file, or a zoo entry that names one."""

    spec: str
    facts: Facts
    kind: str = "teacher"

    @cached_property
    def teacher(self) -> Teacher:
        """The network itself; torch is imported here."""
        from neurodeploy.networks.teachers import load_teacher

        return load_teacher(self.spec)

    @property
    def parameters(self) -> int:
        """Numbers in all parameters, shared ones once."""
        return self.teacher.parameters_count

    @property
    def channels(self) -> Channels:
        """1 or 3."""
        channels = self.teacher.channels
        if channels not in (1, 3):
            raise UserError("restores neither gray nor RGB images", node=self.name, have=f"{channels} channels")
        return 3 if channels == 3 else 1

    @property
    def steps(self) -> None:
        """A network without time."""
        return None

    @property
    def default_arithmetic(self) -> Arithmetic:
        """Float: a teacher has no integers."""
        return "float"

    def network(self, size: tuple[int, int] = NOMINAL_SIZE) -> Network:
        """Refuses: there are no spikes in a teacher."""
        raise self._no_spikes()

    def integer(self) -> IntegerNetwork:
        """Refuses: there are no spikes in a teacher."""
        raise self._no_spikes()

    def _no_spikes(self) -> UserError:
        return UserError(
            "is a network without spikes",
            node=self.name,
            instead="distil a student from it first (neurodeploy distill RECIPE)",
        )

    def _float(self, device: str) -> Restorer:
        import torch

        teacher = self.teacher.to(_check_device(device))

        def run(image: Image, noise_level: float | None = None) -> NDArray[np.float64]:
            batch = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None].to(device)
            level = None if noise_level is None else torch.tensor([noise_level], device=device)
            restored: NDArray[np.float64] = teacher.restore(batch, level)[0].double().cpu().numpy()
            return restored

        return run
