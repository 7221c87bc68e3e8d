"""The tables of what there is: targets and hardware profiles, printed from their registries."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurodeploy.hardware.profile import Profile, load_profile, profile_names
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerFlatten, IntegerLif, IntegerNode
from neurodeploy.targets import get_target, target_names

SCHEMA_VERSION = 1


def _conv(side: int = 3, **more: Any) -> IntegerConv:
    return IntegerConv("conv", np.full((4, 4 // more.get("groups", 1), side, side), 2, np.int64), **more)


def _lif(**more: Any) -> IntegerLif:
    return IntegerLif("lif", vth=64, bias=np.zeros(4, np.int64), **more)


OPERATIONS: dict[str, IntegerNode] = {
    "conv": _conv(padding=(1, 1)),
    "conv, stride 2": _conv(stride=(2, 2), padding=(1, 1)),
    "conv, dilation 2": _conv(dilation=(2, 2), padding=(2, 2)),
    "conv, groups 2": _conv(groups=2, padding=(1, 1)),
    "dense": IntegerDense("dense", np.full((4, 4), 2, np.int64)),
    "flatten": IntegerFlatten("flatten"),
    "LIF": _lif(),
    "LIF, 4 levels": _lif(levels=(0, -64, -128, -192)),
    "LIF with leak": _lif(v_decay=1024),
    "LIF with synaptic current": _lif(i_decay=1024, v_decay=1024),
}
"""One example of every operation that the table of targets has a column for."""


def list_targets() -> dict[str, Any]:
    """Every target with its options and, operation by operation, whether it can hold it (``true``) or why not."""
    rows = []
    for name in target_names():
        target = get_target(name)
        held = {operation: target.supports(node) for operation, node in OPERATIONS.items()}
        rows.append(
            {
                "name": name,
                "summary": target.summary,
                "options": {key: list(values) for key, values in target.option_values.items()},
                "operations": {key: True if refusal is None else str(refusal) for key, refusal in held.items()},
            }
        )
    return {"schema_version": SCHEMA_VERSION, "targets": rows}


def list_profiles() -> dict[str, Any]:
    """Every shipped hardware profile: what it prices, what nobody has published, what to beware of."""
    return {
        "schema_version": SCHEMA_VERSION,
        "profiles": [_profile_row(load_profile(name)) for name in profile_names()],
    }


def _profile_row(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.id,
        "chip": profile.name,
        "model": profile.model,
        "node_nm": profile.node_nm,
        "prices": sorted(profile.energy.model_dump(exclude_none=True, exclude_defaults=True)),
        "unpublished": list(profile.unpublished.terms),
        "graded_input": profile.accepts_graded,
        "anchors": len(profile.anchor),
        "caveat": profile.caveat,
        "path": None if profile.path is None else str(profile.path),
        "sha256": profile.sha256,
    }
