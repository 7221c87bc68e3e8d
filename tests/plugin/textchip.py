"""A target from outside: the integers of a small network as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerNetwork, IntegerNode
from neurodeploy.targets.base import Job, Written
from neurodeploy.targets.described import described, rebuilt
from neurodeploy.targets.manifest import Manifest

name = "textchip"
summary = "network.json, every number as text"
option_values: Mapping[str, tuple[str, ...]] = {}
profile: str | None = None
template: str | None = None


def supports(node: IntegerNode) -> Finding | None:
    """The chip has no matrix products."""
    return Finding(node.name, "no matrix products") if isinstance(node, IntegerDense) else None


def check(job: Job) -> list[Finding]:
    """The nodes, and one spiking layer at most."""
    findings = [found for node in job.network.nodes.values() if (found := supports(node)) is not None]
    layers = sum(1 for _ in job.network.lifs())
    if layers > 1:
        findings.append(Finding("network", "too many spiking layers", have=str(layers), limit="1"))
    return findings


def write(job: Job, folder: Path) -> Written:
    """Writes ``network.json``."""
    weights = {n.name: n.weight.tolist() for n in job.network.nodes.values() if isinstance(n, IntegerConv)}
    text = json.dumps({"network": described(job.network), "weights": weights}, sort_keys=True)
    (folder / "network.json").write_text(text + "\n", encoding="utf-8")
    return Written(files=("network.json",))


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network of ``network.json``."""
    said = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    net = rebuilt(
        said["network"],
        lambda entry: np.array(said["weights"][entry["name"]], np.int64),
        host=manifest.host,
        units={layer.name: layer.unit for layer in manifest.layers if layer.unit is not None},
        arithmetic=manifest.arithmetic,
    )
    return {"network.json": net}
