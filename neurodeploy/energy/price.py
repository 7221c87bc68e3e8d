"""Counts times prices. A total is withheld while any operation with a count has no price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite
from typing import Any

from neurodeploy.energy.baselines import Baseline
from neurodeploy.energy.charges import Assumptions, Charge, of, price_facts
from neurodeploy.energy.lemaire import ann_pj, over_table
from neurodeploy.energy.models import charges
from neurodeploy.energy.results import Counts, spread
from neurodeploy.energy.sensitivity import tornado
from neurodeploy.errors import UserError
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.tables import Price

BOUNDARIES = {
    "chip": "dynamic energy of the network on the chip; without host, input and output, and static power",
    "arithmetic": "arithmetic units alone: no memory, no movement, no control, no static power",
    "lemaire": "arithmetic, memory and addressing; no network on chip, no control, no static power",
    "yan": "arithmetic and data movement; no control, no static power",
    "host": "a processor that runs the ANNs; the spiking network has no price on it",
}
ALL_IN = "the whole chip's power at one operating point, divided by its synaptic events"


@dataclass(frozen=True)
class Static:
    """Energy drawn whether or not anything happens, printed apart.

    ``power_w`` is None where no static power is published, ``time_s`` where the length of a step is unknown.
    """

    power_w: float | None
    time_s: float | None
    time_note: str
    note: str

    @property
    def picojoules(self) -> float | None:
        """Static energy of an image."""
        return None if self.power_w is None or self.time_s is None else self.power_w * self.time_s * 1e12

    def as_dict(self) -> dict[str, Any]:
        """With the keys of the JSON answers."""
        return {
            "power_w": self.power_w,
            "time_s": self.time_s,
            "time_assumption": self.time_note,
            "energy_pj": self.picojoules,
            "note": self.note,
        }


@dataclass(frozen=True)
class Priced:
    """A run priced by one profile. Energies are in pJ, the mean over the images, one image each."""

    profile: Profile
    counts: Counts
    charged: tuple[Charge, ...]
    not_priced: tuple[Charge, ...]
    per_image: tuple[float, ...]
    static: Static
    chips: int | None
    allow_partial: bool

    @property
    def partial_pj(self) -> float:
        """What the priced operations cost: the total, or a lower part of it."""
        return sum(_energy(charge) for charge in self.charged)

    @property
    def total_pj(self) -> float | None:
        """None while anything is not priced."""
        return None if self.not_priced else self.partial_pj

    @property
    def interval_pj(self) -> tuple[float, float | None]:
        """(low, high) of the priced part; high is None where a price is a lower bound or something is not priced."""
        ranges = [(_scaled(charge), *_range(charge)) for charge in self.charged]
        low = sum(count * lowest for count, lowest, _ in ranges)
        highs = [None if highest is None else count * highest for count, _, highest in ranges]
        open_top = bool(self.not_priced) or any(high is None for high in highs)
        return low, None if open_top else sum(high for high in highs if high is not None)

    @property
    def ok(self) -> bool:
        """Whether everything is priced, or a part was asked for."""
        return self.allow_partial or not self.not_priced

    def energy_of(self, term: str) -> float:
        """What one term costs."""
        return sum(_energy(charge) for charge in self.charged if charge.term == term)

    @property
    def growing_pj(self) -> float:
        """The part that grows with the spike rate; the rest is there without a spike."""
        return sum(_energy(charge) * charge.growing for charge in self.charged)

    def as_dict(self, compared: Sequence[Baseline] = ()) -> dict[str, Any]:
        """With the keys of the JSON answers."""
        low, high = self.interval_pj
        profile = self.profile
        return {
            "name": profile.name,
            "model": profile.model,
            "scope": profile.scope,
            "boundary": ALL_IN if profile.scope == "all_in" else BOUNDARIES[profile.model],
            "caveat": " ".join(profile.caveat.split()),
            "ok": self.ok,
            "total_pj": self.total_pj,
            "partial_pj": self.partial_pj,
            "low_pj": low,
            "high_pj": high,
            "bound": "exact" if high is not None else "lower",
            "label": _label(self),
            "kinds": sorted({charge.price.kind for charge in self.charged if charge.price}),
            "terms": [_term(charge) for charge in self.charged],
            "not_priced": [_unpriced(charge) for charge in self.not_priced],
            "unpublished": profile.unpublished.terms,
            "spread_pj": spread(self.per_image),
            "per_image_pj": list(self.per_image),
            "tornado": tornado(self.charged),
            "static": self.static.as_dict(),
            "chips": self.chips,
            "baselines": {base.key: _compared(self, base) for base in compared},
            "anchors": [anchor.model_dump(exclude_none=True) for anchor in profile.anchor],
            "sources": {key: source.model_dump() for key, source in profile.sources.items()},
            "profile_sha256": profile.sha256,
        }


def price(
    counts: Counts,
    profile: Profile,
    *,
    hops: float | None = None,
    step_seconds: float | None = None,
    chips: int | None = None,
    allow_partial: bool = False,
    allow_estimates: bool = False,
) -> Priced:
    """Prices a run.

    Args:
        counts: What was counted.
        profile: The chip or technology.
        hops: Mean number of hops that a spike travels on the chip; without it hops are not priced.
        step_seconds: Length of a time step, for static energy; by default the profile's.
        chips: How many chips the network takes; by default as many as its neurons need at least.
        allow_partial: Take a partial sum for an answer. The total is withheld all the same.
        allow_estimates: Use prices of the kind ``estimated``.

    Raises:
        UserError: A negative number of hops, a time or a number of chips that is not positive, or none that is finite.
    """
    for name, value in (("hops", hops), ("step time", step_seconds), ("chips", chips)):
        if value is not None and (not isfinite(value) or value < 0 or (value == 0 and name != "hops")):
            raise UserError(f"{name} must be positive and finite", have=str(value))
    needed = chips if chips is not None else chips_needed(counts, profile)
    found = charges(counts, profile, Assumptions(hops=hops))
    found = [_no_estimate(charge, allow_estimates) for charge in found] + _between_chips(counts, profile, needed)
    charged = tuple(charge for charge in found if charge.price is not None)
    return Priced(
        profile=profile,
        counts=counts,
        charged=charged,
        not_priced=tuple(charge for charge in found if charge.price is None),
        per_image=tuple(
            sum(charge.counts[place] * charge.share * charge.price.picojoules for charge in charged if charge.price)
            for place in range(len(counts.images))
        ),
        static=static_energy(profile, counts.steps, needed, step_seconds),
        chips=needed,
        allow_partial=allow_partial,
    )


def chips_needed(counts: Counts, profile: Profile) -> int | None:
    """How many chips the neurons of the network take at least; None where the profile does not say."""
    capacity = profile.capacity
    neurons = counts.total("neurons")
    limits = [capacity.neurons_per_chip.value] if capacity.neurons_per_chip else []
    if capacity.cores_per_chip and capacity.neurons_per_core:
        limits.append(capacity.cores_per_chip.value * capacity.neurons_per_core.value)
    return max(1, ceil(neurons / min(limits))) if limits else None


def static_energy(profile: Profile, steps: int, chips: int | None, step_seconds: float | None = None) -> Static:
    """Static power of all chips, over the time of one image."""
    table, many = profile.static, chips if chips is not None else 1
    watts: float | None = None
    note = "no static power is published" if profile.model == "chip" else "static power is no part of this model"
    if table.chip is not None:
        watts = table.chip.watts * ceil(many / table.chip.chips)
        note = f"{many} chip{'s' if many > 1 else ''} of {table.chip.value:g} {table.chip.unit}"
    elif table.board is not None:
        boards = ceil(many / table.board.chips)
        watts = table.board.watts * boards
        note = f"{boards} board{'s' if boards > 1 else ''} of {table.board.value:g} {table.board.unit}"
    elif table.idle is not None:
        watts = table.idle.watts * many
        note = f"idle power, {table.idle.value:g} {table.idle.unit}"
    if watts is not None and table.clock is not None and profile.time.clock is not None:
        per_chip = table.clock.value * 1e-6 * profile.time.clock.value
        watts += per_chip * many
        note += f", and {table.clock.value:g} {table.clock.unit} at {profile.time.clock.value:g} MHz"
    seconds, assumed = step_seconds, "as given"
    if seconds is None and profile.time.step is not None:
        seconds = profile.time.step.seconds
        one = f"{profile.time.step.value:g} {profile.time.step.unit.replace('us', 'µs')}"
        assumed = f"{steps} step{'s' if steps > 1 else ''} of {one}, the profile's"
    return Static(
        power_w=watts,
        time_s=None if seconds is None else seconds * steps,
        time_note=assumed if seconds is not None else "the length of a time step is not known",
        note=note,
    )


def baseline_pj(priced: Priced, base: Baseline) -> float | None:
    """What a baseline costs at the prices of a profile; None where the profile has no price of a MAC.

    Biases and activation functions are charged where the profile has prices for them, as they are for the spiking
    network; where memory and addressing have prices, those are charged to both. A quantised network is charged at the
    price of an 8-bit MAC, which is more than it costs: a ceiling.
    """
    energy, key = priced.profile.energy, base.key
    if priced.profile.model == "lemaire":
        return ann_pj(priced.counts, priced.profile, base)
    mac = energy.mac_int8 if energy.mac_int8 is not None else energy.mac
    if mac is None or priced.profile.model not in ("chip", "arithmetic", "host"):
        return None
    if key in ("ann_int8", "qnn") and energy.mac_int8 is None:
        return None
    parts = [(base.mac, mac), (base.additions, energy.add), (base.comparisons, energy.compare)]
    return sum(count * unit.picojoules for count, unit in parts if unit is not None)


def _between_chips(counts: Counts, profile: Profile, chips: int | None) -> list[Charge]:
    """Spikes that may have to leave their chip: no profile has a price for that."""
    if chips is None or chips < 2 or profile.model != "chip" or profile.scope == "all_in":
        return []
    return [
        Charge(
            "between_chips",
            "spikes that may cross from chip to chip",
            of(counts, "spikes"),
            why=f"the network takes at least {chips} chips, and no energy between chips is published",
            instead="price smaller images, or tiles that fit one chip",
        )
    ]


def _compared(priced: Priced, base: Baseline) -> dict[str, Any]:
    energy, total = baseline_pj(priced, base), priced.total_pj
    ratio = total / energy if energy and total is not None else None
    mac = priced.profile.energy.mac_int8 or priced.profile.energy.mac
    at_least = mac is not None and mac.bound == "lower"
    at_least = at_least or (energy is not None and over_table(priced.counts, priced.profile))
    at_most = base.key == "qnn" and energy is not None and not at_least
    return {"label": base.label, "energy_pj": energy, "at_least": at_least, "at_most": at_most, "snn_over_it": ratio}


def _no_estimate(charge: Charge, allowed: bool) -> Charge:
    if allowed or charge.price is None or charge.price.kind != "estimated":
        return charge
    return replace(charge, price=None, why="only an estimate exists", instead="use it with --allow-estimates")


def _scaled(charge: Charge) -> float:
    return charge.mean * charge.share


def _range(charge: Charge) -> tuple[float, float | None]:
    return charge.price.interval_picojoules if charge.price is not None else (0.0, None)


def _energy(charge: Charge) -> float:
    return _scaled(charge) * charge.price.picojoules if charge.price is not None else 0.0


def _label(priced: Priced) -> str:
    if not priced.charged and priced.not_priced:
        return "withheld: nothing of it has a price"
    if priced.not_priced:
        return "withheld: a lower part of the total"
    return "at least" if priced.interval_pj[1] is None else "total"


def _term(charge: Charge) -> dict[str, Any]:
    unit: Price | None = charge.price
    low, high = _range(charge)
    return {
        "term": charge.term,
        "label": charge.label,
        "group": charge.group,
        "count": charge.mean,
        "share": charge.share,
        "price": price_facts(unit) if unit is not None else None,
        "energy_pj": _energy(charge),
        "low_pj": _scaled(charge) * low,
        "high_pj": None if high is None else _scaled(charge) * high,
    }


def _unpriced(charge: Charge) -> dict[str, Any]:
    return {
        "term": charge.term,
        "label": charge.label,
        "count": charge.mean,
        "why": charge.why,
        "instead": charge.instead,
    }
