"""The definition: what an integer network computes, in plain numpy.

This is Loihi 2's integer arithmetic as Lava's bit-accurate processes define it (``lava.proc.lif.models``,
``lava.proc.conv.models`` in lava-nc 0.10.0). Faster simulators are tested against this file bit for bit; this file is
tested against traces that others recorded.

Time is zero-delay: within a step the nodes run in topological order, and a spike of one layer reaches the next in the
same step. What a feedback edge carries arrives one step later, and nothing in the first step. All state is 0 before the
first step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neurodeploy.errors import InternalError, UserError
from neurodeploy.graph.convolve import correlate
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.simulate.observe import BoolArray, IntArray, Observer

LIMIT = 1 << 23
"""Half the range of a 24-bit register."""


def decay(x: IntArray, amount: int | IntArray) -> IntArray:
    """``x * (1 - amount / 4096)``, truncated toward zero; ``amount`` is 0..4096."""
    magnitude: IntArray = np.abs(x)
    sign: IntArray = np.sign(x)
    return sign * ((magnitude * (4096 - amount)) >> 12)


def wrap(x: IntArray, bits: int) -> IntArray:
    """``x`` modulo ``2**bits``, as the signed number that a register of that width holds."""
    return ((x + (1 << (bits - 1))) & ((1 << bits) - 1)) - (1 << (bits - 1))


def lif_step(
    u: IntArray,
    v: IntArray,
    current: IntArray,
    *,
    i_decay: int | IntArray,
    v_decay: int | IntArray,
    vth: int,
    bias: int | IntArray,
) -> tuple[IntArray, IntArray, BoolArray]:
    """One time step of current-based LIF neurons with hard reset.

    ``u <- decay(u, i_decay) + current * 64``; ``v <- decay(v, v_decay) + u + bias * 64``; a spike where
    ``v > vth * 64``, and there ``v <- 0``. The current register wraps around once at 24 bits (+2**23 is a legal value,
    -2**23 is not); the membrane saturates at +-(2**23 - 1); the bias enters the membrane and never the current; a spike
    leaves u alone.

    Args:
        u: Currents, any shape.
        v: Membranes, a shape that ``u`` broadcasts to.
        current: What arrived in this step (before the shift by 6 bits), the shape of ``u``.
        i_decay: 0..4096; 4096 forgets the current after one step.
        v_decay: 0..4096.
        vth: Threshold mantissa.
        bias: Bias mantissa, broadcast to ``v``.

    Returns:
        ``u``, ``v`` after the step, and where neurons spiked in it.
    """
    u = wrap(decay(u, i_decay) + wrap(current << 6, 32), 32)
    u = np.where(u > LIMIT, u - 2 * LIMIT, np.where(u <= -LIMIT, u + 2 * LIMIT, u))
    v = np.clip(decay(v, v_decay) + u + (bias << 6), 1 - LIMIT, LIMIT - 1)
    fired = v > (vth << 6)
    return u, np.where(fired, 0, v), fired


def exact_dtype(x: IntArray, weight: IntArray) -> type[np.float32] | type[np.float64] | type[np.int64]:
    """The fastest dtype in which ``weight @ x`` is exact.

    Every partial sum of a product is an integer of at most ``max_o sum |weight_o| * max |x|``, in whatever order a
    library adds; a float with p bits of mantissa holds every integer up to 2**p.
    """
    per_output = np.abs(weight).sum(axis=tuple(range(1, weight.ndim))).max(initial=0)
    bound = int(per_output) * int(np.abs(x).max(initial=0))
    if bound < 1 << 24:
        return np.float32
    return np.float64 if bound < 1 << 53 else np.int64


def conv(x: IntArray, node: IntegerConv) -> IntArray:
    """Output of a convolution, (I, h, w) -> (O, h', w'), wrapped to 24 bits."""
    kind = exact_dtype(x, node.weight)
    out = correlate(x.astype(kind), node.weight.astype(kind), node.stride, node.padding, node.dilation, node.groups)
    return wrap(out.astype(np.int64), 24)


def dense(x: IntArray, node: IntegerDense) -> IntArray:
    """Output of a matrix product, (I, 1, 1) -> (O, 1, 1); Lava does not wrap it."""
    if x.size != node.weight.shape[1]:
        raise UserError(
            "the input has another size than the network is made for",
            node=node.name,
            have=f"{x.size} values here",
            limit=str(node.weight.shape[1]),
        )
    kind = exact_dtype(x, node.weight)
    out: IntArray = (node.weight.astype(kind) @ x.reshape(-1).astype(kind)).astype(np.int64)
    return out.reshape(-1, 1, 1)


@dataclass(frozen=True)
class _State:
    """Current (C, h, w) and membranes (D, C, h, w) of one spiking layer."""

    u: IntArray
    v: IntArray


def _at_rest(node: IntegerLif, shape: tuple[int, ...]) -> _State:
    return _State(np.zeros(shape, np.int64), np.zeros((len(node.levels), *shape), np.int64))


def _lif(node: IntegerLif, state: _State, current: IntArray) -> tuple[_State, BoolArray]:
    u, v, fired = lif_step(
        state.u,
        state.v,
        current,
        i_decay=_channels(node.i_decay),
        v_decay=_channels(node.v_decay),
        vth=node.vth,
        bias=np.add.outer(np.asarray(node.levels, np.int64), node.bias)[:, :, None, None],
    )
    return _State(u, v), fired


def _channels(values: int | IntArray) -> int | IntArray:
    """One value, or one a channel, in a shape that broadcasts over (C, h, w)."""
    return values if isinstance(values, int | np.integer) else values.reshape(-1, 1, 1)


def run(net: IntegerNetwork, codes: IntArray, *, observer: Observer | None = None) -> IntArray:
    """Runs a network for ``net.host.steps`` time steps from state 0.

    Args:
        net: The network.
        codes: (C, h, w), shown at every step (or as :meth:`HostSide.frames` says, where there are ticks), or
            (T, C, h, w), one a step.
        observer: Is shown the codes, and every spiking layer after every step.

    Returns:
        (C, h', w') int64: the sum over all time steps of the current into the readout plus its bias.

    Raises:
        UserError: The codes do not fit the network.
    """
    codes = shown_codes(net, codes)
    frames = _frames(net, codes)
    if observer is not None:
        observer.codes(codes=codes, origin=(0, 0), extent=(codes.shape[-2], codes.shape[-1]))
    total = np.int64(0)
    states: dict[str, _State] = {}
    late = {name: [source for source, target in net.feedback if target == name] for name in net.nodes}
    before: dict[str, IntArray] = {}
    for step, frame in enumerate(frames):
        values = {net.input.name: frame}
        for name, node in net.nodes.items():
            if isinstance(node, IntegerInput):
                continue
            arriving = [values[source] for source in net.forward_sources(name)]
            x = np.add.reduce([*arriving, *(before[source] for source in late[name] if source in before)])
            if isinstance(node, IntegerConv):
                values[name] = conv(x, node)
            elif isinstance(node, IntegerDense):
                values[name] = dense(x, node)
            elif isinstance(node, IntegerFlatten):
                values[name] = x.reshape(-1, 1, 1)
            elif isinstance(node, IntegerReadout):
                total = total + x + node.bias.reshape(-1, 1, 1)
            else:
                state, fired = _lif(node, states.pop(name) if name in states else _at_rest(node, x.shape), x)
                values[name] = fired.sum(axis=0)
                if step + 1 < len(frames):  # of the last step nothing needs to be remembered
                    states[name] = state
                if observer is not None:
                    _show(observer, step, name, x, state, fired)
        before = values
    return np.asarray(total)


def _show(observer: Observer, step: int, name: str, current: IntArray, state: _State, fired: BoolArray) -> None:
    extent = (current.shape[1], current.shape[2])
    observer.layer(
        step=step, name=name, current=current, u=state.u, v=state.v, fired=fired, origin=(0, 0), extent=extent
    )


def shown_codes(net: IntegerNetwork, codes: IntArray) -> IntArray:
    """The codes of a picture with the ticks that the network is sent beside them, one frame a step, if it has any.

    Raises:
        UserError: The codes do not fit the network.
    """
    if net.host.ticks and codes.ndim == 3 and len(codes) == net.input.channels - len(net.host.ticks):
        codes = net.host.frames(codes)
    check_codes(net, codes)
    return codes


def check_codes(net: IntegerNetwork, codes: IntArray) -> None:
    """Raises a UserError for codes that do not fit a network's input or its number of steps."""
    if not np.issubdtype(codes.dtype, np.integer):
        raise InternalError(f"codes are {codes.dtype}, not integers")
    if codes.ndim not in (3, 4) or codes.shape[-3] != net.input.channels or 0 in codes.shape:
        raise UserError(
            "the codes do not fit the network's input",
            node=net.input.name,
            have=str(codes.shape),
            limit=f"({net.input.channels}, h, w) or (T, {net.input.channels}, h, w)",
        )
    if codes.ndim == 4 and len(codes) != net.host.steps:
        raise UserError(
            "the sequence of codes has another length than the run",
            node=net.input.name,
            have=f"{len(codes)} steps",
            limit=f"{net.host.steps} steps",
        )


def _frames(net: IntegerNetwork, codes: IntArray) -> list[IntArray]:
    """The codes of every step."""
    return list(codes.astype(np.int64)) if codes.ndim == 4 else [codes.astype(np.int64)] * net.host.steps
