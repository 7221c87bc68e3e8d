"""Who drives whom: every convolution or matrix product of a network, as the synapses that a chip must carry.

What a connection carries is decided by the kind of node it comes from, never by the values seen: a spiking layer sends
spikes, everything else (the input's codes, another convolution) is analog.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)


@dataclass(frozen=True)
class Connection:
    """The synapses from one source to one receiver.

    Attributes:
        name: Name of the convolution or matrix product; ``source->receiver`` where there is none.
        node: That node; None for a bare edge, which is one synapse of weight 1 a neuron.
        source: The node that drives it: a spiking layer, the input, or another convolution.
        spiking: Whether the source sends spikes.
        row: The layer that the operations are booked on: the receiving neurons, or the convolution itself where its
            output goes into another convolution.
        copies: Populations of the receiver. With binary spikes each carries its own copy of the synapses.
        first: Whether this is the connection that the node's parameters are booked on.
        delay: Steps after which what the source sends arrives: the feedback edges in between, usually 0.
        sends: Whether anything is sent over it. What digits of a layer send (:mod:`neurodeploy.quantize.digits`), an
            ANN of the same shape computes from the layer itself: a connection that says this alone.
        trained: Whether it stands for multiply-accumulates of that ANN; not the links to digits and what they send.
    """

    name: str
    node: IntegerConv | IntegerDense | None
    source: str
    spiking: bool
    row: str
    copies: int
    first: bool
    delay: int = 0
    sends: bool = True
    trained: bool = True


def connections(net: IntegerNetwork) -> tuple[Connection, ...]:
    """All connections of a network, in the order of its nodes.

    Raises:
        UserError: A convolution works on a flattened layer; its in-bounds synapses are not defined here.
    """
    found: list[Connection] = []
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            if isinstance(node, IntegerConv) and any(
                isinstance(net.nodes[source], IntegerFlatten) for source in net.sources(name)
            ):
                raise UserError("a convolution after a flatten is not counted", node=name)
            first = True
            for row, copies, after in _receivers(net, name):
                for source, before in _roots(net, name):
                    link = _connection(net, name, node, source, row, copies, first, before + after)
                    found += _by_digits(net, link)
                    first = False
        elif isinstance(node, IntegerLif | IntegerReadout):
            copies = len(node.levels) if isinstance(node, IntegerLif) else 1
            for source, delay in _roots(net, name):
                if isinstance(net.nodes[source], IntegerLif | IntegerInput):
                    found.append(_connection(net, f"{source}->{name}", None, source, name, copies, False, delay))
    return tuple(found)


def _by_digits(net: IntegerNetwork, link: Connection) -> Iterator[Connection]:
    """A connection as it is, or what it stands for where digits of a layer send or receive."""
    sender, receiver = net.nodes[link.source], net.nodes[link.row]
    digits = sender if isinstance(sender, IntegerLif) and sender.digit_of else None
    within = isinstance(receiver, IntegerLif) and bool(receiver.digit_of)
    yield replace(link, trained=digits is None and not within)
    if digits is not None and digits.digit == 1 and not within:
        yield replace(link, source=digits.digit_of, sends=False)


def fed_back(net: IntegerNetwork) -> frozenset[str]:
    """Nodes that a feedback edge leads to, directly or not: they differ from step to step whatever the input is."""
    found: set[str] = set()
    waiting = [target for _, target in net.feedback]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += net.targets(name)
    return frozenset(found)


def rows(net: IntegerNetwork) -> tuple[str, ...]:
    """The layers that operations are booked on, in the order of the nodes."""
    booked = {connection.row for connection in connections(net)}
    neurons = {name for name, node in net.nodes.items() if isinstance(node, IntegerLif | IntegerReadout)}
    return tuple(name for name in net.nodes if name in booked | neurons)


def _connection(
    net: IntegerNetwork,
    name: str,
    node: IntegerConv | IntegerDense | None,
    source: str,
    row: str,
    copies: int,
    first: bool,
    delay: int,
) -> Connection:
    spiking = isinstance(net.nodes[source], IntegerLif)
    return Connection(name, node, source, spiking, row, copies, first, delay)


def _roots(net: IntegerNetwork, name: str) -> Iterator[tuple[str, int]]:
    """What really drives a node: its sources, looked at through flattens, and the feedback edges in between."""
    for source in net.sources(name):
        late = int((source, name) in net.feedback)
        if isinstance(net.nodes[source], IntegerFlatten):
            yield from ((root, late + before) for root, before in _roots(net, source))
        else:
            yield source, late


def _receivers(net: IntegerNetwork, name: str) -> list[tuple[str, int, int]]:
    """Rows and population counts of the neurons that a convolution's output arrives at, and how late."""
    found: list[tuple[str, int, int]] = []
    linear = False
    for target, late in _targets(net, name):
        node = net.nodes[target]
        if isinstance(node, IntegerLif):
            found.append((target, len(node.levels), late))
        elif isinstance(node, IntegerReadout):
            found.append((target, 1, late))
        else:
            linear = True
    # an output nobody receives still costs what it costs to compute
    return [*found, (name, 1, 0)] if linear or not found else found


def _targets(net: IntegerNetwork, name: str) -> Iterator[tuple[str, int]]:
    for target in net.targets(name):
        late = int((name, target) in net.feedback)
        if isinstance(net.nodes[target], IntegerFlatten):
            yield from ((end, late + after) for end, after in _targets(net, target))
        else:
            yield target, late
