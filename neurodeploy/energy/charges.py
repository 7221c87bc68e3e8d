"""One kind of operation to charge for: counts per image beside the price of one, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from neurodeploy.energy.results import Counts, ImageCounts
from neurodeploy.energy.tally import STATE_BITS
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.tables import Price, Quantity

RATE_TERMS = ("sop", "spike_local", "spike_out", "hop", "hop_bit")
"""Terms that grow with the spike rate; the rest of an image's energy does not, but for what says so itself."""


@dataclass(frozen=True)
class Charge:
    """One kind of operation.

    Attributes:
        term: Key of the price in the profile, or the name of the operation that has none.
        label: What is counted, in words.
        counts: How many, one an image.
        price: None where the operation is not priced; then ``why`` and ``instead`` say more.
        group: What it belongs to in a summary: arithmetic, analog input, neurons, routing, weights, membranes ...
        share: Part of the price that one count costs (a 32-bit word of a 64-bit access: 0.5).
        grows: Part of the count that grows with the spike rate; None: all of it or nothing, by the term.
    """

    term: str
    label: str
    counts: tuple[float, ...]
    price: Price | None = None
    group: str = ""
    share: float = 1.0
    why: str = ""
    instead: str = ""
    grows: float | None = None

    @property
    def mean(self) -> float:
        """Mean count an image."""
        return sum(self.counts) / len(self.counts)

    @property
    def growing(self) -> float:
        """Part of the count that grows with the spike rate, 0 to 1."""
        return float(self.term in RATE_TERMS) if self.grows is None else self.grows


@dataclass(frozen=True)
class Assumptions:
    """What a price needs beyond counts and profile.

    Attributes:
        hops: Mean number of hops that a spike travels; None = unknown.
        weight_bits: Width of a stored weight.
    """

    hops: float | None = None
    weight_bits: int = 8


def of(counts: Counts, key: str) -> tuple[float, ...]:
    """A count of every image."""
    return tuple(float(image.total(key)) for image in counts.images)


def summed(counts: Counts, count: Callable[[ImageCounts], float]) -> tuple[float, ...]:
    """A figure of every image."""
    return tuple(float(count(image)) for image in counts.images)


def scaled(values: Sequence[float], factor: float) -> tuple[float, ...]:
    """Every value times ``factor``."""
    return tuple(value * factor for value in values)


def analog(counts: Counts, profile: Profile) -> Charge:
    """Multiply-accumulates with analog values, at every step."""
    label, mac = "multiply-accumulates with analog values, at every step", of(counts, "mac")
    if profile.energy.mac_int8 is not None:
        return Charge("mac_int8", label, mac, profile.energy.mac_int8, "analog input")
    if profile.energy.mac is not None:
        return Charge("mac", label, mac, profile.energy.mac, "analog input")
    if not profile.accepts_graded:
        return Charge(
            "mac",
            label,
            mac,
            why="its spikes carry no values: an analog first layer does not run on it",
            instead="encode the input as spikes, or price another chip",
        )
    return unpublished(profile, "mac", label, mac)


def unpublished(profile: Profile, term: str, label: str, counts: tuple[float, ...]) -> Charge:
    """An operation that the profile has no price for."""
    reason = profile.unpublished.reason if term in profile.unpublished.terms else ""
    return Charge(
        term,
        label,
        counts,
        why=f"no energy of it is published for {profile.name}" + (f": {reason}" if reason else ""),
        instead="compare the counts, or see the measured tasks of this chip",
    )


def unknown_hops(term: str, label: str, spikes: tuple[float, ...]) -> Charge:
    """Spikes whose way over the chip is not known."""
    return Charge(
        term,
        label,
        spikes,
        why="how many hops a spike travels depends on the placement; the count is that of spikes",
        instead="give the mean number of hops with --hops",
    )


def state_traffic(counts: Counts, profile: Profile) -> tuple[float, ...]:
    """Bits of current and membrane of every neuron and step, in one direction."""
    limit = profile.arithmetic.state_bits
    return scaled(of(counts, "neuron_updates"), 2 * (limit.value if limit is not None else STATE_BITS))


def operations(counts: Counts, profile: Profile) -> Iterator[Charge]:
    """Additions, multiplications and comparisons of a run; a hard reset writes a 0 and computes nothing."""
    energy = profile.energy
    terms: list[tuple[str, str, str, tuple[float, ...]]] = [
        ("sop", "synaptic operations", "additions, one a synaptic operation", of(counts, "sop")),
        ("add", "neurons", "additions of the integration, one a neuron update", of(counts, "neuron_updates")),
        ("mul", "neurons", "multiplications of the leak", of(counts, "leak_multiplications")),
        ("compare", "neurons", "comparisons with the threshold", summed(counts, thresholds)),
        ("add", "biases", "additions of biases", of(counts, "bias_additions")),
    ]
    for term, group, label, count in terms:
        price = getattr(energy, term)
        yield Charge(term, label, count, price, group) if price else unpublished(profile, term, label, count)
    yield analog(counts, profile)


def thresholds(image: ImageCounts) -> int:
    """Comparisons with a threshold: one a spiking neuron and step."""
    return sum(layer.neuron_updates for layer in image.layers if layer.kind == "spiking")


def price_facts(price: Quantity) -> dict[str, object]:
    """A number with everything that says how far to trust it, for the JSON answers."""
    low, high = price.interval
    return {
        "value": price.value,
        "low": low,
        "high": high,
        "unit": price.unit,
        "kind": price.kind,
        "bound": price.bound,
        "source": price.source,
        "note": price.note,
    }
