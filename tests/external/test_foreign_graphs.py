"""Published NIR graphs of other frameworks on random inputs: our float interpreter against norse and SpikingJelly.

Every output of every step is compared. dt is passed explicitly: the files do not hold it. Run with
``pytest -m external``.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.shapes import node_shapes
from neurodeploy.simulate.floating import run_float
from tests.shared import shared_path

pytestmark = pytest.mark.external

CNN = "cnn_sinabs.nir"
BRAILLE = ("braille_noDelay_bias_zero.nir", "braille_noDelay_noBias_subtract.nir")
CASES = [(CNN, 1.0, 30, 0.4), *((name, 1e-4, 64, 0.3) for name in BRAILLE)]
"""File, dt in seconds, steps, and the share of inputs that spike."""


def norse(path: Path, dt: float) -> Any:
    torch = pytest.importorskip("norse.torch")
    return torch.from_nir(nir.read(path), dt=dt)


def spikingjelly(path: Path, dt: float) -> Any:
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(nir.read(path), dt=dt)


def stepped(model: Any, frames: np.ndarray, batched: bool, names: list[str]) -> dict[str, np.ndarray]:
    """What the named nodes and "output" put out in every step, (T, ...), float64."""
    import torch

    kept: dict[str, list[np.ndarray]] = {name: [] for name in [*names, "output"]}

    def keep(name: str, y: Any) -> None:
        kept[name].append((y[0] if batched else y).double().numpy().copy())

    def watch(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, out: keep(name, out[0] if isinstance(out, tuple) else out)

    for name in names:
        model.get_submodule(name).register_forward_hook(watch(name))
    state = None
    with torch.no_grad():
        for frame in torch.from_numpy(frames):
            y, state = model(frame[None] if batched else frame, state)
            keep("output", y)
    return {name: np.stack(values) for name, values in kept.items()}


def ours(graph: nir.NIRGraph, frames: np.ndarray, dt: float, names: list[str]) -> dict[str, np.ndarray]:
    """The same of the float interpreter."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        del step, membrane
        if name in kept:
            kept[name].append(output)

    output = run_float(graph, frames, len(frames), dt, record)
    return {**{name: np.stack(values) for name, values in kept.items()}, "output": output}


FRAMEWORKS: dict[str, tuple[Callable[[Path, float], Any], bool]] = {
    # norse's Flatten takes the batch along: it runs without one
    "norse": (norse, False),
    "spikingjelly": (spikingjelly, True),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(("name", "dt", "steps", "share"), CASES, ids=[case[0] for case in CASES])
def test_a_published_graph_runs_alike(framework: str, name: str, dt: float, steps: int, share: float) -> None:
    path = shared_path(f"golden/nir_graphs/{name}")
    load, batched = FRAMEWORKS[framework]
    graph = read_nir(path)
    shape = node_shapes(graph)["input"]
    # nirtorch renames nodes with a dot in their names: there the output alone is watched
    names = [key for key, node in graph.nodes.items() if isinstance(node, nir.IF | nir.CubaLIF) and "." not in key]
    frames = (np.random.RandomState(0).rand(steps, *shape) < share).astype(np.float32)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load(path, dt)
        if name in BRAILLE:  # these files hold float64
            model, frames = model.double(), frames.astype(np.float64)
        theirs = stepped(model, frames, batched, names)
    wanted = ours(graph, frames, dt, names)
    assert set(theirs) == set(wanted) and len(names) == (5 if name == CNN else 1)
    for key, want in wanted.items():
        assert 0 < want.mean() < 1, f"{key} is silent, so that the comparison shows nothing"
        np.testing.assert_array_equal(theirs[key], want, err_msg=key)
