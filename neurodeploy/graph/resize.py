"""The same graph for another size of image: a NIR file is tied to one, the network in it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import nir
import numpy as np

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.graph.order import run_order
from neurodeploy.graph.passes import replaced
from neurodeploy.graph.shapes import Shape, output_shape


def resized(graph: nir.NIRGraph, grid: tuple[int, int]) -> nir.NIRGraph:
    """The graph with an input of ``grid`` (h, w); the graph itself where it has that size already.

    Weights stay. Parameters of neurons are spread over the new grid, which they can be where they are the same at every
    place of a channel.

    Raises:
        FindingsError: Nodes that are tied to their size: dense layers, or neurons that differ from place to place.
    """
    start = next(name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    channels, *declared = (int(size) for size in graph.nodes[start].input_type["input"])
    if (*declared, 1, 1)[:2] == grid:
        return graph
    order, _ = run_order(graph.nodes, graph.edges, start)
    nodes: dict[str, nir.NIRNode] = {}
    shapes: dict[str, Shape] = {}
    findings: list[Finding] = []
    for name in order:
        arriving = next((shapes[s] for s, t in graph.edges if t == name and s in shapes), (channels, *grid))
        rule = _RULES.get(type(graph.nodes[name]))
        node = None if rule is None else rule(graph.nodes[name], arriving)
        if node is None:
            findings.append(
                Finding(name, "is tied to the size that the graph was written for", have=_kind(graph, name))
            )
            shapes[name] = arriving
            continue
        nodes[name] = node
        shapes[name] = output_shape(node, arriving)
    if findings:
        size, wanted = "x".join(map(str, declared)), "x".join(map(str, grid))
        raise FindingsError(f"a graph for {size} places cannot be made one for {wanted}", findings, exit_code=2)
    ordered = {name: nodes[name] for name in graph.nodes}
    return nir.NIRGraph(nodes=ordered, edges=list(graph.edges), metadata=graph.metadata, type_check=False)


def _kind(graph: nir.NIRGraph, name: str) -> str:
    return type(graph.nodes[name]).__name__


def _input(_node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    return nir.Input(input_type={"input": np.array(shape)})


def _output(_node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    return nir.Output(output_type={"output": np.array(shape)})


def _conv(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    return replaced(node, input_shape=shape[1:])


def _same(node: nir.NIRNode, _shape: Shape) -> nir.NIRNode:
    return replaced(node)


def _neurons(node: nir.NIRNode, shape: Shape) -> nir.NIRNode | None:
    """Neurons spread over a grid; None where a parameter differs from place to place."""
    spread = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if not field.init or not isinstance(value, np.ndarray):
            continue
        if value.ndim != 3 or np.any(value != value[:, :1, :1]):
            return None
        spread[field.name] = np.broadcast_to(value[:, :1, :1], shape)
    return replaced(node, **spread)


_RULES: dict[type[nir.NIRNode], Callable[[nir.NIRNode, Shape], nir.NIRNode | None]] = {
    nir.Input: _input,
    nir.Output: _output,
    nir.Conv2d: _conv,
    nir.SumPool2d: _same,
    nir.AvgPool2d: _same,
    nir.LIF: _neurons,
    nir.IF: _neurons,
    nir.CubaLIF: _neurons,
    nir.LI: _neurons,
    nir.I: _neurons,
}
