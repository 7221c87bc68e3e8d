"""Running a network with the kernel: what it is made ready for, and what observers are shown."""

from __future__ import annotations

import weakref

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import reference
from neurodeploy.simulate.kernel.buffers import Pair
from neurodeploy.simulate.kernel.library import default_threads, library, missing
from neurodeploy.simulate.kernel.pack import mask_bytes, rounded
from neurodeploy.simulate.kernel.plan import Plan, extents_of, make_plan
from neurodeploy.simulate.kernel.program import PROGRAMS, Case, Form, Refused, too_large
from neurodeploy.simulate.kernel.refuse import is_sized, refusal
from neurodeploy.simulate.observe import CountObserver, IntArray, Observer, takes_counts

_PLANS: dict[int, dict[tuple[str, Pair | None], Plan | str]] = {}
"""Plans by the identity of their network, for as long as it lives: by path, and by size where they depend on it."""


def plan_for(net: IntegerNetwork, path: str, size: Pair) -> Plan | str:
    """The plan of a network for an input of a size (rows, columns), made once, or why there is none."""
    known = _known(net)
    key = path, size if is_sized(net) else None
    if key not in known:
        known[key] = _refusal(net) or make_plan(net, path, size)
    return known[key]


def _known(net: IntegerNetwork) -> dict[tuple[str, Pair | None], Plan | str]:
    known = _PLANS.get(id(net))
    if known is None:
        known = _PLANS[id(net)] = {}
        weakref.finalize(net, _PLANS.pop, id(net), None)
    return known


def _refusal(net: IntegerNetwork) -> str | None:
    """As :func:`refusal`, looked for once."""
    known, key = _known(net), ("", None)
    if key not in known:
        known[key] = refusal(net) or ""
    return str(known[key]) or None


def declines(net: IntegerNetwork, codes: IntArray | None = None) -> str | None:
    """Why the kernel does not run a network (on these codes); None where it does."""
    reason = missing() or _refusal(net)
    if reason is not None or codes is None:
        return reason
    plan = plan_for(net, library().paths[-1], (codes.shape[-2], codes.shape[-1]))
    return plan if isinstance(plan, str) else _declines_codes(plan, codes)


def _declines_codes(plan: Plan, codes: IntArray) -> str | None:
    largest = max(int(codes.max()), -int(codes.min()), plan.tick_max)
    if largest > plan.code_max:
        return too_large(plan, largest)
    found = extents_of(plan, (codes.shape[-2], codes.shape[-1]))
    return found if isinstance(found, str) else None


def run(
    net: IntegerNetwork,
    codes: IntArray,
    *,
    observer: Observer | None = None,
    path: str | None = None,
    threads: int | None = None,
    form: Form = "auto",
) -> IntArray:
    """Runs a network as :func:`neurodeploy.simulate.reference.run` does, bit for bit.

    An observer that wants currents and membranes gets them from the reference: the kernel never holds them all.

    Args:
        net: The network.
        codes: (C, h, w), shown at every step, or (T, C, h, w), one a step.
        observer: Is shown the codes and every spiking layer.
        path: Instruction path; by default the fastest that the machine has.
        threads: By default ``OMP_NUM_THREADS``, or the cores of this process.
        form: ``events`` adds weights for spikes wherever they are binary, ``sets`` those of five or six channels
            at a time where there is a table of them, ``dense`` multiplies everywhere; ``auto`` takes, for every layer
            and step, what the spike rate of its source makes the faster one.

    Returns:
        (C, h', w') int64: the sum over all time steps of the current into the readout plus its bias.

    Raises:
        UserError: There is no kernel, it does not run this network, or the codes do not fit the network.
    """
    chosen = _path(path)
    codes = reference.shown_codes(net, codes)
    if observer is not None and not takes_counts(observer):
        reason = declines(net, codes)
        if reason is not None:
            raise _declined(reason)
        return reference.run(net, codes, observer=observer)
    plan = plan_for(net, chosen, (codes.shape[-2], codes.shape[-1]))
    if isinstance(plan, str):
        raise _declined(plan)
    try:
        return _run(plan, codes, observer, threads or default_threads(), form)
    except Refused as reason:
        raise _declined(str(reason)) from None


def _path(path: str | None) -> str:
    paths = library().paths
    if path is not None and path not in paths:
        raise UserError("this machine has no such instruction path", node=path, limit=", ".join(paths))
    return path or paths[-1]


def _declined(reason: str) -> UserError:
    return UserError(
        f"the kernel does not run this network: {reason}",
        node="kernel",
        instead="take the reference simulator, which gives the same integers, slower",
    )


def _run(plan: Plan, codes: IntArray, observer: CountObserver | None, threads: int, form: Form) -> IntArray:
    frames = codes if codes.ndim == 4 else codes[None]
    size = frames.shape[2], frames.shape[3]
    program = PROGRAMS.take(plan, Case(size, len(frames), threads, form, getattr(observer, "keeps_values", False)))
    if observer is None:
        total = program.run(frames)
    else:
        links = getattr(observer, "links", None)
        counts = program.counts({} if links is None else links(size=size), getattr(observer, "owned", None))
        total = program.run(frames, counts)
        observer.codes(codes=codes, origin=(0, 0), extent=size)
        observer.run_counts(counts=counts, origin=(0, 0), extent=None)
    PROGRAMS.give(program)
    return total


def seconds_by_layer(
    net: IntegerNetwork, codes: IntArray, *, path: str | None = None, form: Form = "auto"
) -> list[float]:
    """CPU seconds that every layer takes on one thread, the readout last."""
    codes = reference.shown_codes(net, codes)
    chosen, size = _path(path), (codes.shape[-2], codes.shape[-1])
    plan = plan_for(net, chosen, size)
    if isinstance(plan, str):
        raise _declined(plan)
    frames = codes if codes.ndim == 4 else codes[None]
    program, spent = PROGRAMS.take(plan, Case(size, len(frames), 1, form, False)), np.zeros(len(plan.layers), np.int64)
    program.run(frames, spent=spent)
    PROGRAMS.give(program)
    return [nanoseconds / 1e9 for nanoseconds in spent.tolist()]


def auto(net: IntegerNetwork, codes: IntArray, *, observer: Observer | None = None) -> IntArray:
    """Runs a network with the kernel where there is one and it holds the network, else with the reference."""
    codes = reference.shown_codes(net, codes)
    if (observer is None or takes_counts(observer)) and missing() is None:
        plan = _refusal(net) or plan_for(net, library().paths[-1], (codes.shape[-2], codes.shape[-1]))
        try:
            if not isinstance(plan, str):
                return _run(plan, codes, observer, default_threads(), "auto")
        except Refused:
            pass
    return reference.run(net, codes, observer=observer)


def bytes_per_place(net: IntegerNetwork) -> int:
    """Roughly the bytes that the kernel holds for one place of the grid."""
    if is_sized(net):  # it is never cut into tiles
        return sum(net.host.steps * rounded(len(lif.bias)) for lif in net.lifs())
    plan = plan_for(net, library().paths[-1], (0, 0))
    if isinstance(plan, str):
        return 0
    held = [
        (0 if layer.name in plan.in_bits else layer.padded) + mask_bytes(layer.padded) for layer in plan.layers[:-1]
    ]
    live = plan.steps * sum(dict(zip(plan.slots(held), held, strict=True)).values())
    frames = net.host.steps if net.host.ticks else 1
    # codes in 64 and in 16 bits, the readout in 32 and in 64
    return live + 10 * frames * net.input.channels + 4 * plan.layers[-1].padded + 8 * plan.layers[-1].channels
