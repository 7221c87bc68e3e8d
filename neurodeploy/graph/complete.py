"""Graphs as frameworks hand them out, made whole: arrays for tensors, the shapes that were left open, full parameters.

The exporters of norse, snnTorch and sinabs leave some of this to the reader: weights are tensors, convolutions do not
say what they see, a neuron's parameters have one element for a whole layer. None of it changes what a graph means.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import nir
import numpy as np

from neurodeploy.graph.order import run_order
from neurodeploy.graph.passes import replaced
from neurodeploy.graph.rules import NEURONS
from neurodeploy.graph.shapes import Shape, ShapeError, output_shape


def completed(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The graph with everything filled in that follows from its input's shape.

    Args:
        graph: A graph from a framework's exporter, with an Input and an Output; its arrays may be torch tensors.

    Returns:
        A new graph that can be written, and be read by every reader: numpy arrays, the input shape of every
        convolution and flatten, parameters in the shape of their layer. Where a shape does not fit, what lies behind
        stays as it is, for the checks to name.
    """
    nodes = {name: _numpy(node) for name, node in graph.nodes.items()}
    return spread(nir.NIRGraph(nodes, list(graph.edges), metadata=dict(graph.metadata or {}), type_check=False))


def spread(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The graph with parameters of one element spread over their layer, and open shapes filled in; see above."""
    starts = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    if len(starts) != 1 or any(name not in graph.nodes for edge in graph.edges for name in edge):
        return graph
    order, _ = run_order(graph.nodes, graph.edges, starts[0])
    nodes = dict(graph.nodes)
    shapes: dict[str, Shape] = {}
    for name in order:
        arriving = next((shapes[source] for source, target in graph.edges if target == name and source in shapes), ())
        try:
            nodes[name] = _filled(nodes[name], arriving)
            shapes[name] = output_shape(nodes[name], arriving)
        except (ShapeError, ArithmeticError, ValueError, TypeError, IndexError, AttributeError):
            continue
    return nir.NIRGraph(nodes, list(graph.edges), metadata=graph.metadata, type_check=False)


def _filled(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    if isinstance(node, NEURONS):
        arrays = {field.name: getattr(node, field.name) for field in fields(node) if field.init}
        sizes = {np.size(value) for value in arrays.values() if isinstance(value, np.ndarray)}
        if sizes == {1} and shape and np.prod(shape) > 1:
            return replaced(
                node,
                **{
                    key: np.broadcast_to(value.reshape(()), shape)
                    for key, value in arrays.items()
                    if isinstance(value, np.ndarray)
                },
            )
    if isinstance(node, nir.Conv2d) and node.input_shape is None and len(shape) == 3:
        return replaced(node, input_shape=shape[1:])
    if isinstance(node, nir.Conv1d) and node.input_shape is None and len(shape) == 2:
        return replaced(node, input_shape=shape[1])
    return node


def _numpy(node: nir.NIRNode) -> nir.NIRNode:
    """A node whose tensors are arrays."""
    values: dict[str, Any] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if field.init and hasattr(value, "detach"):
            values[field.name] = np.asarray(value.detach().cpu())
    return replaced(node, **values) if values else node
