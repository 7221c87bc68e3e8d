"""Arithmetic, memory and addressing after Lemaire et al. 2022 (arXiv:2210.13107), with exact synaptic operations.

A layer reads one word from its event queue a spike, one weight a synaptic operation, and the membrane (read and
written) a synaptic operation and again a neuron and step; a bias a neuron and step; it writes one word a spike. An
analog layer reads an input and a weight a multiply-accumulate. One access costs by the size of the buffer that it goes
to, on a line through the sizes of the profile's table; beyond its largest memory nothing is extrapolated: that price
becomes a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from neurodeploy.energy.baselines import Baseline
from neurodeploy.energy.charges import Charge, operations, summed
from neurodeploy.energy.results import Counts, ImageCounts
from neurodeploy.energy.tally import LayerCounts
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.tables import MemoryPrice, Price

WORD_BITS = 32
QUEUE_WORDS = 1000
"""Depth of a layer's event queue."""


def lemaire_charges(counts: Counts, profile: Profile) -> Iterator[Charge]:
    """Everything that the model charges for."""
    yield from operations(counts, profile)
    energy = profile.energy
    if energy.address_add is not None:
        sums = summed(counts, _address_additions)
        events = counts.total("sop") / len(counts.images) * len(sums) / (sum(sums) or 1.0)
        yield Charge("address_add", "additions of addresses", sums, energy.address_add, "addressing", grows=events)
    if energy.address_mul is not None:
        products = summed(counts, lambda image: 2 * _conv_events(image))
        label = "multiplications of addresses"
        yield Charge("address_mul", label, products, energy.address_mul, "addressing", grows=1.0)
    for layer in counts.layers:
        yield from _memory(counts, profile, layer)


def ann_pj(counts: Counts, profile: Profile, base: Baseline) -> float | None:
    """What an ANN of the same shape costs in this model, in pJ an image; None for other baselines.

    Every multiply-accumulate reads an input and a weight; every output reads a bias and writes a word; addressing steps
    once through inputs and outputs (Lemaire et al., the formal network). Where zeros are skipped, all of it but outputs
    and addresses is that of the multiply-accumulates which are left. A buffer beyond the largest memory of the table is
    charged as that memory, as it is for the spiking network: then both are lower bounds.
    """
    energy, table = profile.energy, profile.energy.sram
    counted = {"ann_dense": "dense_mac", "ann_sparse": "ann_mac_nonzero"}.get(base.key)
    if counted is None or not table or energy.mac is None:
        return None
    images, share = len(counts.images), WORD_BITS / table[0].access_bits
    total = base.mac * energy.mac.picojoules
    parts = ((base.additions, energy.add), (base.comparisons, energy.compare))
    total += sum(count * unit.picojoules for count, unit in parts if unit is not None)
    for layer in _of_ann(counts):
        mac, out = getattr(layer, counted) / images, layer.activations / images
        held = (layer.ann_inputs / images, layer.parameters, out)
        inputs, weights, outputs = (access_price(table, size * WORD_BITS // 8).picojoules * share for size in held)
        total += mac * (inputs + weights) + layer.ann_passes * out * (weights + outputs)
        if energy.address_add is not None:
            total += layer.ann_passes * (layer.ann_inputs / images + out) * energy.address_add.picojoules
    return total


def over_table(counts: Counts, profile: Profile) -> bool:
    """Whether an ANN of the same shape has a buffer beyond the largest memory of the profile's table."""
    largest = max((memory.capacity_bytes for memory in profile.energy.sram), default=None)
    images = len(counts.images)
    return largest is not None and any(
        max(layer.ann_inputs / images, layer.parameters, layer.activations / images) * WORD_BITS // 8 > largest
        for layer in _of_ann(counts)
    )


def _of_ann(counts: Counts) -> Iterator[LayerCounts]:
    """The layers that an ANN of the same shape has, too: not those that make digits of levels."""
    return (layer for layer in counts.layers if layer.activations or layer.dense_mac)


def access_price(table: list[MemoryPrice], size: float) -> Price:
    """Price of one access to a memory of ``size`` bytes, on the line through (0, 0) and the table's points."""
    points = sorted(table, key=lambda memory: memory.capacity_bytes)
    largest = points[-1]
    if size >= largest.capacity_bytes:
        bound = "exact" if size == largest.capacity_bytes else "lower"
        note = "" if bound == "exact" else f"a buffer of {size:.0f} bytes is larger than any memory of the table"
        return _price(largest, largest.picojoules, bound, note)
    below, value = 0, 0.0
    for memory in points:
        if size <= memory.capacity_bytes:
            along = (size - below) / (memory.capacity_bytes - below)
            return _price(memory, value + along * (memory.picojoules - value), "exact", f"buffer of {size:.0f} bytes")
        below, value = memory.capacity_bytes, memory.picojoules
    return _price(largest, largest.picojoules, "exact", "")


def _price(memory: MemoryPrice, picojoules: float, bound: str, note: str) -> Price:
    facts = {"value": picojoules, "unit": "pJ", "kind": "derived", "bound": bound, "source": memory.source}
    return Price.model_validate({**facts, "note": note})


def _memory(counts: Counts, profile: Profile, layer: LayerCounts) -> Iterator[Charge]:
    """Accesses of one layer, by buffer."""
    table = profile.energy.sram
    share = WORD_BITS / table[0].access_bits if table else 1.0
    word = WORD_BITS // 8
    same = [row for image in counts.images for row in image.layers if row.name == layer.name]
    buffers: list[tuple[str, float, Callable[[LayerCounts], float], Callable[[LayerCounts], float]]] = [
        ("queue", QUEUE_WORDS * word, lambda row: row.spikes, lambda row: 0),
        ("weights and biases", layer.parameters_repeated * word, lambda row: row.sop,
         lambda row: row.mac + row.bias_additions),
        ("membranes", layer.neurons * word, lambda row: 2 * row.sop, lambda row: 2 * row.neuron_updates),
        ("analog inputs", max(row.inputs for row in same) * word, lambda row: 0, lambda row: row.mac),
    ]  # fmt: skip
    for buffer, size, by_spikes, always in buffers:
        counted = tuple(by_spikes(row) + always(row) for row in same)
        grows = sum(by_spikes(row) for row in same) / (sum(counted) or 1.0)
        label = f"accesses to {buffer} of {layer.name}"
        if not table:
            yield Charge("sram", label, counted, why="the profile has no table of memories")
        elif any(counted):
            yield Charge("sram", label, counted, access_price(table, size), buffer, share, grows=grows)
    received = tuple(_events_into(image, layer.name) for image in counts.images)
    if table and any(received):
        price = access_price(table, QUEUE_WORDS * word)
        yield Charge("sram", f"accesses to queue read by {layer.name}", received, price, "queue", share, grows=1.0)


def _events_into(image: ImageCounts, name: str) -> float:
    """Spikes that a layer takes from its sources."""
    rows = {row.name: row for row in image.layers}
    row = rows[name]
    return sum(rows[source].spikes for source, spikes in row.driven_by if spikes)


def _conv_events(image: ImageCounts) -> float:
    """Spikes into convolutions: each needs the place of its first output, two multiplications."""
    return sum(_events_into(image, row.name) for row in image.layers if row.shape[1] * row.shape[2] > 1)


def _address_additions(image: ImageCounts) -> float:
    """One a synaptic operation; a dense pass steps through its inputs and outputs."""
    dense = sum(row.inputs + row.neuron_updates for row in image.layers if row.mac)
    return image.total("sop") + dense
