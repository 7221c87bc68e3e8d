"""Integer levels, in two forms: one layer that counts to D, and D * C binary channels.

A chip of binary spikes carries an activation 0..D as D populations of the layer's C channels that share the incoming
weights and differ in their bias alone; the layer behind adds them up by repeating its weights. In the compact form the
integer network says that with ``IntegerLif.levels``; in the expanded form the channels stand there one by one,
population-major: channel ``d * C + c``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import InternalError, UserError
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
)

Linear = IntegerConv | IntegerDense


def expand_levels(net: IntegerNetwork) -> IntegerNetwork:
    """The same network with every population as channels of its own.

    What leads into a layer of D levels repeats its outputs D times; what follows repeats its weights over the D * C
    inputs. Every spike stays the same: channel ``d * C + c`` of the result fires where population d of channel c does.

    Raises:
        UserError: A layer of several levels is entered or left by something else than convolutions (without groups) and
            matrix products, or two layers that share a convolution have different numbers of levels.
    """
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    for group in _groups(net):
        levels = {len(_lif(net, name).levels) for name in group}
        if levels == {1}:
            continue
        into, after = _incoming(net, group), _following(net, group)
        if len(levels) > 1 or into is None or after is None:
            raise UserError(
                "its integer levels cannot be written as channels: it is entered or left by something else than plain"
                " convolutions, or shares one with a layer of other levels",
                node=group[0],
            )
        copies = levels.pop()
        for name in group:
            nodes[name] = _expand_lif(_lif(net, name), copies)
        for name in into:
            nodes[name] = _tiled(nodes[name], outputs=copies)
        for name in after:
            nodes[name] = _tiled(nodes[name], inputs=copies)
    return replace(net, nodes=nodes)


def fold_levels(net: IntegerNetwork) -> IntegerNetwork:
    """The compact form of an expanded network: finds repeated channels by their values.

    Spiking layers that share convolutions are folded together, to the largest D with which each layer's parameters and
    everything that leads into them repeat D times, and everything behind them repeats its weights over its inputs. The
    first population becomes the reference (``levels[0] == 0``). A network that repeats nothing comes back as it is.
    """
    for group in _groups(net):
        net = _fold_group(net, group)
    return net


def _lif(net: IntegerNetwork, name: str) -> IntegerLif:
    node = net.nodes[name]
    if not isinstance(node, IntegerLif):
        raise InternalError(f"{name} is not a spiking layer")
    return node


def _groups(net: IntegerNetwork) -> list[tuple[str, ...]]:
    """The spiking layers, those together that have a source in common, in network order."""
    label: dict[str, str] = {}
    for name, node in net.nodes.items():
        if not isinstance(node, IntegerLif):
            continue
        label[name] = name
        for other in list(label):
            if set(net.sources(name)) & set(net.sources(other)):
                old, new = label[name], label[other]
                label = {key: new if value == old else value for key, value in label.items()}
    return [tuple(key for key in label if label[key] == wanted) for wanted in dict.fromkeys(label.values())]


def _incoming(net: IntegerNetwork, group: Sequence[str]) -> list[str] | None:
    """The linear nodes that lead into a group and nowhere else; None where something else does."""
    names = list(dict.fromkeys(source for name in group for source in net.sources(name)))
    for name in names:
        if not _is_plain(net.nodes[name]) or not set(net.targets(name)) <= set(group):
            return None
    return names


def _following(net: IntegerNetwork, group: Sequence[str]) -> list[str] | None:
    """The linear nodes that a group's spikes go to, through flattening; None where they go elsewhere."""
    found: dict[str, None] = {}
    waiting, seen = list(group), set(group)
    while waiting:
        for target in net.targets(waiting.pop(0)):
            if not set(net.sources(target)) <= seen:
                return None
            if isinstance(net.nodes[target], IntegerFlatten):
                waiting.append(target)
                seen.add(target)
            elif _is_plain(net.nodes[target]):
                found[target] = None
            else:
                return None
    return list(found)


def _is_plain(node: IntegerNode) -> bool:
    return isinstance(node, IntegerDense) or (isinstance(node, IntegerConv) and node.groups == 1)


