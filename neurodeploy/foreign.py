"""Networks of other programs: NIR graphs and netx files, and what has to be said beside them to run one.

NIR has no field for the length of a time step, the number of steps, or what the values of the input mean; a netx file
has none for the last two. Files of this program carry them as hints. For others they are asked for, never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import nir
import numpy as np
from pydantic import ValidationError

from neurodeploy.errors import UserError
from neurodeploy.graph.cycles import late_biases, with_early_biases
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.passes import with_scaled_input
from neurodeploy.graph.rules import NEURONS
from neurodeploy.graph.spec import DT, HostSide
from neurodeploy.model.base import Facts
from neurodeploy.model.graph import GraphModel
from neurodeploy.model.integer import IntegerModel
from neurodeploy.quantize.levels import fold_levels

LEVELS = 63.75
"""Codes of white for a graph that takes pictures in 0..1, as in students: finer ones make currents that wrap around."""

COARSEST = 15.0
"""The least value of white that counts as whole levels; below it the levels of :data:`LEVELS` are made."""


@dataclass(frozen=True)
class Told:
    """What the user says of a file that does not say it itself; the arguments of :func:`neurodeploy.zoo.resolve`."""

    steps: int | None = None
    dt: float | None = None
    white: float | None = None
    arrays: bool = False
    first_step_bias: bool | None = None


def nir_model(path: Path, told: Told) -> GraphModel:
    """The model of a NIR file.

    Raises:
        UserError: It cannot be read, its hint of the host side is damaged, or what has to be said beside it is not:
            dt, the number of steps, what biases on feedback edges do in the first step.
    """
    graph = read_nir(path)
    late = late_biases(graph)
    if late and told.first_step_bias is None:
        raise UserError(
            f"its bias arrives at {late[0][1]} over a feedback edge: either from the first step on, as in snnTorch, or"
            " from the second on, as in readers by way of nirtorch",
            node=f"{path}: {late[0][0]}",
            instead="say it: --first-step-bias or --no-first-step-bias",
        )
    if told.first_step_bias:
        graph = with_early_biases(graph)
    facts = Facts(name=path.stem, path=path)
    host = _hinted(graph, path)
    if host is not None:
        changed = {"steps": told.steps, "dt": told.dt}
        host = host.model_copy(update={key: value for key, value in changed.items() if value is not None})
        return GraphModel(graph=graph, host=host, facts=facts)
    dt = told.dt or _hint(graph, "dt") or _needless(graph)
    steps = told.steps or _hint(graph, "steps")
    if dt is None or steps is None or steps != int(steps):
        lacking = [*([] if dt else ["how long a time step is"]), *([] if steps else ["how many time steps it runs"])]
        raise UserError(
            f"does not say {' and '.join(lacking)}",
            node=str(path),
            instead="say it: --dt SECONDS (1e-4 where the framework that wrote it has no other), --steps T",
        )
    channels, factor = _layout(graph, told.arrays)
    values: dict[str, Any] = {
        "channels": channels,
        "unshuffle": factor,
        "steps": int(steps),
        "dt": dt,
        "residual": False,
    }
    white = 1.0 if told.white is None else told.white
    if channels not in (1, 3) or told.arrays:
        values["input_scale"] = 1.0
    elif white >= COARSEST:
        values |= picture_codes(white)
    else:
        values |= picture_codes(LEVELS)
        graph = with_scaled_input(graph, white / LEVELS)
    try:
        host = HostSide.model_validate(values)
    except ValidationError as error:
        raise UserError(f"cannot be run: {error.errors()[0]['msg']}", node=str(path)) from error
    return GraphModel(graph=graph, host=host, facts=facts)


def picture_codes(white: float) -> dict[str, Any]:
    """The host's scale for pictures, and the range of codes: a unit of brightness to spare on either side for noise."""
    return {"input_scale": white, "input_min": -ceil(white), "input_max": 2 * ceil(white)}


def _hinted(graph: nir.NIRGraph, path: Path) -> HostSide | None:
    hint = (graph.metadata or {}).get("host")
    if not isinstance(hint, (str, bytes)):
        return None
    try:
        return HostSide.model_validate_json(hint)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise UserError(f"its hint 'host' is refused: {said}", node=f"{path}: metadata") from error


def _hint(graph: nir.NIRGraph, key: str) -> float | None:
    """A positive number of the graph's metadata."""
    value = (graph.metadata or {}).get(key)
    if isinstance(value, int | float | np.number) and np.isfinite(value) and value > 0:
        return float(value)
    return None


def _needless(graph: nir.NIRGraph) -> float | None:
    """Any dt will do for a graph in which nothing happens in time."""
    timed = any(isinstance(node, (*NEURONS, nir.Delay)) for node in graph.nodes.values())
    return None if timed else DT


def _layout(graph: nir.NIRGraph, arrays: bool) -> tuple[int, int]:
    """Channels of the picture, and the pixel-unshuffle that makes the input's channels of them.

    An input without a grid, or of a number of channels that no picture gives, takes arrays alone.
    """
    start = next(node for node in graph.nodes.values() if isinstance(node, nir.Input))
    shape = [int(side) for side in start.input_type["input"]]
    pictures = [(c, factor) for factor in range(1, 9) for c in (1, 3) if c * factor**2 == shape[0]]
    return pictures[0] if len(shape) == 3 and pictures and not arrays else (shape[0], 1)


def net_model(path: Path, told: Told) -> IntegerModel:
    """The model of a netx file.

    Raises:
        UserError: It cannot be read, or the number of steps is not known.
    """
    from neurodeploy.targets.lava_net import read_net_file

    found = read_net_file(path)
    net, facts = found.network, Facts(name=path.stem, path=path)
    size = (found.input_shape[1] * net.host.unshuffle, found.input_shape[2] * net.host.unshuffle)
    if found.hinted:
        return IntegerModel(net=fold_levels(net), facts=facts, made_for=size)
    if told.steps is None:
        raise UserError("does not say how many time steps it runs", node=str(path), instead="say it: --steps T")
    codes = {"input_scale": 1.0} if told.arrays else picture_codes(told.white or 255.0)
    host = net.host.model_copy(update={"steps": told.steps, **codes})
    return IntegerModel(net=replace(net, host=host), facts=facts, made_for=size)
