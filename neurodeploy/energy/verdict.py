"""Whether the spiking network is worth it, in words that may say that it loses.

The measure is synaptic operations per synapse of one dense pass, ``sps = SOP / MAC_dense``, and where the input is
analog the multiply-accumulates that it costs as well, at no more than a synaptic operation each. Published thresholds:
Davidson & Furber 2021 put break-even near 1.72; Dampfhoffer et al. 2023 at 0.15 to 1.38, by how well the ANN's
implementation reuses data and skips zeros; Yan et al. (v4) at a spike rate of 5.7 % for T = 5, 4-bit weights and a
fan-in of 4096, with data movement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neurodeploy.energy.baselines import Baseline
from neurodeploy.energy.price import Priced, baseline_pj
from neurodeploy.energy.results import Counts, spread

LOSES_ABOVE = 1.72
WINS_BELOW = 0.15
YAN_RATE, YAN_STEPS = 0.057, 5
SPIKE_BIT, DENSE_BIT = 3.0, 0.25
"""Yan et al.'s prices of moving one bit over one hop, in pJ: sparse spikes, and dense transfers."""
THRESHOLDS = {
    "loses_above": {"sps": LOSES_ABOVE, "source": "Davidson & Furber 2021, Front. Neurosci. 15:651141 (second-hand)"},
    "depends_between": {
        "sps": [WINS_BELOW, 1.38],
        "source": "Dampfhoffer et al. 2023, IEEE TETCI 7(3):731-741 (abstract)",
    },
    "spike_rate": {
        "rate": YAN_RATE,
        "source": "Yan et al. 2026, arXiv:2409.08290 v4, T = 5, 4-bit weights, fan-in 4096 (second-hand)",
    },
}


def verdict(counts: Counts, compared: Sequence[Baseline], priced: Sequence[Priced]) -> dict[str, Any]:
    """The verdict with the keys of the JSON answers.

    Args:
        counts: What was counted.
        compared: The baselines; the teacher may be among them.
        priced: The same run at the prices of every profile.
    """
    by_key = {base.key: base for base in compared}
    sop, mac, dense = counts.mean("sop"), counts.mean("mac"), by_key["ann_dense"].mac
    teacher = by_key.get("teacher")
    sps = sop / dense if dense else None
    operations = (sop + mac) / dense if dense else None
    sps_teacher = sop / teacher.mac if teacher and teacher.mac else None
    rate = _rate(counts)
    lines = [against(price, base, rate) for price in priced for base in compared if base.key != "qnn"]
    against_all = [line for line in lines if line is not None]
    each = _each(counts)
    moved = movement(counts, by_key.get("qnn"))
    sentences = _sentences(counts, (sps, operations), teacher, sps_teacher, against_all, each)
    if moved is not None:
        sentences.append(moved["words"])
    return {
        "class": _class(operations),
        "sentence": " ".join(sentences),
        "sentences": sentences,
        "sps": sps,
        "sps_per_image": each,
        "sps_spread": {**spread(each), "best": min(each)} if each else None,
        "sps_teacher": sps_teacher,
        "operations_per_mac": operations,
        "analog_mac_share": mac / (sop + mac) if sop + mac else None,
        "spike_rate": rate,
        "spike_rate_note": f"Yan et al. find break-even at {YAN_RATE:.1%} for T = {YAN_STEPS}; here T = {counts.steps}",
        "movement": moved,
        "thresholds": THRESHOLDS,
        "against": against_all,
    }


def movement(counts: Counts, qnn: Baseline | None) -> dict[str, Any] | None:
    """Moving the spikes against moving the activations of the quantised network that tells apart as many levels.

    Spikes * 3.0 pJ against activations * bits * 0.25 pJ, a hop: the number of hops cancels where both run on the same
    mesh. Prices of Yan et al., arXiv:2409.08290 v4 (second-hand); in their study movement decides.
    """
    sent = sum(layer.activations * layer.ann_passes for layer in counts.layers if layer.kind == "spiking")
    activations = sent / len(counts.images)
    if qnn is None or qnn.bits is None or not activations:
        return None
    spikes, bits = counts.mean("spikes") * SPIKE_BIT, activations * qnn.bits * DENSE_BIT
    return {
        "snn_pj_per_hop": spikes,
        "qnn_pj_per_hop": bits,
        "ratio": spikes / bits,
        "words": f"Moving its spikes costs {_costs(spikes / bits)} moving the {qnn.bits}-bit activations of a quantised"
        f" network of its shape (Yan et al.: {SPIKE_BIT:g} pJ a spike and hop, {DENSE_BIT:g} pJ a dense bit and hop).",
    }


