"""Cycles: which edge of one is the feedback edge, which cycles have no one meaning, and biases on feedback edges.

What a feedback edge carries arrives one step later, and nothing arrives in the first step. snnTorch's RLeaky and
RSynaptic, norse's LIFRecurrentCell and the executors of nirtorch agree on that (frameworks.md names the places). The
feedback edge is the one that runs back to the node by which alone the cycle is entered: that is the same edge in
whatever order a framework walks the graph. Where a cycle has several ways in it is not, and such a graph is refused.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

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
    neurons = {name for name, node in graph.nodes.items() if isinstance(node, NEURONS)}
    for source, target in sorted(feedback_edges(graph)):
        if target not in neurons and (source == target or source in _reached(graph, target, without=neurons)):
            yield Finding(
                target,
                f"the edge from {source} closes a cycle without a neuron",
                instead="take the edge out, or put a neuron into the cycle",
            )
        elif source in _reached(graph, _start(graph), without=(target,)):
            yield Finding(
                target,
                f"the edge from {source} closes a cycle that is entered at several places, so that frameworks differ"
                " in which edge comes a step later",
                instead="enter the cycle at one node",
            )


def _reached(graph: nir.NIRGraph, start: str, without: Container[str]) -> set[str]:
    """What paths lead to from a node, itself included, that do not touch some nodes."""
    found: set[str] = set()
    waiting = [] if start in without else [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [target for source, target in graph.edges if source == name and target not in without]
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
