"""What a counter hands over: counts per layer over all images, and per image with their spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil, sqrt
from typing import Any

from neurodeploy.energy.tally import COUNTED, HELD, LayerCounts, merged
from neurodeploy.quantize.bursts import most_spikes
from neurodeploy.quantize.network import IntegerNetwork

STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom; :func:`_student_t` goes on from there."""


PER_IMAGE = ("sop", "mac", "spikes", "neuron_updates_active", "per_step")
"""What the JSON answers tell of every layer of every image."""


@dataclass(frozen=True)
class ImageCounts:
    """Counts of one image: one :class:`LayerCounts` a layer."""

    name: str
    extent: tuple[int, int]
    layers: tuple[LayerCounts, ...]

    def total(self, key: str) -> int:
        """Sum of a count over the layers."""
        return sum(int(getattr(layer, key)) for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """The counts with the keys of the JSON answers; ``extent`` is (H, W) on the network's grid."""
        counted = {key: self.total(key) for key in COUNTED}
        layers = [{"name": layer.name, **{key: getattr(layer, key) for key in PER_IMAGE}} for layer in self.layers]
        return {"name": self.name, "extent": list(self.extent), "rate": self.rate, **counted, "layers": layers}

    @property
    def rate(self) -> float:
        """Mean spikes a neuron and step, over the spiking layers."""
        updates = sum(layer.neuron_updates for layer in self.layers if layer.kind == "spiking")
        return self.total("spikes") / updates if updates else 0.0


@dataclass(frozen=True)
class Counts:
    """Counts of a network over one image or several.

    Attributes:
        net: The network that ran.
        images: Of every image.
    """

    net: IntegerNetwork
    images: tuple[ImageCounts, ...]

    @property
    def longest(self) -> int:
        """The most spikes that one neuron can have in an image."""
        return max(most_spikes(self.net).values(), default=0)

    @property
    def steps(self) -> int:
        """Time steps T of an image."""
        return self.net.host.steps

    @property
    def layers(self) -> tuple[LayerCounts, ...]:
        """Per layer, summed over the images."""
        return tuple(reduce(merged, same) for same in zip(*(image.layers for image in self.images), strict=True))

    def total(self, key: str) -> int:
        """Sum of a count over layers and images; of what the network holds, over the layers only."""
        return sum(int(getattr(layer, key)) for layer in self.layers)

    def mean(self, key: str) -> float:
        """Mean of a count over the images."""
        return self.total(key) / len(self.images)

    def as_dict(self) -> dict[str, Any]:
        """The counts with the keys of the JSON answers.

        ``layers`` and ``total`` are sums over the images; ``mean_per_image`` divides them; ``spread`` says how much
        the images differ.
        """
        layers = self.layers
        total = {key: self.total(key) for key in (*COUNTED, *HELD)}
        spiking = sum(layer.neuron_updates for layer in layers if layer.kind == "spiking")
        return {
            "unit": "operations, summed over the images; neurons, parameters and state as the network holds them",
            "images": len(self.images),
            "steps": self.steps,
            "layers": [layer.as_dict() for layer in layers],
            "total": {
                **total,
                "rate": total["spikes"] / spiking if spiking else 0.0,
                "state_bytes": total["state_bits"] // 8,
            },
            "mean_per_image": {key: self.mean(key) for key in COUNTED},
            "per_image": [image.as_dict() for image in self.images],
            "spread": {
                key: spread([image.total(key) for image in self.images])
                for key in ("sop", "mac", "spikes", "neuron_updates")
            },
        }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, 95 % confidence interval of the mean (Student's t), 95th percentile (nearest rank) and worst of values.

    The interval is None for fewer than two values, and ends at 0 where no value is negative.
    """
    count = len(values)
    mean = sum(values) / count
    low = high = None
    if count > 1:
        deviation = sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
        half = _student_t(count - 1) * deviation / sqrt(count)
        low, high = mean - half, mean + half
        low = max(low, 0.0) if min(values) >= 0 else low
    ranked = sorted(values)
    return {
        "mean": mean,
        "ci95_low": low,
        "ci95_high": high,
        "p95": ranked[ceil(0.95 * count) - 1],
        "worst": ranked[-1],
    }


def _student_t(freedom: int) -> float:
    """Two-sided 95 % point of Student's t; beyond the table by Cornish and Fisher's series, right to 1e-4."""
    if freedom <= len(STUDENT_T):
        return STUDENT_T[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