def against(priced: Priced, base: Baseline, rate: float) -> dict[str, Any] | None:
    """One baseline at one profile's prices; None where either has no energy. ``fixed_pj`` is there without a spike.

    ``break_even_rate`` is the mean spike rate at which both would cost the same, with all counts that grow with the
    rate scaled alike; None where what does not grow with it already costs more than the baseline.
    """
    total, energy = priced.total_pj, baseline_pj(priced, base)
    if total is None or not energy:
        return None
    growing = priced.growing_pj
    fixed = total - growing
    left = energy - fixed
    break_even = rate * left / growing if growing > 0 and left > 0 else None
    return {
        "profile": priced.profile.id,
        "model": priced.profile.model,
        "baseline": base.key,
        "snn_pj": total,
        "fixed_pj": fixed,
        "baseline_pj": energy,
        "ratio": total / energy,
        "snn_wins": total < energy,
        "break_even_rate": break_even,
        "words": _words(priced, base, total / energy, rate, break_even),
    }


def _words(priced: Priced, base: Baseline, ratio: float, rate: float, break_even: float | None) -> str:
    scope = "arithmetic only, " if priced.profile.model == "arithmetic" else ""
    first = f"At the prices of {priced.profile.id} ({scope}both sides alike) it costs {_costs(ratio)} the {base.label}"
    if priced.profile.model == "lemaire" and priced.interval_pj[1] is None:
        first += ", with memories beyond the table charged as its largest"
    if break_even is None:
        return f"{first}; no spike rate could change that: what does not depend on spikes costs more already."
    if break_even > 1:
        return f"{first}, as it would at any spike rate."
    return f"{first}; break-even is a mean spike rate of {break_even:.1%}, it runs at {rate:.1%}."


def _class(operations: float | None) -> str:
    if operations is None:
        return "nothing to compare"
    if operations > LOSES_ABOVE:
        return "loses"
    return "below every threshold" if operations < WINS_BELOW else "depends"


def _sentences(
    counts: Counts,
    measures: tuple[float | None, float | None],
    teacher: Baseline | None,
    sps_teacher: float | None,
    lines: Sequence[dict[str, Any]],
    each: Sequence[float],
) -> list[str]:
    sps, operations = measures
    if sps is None or operations is None:
        return ["There is no dense network to compare with."]
    span = f" ({min(each):.2f} to {max(each):.2f} over the images)" if len(each) > 1 else ""
    analog = f" and {operations - sps:.2f} multiply-accumulates" if _class(operations) != _class(sps) else ""
    per_mac = f"{sps:.2f} synaptic operations{analog} for every multiply-accumulate of an ANN of its own shape{span}"
    found = {
        "loses": f"The SNN loses: {per_mac}, above every published threshold ({LOSES_ABOVE}).",
        "depends": f"It depends on the ANN: {per_mac}, between the published thresholds"
        f" ({WINS_BELOW} to {LOSES_ABOVE}).",
        "below every threshold": f"The SNN stands well: {per_mac}, below every published threshold found"
        f" ({WINS_BELOW}).",
    }
    sentences = [found[_class(operations)]]
    mac = counts.mean("mac")
    if mac:
        sentences.append(
            f"Analog input adds {mac:,.0f} multiply-accumulates an image"
            f" ({mac / (mac + counts.mean('sop')):.1%} of all operations), charged to the SNN."
        )
    if teacher is not None and sps_teacher is not None:
        sentences.append(
            f"For every multiply-accumulate of the {teacher.label}, it does {sps_teacher:.2g} synaptic operations."
        )
    return sentences + [_priced_sentence(lines, profile) for profile in {line["profile"]: 0 for line in lines}]


def _priced_sentence(lines: Sequence[dict[str, Any]], profile: str) -> str:
    """What one profile says, of the dense ANN and of the one that skips zeros."""
    ratios = {line["baseline"]: line["ratio"] for line in lines if line["profile"] == profile}
    said = [
        f"{_costs(ratios[key])} {words}"
        for key, words in (("ann_dense", "that ANN"), ("ann_sparse", "the same ANN where it skips zeros"))
        if key in ratios
    ]
    if all(line["model"] == "arithmetic" for line in lines if line["profile"] == profile):
        return (
            f"At the prices of {profile}, arithmetic alone, it costs {' and '.join(said)};"
            " memory and movement, which the thresholds weigh, are not in that."
        )
    return f"At the prices of {profile} it costs {' and '.join(said)}."


def _costs(ratio: float) -> str:
    if ratio == 0:
        return "nothing beside"
    return f"{ratio:.2f} times as much as" if ratio >= 1 else f"{1 / ratio:.2f} times less than"


def _each(counts: Counts) -> list[float]:
    """Synaptic operations for each MAC of the dense network, image by image."""
    dense = [(image.total("sop"), image.total("dense_mac")) for image in counts.images]
    return [sop / mac for sop, mac in dense if mac]


def _rate(counts: Counts) -> float:
    updates = sum(layer.neuron_updates for layer in counts.layers if layer.kind == "spiking")
    return counts.total("spikes") / updates if updates else 0.0
