"""The float interpreter: any NIR graph as its text says, in float64.

Forward Euler with a fixed time step, strict ``v > threshold``, reset in the same step, all state 0 at the start. Nodes
run once a step in topological order and their in-edges are summed. An edge that closes a cycle carries what its source
put out in the previous step, and exactly 0 in the first one. With ``a = dt / tau``:

    LI, LIF         v <- v + a (v_leak - v + r x)
    I, IF           v <- v + dt r x
    CubaLI, CubaLIF i <- i + dt / tau_syn (w_in x - i),  v <- v + dt / tau_mem (v_leak - v + r i)
    Delay           the input of ``round(delay / dt)`` steps before

Integrators put out v. This is what norse, snnTorch and SpikingJelly compute for graphs of the portable form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import nir
import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.convolve import correlate, taps
from neurodeploy.graph.law import check_graph
from neurodeploy.graph.order import run_order
from neurodeploy.graph.shapes import conv_padding, node_shapes, pair

FloatArray = NDArray[np.float64]
State = dict[str, FloatArray]


class Recorder(Protocol):
    """Looks on while a graph runs."""

    def __call__(self, *, step: int, name: str, output: FloatArray, membrane: FloatArray | None) -> None:
        """One node after one step.

        Args:
            step: Time step, from 0.
            name: Node name.
            output: What the node puts out, in its shape.
            membrane: The membrane potential before the reset, for spiking nodes and integrators; else None.
        """


def run_float(
    graph: nir.NIRGraph, x: NDArray[Any], steps: int, dt: float, record: Recorder | None = None
) -> FloatArray:
    """Runs a graph for a number of time steps.

    Args:
        graph: A graph of the readable vocabulary.
        x: In the shape of the input node, shown at every step; or with a leading axis of ``steps``, one a step.
        steps: Number of time steps T.
        dt: Length of a time step in seconds.
        record: Is called for every node in every step.

    Returns:
        (T, ...) float64, what the output node received in every step.

    Raises:
        FindingsError: The graph breaks the law of the readable vocabulary.
        UserError: The input does not fit.
    """
    findings = check_graph(graph, "readable")
    if findings:
        raise FindingsError("the graph cannot be interpreted", findings)
    shapes = node_shapes(graph)
    start = next(name for name, node in graph.nodes.items() if isinstance(node, nir.Input))
    order, feedback = run_order(graph.nodes, graph.edges, start)
    frames = _frames(x, shapes[start], steps, start)
    sources = {name: [edge for edge in graph.edges if edge[1] == name] for name in order}
    states: dict[str, State] = {name: {} for name in order}
    before: dict[str, FloatArray] = {}
    outputs = []
    for step in range(steps):
        values: dict[str, FloatArray] = {}
        for name in order:
            node = graph.nodes[name]
            if name == start:
                values[name] = frames[step]
            else:
                arriving = [before.get(edge[0]) if edge in feedback else values[edge[0]] for edge in sources[name]]
                summed = sum((part for part in arriving if part is not None), start=np.zeros(()))
                values[name] = _STEPS[type(node)](node, summed, states[name], dt)
            if record is not None:
                record(step=step, name=name, output=values[name], membrane=states[name].get("membrane"))
        outputs += [values[name] for name in order if isinstance(graph.nodes[name], nir.Output)]
        before = values
    return np.stack(outputs)


def _frames(x: NDArray[Any], shape: tuple[int, ...], steps: int, name: str) -> list[FloatArray]:
    if steps < 1:
        raise UserError("a run needs at least one time step", have=str(steps))
    if x.shape == shape:
        return [x.astype(np.float64)] * steps
    if x.shape == (steps, *shape):
        return list(x.astype(np.float64))
    raise UserError("the input does not fit", node=name, have=str(x.shape), limit=f"{shape} or {(steps, *shape)}")


@dataclass(frozen=True)
class Margin:
    """The spiking neuron that came closest to its threshold: ``value`` is the least ``|v - threshold|``."""

    node: str
    step: int
    value: float


def smallest_margin(graph: nir.NIRGraph, x: NDArray[Any], steps: int, dt: float) -> Margin | None:
    """How close a run comes to a tie, where readers with ``>`` and ``>=`` and float32 part; None without neurons."""
    least: Margin | None = None

    def record(*, step: int, name: str, output: FloatArray, membrane: FloatArray | None) -> None:
        nonlocal least
        del output
        node = graph.nodes[name]
        if membrane is None or not isinstance(node, nir.LIF | nir.IF | nir.CubaLIF):
            return
        value = float(np.abs(membrane - np.asarray(node.v_threshold, np.float64)).min())
        if least is None or value < least.value:
            least = Margin(name, step, value)

    run_float(graph, x, steps, dt, record)
    return least


# one step of every kind of node: (node, summed input, state to update, dt) -> output


def _f64(values: Any) -> FloatArray:
    return np.asarray(values, np.float64)


def _same(_node: nir.NIRNode, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    return x


def _conv2d(node: nir.Conv2d, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    padded = np.pad(x, ((0, 0), *conv_padding(node)))
    out = correlate(padded, _f64(node.weight), pair(node.stride), (0, 0), pair(node.dilation), int(node.groups))
    result: FloatArray = out + _f64(node.bias)[:, None, None]
    return result


def _conv1d(node: nir.Conv1d, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    padded = np.pad(x, ((0, 0), *conv_padding(node)))[:, None, :]
    stride, dilation = (1, pair(node.stride)[0]), (1, pair(node.dilation)[0])
    out = correlate(padded, _f64(node.weight)[:, :, None, :], stride, (0, 0), dilation, int(node.groups))
    return out[:, 0] + _f64(node.bias)[:, None]


def _sum_pool(node: nir.SumPool2d | nir.AvgPool2d, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    windows = taps(x, pair(node.kernel_size), pair(node.stride), pair(node.padding))
    return sum((seen for _, seen in windows), start=np.zeros(()))


def _mean_pool(node: nir.AvgPool2d, x: FloatArray, state: State, dt: float) -> FloatArray:
    return _sum_pool(node, x, state, dt) / np.prod(pair(node.kernel_size))


def _flatten(node: nir.Flatten, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    start, end = int(node.start_dim) % x.ndim, int(node.end_dim) % x.ndim
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


def _matrix(node: nir.Affine | nir.Linear, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    out: FloatArray = (_f64(node.weight) @ x[..., None])[..., 0]
    return out + _f64(node.bias) if isinstance(node, nir.Affine) else out


def _scale(node: nir.Scale, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    return x * _f64(node.scale)


def _threshold(node: nir.Threshold, x: FloatArray, _state: State, _dt: float) -> FloatArray:
    return (x > _f64(node.threshold)).astype(np.float64)


def _delay(node: nir.Delay, x: FloatArray, state: State, dt: float) -> FloatArray:
    """A line as long as the longest delay; entry k holds the input of k steps before."""
    late = np.rint(_f64(node.delay) / dt).astype(np.int64)
    length = int(late.max()) + 1
    line = state.get("line", np.zeros((length, *x.shape)))
    state["line"] = np.concatenate([x[None], line[:-1]])
    out: FloatArray = np.take_along_axis(state["line"], late[None], axis=0)[0]
    return out


def _membrane(node: nir.I | nir.LI | nir.IF | nir.LIF, x: FloatArray, state: State, dt: float) -> FloatArray:
    v = state.get("v", np.zeros(x.shape))
    if isinstance(node, nir.I | nir.IF):
        return v + dt * _f64(node.r) * x
    return v + dt / _f64(node.tau) * (_f64(node.v_leak) - v + _f64(node.r) * x)


def _cuba_membrane(node: nir.CubaLI | nir.CubaLIF, x: FloatArray, state: State, dt: float) -> FloatArray:
    v, i = state.get("v", np.zeros(x.shape)), state.get("i", np.zeros(x.shape))
    state["i"] = i + dt / _f64(node.tau_syn) * (_f64(node.w_in) * x - i)
    return v + dt / _f64(node.tau_mem) * (_f64(node.v_leak) - v + _f64(node.r) * state["i"])


Update = Callable[[Any, FloatArray, State, float], FloatArray]


def _integrator(update: Update) -> Update:
    def step(node: Any, x: FloatArray, state: State, dt: float) -> FloatArray:
        state["v"] = state["membrane"] = update(node, x, state, dt)
        return state["v"]

    return step


def _spiking(update: Update) -> Update:
    def step(node: Any, x: FloatArray, state: State, dt: float) -> FloatArray:
        state["membrane"] = update(node, x, state, dt)
        fired = state["membrane"] > _f64(node.v_threshold)
        state["v"] = np.where(fired, _f64(node.v_reset), state["membrane"])
        return fired.astype(np.float64)

    return step


_STEPS: dict[type, Update] = {
    nir.Output: _same,
    nir.Conv1d: _conv1d,
    nir.Conv2d: _conv2d,
    nir.SumPool2d: _sum_pool,
    nir.AvgPool2d: _mean_pool,
    nir.Flatten: _flatten,
    nir.Affine: _matrix,
    nir.Linear: _matrix,
    nir.Scale: _scale,
    nir.Threshold: _threshold,
    nir.Delay: _delay,
    nir.I: _integrator(_membrane),
    nir.LI: _integrator(_membrane),
    nir.IF: _spiking(_membrane),
    nir.LIF: _spiking(_membrane),
    nir.CubaLI: _integrator(_cuba_membrane),
    nir.CubaLIF: _spiking(_cuba_membrane),
}
