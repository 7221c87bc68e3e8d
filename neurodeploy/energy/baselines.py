"""What the spiking network is compared with: always several networks, never the dearest one alone.

1. the teacher's dense multiply-accumulates; 2. an ANN of the student's own shape, dense; 3. the same with its own
activation sparsity, which an accelerator that skips zeros would use; 4. the ANN with 8-bit integers (the counts of 2,
at the price of ``cmos45-int8``); 5. a quantised network with as many bits as the spikes can tell levels apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any

from neurodeploy.energy.results import Counts


@dataclass(frozen=True)
class Teacher:
    """The network that the student was distilled from: its dense multiply-accumulates an image, and parameters."""

    name: str
    mac: float
    parameters: int | None = None


@dataclass(frozen=True)
class Baseline:
    """One network to compare with. Everything is the mean over the images, one pass each.

    Attributes:
        key: Stable name.
        label: What it is, in words.
        mac: Multiply-accumulates with in-bounds taps.
        mac_padded: With the taps in the padding, as papers count; None where unknown.
        additions: Of biases.
        comparisons: Of activation functions.
        bits: Width of its activations; None where that is not the point.
        note: What to know about it.
    """

    key: str
    label: str
    mac: float
    mac_padded: float | None = None
    additions: float = 0.0
    comparisons: float = 0.0
    bits: int | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The baseline with the keys of the JSON answers."""
        return {
            "key": self.key,
            "label": self.label,
            "mac": self.mac,
            "mac_padded": self.mac_padded,
            "additions": self.additions,
            "comparisons": self.comparisons,
            "bits": self.bits,
            "note": self.note,
        }


def qnn_bits(steps: int, levels: int) -> int:
    """Bits of activation that tell apart what ``steps`` spikes of ``levels`` levels can: ceil(log2(T * D + 1)).

    Yan et al., arXiv:2409.08290: an SNN of T steps is a network quantised to ceil(log2(T + 1)) bits.
    """
    return ceil(log2(steps * levels + 1))


def baselines(counts: Counts, teacher: Teacher | None = None) -> tuple[Baseline, ...]:
    """The networks to compare with, means over the images of ``counts``."""
    dense, padded = counts.mean("dense_mac"), counts.mean("dense_mac_padded")
    outputs, hidden = _activations(counts)
    passes = max(layer.ann_passes for layer in counts.layers)
    levels = max((layer.populations for layer in counts.layers if layer.kind == "spiking"), default=1)
    bits = qnn_bits(counts.longest, levels)
    dense_ann = Baseline(
        "ann_dense",
        "ANN of the same shape, dense",
        dense,
        padded,
        additions=outputs,
        comparisons=hidden,
        note="" if passes == 1 else f"recurrent: what feedback reaches is computed in each of the {passes} time steps",
    )
    found = [
        dense_ann,
        replace(
            dense_ann,
            key="ann_sparse",
            label="ANN of the same shape, skipping zero activations",
            mac=counts.mean("ann_mac_nonzero"),
            mac_padded=None,
            note="an input counts where the student's activation is not 0 in any time step; "
            f"{_nonzero_share(counts):.1%} of the activations are not 0",
        ),
        replace(dense_ann, key="ann_int8", label="ANN of the same shape, 8-bit integers", bits=8),
        replace(
            dense_ann,
            key="qnn",
            label=f"quantised network of the same shape, {bits}-bit activations",
            bits=bits,
            note="tells apart as many levels as the spikes do: ceil(log2(T * D + 1)) bits;"
            " charged at the price of an 8-bit MAC, which is more than it costs",
        ),
    ]
    if teacher is not None:
        note = "multiply-accumulates only"
        found.append(Baseline("teacher", f"teacher {teacher.name}, dense", teacher.mac, note=note))
    return tuple(found)


def _activations(counts: Counts) -> tuple[float, float]:
    """Outputs of all layers, and of those with an activation function, mean over the images."""
    layers = [layer for image in counts.images for layer in image.layers]
    computed = [(layer.activations * layer.ann_passes, layer.kind == "spiking") for layer in layers]
    images = len(counts.images)
    return sum(count for count, _ in computed) / images, sum(count for count, hidden in computed if hidden) / images


def _nonzero_share(counts: Counts) -> float:
    layers = [layer for layer in counts.layers if layer.kind == "spiking"]
    outputs = sum(layer.activations for layer in layers)
    return sum(layer.activations_nonzero for layer in layers) / outputs if outputs else 0.0
