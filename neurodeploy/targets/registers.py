"""What the registers of Loihi 2 hold, whatever file carries a network there."""

from __future__ import annotations

import numpy as np

from neurodeploy.errors import Finding
from neurodeploy.quantize.bounds import WEIGHT_EXPONENT_MAX, weight_exponent
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerLif, IntegerNetwork, IntegerReadout

WEIGHT_MIN, WEIGHT_MAX = -256, 254
"""Mixed-sign weights of 8 bits: even numbers."""

VTH_MAX = (1 << 17) - 1
"""Largest threshold mantissa: 17 bits."""

BIAS_MAX = VTH_MAX
"""A larger bias mantissa saturates the membrane of 24 bits at once."""


def range_findings(node: IntegerConv | IntegerDense) -> list[Finding]:
    """Weights that are no even numbers of the chip's 8 bits, with an exponent or without."""
    name, weight = node.name, node.weight
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    odd = int((weight % 2 != 0).sum())
    findings = []
    if weight_exponent(weight) is None:
        findings.append(
            Finding(
                name,
                "weights are out of range",
                f"{low}..{high}",
                f"{WEIGHT_MIN}..{WEIGHT_MAX}",
                "quantise for this chip",
            )
        )
    if odd:
        findings.append(
            Finding(name, "weights are not multiples of 2", f"{odd} odd weights", instead="quantise for this chip")
        )
    return findings


def no_exponent(node: IntegerConv | IntegerDense, form: str) -> list[Finding]:
    """For forms of a network that have no place for a layer's exponent: weights that need one."""
    exponent = weight_exponent(node.weight)
    if not exponent:
        return []
    rule = f"weights need an exponent, which {form} has no place for"
    return [Finding(node.name, rule, f"2**{exponent}", instead="the form 'program' of target lava")]


def exponent_findings(net: IntegerNetwork) -> list[Finding]:
    """Says of a network whether it needs exponents of weights, which the chip has and Lava's convolution ignores."""
    found = {
        name: weight_exponent(node.weight) or 0
        for name, node in net.nodes.items()
        if isinstance(node, IntegerConv | IntegerDense)
    }
    many = [name for name, exponent in found.items() if exponent]
    if not many:
        return []
    return [
        Finding(
            "network",
            f"weights of {len(many)} layers are numbers of 8 bits times a power of two: the chip has an exponent for"
            " that, which Lava's Conv leaves out, so that its program holds the products",
            have=f"times up to {1 << max(found.values())}",
            limit=f"times {1 << WEIGHT_EXPONENT_MAX}",
            instead="--code bursts, should the chip's software refuse them",
            severity="warning",
        )
    ]


def neuron_findings(node: IntegerLif | IntegerReadout) -> list[Finding]:
    """Thresholds, decays and biases outside of what the format and the chip's registers hold."""
    findings = []
    widest = int(np.abs(np.add.outer(np.asarray(_levels(node)), node.bias)).max(initial=0))
    if widest > BIAS_MAX:
        findings.append(
            Finding(
                node.name, "a bias alone saturates the membrane", f"{widest}", f"{BIAS_MAX}", "a larger weight step"
            )
        )
    if isinstance(node, IntegerLif):
        if not 0 <= node.vth <= VTH_MAX:
            limit = f"0..{VTH_MAX}"
            findings.append(
                Finding(
                    node.name, "the threshold mantissa is out of range", str(node.vth), limit, "a larger weight step"
                )
            )
        for key, value in (("v_decay", node.v_decay), ("i_decay", node.i_decay)):
            if np.min(value) < 0 or np.max(value) > 4096:
                findings.append(Finding(node.name, f"{key} is out of range", str(np.max(value)), "0..4096"))
    return findings


def _levels(node: IntegerLif | IntegerReadout) -> tuple[int, ...]:
    return node.levels if isinstance(node, IntegerLif) else (0,)
