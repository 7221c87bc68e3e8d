"""Restoring small pictures in the simulators of others, norse and Lava, and comparing them with the integers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.cycles import feedback_edges
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntArray, IntegerNetwork
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets import nir as nir_target
from neurodeploy.targets.base import Job
from neurodeploy.targets.bundle import equality
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.lava_run import LavaJob, interpreter, lava_version, run_jobs
from neurodeploy.targets.proof import Spikes
from neurodeploy.targets.readers import INSTALL, installed, norse_order, run_steps

LARGEST = {"lava": 1 << 16, "norse": 1 << 20}
"""Pixels of a picture that a simulator of others is given: Lava takes minutes for 256 x 256."""


@dataclass(frozen=True)
class Elsewhere:
    """What a simulator of others made of one picture.

    Attributes:
        restored: (C, H, W), not clipped.
        spikes: Layer -> (T, C, h, w), populations as channels.
        seconds: How long it took; Lava's is shared by the pictures that ran together.
        comparison: ``equal`` to the integers or not, whether that is ``promised``, ``differing_spikes``,
            ``largest_difference`` of the restored values, and a ``note`` on what the simulator is known to do.
    """

    restored: NDArray[np.float64]
    spikes: Mapping[str, Spikes]
    seconds: float
    comparison: dict[str, Any]


def restore_elsewhere(
    net: IntegerNetwork, images: Sequence[NDArray[np.floating[Any]]], backend: str
) -> list[Elsewhere]:
    """Restores pictures in ``norse`` (the float graph) or ``lava`` (the integers), each compared with the reference.

    Raises:
        UserError: The simulator is not installed or fails, a picture is too large for it, or (as FindingsError) its
            form cannot hold the network.
    """
    compact = canonical(net)
    for image in images:
        pixels = image.shape[1] * image.shape[2]
        if pixels > LARGEST[backend]:
            raise UserError(
                f"is too large for the simulator {backend}",
                node="picture",
                have=f"{pixels} pixels",
                limit=f"{LARGEST[backend]} pixels",
                instead="the kernel, which gives the same integers as Lava",
            )
    return _BACKENDS[backend](compact, images)


def backend_version(backend: str) -> str | None:
    """The version of a simulator of others; None where it is not installed."""
    return lava_version() if backend == "lava" else installed("norse")()


def _lava(net: IntegerNetwork, images: Sequence[NDArray[np.floating[Any]]]) -> list[Elsewhere]:
    python = interpreter()
    codes = [net.host.encode(image) for image in images]
    start = time.perf_counter()
    runs = run_jobs([LavaJob(net, one[None], states=False) for one in codes], python)
    seconds = (time.perf_counter() - start) / max(1, len(images))
    unit = net.units.get(net.readout.name, 1.0) / net.host.steps
    found = []
    for image, one, ran in zip(images, codes, runs, strict=True):
        spikes = {name: seen[0] for name, seen in ran.spikes.items()}
        restored = net.host.decode(ran.output[0] * unit, image)
        found.append(Elsewhere(restored, spikes, seconds, _compared(net, image, one, spikes, restored, promised=True)))
    return found


def _norse(net: IntegerNetwork, images: Sequence[NDArray[np.floating[Any]]]) -> list[Elsewhere]:
    if installed("norse")() is None:
        raise UserError("norse is not installed", node="norse", instead=INSTALL)
    return [_norse_one(net, image) for image in images]


def _norse_one(net: IntegerNetwork, image: NDArray[np.floating[Any]]) -> Elsewhere:
    import nir
    import norse.torch

    size, codes = (image.shape[1], image.shape[2]), net.host.encode(image)
    network = grid_network(net, size)
    expanded = expand_levels(net)
    job = Job(net, expanded, size, layer_shapes(expanded, size))
    errors = [finding for finding in nir_target.check(job) if finding.severity == "error"]
    if errors:
        raise FindingsError("the network has no portable graph that norse could run", errors, target=nir_target.name)
    with tempfile.TemporaryDirectory() as folder:
        nir_target.write(job, Path(folder))
        graph = nir.read(Path(folder) / nir_target.NETWORK)
    edges, feedback = list(graph.edges), feedback_edges(graph)
    start = time.perf_counter()
    model = norse.torch.from_nir(graph, dt=net.host.dt)
    spikes, output = run_steps(model, codes, [node.name for node in net.lifs()], net.host.steps)
    seconds = time.perf_counter() - start
    restored = network.host.decode(output, image)
    note = norse_order(model, edges, feedback)
    promised = equality(net).integers_equal_float and not note
    comparison = _compared(net, image, codes, spikes, restored, promised=promised) | {"note": note}
    return Elsewhere(restored, spikes, seconds, comparison)


def _compared(
    net: IntegerNetwork,
    image: NDArray[np.floating[Any]],
    codes: IntArray,
    spikes: Mapping[str, Spikes],
    restored: NDArray[np.float64],
    *,
    promised: bool,
) -> dict[str, Any]:
    expanded = expand_levels(net)
    trace = Trace(net.host.steps)
    total = run(expanded, codes, observer=trace)
    unit = net.units.get(net.readout.name, 1.0) / net.host.steps
    wanted = net.host.decode(total * unit, image)
    differing = sum(int((spikes[name] != layer.fired[:, 0]).sum()) for name, layer in trace.layers.items())
    largest = float(np.abs(restored - wanted).max())
    # a float sum of many products is the integers' one to the last bits only
    return {
        "equal": differing == 0 and largest < 1e-6,
        "promised": promised,
        "differing_spikes": differing,
        "largest_difference": largest,
        "note": "",
    }


_BACKENDS: dict[str, Callable[[IntegerNetwork, Sequence[NDArray[np.floating[Any]]]], list[Elsewhere]]] = {
    "lava": _lava,
    "norse": _norse,
}
