"""Who can run a bundle: our own simulators, and frameworks of others that read NIR, each with its own reader.

A reader gives the runs it made (one for every file it understood), or a sentence why it made none. What it loads it
loads from the bundle's file; nothing of the network is handed to it from here.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import neurodeploy
from neurodeploy import lava_env
from neurodeploy.errors import UserError
from neurodeploy.graph.cycles import feedback_edges
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.order import Edge
from neurodeploy.graph.portable import Network
from neurodeploy.graph.spec import DT
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.floats import float_run
from neurodeploy.targets.lava import NETWORK as NET_FILE
from neurodeploy.targets.lava_program import PROGRAM
from neurodeploy.targets.lava_run import IMAGES, check_program, lava_version, minutes_in_lava, run_lava
from neurodeploy.targets.nir import NETWORK as NIR_FILE
from neurodeploy.targets.onnx import NETWORK as ONNX_FILE
from neurodeploy.targets.onnx_run import OnnxRun
from neurodeploy.targets.proof import Spikes, integer_run
from neurodeploy.targets.sinabs_run import INSTALL as INSTALL_SINABS
from neurodeploy.targets.sinabs_run import run_sinabs, sinabs_version
from neurodeploy.targets.speck import NETWORK as SPECK_FILE

Outputs = NDArray[np.floating[Any]]


class Refused(Exception):
    """A reader cannot run this bundle; the text says why."""


@dataclass(frozen=True)
class ReaderRun:
    """What one reader made of one file.

    Attributes:
        file: Name of the file.
        spikes: Layer -> (T, C, h, w).
        output: (C, h, w), the mean over the time steps in units of the NIR graph, or the integer sum over the steps.
        integers: Which of the two ``output`` is, and what it is compared with.
        restored: (C, H, W), the restored image; only where the reader decodes it.
        states: ``u`` and ``v`` -> layer -> (T, C, h, w), the chip's registers after every step; only where the reader
            has them. They are compared with those of the reference.
        note: What the reader is known to do otherwise than the graph says.
    """

    file: str
    spikes: Mapping[str, Spikes]
    output: Outputs | NDArray[np.int64]
    integers: bool = False
    restored: NDArray[np.float64] | None = None
    states: Mapping[str, Mapping[str, NDArray[np.int64]]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        version: Gives its version; None where it is not installed.
        run: Runs a bundle's proof input. Raises :class:`Refused`.
        instead: How to get it.
        minutes: How long a run would take; one of more than a minute happens only when the reader is named.
    """

    version: Callable[[], str | None]
    run: Callable[[Bundle], list[ReaderRun]]
    instead: str = ""
    minutes: Callable[[Bundle], float] = lambda _bundle: 0.0


def installed(package: str) -> Callable[[], str | None]:
    """Gives the version of a distribution, None where it is not installed."""

    def found() -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return found


def _own() -> str:
    return neurodeploy.__version__


def _reference(bundle: Bundle) -> list[ReaderRun]:
    """Our integer simulator, on every network that the files hold."""
    image = bundle.proof()["image"]
    runs = []
    for file, network in bundle.networks().items():
        result = integer_run(network, image)
        runs.append(ReaderRun(file, result.spikes, result.readout, integers=True, restored=result.restored))
    return runs


def _nir_path(bundle: Bundle) -> Path:
    """The NIR file, once our own reader has found nothing against it: those of others have no limits."""
    path = bundle.path / NIR_FILE
    if not any(entry.path == NIR_FILE for entry in bundle.manifest.files):
        raise Refused(f"the bundle has no {NIR_FILE}")
    read_nir(path)
    return path


def _float(bundle: Bundle) -> list[ReaderRun]:
    """Our float interpreter on the NIR file."""
    network = Network(graph=read_nir(_nir_path(bundle)), host=bundle.manifest.host)
    result = float_run(network, bundle.proof()["codes"].astype(np.int64))
    return [ReaderRun(NIR_FILE, result.spikes, result.output)]


def _norse(bundle: Bundle) -> list[ReaderRun]:
    path = _nir_path(bundle)
    import nir
    import norse.torch

    graph = nir.read(path)
    edges, feedback = list(graph.edges), feedback_edges(graph)
    model = norse.torch.from_nir(graph, dt=bundle.manifest.dt)
    return [_stepped(bundle, model, norse_order(model, edges, feedback))]


def norse_order(model: Any, edges: Sequence[Edge], feedback: Collection[Edge] = ()) -> str:
    """What norse's executor adds up too early, in words; empty where it does not."""
    order = {node.name: place for place, node in enumerate(model.execution_order)}
    places = {edge: tuple(order.get(_module(name), -1) for name in edge) for edge in edges}
    early = [edge for edge, (before, after) in places.items() if before > after and edge not in feedback]
    return f"its executor runs {early[0][1]} before {early[0][0]} has been added to it" if early else ""


def _snntorch(bundle: Bundle) -> list[ReaderRun]:
    path = _nir_path(bundle)
    if bundle.manifest.dt != DT:
        raise Refused(f"snnTorch takes every graph to have dt = {DT:g} s, this one has {bundle.manifest.dt:g} s")
    import nir
    from snntorch.import_nir import import_from_nir

    model = import_from_nir(nir.read(path))
    for module in model.modules():
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return [_stepped(bundle, model)]


