"""The order in which nodes run: topological, where feedback edges (edges of cycles that run backward) do not count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Edge = tuple[str, str]


def run_order(nodes: Iterable[str], edges: Sequence[Edge], start: str) -> tuple[list[str], set[Edge]]:
    """Nodes in an order in which every edge but the feedback edges runs forward.

    A depth-first walk from ``start``: an edge to a node that the walk is still inside of closes a cycle, and is
    feedback. In a graph without cycles there is none, whatever the order of the edges.

    Args:
        nodes: All names.
        edges: (source, target) names.
        start: Where the walk begins, the input; what it does not reach follows behind.

    Returns:
        The order, and the feedback edges.
    """
    names = list(nodes)
    targets: dict[str, list[str]] = {name: [] for name in names}
    for source, target in edges:
        targets[source].append(target)
    feedback: set[Edge] = set()
    inside: set[str] = set()
    finished: dict[str, None] = {}
    for root in [start, *names]:
        stack = [] if root in finished else [(root, iter(targets[root]))]
        inside.update(name for name, _ in stack)
        while stack:
            name, remaining = stack[-1]
            for target in remaining:
                if target in inside:
                    feedback.add((name, target))
                elif target not in finished:
                    inside.add(target)
                    stack.append((target, iter(targets[target])))
                    break
            else:
                stack.pop()
                inside.discard(name)
                finished[name] = None
    return list(finished)[::-1], feedback


def backward(order: Iterable[str], edges: Iterable[Edge]) -> frozenset[Edge]:
    """The edges that do not run forward in an order of nodes: the feedback edges of a graph in running order."""
    place = {name: index for index, name in enumerate(order)}
    return frozenset((source, target) for source, target in edges if place[source] >= place[target])
