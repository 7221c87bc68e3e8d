"""The price models: which operations a profile's model charges for.

``chip``: the terms of a chip. ``arithmetic``: the arithmetic units alone. ``lemaire``: memory and addressing as well.
``yan``: data movement as well. ``host``: a processor, for baselines alone. A model lists what it charges for;
:mod:`neurodeploy.energy.price` adds it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from neurodeploy.energy.charges import (
    Assumptions,
    Charge,
    analog,
    of,
    operations,
    scaled,
    state_traffic,
    summed,
    thresholds,
    unknown_hops,
    unpublished,
)
from neurodeploy.energy.lemaire import lemaire_charges
from neurodeploy.energy.results import Counts
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.tables import Price, PriceModel, SopPart


def charges(counts: Counts, profile: Profile, assumptions: Assumptions) -> list[Charge]:
    """Everything that the profile's model charges for, operations without a count left out."""
    found = _MODELS[profile.model](counts, profile, assumptions)
    return [charge for charge in found if any(charge.counts)]


def _chip(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """E = SOP * e_sop + MAC * e_mac + U_active * e_active + U_idle * e_idle + S * (e_spike + h * e_hop) + bits."""
    sop, label = of(counts, "sop"), "spikes arriving at synapses"
    if profile.energy.sop is not None:
        yield Charge("sop", label, sop, profile.energy.sop, "synaptic operations")
    else:
        yield unpublished(profile, "sop", label, sop)
    yield analog(counts, profile)
    if profile.scope == "all_in":
        return
    spikes = of(counts, "spikes")
    outside: list[tuple[str, SopPart, str, tuple[float, ...]]] = [
        ("neuron_active", "neuron", "neuron updates with input", of(counts, "neuron_updates_active")),
        ("neuron_idle", "neuron", "neuron updates without input", of(counts, "neuron_updates_idle")),
    ]
    for term, part, words, count in outside:
        yield from _term(profile, term, part, words, count)
    yield from _spikes(profile, spikes)
    yield from _hops(profile, spikes, assumptions)
    yield from _bits(counts, profile, assumptions)


def _term(profile: Profile, term: str, part: SopPart, label: str, counts: tuple[float, ...]) -> Iterator[Charge]:
    price = getattr(profile.energy, term, None)  # "spike" is no key of its own
    if isinstance(price, Price):
        yield Charge(term, label, counts, price, "neurons" if part == "neuron" else "routing")
    elif term not in profile.absent.terms and not profile.inside_sop(part):
        yield unpublished(profile, term, label, counts)


def _spikes(profile: Profile, spikes: tuple[float, ...]) -> Iterator[Charge]:
    prices = {term: getattr(profile.energy, term) for term in ("spike_local", "spike_out")}
    if not any(prices.values()):
        yield from _term(profile, "spike", "spike", "spikes sent", spikes)
    for term, price in prices.items():
        if price is not None:
            yield Charge(term, "spikes sent", spikes, price, "routing")


def _hops(profile: Profile, spikes: tuple[float, ...], assumptions: Assumptions) -> Iterator[Charge]:
    label = "hops of spikes over the network on chip"
    if profile.energy.hop is None:
        yield from _term(profile, "hop", "hop", label, spikes)
    elif assumptions.hops is None:
        yield unknown_hops("hop", label, spikes)
    else:
        yield Charge("hop", label, scaled(spikes, assumptions.hops), profile.energy.hop, "routing")


def _bits(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """Memory traffic, where it has a price of its own and the price of a synaptic operation leaves it out."""
    energy = profile.energy
    known = energy.sop is None or energy.sop.includes != "unknown"
    if energy.weight_bit_read is not None and known and not profile.inside_sop("weight_fetch"):
        bits = scaled(of(counts, "sop"), assumptions.weight_bits)
        yield Charge("weight_bit_read", "bits of weights read", bits, energy.weight_bit_read, "weights")
    if known and not profile.inside_sop("state_rw"):
        state = state_traffic(counts, profile)
        for term in ("state_bit_read", "state_bit_write"):
            price = getattr(energy, term)
            if price is not None:
                yield Charge(term, f"bits of neuron state {term[10:]}", state, price, "membranes")


def _arithmetic(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """Operations of the arithmetic units alone."""
    del assumptions
    yield from operations(counts, profile)


def _yan(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """E = SOP * (e_acc + weight bits) + N * T * e_compare + S * e_sub + S * hops * e_bit + state bits.

    A reconstruction after Yan et al., arXiv:2409.08290, not their equations.
    """
    energy, spikes = profile.energy, of(counts, "spikes")
    terms: list[tuple[str, str, str, tuple[float, ...]]] = [
        ("sop", "synaptic operations", "accumulations", of(counts, "sop")),
        ("compare", "neurons", "comparisons with the threshold", summed(counts, thresholds)),
        ("add", "neurons", "subtractions of resets", spikes),
        ("weight_bit_read", "weights", "bits of weights read", scaled(of(counts, "sop"), assumptions.weight_bits)),
        ("state_bit_read", "membranes", "bits of neuron state read", state_traffic(counts, profile)),
        ("state_bit_write", "membranes", "bits of neuron state written", state_traffic(counts, profile)),
    ]
    for term, group, label, count in terms:
        price = getattr(energy, term)
        yield Charge(term, label, count, price, group) if price else unpublished(profile, term, label, count)
    label = "bits of spikes over hops"
    if energy.hop_bit is not None and assumptions.hops is not None:
        yield Charge("hop_bit", label, scaled(spikes, assumptions.hops), energy.hop_bit, "routing")
    else:
        yield unknown_hops("hop_bit", label, spikes)
    yield analog(counts, profile)


def _lemaire(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """Arithmetic, memory and addressing."""
    del assumptions
    yield from lemaire_charges(counts, profile)


def _host(counts: Counts, profile: Profile, assumptions: Assumptions) -> Iterator[Charge]:
    """Nothing but a reason: what spikes cost on a processor depends on the program that runs them."""
    del assumptions
    for term, label in (("sop", "spikes arriving at synapses"), ("neuron_active", "neuron updates")):
        count = of(counts, "sop" if term == "sop" else "neuron_updates")
        why = f"what spikes cost on {profile.name} depends on the program that runs them"
        yield Charge(term, label, count, why=why, instead="compare the baselines, which are priced")


_MODELS: Mapping[PriceModel, Callable[[Counts, Profile, Assumptions], Iterator[Charge]]] = {
    "chip": _chip,
    "arithmetic": _arithmetic,
    "lemaire": _lemaire,
    "yan": _yan,
    "host": _host,
}
