"""Shape inference: what every node of a NIR graph puts out.

NIR has neither time nor batch; shapes are (C, H, W) or (N,). A rule a kind of node, in one table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np

from neurodeploy.errors import Finding, FindingsError

Shape = tuple[int, ...]


class ShapeError(Exception):
    """A node cannot take the shape that arrives: what it has and what it wants."""

    def __init__(self, sentence: str, have: str = "", limit: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.have = have
        self.limit = limit


def node_shapes(graph: nir.NIRGraph) -> dict[str, Shape]:
    """The output shape of every node.

    Raises:
        FindingsError: Shapes that do not fit, or nodes that nothing reaches, all at once.
    """
    shapes, findings = infer_shapes(graph)
    if findings:
        raise FindingsError("the shapes of the graph do not fit", findings, exit_code=2)
    return shapes


def infer_shapes(graph: nir.NIRGraph) -> tuple[dict[str, Shape], list[Finding]]:
    """The output shapes that can be inferred, and everything that does not fit.

    A node is looked at as soon as one of its sources is known, so that cycles are no obstacle; every other edge is then
    compared with the first.
    """
    arriving: dict[str, Shape] = {}
    shapes: dict[str, Shape] = {}
    findings: list[Finding] = []
    waiting = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    while waiting:
        name = waiting.pop(0)
        if name in shapes:
            continue
        try:
            shapes[name] = output_shape(graph.nodes[name], arriving.get(name, ()))
        except ShapeError as error:
            findings.append(Finding(name, error.sentence, have=error.have, limit=error.limit))
            continue
        for source, target in graph.edges:
            if source == name and target in graph.nodes:
                arriving.setdefault(target, shapes[name])
                waiting.append(target)
    for source, target in graph.edges:
        if source in shapes and target in arriving and shapes[source] != arriving[target]:
            findings.append(
                Finding(
                    target,
                    f"receives another shape from {source} than from its other sources",
                    have=str(shapes[source]),
                    limit=str(arriving[target]),
                )
            )
    refused = {finding.node for finding in findings}
    if not refused:
        findings += [Finding(name, "no path leads to it from the input") for name in graph.nodes if name not in shapes]
    return shapes, findings


def output_shape(node: nir.NIRNode, shape: Shape) -> Shape:
    """What a node puts out for an input of a shape.

    Raises:
        ShapeError: The node cannot take that shape, or is of an unknown kind.
    """
    rule = _RULES.get(type(node))
    if rule is None:
        raise ShapeError(f"{type(node).__name__} has no shape rule")
    return rule(node, shape)


def pair(value: Any) -> tuple[int, int]:
    """A stride, padding or dilation as (rows, columns): NIR holds one number or two."""
    numbers = [int(number) for number in np.atleast_1d(np.asarray(value))]
    return (numbers[0], numbers[0]) if len(numbers) == 1 else (numbers[0], numbers[1])


def conv_padding(node: nir.Conv1d | nir.Conv2d) -> tuple[tuple[int, int], ...]:
    """Zeros before and after, a pair an axis. 'same' puts the odd one after, like torch; it wants a stride of 1."""
    axes: int = node.weight.ndim - 2
    if not isinstance(node.padding, str | bytes):
        return tuple((amount, amount) for amount in pair(node.padding)[:axes])
    if node.padding in ("valid", b"valid"):
        return ((0, 0),) * axes
    reach = [pair(node.dilation)[axis] * (node.weight.shape[2 + axis] - 1) for axis in range(axes)]
    return tuple((amount // 2, amount - amount // 2) for amount in reach)


def _input(node: nir.NIRNode, _shape: Shape) -> Shape:
    return tuple(int(size) for size in node.input_type["input"])


def _output(node: nir.NIRNode, shape: Shape) -> Shape:
    declared = node.output_type.get("output")
    if declared is not None and tuple(int(size) for size in declared) != shape:
        raise ShapeError("receives another shape than it declares", have=str(shape), limit=str(tuple(declared)))
    return shape


def _conv(node: nir.Conv1d | nir.Conv2d, shape: Shape) -> Shape:
    axes = node.weight.ndim - 2
    outputs, fan_in = node.weight.shape[:2]
    wanted = fan_in * int(node.groups)
    if len(shape) != axes + 1 or shape[0] != wanted:
        raise ShapeError("wrong input shape", have=str(shape), limit=f"{wanted} channels and {axes} axes")
    padding = conv_padding(node)
    sizes = tuple(
        _window_count(
            shape[1 + axis] + sum(padding[axis]),
            pair(node.dilation)[axis] * (node.weight.shape[2 + axis] - 1) + 1,
            pair(node.stride)[axis],
        )
        for axis in range(axes)
    )
    return (outputs, *sizes)


def _pool(node: nir.SumPool2d | nir.AvgPool2d, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeError("wrong input shape", have=str(shape), limit="(C, H, W)")
    sizes = tuple(
        _window_count(
            shape[1 + axis] + 2 * pair(node.padding)[axis], pair(node.kernel_size)[axis], pair(node.stride)[axis]
        )
        for axis in range(2)
    )
    return (shape[0], *sizes)


def _window_count(length: int, window: int, stride: int) -> int:
    count = (length - window) // stride + 1
    if count < 1:
        raise ShapeError("its kernel is larger than its padded input", have=str(window), limit=str(length))
    return count


def _flatten(node: nir.Flatten, shape: Shape) -> Shape:
    start, end = (int(value) % len(shape) if shape else 0 for value in (node.start_dim, node.end_dim))
    if start > end:
        raise ShapeError("its start_dim lies behind its end_dim", have=str(int(node.start_dim)), limit=str(end))
    return (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])


def _matrix(node: nir.Affine | nir.Linear, shape: Shape) -> Shape:
    wanted = (*node.weight.shape[:-2], node.weight.shape[-1])
    if shape != wanted:
        raise ShapeError("wrong input shape", have=str(shape), limit=str(wanted))
    return (*node.weight.shape[:-2], node.weight.shape[-2])


def _elementwise(parameter: str) -> Callable[[Any, Shape], Shape]:
    def rule(node: nir.NIRNode, shape: Shape) -> Shape:
        wanted = np.shape(getattr(node, parameter))
        if shape != wanted:
            raise ShapeError("wrong input shape", have=str(shape), limit=str(wanted))
        return shape

    return rule


_RULES: dict[type, Callable[[Any, Shape], Shape]] = {
    nir.Input: _input,
    nir.Output: _output,
    nir.Conv1d: _conv,
    nir.Conv2d: _conv,
    nir.SumPool2d: _pool,
    nir.AvgPool2d: _pool,
    nir.Flatten: _flatten,
    nir.Affine: _matrix,
    nir.Linear: _matrix,
    nir.Scale: _elementwise("scale"),
    nir.Threshold: _elementwise("threshold"),
    nir.Delay: _elementwise("delay"),
    nir.I: _elementwise("r"),
    nir.IF: _elementwise("r"),
    nir.LI: _elementwise("r"),
    nir.LIF: _elementwise("r"),
    nir.CubaLI: _elementwise("r"),
    nir.CubaLIF: _elementwise("r"),
}
