"""Inputs that are no pictures: ``.npy`` files whose values a network takes as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.energy.count import OperationCounter
from neurodeploy.errors import UserError
from neurodeploy.files import npy_header
from neurodeploy.hardware.profile import Profile
from neurodeploy.model.base import Model
from neurodeploy.quantize.network import IntArray, IntegerNetwork
from neurodeploy.report.energy import energy_report
from neurodeploy.simulate.reference import check_codes
from neurodeploy.simulate.restore import run_codes

SUFFIX = ".npy"

LARGEST_ARRAY = 1 << 28
"""Values of one array."""

LARGEST_VALUE = 1 << 23
"""Magnitude of a value: half the range of the chip's registers."""


def are_arrays(paths: list[str] | tuple[str, ...]) -> bool:
    """Whether inputs are arrays, by their names.

    Raises:
        UserError: Some are and some are not.
    """
    kinds = {Path(path).suffix.lower() == SUFFIX for path in paths}
    if len(kinds) > 1:
        raise UserError("pictures and arrays do not go together", instead="run them one after the other")
    return kinds == {True}


def read_codes(path: str | Path, net: IntegerNetwork) -> IntArray:
    """The input of a network from a ``.npy`` file of whole numbers.

    Args:
        path: Holds (C, h, w), shown at every step, or (T, C, h, w), one a step; (N,) or (T, N) for an input of N
            values without a grid.
        net: The network that takes them.

    Returns:
        (C, h, w) or (T, C, h, w) int64, with h = w = 1 for an input without a grid.

    Raises:
        UserError: Not such a file, or another number of channels or steps than the network has.
    """
    path = Path(path)
    values = _load(path)
    if values.dtype.kind not in "iufb" or not np.isfinite(values).all() or np.any(values != np.rint(values)):
        raise UserError("holds something else than whole numbers", node=str(path), have=str(values.dtype))
    if values.size and np.abs(values).max() >= LARGEST_VALUE:
        raise UserError("holds values beyond the chip's registers", node=str(path), limit=f"{LARGEST_VALUE}")
    codes = values.astype(np.int64)
    if codes.ndim in (1, 2):
        codes = codes[..., None, None]
    try:
        check_codes(net, codes)
    except UserError as error:
        raise UserError(error.message, node=str(path), have=error.have, limit=error.limit) from error
    return codes


def arrays_report(model: Model, paths: Sequence[str], profiles: Sequence[Profile], **pricing: Any) -> dict[str, Any]:
    """Runs arrays in the chip's integers, counts what that does, and prices it.

    Args:
        model: A graph, ``.net``, bundle or student.
        paths: The ``.npy`` files.
        profiles: Chips and technologies to price by.
        pricing: Further arguments of :func:`neurodeploy.report.energy.energy_report`.

    Raises:
        UserError: An array cannot be read or does not fit, or the model has no spikes.
    """
    net = model.integer()
    counter = OperationCounter(net)
    for name in paths:
        codes = read_codes(name, net)
        counter.begin(Path(name).stem)
        run_codes(net, codes, observer=counter)
    described = ", ".join(Path(name).name for name in paths)
    return energy_report(counter.counts(), profiles, model=model.name, data=described, **pricing)


def _load(path: Path) -> np.ndarray[Any, Any]:
    """The array of a file, its size and type looked at first; never a pickle."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = npy_header(file)
            size = int(np.prod(shape, dtype=object))
            left = path.stat().st_size - file.tell()
            if dtype.hasobject or dtype.itemsize > 16 or size > LARGEST_ARRAY or size * dtype.itemsize != left:
                raise UserError(
                    "holds objects, or another number of bytes than its shape wants", node=str(path), have=f"{shape}"
                )
            file.seek(0)
            return np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise UserError("no such file", node=str(path)) from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot be read as an array: {error}", node=str(path)) from error
