"""Running a bundle in every reader there is, and naming the first place where one of them departs from the proof.

The integers are compared with the integers of the proof. Readers of the NIR file are compared with the same where the
manifest says that integers and floats agree, else with the float interpretation that the proof holds beside them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.simulate import reference
from neurodeploy.simulate.observe import Trace
from neurodeploy.targets.bundle import Bundle, read_bundle
from neurodeploy.targets.readers import READERS, Reader, ReaderRun, Refused

SCHEMA_VERSION = 1
ALWAYS = ("reference", "float")
"""Readers that run whatever is asked for."""


def verify(path: str | Path, against: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the proof of a bundle in its readers.

    Args:
        path: The bundle.
        against: Names of the readers that must run, beside our own. None runs those that are installed.

    Returns:
        ``schema_version``, ``bundle``, ``target``, ``ok`` and ``readers``: for each ``name``, ``version``, ``equal``
        (None where it was skipped), ``steps``, ``neurons`` (compared a step), ``first_difference`` (None, or ``file,
        layer, step, neuron, have, want``), ``skipped_reason``, ``note`` and ``compared`` (which kinds of values).

    Raises:
        UserError: The bundle is not whole, or a reader that was asked for is unknown, not installed, or cannot run it.
    """
    bundle = read_bundle(path)
    named = [*dict.fromkeys(against)] if against is not None else None
    if named is not None:
        _refuse_unknown(named)
    wanted = [name for name in READERS if named is None or name in named or name in ALWAYS]
    results = [_result(name, READERS[name], bundle, required=named is not None and name in named) for name in wanted]
    ran = [result for result in results if result["equal"] is not None]
    return {
        "schema_version": SCHEMA_VERSION,
        "bundle": str(bundle.path),
        "target": bundle.manifest.target,
        "ok": bool(ran) and all(result["equal"] for result in ran),
        "readers": results,
    }


def _refuse_unknown(names: Sequence[str]) -> None:
    for name in names:
        if name not in READERS:
            close = difflib.get_close_matches(name, READERS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UserError(f"no reader is called {name!r}", instead=f"{hint}readers: {', '.join(READERS)}")


def _result(name: str, reader: Reader, bundle: Bundle, *, required: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "version": reader.version(),
        "equal": None,
        "steps": 0,
        "neurons": 0,
        "first_difference": None,
        "skipped_reason": "",
        "note": "",
        "compared": [],
    }
    if row["version"] is None:
        return _skipped(row, f"not installed: {reader.instead}", required)
    minutes = 0.0 if required else reader.minutes(bundle)
    if minutes > 1:
        return _skipped(row, f"takes about {minutes:.0f} minutes; name it to run it", required)
    try:
        runs = reader.run(bundle)
    except Refused as reason:
        return _skipped(row, str(reason), required)
    notes = "; ".join(dict.fromkeys(run.note for run in runs if run.note))
    if notes and not required:
        return _skipped(row, f"{notes}; name it to run it all the same", required)
    states = expected_states(bundle) if any(run.states for run in runs) else {}
    differences = [found for run in runs if (found := _first_difference(bundle, run, states)) is not None]
    return row | {
        "equal": not differences,
        "steps": bundle.manifest.steps,
        "neurons": sum(int(np.prod(layer.shape[1:])) for layer in bundle.manifest.proof.layers),
        "first_difference": differences[0] if differences else None,
        "note": notes,
        "compared": [
            "spikes",
            "output",
            *(["restored"] if any(run.restored is not None for run in runs) else []),
            *dict.fromkeys(key for run in runs for key in run.states),
        ],
    }


def _skipped(row: dict[str, Any], reason: str, required: bool) -> dict[str, Any]:
    if required:
        raise UserError(f"the reader {row['name']} cannot run: {reason}", node=row["name"])
    return row | {"skipped_reason": reason}


States = Mapping[str, Mapping[str, NDArray[np.int64]]]
"""``u`` and ``v`` -> layer -> (T, C, h, w)."""


def expected_states(bundle: Bundle) -> States:
    """The chip's registers that the reference has after every step of the proof, populations as channels."""
    net = expand_levels(bundle.integer_network())
    trace = Trace(net.host.steps)
    reference.run(net, bundle.proof()["codes"].astype(np.int64), observer=trace)
    return {
        "u": {name: layer.u for name, layer in trace.layers.items()},
        "v": {name: layer.v[:, 0] for name, layer in trace.layers.items()},
    }


def _first_difference(bundle: Bundle, run: ReaderRun, states: States) -> dict[str, Any] | None:
    """The first value, in time and then in layer order, that is not the expected one; None if there is none."""
    of_float = not run.integers and not bundle.manifest.equality.integers_equal_float
    expected = bundle.expected_spikes(of_float=of_float)
    found = first_difference(expected, run.spikes)
    for key, layers in run.states.items():
        found = found or _with_key(key, first_difference(states[key], layers))
    found = found or _array_difference("output", _expected_output(bundle, run), run.output)
    if found is None and run.restored is not None:
        found = _array_difference("restored", bundle.proof()["restored"], run.restored)
    return None if found is None else {"file": run.file, **found}


def _with_key(key: str, found: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {**found, "layer": f"{key} of {found['layer']}"}


def first_difference(want: Mapping[str, NDArray[Any]], have: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """The first value that two runs do not share: the earliest step, then the first layer, then the first neuron.

    Returns:
        ``layer``, ``step`` (from 0), ``neuron`` (channel, row, column), ``have``, ``want``; or None.
    """
    for name, spikes in want.items():
        if name not in have or have[name].shape != spikes.shape:
            shape = "nothing" if name not in have else f"shape {have[name].shape}"
            return {"layer": name, "step": 0, "neuron": [], "have": shape, "want": f"shape {spikes.shape}"}
    places = []
    for order, (name, spikes) in enumerate(want.items()):
        wrong = np.argwhere(have[name] != spikes)
        if len(wrong):
            step, *neuron = (int(axis) for axis in wrong[0])
            places.append((step, order, name, neuron))
    if not places:
        return None
    step, _, name, neuron = min(places)
    place = (step, *neuron)
    return {
        "layer": name,
        "step": step,
        "neuron": neuron,
        "have": int(have[name][place]),
        "want": int(want[name][place]),
    }


def _expected_output(bundle: Bundle, run: ReaderRun) -> NDArray[Any]:
    arrays, manifest = bundle.proof(), bundle.manifest
    if run.integers:
        return arrays["readout"]
    if not manifest.equality.integers_equal_float:
        return arrays["float_output"]
    unit = manifest.output_scale / manifest.host.output_scale
    scaled: NDArray[np.float64] = arrays["readout"] * unit / manifest.steps
    return scaled


def _array_difference(name: str, want: NDArray[Any], have: NDArray[Any]) -> dict[str, Any] | None:
    if want.shape != have.shape:
        row: dict[str, Any] = {"have": f"shape {have.shape}", "want": f"shape {want.shape}"}
        return {"layer": name, "step": None, "neuron": [], **row}
    wrong = np.argwhere(want != have)
    if not len(wrong):
        return None
    place = tuple(int(axis) for axis in wrong[0])
    numbers = {"have": have[place].item(), "want": want[place].item()}
    return {"layer": name, "step": None, "neuron": list(place), **numbers}
