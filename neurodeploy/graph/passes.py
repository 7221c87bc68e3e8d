"""Passes: what is done to weights before they become a graph, and to the weights of a graph."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, FindingsError, UserError

FloatArray = NDArray[np.floating[Any]]


def fold_batch_norm(
    weight: FloatArray,
    bias: FloatArray | None,
    mean: FloatArray,
    var: FloatArray,
    gamma: FloatArray | None,
    beta: FloatArray | None,
    eps: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Folds a batch norm in evaluation mode into the layer before it.

    ``gamma * (W x + b - mean) / sqrt(var + eps) + beta = W' x + b'`` with ``g = gamma / sqrt(var + eps)``,
    ``W' = g * W``, ``b' = g * (b - mean) + beta``.

    Args:
        weight: (O, ...), a convolution's or a dense layer's weight.
        bias: (O,), or None for none.
        mean: (O,) running mean.
        var: (O,) running variance.
        gamma: (O,) scale, or None for 1.
        beta: (O,) shift, or None for 0.
        eps: What the batch norm adds to the variance.

    Returns:
        The folded weight and bias, float32, computed in float64.

    Raises:
        UserError: A statistic has another length than the layer has outputs, or ``var + eps`` is not positive.
    """
    outputs = len(weight)
    for name, values in (("bias", bias), ("mean", mean), ("var", var), ("gamma", gamma), ("beta", beta)):
        if values is not None and values.shape != (outputs,):
            raise UserError(f"batch norm: {name} does not fit", have=str(values.shape), limit=f"({outputs},)")
    spread = var.astype(np.float64) + eps
    if not np.all(spread > 0):
        raise UserError("batch norm: the running variance plus eps must be positive", have=repr(float(spread.min())))
    gain = (1.0 if gamma is None else gamma.astype(np.float64)) / np.sqrt(spread)
    start = np.zeros(outputs) if bias is None else bias.astype(np.float64)
    shift = 0.0 if beta is None else beta.astype(np.float64)
    folded = weight.astype(np.float64) * gain.reshape(-1, *(1,) * (weight.ndim - 1))
    return folded.astype(np.float32), (gain * (start - mean.astype(np.float64)) + shift).astype(np.float32)


_WEIGHTED: dict[type, str] = {
    nir.Conv1d: "weight",
    nir.Conv2d: "weight",
    nir.Affine: "weight",
    nir.Linear: "weight",
    nir.Scale: "scale",
}
_PASSING = (nir.Flatten, nir.SumPool2d, nir.AvgPool2d, nir.Delay)


def with_scaled_input(graph: nir.NIRGraph, factor: float) -> nir.NIRGraph:
    """The graph that does with ``x`` what the given one does with ``factor * x``: the first weights are multiplied.

    Raises:
        FindingsError: The input reaches nodes that have no weights, or weights that see something else as well.
    """
    start = next(name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    nodes = dict(graph.nodes)
    findings: list[Finding] = []
    waiting, seen = [start], {start}
    while waiting:
        source = waiting.pop()
        for target in (after for before, after in graph.edges if before == source and after not in seen):
            seen.add(target)
            node = graph.nodes[target]
            alone = all(before in seen for before, after in graph.edges if after == target)
            if isinstance(node, _PASSING) and alone:
                waiting.append(target)
            elif type(node) in _WEIGHTED and alone:
                field = _WEIGHTED[type(node)]
                nodes[target] = replaced(node, **{field: (getattr(node, field) * factor).astype(np.float32)})
            else:
                findings.append(Finding(target, "takes the input without weights, which could take its scale"))
    if findings:
        raise FindingsError("the graph cannot take the levels of a picture", findings, exit_code=2)
    return nir.NIRGraph(nodes=nodes, edges=list(graph.edges), metadata=graph.metadata, type_check=False)


def replaced(node: nir.NIRNode, **changed: Any) -> nir.NIRNode:
    """A copy of a node with some of its fields changed."""
    values = {field.name: getattr(node, field.name) for field in fields(node) if field.init}
    return type(node)(**{**values, **changed})
