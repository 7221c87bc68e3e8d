"""Target ``lava``: a network for Lava's CPU models of Loihi 2, in one of two forms, and how to run it.

A chain is written as ``network.net``, which netx of lava-dl reads; any other graph of spiking layers as a Python
program on lava-nc processes. Either way every connection takes a step, and biases integrate while the pipeline fills.
The zero-delay network comes out all the same when ways of unequal length are balanced
(:mod:`neurodeploy.targets.lava_plan`) and every layer is reset at the first step of its own window. The output is the
membrane of a last layer that never spikes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

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
from neurodeploy.targets.base import Job, NotWritten, Written, feedback_findings
from neurodeploy.targets.lava_chain import (
    bias_findings,
    chain_findings,
    netx_findings,
    process_findings,
    readout_findings,
)
from neurodeploy.targets.lava_net import read_net
from neurodeploy.targets.lava_plan import graph_findings, plan
from neurodeploy.targets.lava_program import FILES as PROGRAM_FILES
from neurodeploy.targets.lava_program import NETWORK as NETWORK_JSON
from neurodeploy.targets.lava_program import PROGRAM, read_program, write_program
from neurodeploy.targets.lava_write import write_net
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.registers import exponent_findings, neuron_findings

name = "lava"
summary = "Lava's CPU models of Loihi 2: network.net for netx (chains), a lava-nc program (graphs), and a script"
option_values: Mapping[str, tuple[str, ...]] = {"form": ("auto", "netx", "program")}
profile: str | None = "loihi2"
template = "lava/run.py.j2"
takes_ticks = True

NETWORK = "network.net"
MESSAGE_BITS = 16
"""Bits of the signed graded input. With 0, Lava would turn the codes into yes and no."""

Form = Literal["netx", "program"]


def supports(node: IntegerNode) -> Finding | None:
    """Why Lava's processes cannot hold this node; None if they can."""
    return next(iter(node_findings(node)), None)


def node_findings(node: IntegerNode) -> list[Finding]:
    """Everything about this node that the processes or the chip's registers cannot hold."""
    if isinstance(node, IntegerConv | IntegerDense):
        return process_findings(node)
    if isinstance(node, IntegerLif | IntegerReadout):
        return neuron_findings(node)
    if isinstance(node, IntegerInput | IntegerFlatten):
        return []
    raise InternalError(f"no rule for a {type(node).__name__}")


def check(job: Job) -> list[Finding]:
    """Everything that keeps a network out of the form that was asked for, or out of both."""
    findings = [finding for node in job.expanded.nodes.values() for finding in node_findings(node)]
    findings += [*form_findings(job.expanded, form(job)), *exponent_findings(job.expanded)]
    most = (1 << (MESSAGE_BITS - 1)) - 1
    host = job.network.host
    if not -most - 1 <= host.input_min <= host.input_max <= most:
        have, limit = f"{host.input_min}..{host.input_max}", f"{MESSAGE_BITS} bits, signed"
        findings.append(Finding(job.network.input.name, "the codes are too wide", have, limit, "a smaller input_scale"))
    return findings


def form(job: Job) -> Form:
    """The form that was asked for; by itself netx wherever it holds the network."""
    asked = job.options.get("form", "auto")
    if asked == "auto":
        return "program" if form_findings(job.expanded, "netx") else "netx"
    return "netx" if asked == "netx" else "program"


def form_findings(net: IntegerNetwork, wanted: Form) -> list[Finding]:
    """Everything that keeps an expanded network out of one form, beside what no form can hold."""
    if wanted == "program":
        return graph_findings(net) or readout_findings(net)
    if found := feedback_findings(net, "a netx file is a chain", "the form 'program' of target lava"):
        return found
    findings = chain_findings(net)
    weighted = [node for node in net.nodes.values() if isinstance(node, IntegerConv | IntegerDense)]
    findings += [found for node in weighted for found in netx_findings(node)]
    findings += [found for node in net.lifs() for found in bias_findings(node)]
    return findings or readout_findings(net)


def write(job: Job, folder: Path) -> Written:
    """Writes ``network.net``, or the program and its data."""
    if form(job) == "netx":
        write_net(folder / NETWORK, job.expanded, job.shapes)
        return Written(files=(NETWORK,), timing=timing(job.expanded))
    write_program(folder, job.expanded, job.shapes, job.size, MESSAGE_BITS)
    reasons = tuple(str(finding) for finding in form_findings(job.expanded, "netx"))
    left_out = (NotWritten(NETWORK, reasons),) if reasons else ()
    return Written(files=PROGRAM_FILES, timing=timing(job.expanded), not_written=left_out)


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The network that the files hold; their own hints say what the manifest says."""
    listed = {entry.path for entry in manifest.files}
    found: dict[str, IntegerNetwork] = {}
    if NETWORK in listed:
        found[NETWORK] = read_net(folder / NETWORK)
    if PROGRAM in listed:
        found[NETWORK_JSON] = read_program(folder)
    return found


def timing(net: IntegerNetwork) -> dict[str, Any]:
    """How an expanded network runs in Lava; the keys of the manifest's ``timing``. Steps count from 1.

    A layer of depth d (hops from the input) works on image m (from 0) in the steps ``m * T + d + 1 .. m * T + d + T``
    when image m is sent in the steps ``m * T + 1 .. m * T + T``.
    """
    planned = plan(net)
    steps = net.host.steps
    windows = [
        {"layer": stage.neuron.name, "first": stage.depth + 1, "last": stage.depth + steps} for stage in planned.stages
    ]
    last = planned.hops
    return {
        "hop_delay_steps": 1,
        "hops": last,
        "steps_for_images": f"{steps} * M + {last}",
        "reset_interval": steps,
        "reset_offset": 1,
        "input_message_bits": MESSAGE_BITS,
        "windows": windows,
        "readout": (
            f"membrane v of the last block after step {steps} * m + {last + steps} (image m from 0, steps from "
            "1): the sum over the time steps of current plus bias"
        ),
        "readout_shift": 6,
    }
