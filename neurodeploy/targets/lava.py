"""Target ``lava``: a netx file for Lava's CPU models of Loihi 2, and how to run it.

Lava delays every convolution or dense layer by a step and integrates biases while the pipeline fills. The zero-delay
network comes out all the same when every block is reset at the first step of its own window: ``reset_interval = T``,
``reset_offset = 1``. The output is the membrane of a last block that never spikes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurodeploy.errors import Finding, InternalError
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.targets.base import Job, Written
from neurodeploy.targets.lava_chain import (
    blocks,
    chain_findings,
    readout_findings,
    weight_findings,
)
from neurodeploy.targets.lava_net import read_net
from neurodeploy.targets.lava_write import write_net
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.registers import neuron_findings

name = "lava"
summary = "network.net, the HDF5 file that netx of lava-dl reads (chains only), with a script that runs it in Lava"
option_values: Mapping[str, tuple[str, ...]] = {}
profile: str | None = "loihi2"
template = "lava/run.py.j2"

NETWORK = "network.net"
MESSAGE_BITS = 16
"""Bits of the signed graded input. With 0, Lava would turn the codes into yes and no."""


def supports(node: IntegerNode) -> Finding | None:
    """Why a netx file cannot hold this node; None if it can."""
    return next(iter(node_findings(node)), None)


def node_findings(node: IntegerNode) -> list[Finding]:
    """Everything about this node that the file or the chip's registers cannot hold."""
    if isinstance(node, IntegerConv | IntegerDense):
        return weight_findings(node)
    if isinstance(node, IntegerLif | IntegerReadout):
        return neuron_findings(node)
    if isinstance(node, IntegerInput | IntegerFlatten):
        return []
    raise InternalError(f"no rule for a {type(node).__name__}")


def check(job: Job) -> list[Finding]:
    """Everything that keeps a network out of a netx file."""
    findings = [finding for node in job.expanded.nodes.values() for finding in node_findings(node)]
    structure = chain_findings(job.expanded)
    findings += structure or readout_findings(job.expanded)
    most = (1 << (MESSAGE_BITS - 1)) - 1
    host = job.network.host
    if not -most - 1 <= host.input_min <= host.input_max <= most:
        have, limit = f"{host.input_min}..{host.input_max}", f"{MESSAGE_BITS} bits, signed"
        findings.append(Finding(job.network.input.name, "the codes are too wide", have, limit, "a smaller input_scale"))
    return findings


def write(job: Job, folder: Path) -> Written:
    """Writes ``network.net``."""
    write_net(folder / NETWORK, job.expanded, job.shapes)
    return Written(files=(NETWORK,), timing=timing(job.expanded))


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network that ``network.net`` holds; its own hints say what the manifest says."""
    return {NETWORK: read_net(folder / NETWORK)}


def timing(net: IntegerNetwork) -> dict[str, Any]:
    """How the chain runs in Lava; the keys of the manifest's ``timing``. Steps count from 1.

    Block k (from 0) works on image m (from 0) in the steps ``m * T + k + 2 .. m * T + k + 1 + T`` when image m is sent
    in the steps ``m * T + 1 .. m * T + T``.
    """
    chain = blocks(net)
    steps = net.host.steps
    return {
        "hop_delay_steps": 1,
        "hops": len(chain),
        "steps_for_images": f"{steps} * M + {len(chain)}",
        "reset_interval": steps,
        "reset_offset": 1,
        "input_message_bits": MESSAGE_BITS,
        "windows": [
            {"layer": block.neuron.name, "first": k + 2, "last": k + 1 + steps} for k, block in enumerate(chain)
        ],
        "readout": (
            f"membrane v of the last block after step {steps} * m + {len(chain) + steps} (image m from 0, steps from "
            "1): the sum over the time steps of current plus bias"
        ),
        "readout_shift": 6,
    }
