"""What a target owes: which operations it can hold, what a whole network lacks, and how its files are written.

A target is one module (or any object) with the names of :class:`Target`. Refusals are :class:`Finding` objects, so that
a check can gather all of them before anything is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import Finding, UserError
from neurodeploy.graph.portable import Network
from neurodeploy.hardware.shapes import Shape, Size
from neurodeploy.quantize.network import IntArray, IntegerNetwork, IntegerNode
from neurodeploy.targets.manifest import Manifest

Options = Mapping[str, str]


@dataclass(frozen=True)
class Deployable:
    """What is to be exported: a network, the image size that its files are for, and the image that proves it.

    Attributes:
        name: Name of the model, copied into the manifest.
        network: The integer network, or a NIR graph with its host side, which is then quantised.
        size: (H, W) of the image that one run takes; the files hold arrays of that size.
        image: (C, H, W) float, a degraded image of exactly ``size``; the proof is made from it. None: a synthetic one.
        calibration: Codes of typical inputs, for networks whose thresholds and weights are not quantised yet.
        about: What else the manifest shall say of the model: strings, numbers, lists and tables of them.
        noticed: What was noticed when the network was made.
    """

    name: str
    network: Network | IntegerNetwork
    size: Size
    image: NDArray[np.floating[Any]] | None = None
    calibration: Sequence[IntArray] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    noticed: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Job:
    """What a target's ``check`` and ``write`` work on.

    Attributes:
        network: The integer network in its compact form (levels folded).
        expanded: The same network with every population as channels of its own.
        size: (H, W) of the image.
        shapes: Node name -> (C, h, w) of the node's output in ``expanded``.
        options: What the user asked of this target; see ``Target.options``.
    """

    network: IntegerNetwork
    expanded: IntegerNetwork
    size: Size
    shapes: Mapping[str, Shape]
    options: Options = field(default_factory=dict)


@dataclass(frozen=True)
class NotWritten:
    """A file that the bundle could hold but does not, and why."""

    file: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Written:
    """What ``Target.write`` left in the folder.

    Attributes:
        files: Names relative to the folder.
        timing: How the network runs in time on the target, where that differs from zero delay (keys of the manifest).
        not_written: Files that this network did not allow.
        float_form: Whether a file holds the float interpretation of the network, so that the proof has to as well.
    """

    files: tuple[str, ...]
    timing: Mapping[str, Any] | None = None
    not_written: tuple[NotWritten, ...] = ()
    float_form: bool = False


class Target(Protocol):
    """One target: a module of this package, or an object that an entry point of ``neurodeploy.targets`` names.

    Networks whose host sends ticks come only to those that also have ``takes_ticks``, and it is true.
    """

    @property
    def name(self) -> str:
        """The name that ``--target`` takes."""

    @property
    def summary(self) -> str:
        """One line for the table of targets."""

    @property
    def option_values(self) -> Mapping[str, tuple[str, ...]]:
        """Option name -> the values it may have."""

    @property
    def profile(self) -> str | None:
        """The shipped hardware profile that the target is for; None where it is for no one chip."""

    @property
    def template(self) -> str | None:
        """The run-script template of the bundle, relative to ``export/``; None for a bundle without a script."""

    def supports(self, node: IntegerNode) -> Finding | None:
        """Why the target cannot hold ``node`` wherever it stands in a network; None if it can."""

    def check(self, job: Job) -> list[Finding]:
        """Every reason why the network cannot be written, those of ``supports`` included. Writes nothing."""

    def write(self, job: Job, folder: Path) -> Written:
        """Writes the target's files into an existing folder; the job has passed ``check``."""

    def read(self, folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
        """Reads back what ``write`` wrote: file name -> the integer network it holds, in its compact form."""


def checked_options(target: Target, options: Options) -> list[Finding]:
    """Options that the target does not know, or values that it does not take."""
    findings = []
    for key, value in options.items():
        allowed = target.option_values.get(key)
        if allowed is None:
            known = ", ".join(sorted(target.option_values)) or "none"
            findings.append(Finding(f"option {key}", f"target {target.name} has no such option", limit=known))
        elif value not in allowed:
            findings.append(Finding(f"option {key}", "unknown value", have=value, limit=" or ".join(allowed)))
    return findings


def feedback_findings(net: IntegerNetwork, why: str, instead: str) -> list[Finding]:
    """For targets that carry no feedback: a line for every edge that is, and why it cannot be written."""
    return [
        Finding(target, f"the feedback edge from {source} is not carried: {why}", instead=instead)
        for source, target in sorted(net.feedback)
    ]


def tick_findings(net: IntegerNetwork) -> list[Finding]:
    """For targets whose files have no place for what the host sends beside the codes."""
    if not net.host.ticks:
        return []
    rule = "levels sent in time want ticks beside the codes, which the files of this target do not carry"
    return [Finding(net.input.name, rule, f"{len(net.host.ticks)} channels", "0", "--code populations")]


def gathered(build: Callable[[], Sequence[Finding]], node: str) -> list[Finding]:
    """The findings that ``build`` returns, or those that it raises as an error of the user."""
    try:
        return list(build())
    except UserError as error:
        return findings_of(error, node)


def findings_of(error: UserError, node: str) -> list[Finding]:
    """An error of the user as findings; ``node`` is named where the error names none."""
    many = getattr(error, "findings", None)
    if many is not None:
        return list(many)
    return [Finding(error.node or node, error.message, have=error.have, limit=error.limit, instead=error.instead)]
