"""Graphs inside a graph, written out: every inner node becomes one of the outer graph, ``subgraph.node``.

Exporters of recurrent layers write one as a graph of its own (snnTorch: Input, LIF, w_rec, Output). Its Input and
Output only say where edges go on.
"""

from __future__ import annotations

from itertools import product

import nir

from neurodeploy.errors import UserError
from neurodeploy.graph.order import Edge


def flattened(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The graph without graphs inside; the same one where there are none.

    Raises:
        UserError: An inner graph has not exactly one Input and one Output, uses names that do not exist, or a name
            would stand for two nodes.
    """
    nodes: dict[str, nir.NIRNode] = {}
    edges = list(graph.edges)
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            inner = flattened(node)
            start, end = _end(name, inner, nir.Input), _end(name, inner, nir.Output)
            edges = _spliced(name, edges, inner.edges, start, end)
            found = {f"{name}.{key}": part for key, part in inner.nodes.items() if key not in (start, end)}
        else:
            found = {name: node}
        for key, part in found.items():
            if key in nodes or (key != name and key in graph.nodes):
                raise UserError("its name stands for two nodes, one of them in a graph inside the graph", node=key)
            nodes[key] = part
    if nodes.keys() == graph.nodes.keys():
        return graph
    return nir.NIRGraph(nodes, edges, metadata=graph.metadata, type_check=False)


def _end(name: str, inner: nir.NIRGraph, kind: type) -> str:
    found = [key for key, node in inner.nodes.items() if isinstance(node, kind)]
    if len(found) != 1:
        have = ", ".join(map(str, found)) or "none"
        raise UserError(f"a graph inside the graph needs one {kind.__name__}", node=name, have=have, limit="1")
    return str(found[0])


def _spliced(name: str, outer: list[Edge], inner: list[Edge], start: str, end: str) -> list[Edge]:
    """The edges of both, where what led to the inner graph leads on to what its Input fed, and the same behind."""

    def renamed(key: str) -> str:
        return key if key in (start, end) else f"{name}.{key}"

    first = [target for source, target in inner if source == start]
    last = [source for source, target in inner if target == end]
    before = [source for source, target in outer if target == name != source]
    after = [target for source, target in outer if source == name != target]
    found = [edge for edge in outer if name not in edge]
    found += [(source, renamed(target)) for source, target in product(before, first) if target != end]
    found += [(renamed(s), renamed(t)) for s, t in inner if s != start and t != end]
    found += [(renamed(source), target) for source, target in product(last, after) if source != start]
    if end in first:  # handed through
        found += list(product(before, after))
    if (name, name) in outer:
        found += [(renamed(s), renamed(t)) for s, t in product(last, first) if s != start and t != end]
    return found