def _tiled(node: IntegerNode, *, outputs: int = 1, inputs: int = 1) -> IntegerNode:
    if not isinstance(node, IntegerConv | IntegerDense):
        raise InternalError(f"{node.name} has no weights")
    tail = (1,) * (node.weight.ndim - 2)
    return replace(node, weight=np.tile(node.weight, (outputs, inputs, *tail)))


def _expand_lif(node: IntegerLif, copies: int) -> IntegerLif:
    def tile(values: int | IntArray) -> int | IntArray:
        return values if isinstance(values, int) else np.tile(values, copies)

    return replace(
        node,
        bias=np.add.outer(np.asarray(node.levels, np.int64), node.bias).reshape(-1),
        v_decay=tile(node.v_decay),
        i_decay=tile(node.i_decay),
        levels=(0,),
    )


def _fold_group(net: IntegerNetwork, group: Sequence[str]) -> IntegerNetwork:
    lifs = [_lif(net, name) for name in group]
    into, after = _incoming(net, group), _following(net, group)
    if into is None or after is None or any(len(node.levels) > 1 for node in lifs):
        return net
    channels = len(lifs[0].bias)
    for copies in copy_counts(channels):
        levels = [_level_offsets(node, copies) for node in lifs]
        if all(repeats(_weight(net, name), copies, axis=0) for name in into) and all(
            repeats(_weight(net, name), copies, axis=1) for name in after
        ):
            found = [offsets for offsets in levels if offsets is not None]
            if len(found) == len(lifs):
                return _folded(net, lifs, found, into, after)
    return net


def copy_counts(channels: int) -> list[int]:
    """The numbers of equal parts that so many channels can consist of, the largest first; 1 is left out."""
    return [count for count in range(channels, 1, -1) if channels % count == 0]


def _folded(
    net: IntegerNetwork,
    lifs: Sequence[IntegerLif],
    levels: Sequence[tuple[int, ...]],
    into: Sequence[str],
    after: Sequence[str],
) -> IntegerNetwork:
    copies = len(levels[0])
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    for node, offsets in zip(lifs, levels, strict=True):

        def first(values: int | IntArray) -> int | IntArray:
            return values if isinstance(values, int) else values[: len(values) // copies]

        nodes[node.name] = replace(
            node,
            bias=node.bias[: len(node.bias) // copies],
            v_decay=first(node.v_decay),
            i_decay=first(node.i_decay),
            levels=offsets,
        )
    for name in into:
        nodes[name] = _shortened(nodes[name], copies, axis=0)
    for name in after:
        nodes[name] = _shortened(nodes[name], copies, axis=1)
    return replace(net, nodes=nodes)


def _weight(net: IntegerNetwork, name: str) -> IntArray:
    node = net.nodes[name]
    if not isinstance(node, IntegerConv | IntegerDense):
        raise InternalError(f"{name} has no weights")
    return node.weight


def _shortened(node: IntegerNode, copies: int, axis: int) -> IntegerNode:
    """A linear node with the first of its ``copies`` repetitions along an axis."""
    if not isinstance(node, IntegerConv | IntegerDense):
        raise InternalError(f"{node.name} has no weights")
    length = node.weight.shape[axis] // copies
    return replace(node, weight=np.ascontiguousarray(node.weight.take(range(length), axis=axis)))


def repeats(values: NDArray[Any], copies: int, axis: int) -> bool:
    """Whether an array consists of ``copies`` equal parts along an axis."""
    length, remainder = divmod(values.shape[axis], copies)
    if remainder:
        return False
    shape = (*values.shape[:axis], copies, length, *values.shape[axis + 1 :])
    parts = values.reshape(shape)
    return bool((parts == parts.take([0], axis=axis)).all())


def _level_offsets(node: IntegerLif, copies: int) -> tuple[int, ...] | None:
    """Bias offset of each of ``copies`` parts of a layer's channels, or None where they differ in more than that."""
    for values in (node.v_decay, node.i_decay):
        if not isinstance(values, int) and not repeats(values, copies, axis=0):
            return None
    parts = node.bias.reshape(copies, -1)
    offsets = parts - parts[0]
    if not (offsets == offsets[:, :1]).all():
        return None
    return tuple(int(value) for value in offsets[:, 0])
