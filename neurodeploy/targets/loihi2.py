"""Target ``loihi2``: the files that carry a network in Loihi 2's integers, and an estimate of what it takes there.

The bundle holds ``network.nir`` and what target ``lava`` writes: ``network.net`` for a chain, a program on lava-nc
processes for any other graph. A file that the network does not allow is left out, and the manifest says why; a network
that allows neither is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import IntegerNetwork, IntegerNode
from neurodeploy.targets import lava, nir
from neurodeploy.targets.base import Job, NotWritten, Written
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.registers import exponent_findings

name = "loihi2"
summary = "network.nir and the files of target lava, with an estimate of cores and chips and what does not fit"
option_values: Mapping[str, tuple[str, ...]] = {**nir.option_values, **lava.option_values}
profile: str | None = "loihi2"
template = "loihi2/run.py.j2"
takes_ticks = True

_PARTS = ((nir.NETWORK, nir), (lava.NETWORK, lava))
"""The targets whose files the bundle holds, each with the file that is named where it is left out."""


def supports(node: IntegerNode) -> Finding | None:
    """Why the chip's arithmetic cannot hold this node; None if it can."""
    return lava.supports(node)


def check(job: Job) -> list[Finding]:
    """What the chip's registers cannot hold, and, where no file can be written, why each of them cannot."""
    findings = [found for node in job.expanded.nodes.values() for found in lava.node_findings(node)]
    findings += exponent_findings(job.expanded)
    reasons = [target.check(job) for _, target in _PARTS]
    if all(_errors(found) for found in reasons):
        known = set(findings)
        findings += [finding for found in reasons for finding in found if finding not in known]
    return findings


def write(job: Job, folder: Path) -> Written:
    """Writes every file that the network allows."""
    files: list[str] = []
    left_out: list[NotWritten] = []
    timing = None
    for file, target in _PARTS:
        reasons = _errors(target.check(job))
        if reasons:
            left_out.append(NotWritten(file, tuple(str(finding) for finding in reasons)))
            continue
        written = target.write(job, folder)
        files += written.files
        left_out += written.not_written
        timing = written.timing or timing
    return Written(files=tuple(files), timing=timing, not_written=tuple(left_out))


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network of every file that is there."""
    found: dict[str, IntegerNetwork] = {}
    if any(entry.path == nir.NETWORK for entry in manifest.files):
        found.update(nir.read(folder, manifest))
    found.update(lava.read(folder, manifest))
    return found


def _errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]
