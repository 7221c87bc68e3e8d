"""Digits in brian2-loihi, an emulator of Loihi by others: the same spikes, and what exponents of weights make of them.

Lava's convolution leaves the exponents of weights out. This emulator computes them: the digits of every level meet one
8-bit weight with exponents 2, 1 and 0, and the membrane behind them holds the level times the weight.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from neurodeploy.quantize.bounds import weight_exponent
from neurodeploy.quantize.digits import in_digits
from neurodeploy.quantize.network import IntegerConv, IntegerLif
from neurodeploy.simulate import reference
from neurodeploy.simulate.observe import Trace
from tests.random_nets import chain

pytestmark = pytest.mark.external

SCRIPT = Path(__file__).with_name("loihi_emulator.py")


@pytest.fixture(scope="module")
def python() -> str:
    named = os.environ.get("NEURODEPLOY_BRIAN2_PYTHON")
    if named is None:
        pytest.skip("needs brian2-loihi: set NEURODEPLOY_BRIAN2_PYTHON to an interpreter that has it")
    return named


@pytest.mark.parametrize("levels", [4, 11, 15])
def test_digits_and_exponents_are_those_of_the_emulator(levels: int, python: str, tmp_path: Path) -> None:
    # every level 0..D at a place of its own
    weight = 2 * np.random.default_rng(levels).integers(-128, 128)
    thresholds = tuple(100 - 8 * step for step in range(levels))
    net = chain([np.full((1, 1, 1, 1), 2), np.full((1, 1, 1, 1), weight)], levels=thresholds)
    lif = net.nodes["lif0"]
    assert isinstance(lif, IntegerLif)
    lowest = lif.vth - max(lif.levels) - int(lif.bias[0])
    codes = ((lowest + 8 * np.arange(levels + 1) - 4) // 2).reshape(1, 1, -1)
    made = in_digits(net).net
    seen = Trace(made.host.steps)
    reference.run(made, codes, observer=seen)
    fired = {name: layer.fired[:, 0, 0, 0] for name, layer in seen.layers.items()}  # (T, D + 1)
    np.testing.assert_array_equal(fired["lif0"].sum(axis=0), np.arange(levels + 1))

    steps, places = made.host.steps, levels + 1
    digits = [node for node in made.lifs() if node.digit_of]
    depth = {"lif0": 0, **{node.name: place for place, node in enumerate(digits)}}  # hops behind the burst's first
    sent: dict[str, tuple[int, list[tuple[int, int]]]] = {
        "lif0": (places, [(int(place), int(step)) for step, place in np.argwhere(fired["lif0"])]),
        "always": (places, [(place, step) for place in range(places) for step in range(steps)]),
    }
    links = []
    for node in digits:
        for link in (made.nodes[name] for name in made.sources(node.name) if not name.startswith("ticks_")):
            assert isinstance(link, IntegerConv)
            (source,) = made.sources(link.name)
            from_burst = source == "lif0"
            links.append(
                {
                    "source": source,
                    "target": node.name,
                    "weight": int(link.weight.reshape(-1)[0]),
                    "exponent": 0,
                    "delay": depth[node.name] - (0 if from_burst else depth[source] + 1),
                }
            )
        climb = int(node.bias[0])
        if climb:  # the emulator has no bias: a source that always spikes
            links.append({"source": "always", "target": node.name, "weight": climb, "exponent": 0,
                          "delay": depth[node.name]})  # fmt: skip
    outputs = {node.digit: made.nodes[made.targets(node.name)[-1]] for node in digits}
    for node in digits:
        conv = outputs[node.digit]
        assert isinstance(conv, IntegerConv)
        exponent = weight_exponent(conv.weight) or 0
        assert node.digit == 1 or exponent or abs(weight) * node.digit <= 254
        links.append({"source": node.name, "target": "sum", "weight": int(conv.weight.reshape(-1)[0]) >> exponent,
                      "exponent": exponent, "delay": len(digits) - 1 - depth[node.name]})  # fmt: skip
    # the tick that stops the smaller digits is one of the host, which stands for nothing here: the run ends before it
    job = {
        "steps": levels + len(digits),
        "sent": sent,
        "layers": [{"name": node.name, "neurons": places, "vth": int(node.vth)} for node in digits]
        + [{"name": "sum", "neurons": places, "vth": (1 << 17) - 1}],
        "links": links,
        "probe": "sum",
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run([python, str(SCRIPT), tmp_path / "job.json", tmp_path / "answer.json"], check=True, timeout=300)
    answer = json.loads((tmp_path / "answer.json").read_text())
    for node in digits:
        late = depth[node.name]  # steps that its hop is behind
        mine = sorted([int(place), int(step) + late] for step, place in np.argwhere(fired[node.name]))
        theirs = [spike for spike in answer["spikes"][node.name] if spike[1] < levels + late]
        assert theirs == mine, node.name
    np.testing.assert_array_equal(answer["v"], (np.arange(levels + 1) * weight) << 6)