def _spikingjelly(bundle: Bundle) -> list[ReaderRun]:
    path = _nir_path(bundle)
    import nir
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return [_stepped(bundle, import_from_nir(nir.read(path), dt=bundle.manifest.dt))]


def _stepped(bundle: Bundle, model: Any, note: str = "") -> ReaderRun:
    names = [layer.name for layer in bundle.manifest.proof.layers]
    spikes, output = run_steps(model, bundle.proof()["codes"], names, bundle.manifest.steps)
    return ReaderRun(NIR_FILE, spikes, output, note=note)


def run_steps(
    model: Any, codes: NDArray[Any], names: Sequence[str], steps: int
) -> tuple[dict[str, Spikes], NDArray[np.float64]]:
    """Runs a torch model ``(x, state) -> (y, state)`` step by step from no state, watching every spiking module.

    Args:
        model: What a framework made of a NIR graph.
        codes: (C, h, w), shown at every step.
        names: The spiking layers.
        steps: How many steps.

    Returns:
        Layer -> (T, C, h, w) spikes, and the mean output (C, h, w).
    """
    import torch

    kept: dict[str, list[Spikes]] = {name: [] for name in names}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            kept[name].append(spikes.detach().numpy()[0] != 0)

        return hook

    for name in kept:
        model.get_submodule(_module(name)).register_forward_hook(watch(name))
    shown = torch.from_numpy(codes.astype(np.float32))[None]
    state, total = None, np.zeros(1)
    with torch.no_grad():
        for _ in range(steps):
            y, state = model(shown, state)
            total = total + y[0].numpy().astype(np.float64)
    return {name: np.stack(seen) for name, seen in kept.items()}, total / steps


def _module(name: str) -> str:
    """What nirtorch calls the module of a node."""
    return name.replace(".", "_")


def _foreign(run: Callable[[Bundle], list[ReaderRun]]) -> Callable[[Bundle], list[ReaderRun]]:
    """Keeps a framework's prints and warnings to itself, and turns whatever it raises into a refusal."""

    def quiet(bundle: Bundle) -> list[ReaderRun]:
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run(bundle)
        except (Refused, UserError):
            raise
        # Another project's reader may raise anything at all about a file that it does not take.
        except Exception as error:
            raise Refused(f"it refuses the file: {type(error).__name__}: {error}") from error

    return quiet


def _lava(bundle: Bundle) -> list[ReaderRun]:
    """Lava's CPU models, three runs back to back, in the form that the bundle has."""
    listed = {entry.path for entry in bundle.manifest.files}
    file = next((name for name in (NET_FILE, PROGRAM) if name in listed), None)
    if file is None:
        raise Refused(f"the bundle has neither {NET_FILE} nor {PROGRAM}")
    python = lava_env.python()
    if python is None:
        raise Refused(f"not installed: {INSTALL_LAVA}")
    if file == PROGRAM:
        try:
            check_program(bundle)
        except UserError as error:
            raise Refused(str(error)) from error
    found = run_lava(bundle, python)
    return [
        ReaderRun(
            file,
            {layer: seen[image] for layer, seen in found.spikes.items()},
            found.output[image],
            integers=True,
            states={name: {layer: seen[image] for layer, seen in getattr(found, name).items()} for name in ("u", "v")},
        )
        for image in range(IMAGES)
    ]


def _onnxruntime(bundle: Bundle) -> list[ReaderRun]:
    if not any(entry.path == ONNX_FILE for entry in bundle.manifest.files):
        raise Refused(f"the bundle has no {ONNX_FILE}")
    run = OnnxRun(bundle)
    return [ReaderRun(ONNX_FILE, run.spikes, run.output, integers=run.integers, restored=run.restored)]


def _sinabs(bundle: Bundle) -> list[ReaderRun]:
    if not any(entry.path == SPECK_FILE for entry in bundle.manifest.files):
        raise Refused(f"the bundle has no {SPECK_FILE}")
    spikes, output = run_sinabs(bundle)
    return [ReaderRun(SPECK_FILE, spikes, output, integers=True)]


INSTALL = "pip install 'neurodeploy[interop]'"
INSTALL_ONNX = "pip install 'neurodeploy[onnx]'"
INSTALL_LAVA = "neurodeploy doctor --install-lava (an environment of its own: Lava needs Python 3.10)"

READERS: dict[str, Reader] = {
    "reference": Reader(_own, _reference),
    "float": Reader(_own, _float),
    "norse": Reader(installed("norse"), _foreign(_norse), INSTALL),
    "snntorch": Reader(installed("snntorch"), _foreign(_snntorch), INSTALL),
    "spikingjelly": Reader(installed("spikingjelly"), _foreign(_spikingjelly), INSTALL),
    "onnxruntime": Reader(installed("onnxruntime"), _foreign(_onnxruntime), INSTALL_ONNX),
    "sinabs": Reader(sinabs_version, _sinabs, INSTALL_SINABS),
    "lava": Reader(lava_version, _lava, INSTALL_LAVA, minutes_in_lava),
}
"""Every reader by name, in the order in which they run."""
