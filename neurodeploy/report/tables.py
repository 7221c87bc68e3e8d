"""The tables of what there is: targets and hardware profiles, printed from their registries."""

from __future__ import annotations

from typing import Any

from neurodeploy.hardware.profile import Profile, load_profile, profile_names
from neurodeploy.targets import REFUSED, get_target, target_names
from neurodeploy.targets.ops import support_table

SCHEMA_VERSION = 1


def list_targets() -> dict[str, Any]:
    """Every target with its options and, operation by operation, ``true`` where it can hold it, or why not.

    ``refused``: chips that no target carries a network to, and why.
    """
    support = support_table()
    rows = []
    for name in target_names():
        target = get_target(name)
        rows.append(
            {
                "name": name,
                "summary": target.summary,
                "profile": target.profile,
                "options": {key: list(values) for key, values in target.option_values.items()},
                "operations": {operation: held[name] or True for operation, held in support.items()},
            }
        )
    return {"schema_version": SCHEMA_VERSION, "targets": rows, "refused": dict(REFUSED)}


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
