"""From a student's tensors to the NIR graph that every reader runs alike.

The form is the portable one: ``input -> conv0 -> lif0 -> ... -> conv{depth} -> output`` plus edges
``conv{i} -> lif{k}`` that sum currents. A LIF layer with D integer levels stands as D * C binary channels,
population-major (channel ``d * C + c``): the convolution before it repeats its weights, the one after it too, all
populations share one threshold, and a bias a population shifts it. r = 1, v_leak = v_reset = 0, dt = 1e-4 s,
``tau = dt / decay``.

A quantised student is written exactly on a grid: weights ``q * 2^-7``, biases and thresholds in units of ``2^-8``, the
thresholds a little above the integer ones, so that no membrane can meet them (:func:`threshold_offset`). The real size
of a step is a gauge: it goes into ``HostSide.output_scale``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide, StudentSpec, population_shifts, shared_threshold, threshold_offset

WEIGHT_STEP = 2.0**-7
"""Value of one int8 step of a weight in the graph of a quantised student."""

UNIT = 2.0**-8
"""Value of one integer unit of current there: half a step, because the chip's weights are the even ``2 q``."""

Tensors = Mapping[str, NDArray[Any]]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """A NIR graph and the host's share of the work, which NIR has no fields for."""

    graph: nir.NIRGraph
    host: HostSide


@dataclass(frozen=True)
class _Student:
    """What the builders of nodes look at."""

    spec: StudentSpec
    tensors: Tensors
    grid: tuple[int, int]
    offsets: tuple[NDArray[np.float64], ...]
    """For every convolution, the bias of each population that its weights are repeated for, (D,)."""

    quantized: bool

    def populations(self, layer: int) -> int:
        """How many times the outputs of ``conv{layer}`` are repeated."""
        return self.spec.levels if layer < self.spec.depth else 1


