"""The law of a graph: rules as data, all of them checked, all findings at once.

The rules for single nodes are a table in :mod:`neurodeploy.graph.rules`; here are those of the whole graph. There are
two vocabularies: ``portable`` is the form that norse, snnTorch, SpikingJelly and the chip's tools run alike;
``readable`` is what the float interpreter of :mod:`neurodeploy.simulate.floating` holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

import nir
import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.graph.cycles import cycle_findings, late_biases
from neurodeploy.graph.rules import (
    CONVOLUTIONS,
    MATRICES,
    NEURONS,
    POOLS,
    PORTABLE_RULES,
    UNUSABLE,
    VALUE_RULES,
    apply_rules,
)
from neurodeploy.graph.shapes import infer_shapes
from neurodeploy.graph.spec import DT

Vocabulary = Literal["portable", "readable"]

VOCABULARIES: dict[Vocabulary, tuple[type, ...]] = {
    "portable": (nir.Input, nir.Conv2d, nir.LIF, nir.Output),
    "readable": (
        nir.Input,
        nir.Output,
        *NEURONS,
        *CONVOLUTIONS,
        *MATRICES,
        *POOLS,
        nir.Flatten,
        nir.Scale,
        nir.Threshold,
        nir.Delay,
    ),
}
"""Kinds of node that a vocabulary holds."""


def check_graph(graph: nir.NIRGraph, vocabulary: Vocabulary = "portable") -> list[Finding]:
    """Everything in a graph that breaks the law of a vocabulary; an empty list when it holds.

    The values of single nodes come first; shapes and structure are judged only where those are sound.
    """
    findings = structure_findings(graph)
    held = VOCABULARIES[vocabulary]
    for name, node in graph.nodes.items():
        if not isinstance(node, held):
            findings.append(
                Finding(
                    name,
                    f"{type(node).__name__} is not in the {vocabulary} vocabulary",
                    limit=", ".join(sorted(kind.__name__ for kind in held)),
                    instead=_WAYS_OUT.get(type(node), ""),
                )
            )
    if vocabulary == "portable":
        unusable = {finding.node for finding in findings if finding.rule in UNUSABLE}
        findings += apply_rules(graph, PORTABLE_RULES, skip=unusable)
        findings += _chain_findings(graph)
        findings += _time_step_findings(graph)
        findings += _feedback_findings(graph)
    return findings


def structure_findings(graph: nir.NIRGraph) -> list[Finding]:
    """What no reader of any vocabulary can use: values, ends, edges, shapes."""
    findings = [*_name_findings(graph), *apply_rules(graph, VALUE_RULES), *_edge_findings(graph)]
    if not findings:
        findings += infer_shapes(graph)[1]
        findings += _dead_end_findings(graph)
    if not findings:
        findings += cycle_findings(graph)
    return findings


def time_step(graph: nir.NIRGraph) -> float:
    """The time step dt in seconds: the graph's hint where it is a positive number, else 1e-4."""
    hint = graph.metadata.get("dt") if isinstance(graph.metadata, dict) else None
    if isinstance(hint, int | float | np.number) and np.isfinite(hint) and hint > 0:
        return float(hint)
    return DT


_WAYS_OUT: dict[type, str] = {
    nir.AvgPool2d: "a convolution with stride, or SumPool2d with the factor in the next weights",
    nir.NIRGraph: "write the nodes of the subgraph into the graph itself",
    nir.LI: "the mean over time of the last convolution, taken by the host",
    nir.I: "the mean over time of the last convolution, taken by the host",
    nir.Scale: "fold the factors into the weights",
    nir.Linear: "Conv2d",
    nir.Affine: "Conv2d",
}
"""What to do instead of a kind of node that is refused."""


# rules of the whole graph


def _name_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    for name in graph.nodes:
        if not isinstance(name, str) or not name or "/" in name or "\0" in name or name == ".":
            yield Finding(str(name), "node names must be words without '/', which files use as a separator")


def _edge_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    for source, target in dict.fromkeys(graph.edges):
        for name in (source, target):
            if name not in graph.nodes:
                yield Finding(str(name), f"edge {source} -> {target} refers to a node that does not exist")
    for (source, target), count in Counter(graph.edges).items():
        if count > 1:
            yield Finding(str(target), f"edge {source} -> {target} stands more than once", have=str(count), limit="1")
    for kind, end in ((nir.Input, 1), (nir.Output, 0)):
        names = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
        if len(names) != 1:
            have = ", ".join(names) or "none"
            yield Finding("graph", f"there must be exactly one {kind.__name__} node", have=have, limit="1")
        for name in names:
            if any(edge[end] == name for edge in graph.edges):
                yield Finding(name, "an Input has no incoming and an Output no outgoing edges")


def _dead_end_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].append(source)
    reached: set[str] = set()
    waiting = [name for name, node in graph.nodes.items() if isinstance(node, nir.Output)]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += sources[name]
    for name in graph.nodes:
        if name not in reached:
            yield Finding(name, "no path leads from it to the output")


def _feedback_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    if any(_edge_findings(graph)):
        return
    for source, target in late_biases(graph):
        yield Finding(
            source,
            f"its bias arrives at {target} over a feedback edge: frameworks part over the first step",
            limit="no bias",
            instead="add it to a layer that feeds the neurons forward",
        )


_FED_BY: dict[type, tuple[type, ...]] = {
    nir.Conv2d: (nir.Input, nir.LIF),
    nir.LIF: (nir.Conv2d,),
    nir.Output: (nir.Conv2d, nir.LIF),
}
"""Which kinds a portable node takes its input from."""


def _chain_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    for source, target in dict.fromkeys(graph.edges):
        before, node = graph.nodes.get(source), graph.nodes.get(target)
        allowed = _FED_BY.get(type(node))
        if allowed and isinstance(before, VOCABULARIES["portable"]) and not isinstance(before, allowed):
            limit = " or ".join(kind.__name__ for kind in allowed)
            yield Finding(target, f"takes its input from {source}", have=type(before).__name__, limit=limit)
    for name, count in Counter(target for _, target in set(graph.edges)).items():
        if count > 1 and isinstance(graph.nodes.get(name), nir.Conv2d):
            yield Finding(
                name, "only a LIF or the Output sums edges", have=f"{count} edges", instead="one convolution an edge"
            )


def _time_step_findings(graph: nir.NIRGraph) -> Iterator[Finding]:
    step = time_step(graph)
    for name, node in graph.nodes.items():
        # float32 puts tau = dt a little below dt
        if isinstance(node, nir.LIF) and node.tau.size and np.min(node.tau) < step * (1 - 1e-6):
            yield Finding(
                name, "tau is shorter than a time step", have=f"{float(np.min(node.tau)):g} s", limit=f"{step:g} s"
            )
