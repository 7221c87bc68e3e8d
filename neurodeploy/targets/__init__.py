"""The targets that a network can be exported to, by name.

The table below names the module of each; it is imported when it is asked for. Programs outside add targets with an
entry point of the group ``neurodeploy.targets`` that loads an object with the names of
:class:`~neurodeploy.targets.base.Target`; an entry point that fails to load is an error, never left out.
"""

from __future__ import annotations

import difflib
import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from neurodeploy.errors import UserError

if TYPE_CHECKING:
    from neurodeploy.targets.base import Target

GROUP = "neurodeploy.targets"

TARGETS: dict[str, str] = {
    "lava": "neurodeploy.targets.lava",
    "loihi2": "neurodeploy.targets.loihi2",
    "nir": "neurodeploy.targets.nir",
    "onnx": "neurodeploy.targets.onnx",
    "speck": "neurodeploy.targets.speck",
    "spinnaker2": "neurodeploy.targets.spinnaker2",
}

REFUSED: dict[str, str] = {
    "akida": "the tools of BrainChip's Akida convert quantised Keras and ONNX networks themselves, to a format that is "
    "not published; export a teacher to ONNX (--target onnx) and convert that",
    "xylo": "SynSense's Xylo has dense layers of 16 inputs and about 1000 neurons on event streams, and no "
    "convolution: no image-restoration network of convolutions fits it",
}
"""Chips that people ask for and that no file here could carry a network to, with the reason."""


_OWED = ("name", "summary", "option_values", "profile", "template", "supports", "check", "write", "read")
"""The names of :class:`~neurodeploy.targets.base.Target`."""


def target_names() -> tuple[str, ...]:
    """Names of all targets, the program's own and those of plugins, in alphabetical order."""
    return tuple(sorted({*TARGETS, *_plugins()}))


def get_target(name: str) -> Target:
    """The target of that name.

    Raises:
        UserError: There is none (the nearest name is proposed), or it is a plugin that cannot be loaded.
    """
    if name in TARGETS:
        return cast("Target", importlib.import_module(TARGETS[name]))
    plugins = _plugins()
    if name in plugins:
        return _load(plugins[name])
    if name in REFUSED:
        raise UserError(f"{name} is not a target: {REFUSED[name]}", instead=f"targets: {', '.join(target_names())}")
    names = target_names()
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(f"no target is called {name!r}", instead=f"{hint}targets: {', '.join(names)}")


def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in TARGETS or entry.name in found:
            other = TARGETS.get(entry.name) or found[entry.name].value
            raise UserError(
                f"two targets are called {entry.name!r}",
                have=f"{entry.value} and {other}",
                instead="remove one of them",
            )
        found[entry.name] = entry
    return found


def _load(entry: EntryPoint) -> Target:
    # Whatever a stranger's module does at import time, the user is told which plugin it was.
    try:
        target = entry.load()
    except Exception as error:
        raise UserError(
            f"the target {entry.name!r} of a plugin cannot be loaded: {type(error).__name__}: {error}",
            node=entry.value,
            instead="repair or remove the package that brings it",
        ) from error
    lacking = [wanted for wanted in _OWED if not hasattr(target, wanted)]
    if lacking:
        raise UserError(f"the target {entry.name!r} of a plugin lacks {', '.join(lacking)}", node=entry.value)
    return cast("Target", target)


def support_table() -> dict[str, dict[str, str]]:
    """Operation -> target -> why the target refuses it, empty where it holds it; see :mod:`neurodeploy.targets.ops`."""
    from neurodeploy.targets.ops import support_table as table

    return table()