def portable_graph(spec: StudentSpec, tensors: Tensors, size: tuple[int, int], quantized: bool) -> Network:
    """The portable NIR graph of a student.

    Args:
        spec: The description of the student.
        tensors: Its tensors, as :mod:`neurodeploy.graph.student_file` defines them (checked there).
        size: (H, W) of the IMAGE; the graph's grid is ``ceil(H / unshuffle), ceil(W / unshuffle)``.
        quantized: Whether ``tensors`` are those of a quantised student.

    Returns:
        The graph, whose input is the integer codes of :meth:`HostSide.encode` as floats (C * r**2, h, w), or one
        channel more where there is a noise map, and the host side. All arrays are float32. ``v > threshold`` in the
        graph is, population by population, ``x > delta * (i - 1/2)`` of the student.

    Raises:
        UserError: The image has no pixels.
    """
    if min(size) < 1:
        raise UserError("an image needs at least one row and one column", have=f"{size[0]}x{size[1]}")
    factor = spec.unshuffle
    grid = (-(-size[0] // factor), -(-size[1] // factor))
    student = _Student(spec, tensors, grid, _conv_offsets(spec, tensors, quantized), quantized)
    output_scale = float(tensors[f"conv{spec.depth}.step"]) / WEIGHT_STEP if quantized else 1.0
    host = spec.host(output_scale=output_scale)
    nodes: dict[str, nir.NIRNode] = {}
    for kind, layer in _layout(spec):
        name = kind if kind in ("input", "output") else f"{kind}{layer}"
        nodes[name] = _BUILDERS[kind](student, layer)
    # The chain first: norse's executor takes edges in this order, and sums too early in another.
    edges = list(itertools.pairwise(nodes))
    edges += [(f"conv{source}", f"lif{target}") for source, target in sorted(spec.edges)]
    graph = nir.NIRGraph(nodes=nodes, edges=edges, metadata=graph_hints(host, spec.levels), type_check=False)
    return Network(graph=graph, host=host)


def graph_hints(host: HostSide, levels: int) -> dict[str, Any]:
    """Metadata of a graph: what NIR has no field for. Hints only; no reader may have to rely on them."""
    return {"dt": host.dt, "steps": host.steps, "levels": levels, "host": host.model_dump_json()}


def hinted_host(graph: nir.NIRGraph) -> HostSide | None:
    """The host side that the metadata of a graph describes, or None where they do not, or not soundly."""
    text = graph.metadata.get("host") if isinstance(graph.metadata, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return HostSide.model_validate_json(text)
    except ValidationError:
        return None


def _layout(spec: StudentSpec) -> list[tuple[str, int]]:
    hidden = [(kind, layer) for layer in range(spec.depth) for kind in ("conv", "lif")]
    return [("input", 0), *hidden, ("conv", spec.depth), ("output", 0)]


def _conv_offsets(spec: StudentSpec, tensors: Tensors, quantized: bool) -> tuple[NDArray[np.float64], ...]:
    """The population biases of every convolution, in the units of its bias.

    LIF k wants ``offset_k[d]`` in sum over everything that it receives; a convolution that also feeds a later LIF
    brings its own offsets along, so the later convolution takes them off again.
    """
    offsets: list[NDArray[np.float64]] = []
    for layer in range(spec.depth):
        if quantized:
            wanted = population_shifts(tensors[f"lif{layer}.vth"]).astype(np.float64)
        else:
            wanted = -float(tensors[f"lif{layer}.delta"]) * np.arange(spec.levels, dtype=np.float64)
        offsets.append(wanted - sum(offsets[source] for source, target in spec.edges if target == layer))
    return (*offsets, np.zeros(1))


def _build_input(student: _Student, _layer: int) -> nir.NIRNode:
    return nir.Input(input_type={"input": np.array([student.spec.input_channels, *student.grid])})


def _build_output(student: _Student, _layer: int) -> nir.NIRNode:
    return nir.Output(output_type={"output": np.array([student.spec.network_channels, *student.grid])})


def _build_conv(student: _Student, layer: int) -> nir.NIRNode:
    spec = student.spec
    weight = student.tensors[f"conv{layer}.weight"].astype(np.float64)
    bias = student.tensors[f"conv{layer}.bias"].astype(np.float64)
    hints: dict[str, Any] = {}
    if student.quantized:
        weight = weight * WEIGHT_STEP
        unit = UNIT
        hints = {"weight_step": WEIGHT_STEP, "bias_step": UNIT}
    else:
        weight = weight / spec.host().input_scale if layer == 0 else weight
        unit = 1.0
    fan_in_copies = student.populations(layer - 1) if layer > 0 else 1
    weight = np.tile(weight, (student.populations(layer), fan_in_copies, 1, 1))
    bias = (bias + student.offsets[layer][:, None]) * unit
    dilation = spec.dilations[layer]
    return nir.Conv2d(
        input_shape=student.grid,
        weight=weight.astype(np.float32),
        stride=(1, 1),
        padding=(dilation * (spec.kernel // 2),) * 2,
        dilation=(dilation, dilation),
        groups=1,
        bias=bias.reshape(-1).astype(np.float32),
        metadata=hints,
    )


def _build_lif(student: _Student, layer: int) -> nir.NIRNode:
    spec = student.spec
    shape = (spec.levels * spec.width, *student.grid)
    if student.quantized:
        threshold = (shared_threshold(student.tensors[f"lif{layer}.vth"]) + threshold_offset(spec.decay)) * UNIT
    else:
        threshold = float(student.tensors[f"lif{layer}.delta"]) / 2
    return lif_node(shape, threshold=spec.decay * threshold, decay=spec.decay, dt=spec.host().dt)


def lif_node(shape: tuple[int, ...], *, threshold: float, decay: float, dt: float) -> nir.LIF:
    """A LIF node with one threshold and one decay: r = 1, v_leak = v_reset = 0, ``tau = dt / decay``.

    The arrays are read-only views of one element: a layer of 192 channels at 256x256 would hold 250 MB otherwise.
    """

    def full(value: float) -> FloatArray:
        return np.broadcast_to(np.float32(value), shape)

    return nir.LIF(tau=full(dt / decay), r=full(1.0), v_leak=full(0.0), v_threshold=full(threshold), v_reset=full(0.0))


_BUILDERS: dict[str, Callable[[_Student, int], nir.NIRNode]] = {
    "input": _build_input,
    "conv": _build_conv,
    "lif": _build_lif,
    "output": _build_output,
}
