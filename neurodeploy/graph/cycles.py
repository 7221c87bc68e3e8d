"""Cycles: which edge of one is the feedback edge, which cycles have no one meaning, and biases on feedback edges.

What a feedback edge carries arrives one step later, and nothing arrives in the first step. snnTorch's RLeaky and
RSynaptic, norse's LIFRecurrentCell and the executors of nirtorch agree on that (frameworks.md names the places). The
feedback edge is the one that runs back to the node by which alone the cycle is entered: that is the same edge in
whatever order a framework walks the graph. Where a cycle has several ways in it is not, and such a graph is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import nir
import numpy as np

from neurodeploy.errors import Finding, FindingsError
from neurodeploy.graph.order import Edge, run_order
from neurodeploy.graph.passes import replaced
from neurodeploy.graph.rules import CONVOLUTIONS, MATRICES, NEURONS


def feedback_edges(graph: nir.NIRGraph) -> set[Edge]:
    """The edges that close cycles; they carry what the previous step put out."""
    return run_order(graph.nodes, graph.edges, _start(graph))[1]


def _start(graph: nir.NIRGraph) -> str:
    return next(str(name) for name, node in graph.nodes.items() if isinstance(node, nir.Input))


def cycle_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    """Cycles that nobody can run, or that are run in several ways: without a neuron, or entered at several places.

    Args:
        graph: A graph whose edges and shapes are sound.
    """
    order, feedback = run_order(graph.nodes, graph.edges, _start(graph))
    if not feedback:
        return
    bare = {name for name, node in graph.nodes.items() if not isinstance(node, NEURONS)}
    _, idle = run_order(sorted(bare), [edge for edge in graph.edges if bare.issuperset(edge)], order[0])
    for source, target in sorted(idle):
        yield Finding(
            target,
            f"the edge from {source} closes a cycle without a neuron",
            instead="take the edge out, or put a neuron into the cycle",
        )
    before = {} if idle else _dominators(order, graph.edges)
    place = {name: index for index, name in enumerate(order)}
    for source, target in () if idle else sorted(feedback):
        passed = source
        while place[passed] > place[target]:
            passed = before[passed]
        if passed != target:
            yield Finding(
                target,
                f"the edge from {source} closes a cycle that is entered at several places, so that frameworks differ"
                " in which edge comes a step later",
                instead="enter the cycle at one node",
            )


def _dominators(order: Sequence[str], edges: Iterable[Edge]) -> dict[str, str]:
    """The last node that every path from the first one to a node passes before it.

    Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm", 2001.

    Args:
        order: All nodes in running order, as :func:`run_order` gives it; paths lead to all of them from the first.
        edges: (source, target) names.
    """
    place = {name: index for index, name in enumerate(order)}
    sources: dict[str, list[str]] = {name: [] for name in order}
    for source, target in edges:
        sources[target].append(source)
    found = {order[0]: order[0]}

    def common(one: str, other: str) -> str:
        while one != other:
            if place[one] < place[other]:
                one, other = other, one
            one = found[one]
        return one

    changed = True
    while changed:
        changed = False
        for name in order[1:]:
            last = reduce(common, (source for source in sources[name] if source in found))
            changed = changed or found.get(name) != last
            found[name] = last
    return found


def late_biases(graph: nir.NIRGraph) -> list[Edge]:
    """Feedback edges from a layer with a bias other than 0.

    snnTorch adds such a bias in every step, the first one included; readers by way of nirtorch from the second one on.
    """
    return [edge for edge in sorted(feedback_edges(graph)) if np.any(getattr(graph.nodes[edge[0]], "bias", 0) != 0)]


def with_early_biases(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The graph in which biases on feedback edges count in the first step, too, as in snnTorch's own run.

    Each moves to a layer that feeds the same node, and nothing else, forward: there it arrives in every step.

    Raises:
        FindingsError: No layer feeds the node in that way.
    """
    nodes, findings = dict(graph.nodes), []
    feedback = feedback_edges(graph)
    for source, target in late_biases(graph):
        bias = nodes[source].bias
        takers = [
            name
            for name, after in graph.edges
            if after == target
            and (name, after) not in feedback
            and isinstance(nodes[name], (*CONVOLUTIONS, *MATRICES))
            and sum(edge[0] == name for edge in graph.edges) == 1
            and nodes[name].weight.shape[:1] == bias.shape
        ]
        if not takers or sum(edge[0] == source for edge in graph.edges) > 1:
            findings.append(
                Finding(source, f"its bias cannot move to a layer that feeds {target} alone, forward, in every step")
            )
            continue
        taker = nodes[takers[0]]
        if isinstance(taker, nir.Linear):
            nodes[takers[0]] = nir.Affine(taker.weight, bias.copy(), metadata=taker.metadata)
        else:
            nodes[takers[0]] = replaced(taker, bias=taker.bias + bias)
        nodes[source] = replaced(nodes[source], bias=np.zeros_like(bias))
    if findings:
        raise FindingsError("biases on feedback edges cannot count in the first step", findings, exit_code=2)
    return nir.NIRGraph(nodes, list(graph.edges), metadata=graph.metadata, type_check=False)
